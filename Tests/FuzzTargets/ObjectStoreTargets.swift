// What an S3 server answers, or whoever is in its place, and a file of credentials.

import CisternSnapshotStoreS3

extension FuzzTarget {
    static let objectStore = [
        FuzzTarget(
            name: "s3-answer",
            seeds: {
                [
                    """
                    <?xml version="1.0" encoding="UTF-8"?>
                    <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
                    <NextContinuationToken>t&amp;&#x41;</NextContinuationToken><!-- c --><Contents><Key>a/b</Key><Size>12</Size>
                    </Contents><Contents><Key><![CDATA[a/c]]></Key><Size>0</Size><Owner/></Contents></ListBucketResult>
                    """,
                    """
                    <ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker>
                    <NextUploadIdMarker>1</NextUploadIdMarker><Upload><Key>a</Key><UploadId>1</UploadId></Upload>
                    </ListMultipartUploadsResult>
                    """,
                    "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
                    "<Error><Code>SlowDown</Code><Message>m</Message><Region>r</Region></Error>",
                    "<CompleteMultipartUploadResult/>",
                ].map { Array($0.utf8) }
            }, run: readAnswer),
        FuzzTarget(
            name: "s3-credentials",
            seeds: { [Array("# c\n[default]\naws_access_key_id = a\naws_secret_access_key=b\n[x]\n".utf8)] },
            run: { _ = S3CredentialsFile.parse($0) }),
    ]
}

private func readAnswer(_ input: [UInt8]) {
    _ = S3ErrorDocument(input)
    _ = try? S3Multipart.id(input)
    try? S3Multipart.isComplete(input)
    if let page = try? S3ListPage(input), page.objects.contains(where: { $0.key.utf8.count > input.count }) {
        broken("a key is longer than the answer it came in")
    }
    if let page = try? S3UploadsPage(input), page.next?.key.isEmpty == true {
        broken("a listing of uploads goes on at nothing")
    }
    guard let root = try? XMLElement.parse(input) else { return }
    if depth(root) > XMLElement.depthMax { broken("elements are deeper than the limit") }
}

private func depth(_ element: XMLElement) -> Int { 1 + (element.children.map(depth).max() ?? 0) }
