// Signatures with known answers: the examples that AWS publishes for S3, and requests signed by botocore 1.43.

import CisternSnapshotStoreS3
import Testing

@Suite struct SignatureV4Tests {
    private struct Case {
        let method: String
        let path: String
        var query: [(name: String, value: String)] = []
        let headers: [(name: String, value: String)]
        var body = ""
        let signature: String
    }

    private func signature(_ each: Case, _ signer: SignatureV4, _ time: S3Time) -> String {
        let message = SignatureV4.Message(
            method: each.method, path: each.path, query: S3Encoding.query(each.query), headers: each.headers,
            payloadHash: S3Encoding.hash(Array(each.body.utf8)))
        let authorization = signer.sign(message, at: time).first { $0.name == "authorization" }?.value ?? ""
        return authorization.split(separator: "=").last.map(String.init) ?? ""
    }

    @Test func theExamplesThatAWSPublishesHaveTheirSignatures() {
        let signer = SignatureV4(
            credentials: S3Credentials(
                accessKeyID: "AKIAIOSFODNN7EXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            region: "us-east-1")
        let time = S3Time(wallMilliseconds: 1_369_353_600_000)
        #expect(time.basic == "20130524T000000Z")
        let host = ("host", "examplebucket.s3.amazonaws.com")
        let cases = [
            Case(
                method: "GET", path: "/test.txt", headers: [host, ("range", "bytes=0-9")],
                signature: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            Case(
                method: "PUT", path: "/" + S3Encoding.percent("test$file.text", keepingSlashes: true),
                headers: [
                    host, ("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ], body: "Welcome to Amazon S3.",
                signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
            Case(
                method: "GET", path: "/", query: [("lifecycle", "")], headers: [host],
                signature: "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            Case(
                method: "GET", path: "/", query: [("prefix", "J"), ("max-keys", "2")], headers: [host],
                signature: "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ]
        for each in cases { #expect(signature(each, signer, time) == each.signature, "\(each.method) \(each.path)") }
    }

    @Test func requestsThatBotocoreSignedHaveItsSignatures() {
        func signer(_ token: String = "") -> SignatureV4 {
            SignatureV4(
                credentials: S3Credentials(
                    accessKeyID: "AKIDEXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                    sessionToken: token), region: "eu-central-1")
        }
        let time = S3Time(wallMilliseconds: 1_772_323_199_999)
        #expect(time.basic == "20260228T235959Z")
        let put = Case(
            method: "PUT",
            path: "/cistern-test/"
                + S3Encoding.percent("some/where%25/snapshots/s/a%2Fb%20c", keepingSlashes: true),
            headers: [("host", "127.0.0.1:9000"), ("if-none-match", "*"), ("x-amz-meta-cistern-put", "00ff")],
            body: "hello", signature: "e62f86d212ac509f1e75e01949f4414dd5fa323402f9aa7d9ac8b6a7b7fd2574")
        #expect(signature(put, signer(), time) == put.signature)
        let host = ("host", "bucket.s3.eu-central-1.amazonaws.com")
        let list = Case(
            method: "GET", path: "/",
            query: [("list-type", "2"), ("prefix", "a b/c~ä"), ("continuation-token", "1+2/3==")], headers: [host],
            signature: "953253c7d0f1a2b95fc866eec77ae317e782007cb6e712b93313f9c01511b1c7")
        #expect(signature(list, signer("IQoJ//token+/=="), time) == list.signature)
        let complete = Case(
            method: "POST", path: "/files/a/x", query: [("uploadId", "u/1&+=\"")], headers: [host], body: "<x/>",
            signature: "7d6e56c6687467c4d58d43151815d772ffc539d187804ce0bb84eea01a8eba92")
        #expect(signature(complete, signer(), time) == complete.signature)
    }

    @Test func momentsAreWrittenAsTheCalendarHasThem() {
        let moments: [(UInt64, String)] = [
            (0, "19700101T000000Z"), (951_782_399, "20000228T235959Z"), (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"), (1_709_251_200, "20240301T000000Z"),
            (4_102_444_799, "20991231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ]
        for (seconds, text) in moments { #expect(S3Time(wallMilliseconds: seconds * 1000 + 999).basic == text) }
    }

    @Test func credentialsDoNotPrintTheirSecrets() {
        let credentials = S3Credentials(accessKeyID: "AKID", secretAccessKey: "hidden-a", sessionToken: "hidden-b")
        var dumped = ""
        dump(credentials, to: &dumped)
        for text in ["\(credentials)", String(reflecting: credentials), dumped, "\([credentials])"] {
            #expect(!text.contains("hidden"), "\(text)")
        }
    }
}
