// What a server's refusal means, and what to do about it.

struct S3Refusal {
    static let noSuchBucket = "NoSuchBucket"
    /// Of the document that comes with a refusal.
    static let documentBytesMax = 64 << 10
    /// Of the server's own words.
    private static let wordsMax = 300

    private let status: Int
    private let code: String
    private let words: String
    private let region: String?

    init(_ answer: S3Answer) {
        let document = S3ErrorDocument(answer.body)
        status = answer.status
        code = document?.code ?? ""
        words = String((document?.message ?? "").prefix(S3Refusal.wordsMax))
        region = answer.headers["x-amz-bucket-region"] ?? document?.region
    }

    /// Doing the same again may help without anybody's doing.
    var isTransient: Bool { status == 409 || status == 412 || status == 404 && code != S3Refusal.noSuchBucket }

    func reason(_ options: S3Options) -> String {
        let said =
            "the server answers \(status)" + (code.isEmpty ? "" : " \(code)") + (words.isEmpty ? "" : " (\(words))")
        return advice(options).map { "\(said): \($0)" } ?? said
    }

    private func advice(_ options: S3Options) -> String? {
        if let region, region != options.region, [301, 307, 400, 403].contains(status) {
            return "the bucket \(options.location.bucket) is in the region \(region): set s3_region to that"
        }
        switch (status, code) {
        case (_, S3Refusal.noSuchBucket):
            return
                "there is no bucket \(options.location.bucket) at \(options.endpoint): make it, or mend snapshot_store"
        case (_, "InvalidAccessKeyId"): return "the server does not know the access key: give credentials that it knows"
        case (_, "SignatureDoesNotMatch"):
            return "the secret access key is not the access key's, or a proxy changes requests: mend the credentials"
        case (_, "ExpiredToken"), (_, "InvalidToken"):
            return "the credentials are temporary and not valid any more: give new ones, best in s3_credentials_file"
        case (_, "RequestTimeTooSkewed"): return "this machine's clock and the server's differ: set the clock"
        case (_, "AuthorizationHeaderMalformed"): return "set s3_region to the bucket's region, now \(options.region)"
        case (401, _), (403, _):
            return
                "the credentials may not do this: allow s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket, "
                + "s3:AbortMultipartUpload and s3:ListBucketMultipartUploads (docs/operations.md has the policy)"
        case (301, _), (307, _): return "the bucket is elsewhere: set s3_region and s3_endpoint to where it is"
        case (404, _): return "it is gone; see that no other server writes there"
        case (405, _), (501, _): return "\(options.endpoint) does not know this request: see that it is an S3 server"
        case (409, _): return "something else works on the same object: try again"
        case (412, _): return "there is another object of this name"
        default: return nil
        }
    }
}
