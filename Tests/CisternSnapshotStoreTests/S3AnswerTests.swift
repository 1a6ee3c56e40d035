// What comes from an S3 server and from an operator as text: answers, addresses, files of credentials.

import CisternFileSystem
import CisternPrimitives
import CisternSnapshotStoreS3
import CisternTestKit
import Testing

@Suite struct S3AnswerTests {
    private func parse(_ text: String) throws -> XMLElement { try XMLElement.parse(Array(text.utf8)) }

    @Test func elementsHaveTheirTextAndTheirChildren() throws {
        let root = try parse(
            """
              \n<?xml version="1.0"?> <!-- a -- comment --> <a:Root xmlns:a='x>y' b = "c">
            <One>1 &lt; 2 &amp;amp; &#228;&#xE4;<!-- in between --> end</One><Two/><Two x="/">é</Two >
            <![CDATA[<not> &an; element]]></a:Root> <!-- after -->\n
            """)
        #expect(root.name == "Root")
        #expect(root["One"] == "1 < 2 &amp; ää end")
        #expect(root.all("Two").map(\.text) == ["", "é"])
        #expect(root["Three"] == nil)
        #expect(root.text.contains("<not> &an; element"))
        #expect(try parse("<r/>").children.isEmpty)
    }

    @Test func whatIsNoDocumentIsRefused() {
        let bad = [
            "", " ", "text", "<a>", "<a></b>", "</a>", "<a/><b/>", "<a/>text", "<a>&unknown;</a>", "<a>&#xD800;</a>",
            "<a>&#-5;</a>", "<a>&#+5;</a>", "<a>&#x110000;</a>", "<a>&</a>", "<a b>", "<a b=c/>", "<a b='c/>",
            "<a><!--", "<?xml",
            "<a><![CDATA[", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "< a/>", "<a",
            "<\(String(repeating: "x", count: 300))/>",
            String(repeating: "<a>", count: 17) + String(repeating: "</a>", count: 17),
        ]
        for text in bad { #expect(throws: XMLDamage.self, "\(text)") { try parse(text) } }
        #expect(throws: XMLDamage.self) { try XMLElement.parse(Array("<a>".utf8) + [0xFF] + Array("</a>".utf8)) }
        #expect(throws: Never.self) {
            try parse(String(repeating: "<a>", count: 16) + String(repeating: "</a>", count: 16))
        }
    }

    @Test func aDocumentThatIsCutAnywhereIsRefused() {
        let whole = Array("<?xml version=\"1.0\"?><a b=\"c\"><d>e&amp;f</d><![CDATA[g]]><!-- h --></a>".utf8)
        for count in whole.indices {
            #expect(throws: XMLDamage.self, "\(count)") { try XMLElement.parse(Array(whole[..<count])) }
        }
    }

    @Test func aListingThatDoesNotTellHowItGoesOnIsRefused() throws {
        func list(_ inside: String) throws -> S3ListPage {
            try S3ListPage(Array("<ListBucketResult>\(inside)</ListBucketResult>".utf8))
        }
        let item = "<Contents><Key>a&amp;b</Key><Size>7</Size><Owner><ID>x</ID></Owner></Contents>"
        let page = try list(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\(item)\(item)")
        #expect(page.objects.map(\.key) == ["a&b", "a&b"] && page.objects[0].bytes == 7 && page.next == "t")
        #expect(try list("<IsTruncated>false</IsTruncated>").next == nil)
        for bad in [
            "", item, "<IsTruncated>true</IsTruncated>", "<IsTruncated>maybe</IsTruncated>",
            "<IsTruncated>true</IsTruncated><NextContinuationToken/>",
            "<IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>",
            "<IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>-1</Size></Contents>",
        ] {
            #expect(throws: S3AnswerDamage.self, "\(bad)") { try list(bad) }
        }
        #expect(throws: S3AnswerDamage.self) { try S3ListPage(Array("<html/>".utf8)) }
        #expect(throws: S3AnswerDamage.self) {
            try S3UploadsPage(
                Array("<ListMultipartUploadsResult><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>".utf8))
        }
    }

