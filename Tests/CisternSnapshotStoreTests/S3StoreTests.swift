// The S3 store against the double: what its servers refuse, what happens to connections, what is sent twice.

import CisternFileSystem
import CisternPrimitives
import CisternSnapshotStore
import CisternSnapshotStoreS3
import CisternTestKit
import CisternTransport
import S3Double
import Testing

/// The message of what a call fails with.
private func failure(_ body: () throws -> Void) -> SnapshotStoreError? {
    do {
        try body()
        return nil
    } catch {
        return error as? SnapshotStoreError
    }
}

@Suite struct S3StoreTests {
    private let double: S3Double
    private let store: S3SnapshotStore

    init() throws {
        double = try S3Double()
        store = try double.store { $0.limits.partBytes = 1000 }
    }

    private func content(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 / 7) } }

    // MARK: Requests that have no answer

    @Test(arguments: [100, 2500]) func aPutWhoseAnswerIsLostIsTheOneThatIsThere(bytes: Int) throws {
        // Every request of it, one after the other.
        for lost in 0..<6 {
            let name = "files/a/\(lost)"
            double.inject(.dropAnswer, skipping: lost) { !$0.method.isEmpty }
            #expect(try store.put(name, content(bytes)), "request \(lost)")
            double.calm()
            #expect(try store.get(name, limit: bytes) == content(bytes), "request \(lost)")
            #expect(try !store.put(name, [1]), "request \(lost)")
        }
        #expect(double.uploadCount == 0)
    }

    @Test(arguments: [100, 2500]) func aPutThatIsRefusedAfterItWasDoneIsTheOneThatIsThere(bytes: Int) throws {
        for lost in 0..<6 {
            let name = "files/a/\(lost)"
            double.inject(.refuseAfterwards(500, "InternalError"), skipping: lost)
            #expect(try store.put(name, content(bytes)), "request \(lost)")
            double.calm()
            #expect(try store.get(name, limit: bytes) == content(bytes), "request \(lost)")
        }
        #expect(double.uploadCount == 0)
    }

    @Test(arguments: [100, 2500]) func aPutAfterAnothersIsNotTheOneThatIsThere(bytes: Int) throws {
        double.setBytes("files/a/x", [1])
        // The first answer is lost and the second is 412, as when the first had been carried out.
        double.inject(.dropAnswer)
        #expect(try !store.put("files/a/x", content(bytes)))
        #expect(double.bytes("files/a/x") == [1])
        #expect(double.uploadCount == 0)
    }

    @Test func anUploadThatLosesToAnotherLeavesNothing() throws {
        // It comes between the look at the beginning and the end.
        double.inject(.refuse(503, "SlowDown")) { [double] request in
            guard request.method == "POST", request.query.contains("uploadId") else { return false }
            double.setBytes("files/a/x", [1])
            return true
        }
        #expect(try !store.put("files/a/x", content(2500)))
        #expect(double.bytes("files/a/x") == [1])
        #expect(double.uploadCount == 0)
    }

    @Test func aConnectionThatIsCutInTheMiddleOfABodyIsMadeAnew() throws {
        double.inject(.cutRequest(afterBytes: 1)) { $0.method == "PUT" }
        double.inject(.cutRequest(afterBytes: 500), skipping: 1) { $0.method == "PUT" }
        #expect(try store.put("files/a/x", content(900)))
        #expect(try store.put("files/a/y", content(900)))
        #expect(double.bytes("files/a/x") == content(900) && double.bytes("files/a/y") == content(900))
        double.inject(.cutAnswer(afterBytes: 300), count: 2)
        #expect(try store.get("files/a/x", limit: 900) == content(900))
        double.inject(.cutAnswer(afterBytes: 0), count: 2)
        #expect(try store.list("files/").count == 2)
    }

    @Test func aServerThatHearsAndDoesNotAnswerIsAskedAgain() throws {
        let impatient = try double.store { $0.limits.idleMilliseconds = 50 }
        double.inject(.silence)
        #expect(try impatient.put("files/a/x", content(900)))
        double.inject(.silence, count: 100)
        let error = failure { _ = try impatient.get("files/a/x", limit: 900) }
        #expect(error?.isTransient == true && error?.reason.contains("no answer") == true)
        let hurried = try double.store { $0.limits.attemptMilliseconds = 50 }
        #expect(failure { _ = try hurried.get("files/a/x", limit: 900) }?.isTransient == true)
    }

    // MARK: Storms

    /// Whatever becomes of single requests, what a call answers is so, and nothing is left.
    @Test(arguments: Seeds.seeds(count: 6)) func whatIsAnsweredInAStormIsSo(seed: UInt64) throws {
        Seeds.announce("whatIsAnsweredInAStormIsSo", seed)
        var random = SeededRandom(seed: seed)
        let stormy = try double.store(prefix: "p") {
            $0.limits.partBytes = 1000
            $0.limits.attemptsMax = 4
        }
        double.storm(seed: seed, oneOf: 3)
        /// Objects that are there, and how; empty: not there. No object is empty here.
        var sure: [String: [UInt8]] = [:]
        var failures = 0
        for step in 0..<150 {
            let name = "files/a/\(Int.random(in: 0..<20, using: &random))"
            let comment: Comment = "seed \(seed), step \(step): \(name)"
            do {
                switch Int.random(in: 0..<10, using: &random) {
                case 0..<5:
                    // Of three parts at most, and never the same twice.
                    let bytes = content(.random(in: 0...2800, using: &random)) + Array("\(step)".utf8)
                    let before = sure.removeValue(forKey: name)
                    if try stormy.put(name, bytes) {
                        #expect(before == nil || before == [], comment)
                        sure[name] = bytes
                    } else if let before {
                        #expect(before != [], comment)
                        sure[name] = before
                    }
                case 5..<7:
                    sure[name] = nil
                    try stormy.delete([name])
                    sure[name] = []
                case 7..<9:
                    let found = try stormy.get(name, limit: 10_000)
                    if let known = sure[name] { #expect(found ?? [] == known, comment) }
                default:
                    let names = Set(try stormy.list("files/").map(\.name))
                    for (name, bytes) in sure { #expect(names.contains(name) == (bytes != []), comment) }
                }
            } catch {
                failures += 1
            }
        }
        double.calm()
        #expect(failures < 100, "seed \(seed)")
        for (name, bytes) in sure {
            let found = try stormy.get(name, limit: 10_000)
            #expect(found ?? [] == bytes, "seed \(seed): \(name)")
        }
        try stormy.removeLeftovers("files/a/")
        #expect(double.uploadCount == 0, "seed \(seed)")
        try stormy.delete(try stormy.list("").map(\.name))
        #expect(double.keys == [], "seed \(seed)")
    }

    @Test func aServerThatStaysBusyIsGivenUpAndTheErrorSaysHowOftenItWasTried() {
        double.inject(.refuse(503, "SlowDown"), count: 100)
        let error = failure { _ = try store.put("files/a/x", [1]) }
        #expect(error?.isTransient == true)
        #expect(
            error?.description.hasPrefix("cannot put files/a/x in s3://cistern-test: the server answers 503 SlowDown")
                == true)
        #expect(error?.reason.contains("tried 6 times") == true)
        #expect(double.log.count == 6)
    }

    @Test func aServerThatIsNotThereIsGivenUp() throws {
        var options = double.options()
        // A port that was free a moment ago.
        let gone: S3Endpoint? = S3Endpoint(try S3Double().endpoint)
        options.endpoint = try #require(gone)
        let unreachable = try S3SnapshotStore(
            options, credentials: S3CredentialSource(S3Double.credentials), time: SystemTime())
        let error = failure { _ = try unreachable.list("files/") }
        #expect(
            error?.isTransient == true && error?.reason.contains("can be reached") == true,
            "\(error?.reason ?? "")")
    }

    @Test func aCloseEndsACallThatWaits() throws {
        let slow = try double.store {
            $0.limits.backoffFirstMilliseconds = 3_600_000
            $0.limits.backoffLastMilliseconds = 3_600_000
        }
        double.inject(.refuse(503, "SlowDown"), count: 100) { [double] _ in
            _ = double
            slow.close()
            return true
        }
        let error = failure { _ = try slow.get("files/a/x", limit: 1) }
        #expect(error?.reason.contains("closed") == true)
        #expect(failure { _ = try slow.get("files/a/x", limit: 1) }?.reason.contains("closed") == true)
        slow.close()
    }

    // MARK: Refusals

    @Test func refusalsAreNotTriedAgainAndSayWhatToDo() {
        let cases: [(Int, String, String)] = [
            (403, "AccessDenied", "s3:PutObject"), (403, "SignatureDoesNotMatch", "secret access key"),
            (403, "InvalidAccessKeyId", "does not know the access key"), (400, "ExpiredToken", "s3_credentials_file"),
            (403, "RequestTimeTooSkewed", "set the clock"), (404, "NoSuchBucket", "there is no bucket cistern-test"),
            (405, "MethodNotAllowed", "is an S3 server"), (301, "PermanentRedirect", "s3_endpoint"),
            (409, "Other", "try again"),
            (418, "Teapot", "the server answers 418 Teapot"),
        ]
        for (status, code, advice) in cases {
            double.clearLog()
            double.inject(.refuse(status, code))
            let error = failure { _ = try store.put("files/a/x", [1]) }
            #expect(error?.reason.contains(advice) == true, "\(code): \(error?.reason ?? "")")
            #expect(error?.isTransient == (status == 409), "\(code)")
            #expect(error?.description.contains("secret of the double") == false)
            #expect(double.log.count == 1, "\(code)")
        }
        for body in [
            { (store: S3SnapshotStore) in _ = try store.get("files/a/x", limit: 1) }, { try $0.delete(["files/a/x"]) },
        ] {
            double.inject(.refuse(404, "NoSuchBucket"))
            #expect(failure { try body(store) }?.reason.contains("there is no bucket") == true)
        }
    }

    @Test func aBucketInAnotherRegionIsNamed() {
        double.setRegion("mars-1")
        let error = failure { _ = try store.list("") }
        #expect(error?.reason.contains("the region mars-1: set s3_region") == true, "\(error?.reason ?? "")")
    }

    @Test func credentialsThatAreNotKnownOrWrongAreRefused() throws {
        for wrong in [
            S3Credentials(accessKeyID: "other", secretAccessKey: "x"),
            S3Credentials(accessKeyID: S3Double.credentials.accessKeyID, secretAccessKey: "x"),
        ] {
            let stranger = try S3SnapshotStore(
                double.options(), credentials: S3CredentialSource(wrong), time: SystemTime())
            let error = failure { _ = try stranger.list("") }
            #expect(error?.isTransient == false && error?.reason.contains("access key") == true)
        }
    }

    @Test func aClockThatIsWrongIsNamed() throws {
        let time = ManualTime(wallMilliseconds: SystemTime().wallMilliseconds - 3_600_000)
        let late = try S3SnapshotStore(
            double.options(), credentials: S3CredentialSource(S3Double.credentials), time: time)
        #expect(failure { _ = try late.list("") }?.reason.contains("set the clock") == true)
    }

    @Test func newCredentialsInTheFileAreTakenWhenTheOldOnesAreRefused() throws {
        func file(_ credentials: S3Credentials) -> [UInt8] {
            Array(
                """
                [default]
                aws_access_key_id = \(credentials.accessKeyID)
                aws_secret_access_key = \(credentials.secretAccessKey)
                aws_session_token = \(credentials.sessionToken)
                """.utf8)
        }
        let disk = MemoryFileSystem()
        let source = S3CredentialSource(file: "/credentials", fileSystem: disk, time: SystemTime())
        let rotated = try S3SnapshotStore(double.options(), credentials: source, time: SystemTime())
        #expect(failure { _ = try rotated.list("") }?.reason.contains("/credentials") == true)
        disk.setContents("/credentials", Array("[default]\n".utf8))
        #expect(failure { _ = try rotated.list("") }?.reason.contains("aws_access_key_id") == true)

        disk.setContents("/credentials", file(S3Double.credentials))
        #expect(try rotated.put("files/a/x", [1]))
        let second = S3Credentials(accessKeyID: "second", secretAccessKey: "b", sessionToken: "token/+=")
        double.accept([second])
        disk.setContents("/credentials", file(second))
        #expect(try rotated.get("files/a/x", limit: 1) == [1])
        // A file that is gone leaves what it said.
        disk.setContents("/credentials", [])
        #expect(try source.current(isRefused: true) == second)
        // Refused for good.
        double.accept([S3Double.credentials])
        double.clearLog()
        #expect(failure { _ = try rotated.get("files/a/x", limit: 1) }?.reason.contains("access key") == true)
        #expect(double.log.count == 2)
    }

    @Test func aServerIsKnownByItsCertificate() throws {
        let files = ServerTLS.Files(
            certificate: TestCertificates.certificate("server"), key: TestCertificates.key("server"))
        let encrypted = try S3Double(tls: try ServerTLS(files))
        let trusting = try encrypted.store { $0.authorities = TestCertificates.certificate("authority") }
        #expect(try trusting.put("files/a/x", content(900)))
        #expect(try trusting.get("files/a/x", limit: 900) == content(900))
        for authority in ["", TestCertificates.certificate("stranger")] {
            let doubtful = try encrypted.store {
                $0.authorities = authority
                $0.limits.attemptsMax = 1
            }
            let error = failure { _ = try doubtful.get("files/a/x", limit: 900) }
            #expect(error?.reason.contains("is not trusted: set s3_authorities") == true, "\(error?.reason ?? "")")
        }
        let missing = failure { _ = try encrypted.store { $0.authorities = "/none.pem" } }
        #expect(missing?.reason.contains("cannot read certificates from /none.pem") == true)
    }

    @Test(.enabled(if: MotoProcess.program != nil)) func aServerOfOthersTakesPartsToo() throws {
        try MotoProcess.with { moto in
            let store = try moto.store()
            let bytes = content(11 << 20)
            let isPut = try store.put("files/a/x", bytes)
            let isPutAgain = try store.put("files/a/x", [1])
            let found = try store.get("files/a/x", limit: 11 << 20)
            #expect(isPut && !isPutAgain && found == bytes)
        }
    }

    // MARK: Answers that are not right

    @Test func anAnswerThatCannotBeReadIsAnError() {
        for bytes in [[], Array("<html><body>a proxy".utf8), Array("<html/>".utf8), [0xFF, 0]] as [[UInt8]] {
            double.inject(.answer(bytes), count: 2)
            #expect(failure { _ = try store.list("files/") }?.reason.contains("is an S3 server") == true)
            #expect(failure { try store.removeLeftovers("files/a/") }?.reason.contains("is an S3 server") == true)
        }
        double.inject(.answer([UInt8](repeating: 0x20, count: 100_000)))
        #expect(failure { _ = try store.get("files/a/x", range: 0..<10) }?.reason.contains("knows ranges") == true)
    }

    @Test func anUploadThatFailsLateFails() {
        let late = Array("<?xml version=\"1.0\"?><Error><Code>EntityTooSmall</Code><Message>m</Message></Error>".utf8)
        double.inject(.answer(late)) { $0.method == "POST" && $0.query.contains("uploadId") }
        #expect(failure { _ = try store.put("files/a/x", content(2500)) }?.reason.contains("EntityTooSmall") == true)
        #expect(double.uploadCount == 0 && double.keys == [])
        // And one that fails so for a moment is completed.
        let busy = Array("<Error><Code>InternalError</Code><Message>m</Message></Error>".utf8)
        double.inject(.answer(busy)) { $0.method == "POST" && $0.query.contains("uploadId") }
        #expect((try? store.put("files/a/x", content(2500))) == true)
        #expect(double.uploadCount == 0)
    }

    @Test func anObjectThatChangesWhileItIsReadIsNotGivenOut() throws {
        double.setBytes("files/a/x", content(2500))
        double.inject(.refuse(503, "SlowDown"), skipping: 1) { [double] _ in
            if double.log.count == 2 { double.setBytes("files/a/x", Array(repeating: 9, count: 2500)) }
            return true
        }
        #expect(failure { _ = try store.get("files/a/x", limit: 2500) }?.reason.contains("changed while") == true)
        double.clearLog()
        double.inject(.refuse(503, "SlowDown"), skipping: 1) { [double] _ in
            if double.log.count == 2 { double.setBytes("files/a/x", nil) }
            return true
        }
        #expect(failure { _ = try store.get("files/a/x", limit: 2500) }?.reason.contains("deleted while") == true)
    }

    @Test func whatOthersHavePutThereIsNotListed() throws {
        double.setBytes("p/files/a/x", [1])
        double.setBytes("p/with a space", [1])
        double.setBytes("pq/files/a/x", [1])
        double.setBytes("p/", [])
        #expect(try double.store(prefix: "p").list("").map(\.name) == ["files/a/x"])
    }

    @Test func aServerWithoutConditionsIsAskedOnceForThem() throws {
        double.forgetConditions()
        for number in 0..<3 { #expect(try store.put("files/a/\(number)", [1])) }
        #expect(try !store.put("files/a/0", [2]))
        #expect(try store.put("files/a/large", content(2500)))
        #expect(try !store.put("files/a/large", content(2500)))
        #expect(double.bytes("files/a/0") == [1] && double.uploadCount == 0)
    }
}