    @Test func addressesAreReadAsTheyAreMeant() {
        #expect(S3Location("s3://bucket")?.prefix == "")
        #expect(S3Location("s3://my.bucket-1/a/b")?.description == "s3://my.bucket-1/a/b")
        for bad in [
            "s3:/bucket", "s3://", "s3://b", "s3://Bucket", "s3://bucket/", "s3://bucket//a", "s3://bucket/a/",
            "s3://-bucket",
            "s3://bu..cket", "s3://bucket/a b", "s3://bucket/..", "file:///x",
            "s3://bucket/" + String(repeating: "x", count: 124),
        ] {
            #expect(S3Location(bad) == nil, "\(bad)")
        }
        for good in [
            "https://minio.example:9000", "http://127.0.0.1:1", "https://[::1]:9000", "https://[::1]", "http://minio",
        ] {
            #expect(S3Endpoint(good)?.description == good)
        }
        #expect(S3Endpoint("https://minio:443/")?.description == "https://minio")
        #expect(S3Endpoint("http://minio:443")?.description == "http://minio:443")
        for bad in [
            "minio", "ftp://minio", "https://", "https://:9", "https://a:0", "https://a:70000", "https://a:b",
            "https://a/b", "https://a b", "https://u@h",
        ] {
            #expect(S3Endpoint(bad) == nil, "\(bad)")
        }
        #expect(S3Endpoint(region: "cn-north-1").host == "s3.cn-north-1.amazonaws.com.cn")
    }

    @Test func theBucketIsInThePathOrInTheHost() throws {
        let location = try #require(S3Location("s3://bucket/a"))
        let endpoint = try #require(S3Endpoint("https://minio:9000"))
        var options = S3Options(location: location, endpoint: endpoint, region: "r", isHostStyle: false)
        #expect(options.target("a/b%c") == ("minio:9000", "/bucket/a/b%25c"))
        #expect(options.target(nil) == ("minio:9000", "/bucket"))
        options.isHostStyle = true
        #expect(options.target("a/b%c") == ("bucket.minio:9000", "/a/b%25c"))
        #expect(options.target(nil) == ("bucket.minio:9000", "/"))
    }

    @Test func aFileOfCredentialsIsReadAsAWSToolsReadIt() {
        func parse(_ text: String) -> S3Credentials? { S3CredentialsFile.parse(Array(text.utf8)) }
        let whole = S3Credentials(accessKeyID: "id", secretAccessKey: "se=cret/+", sessionToken: "token")
        #expect(
            parse(
                """
                # comment
                [other]
                aws_access_key_id = wrong
                [ default ]\r
                aws_access_key_id=id\r
                  aws_secret_access_key   =  se=cret/+
                ; another
                aws_session_token = token
                region = ignored
                [last]
                aws_access_key_id = wrong
                """) == whole)
        #expect(parse("aws_access_key_id = id\naws_secret_access_key = se=cret/+\naws_session_token=token") == whole)
        for bad in ["", "[default]", "aws_access_key_id = id", "[other]\naws_access_key_id=a\naws_secret_access_key=b"]
        {
            #expect(parse(bad) == nil, "\(bad)")
        }
        #expect(S3CredentialsFile.parse([0xFF]) == nil)
    }

    @Test func waitsGrowUpToALimitAndAreNeverTheSameForAll() {
        var limits = S3Limits()
        limits.backoffFirstMilliseconds = 100
        limits.backoffLastMilliseconds = 1000
        var random = SeededRandom(seed: 1)
        for (attempt, whole) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] as [(Int, UInt64)] {
            let waits = (0..<200).map { _ in limits.backoffMilliseconds(before: attempt, asked: 0, using: &random) }
            #expect(waits.allSatisfy { (whole / 2...whole).contains($0) } && Set(waits).count > 20, "\(attempt)")
        }
        #expect((500...1000).contains(limits.backoffMilliseconds(before: 1, asked: 60_000, using: &random)))
    }
}
