// The bucket of the double: what each request does, without a network.

import CisternSnapshotStoreS3

/// A request as it came.
package struct S3DoubleRequest: Sendable {
    package var method: String
    /// Encoded, with the bucket.
    package var path: String
    package var query: String
    /// Names in lower case.
    package var headers: [String: String]
    package var body: [UInt8] = []

    /// Decoded; nil: the bucket itself.
    package var key: String? {
        let parts = path.split(separator: "/", maxSplits: 1)
        return parts.count == 2 ? S3DoubleRequest.decoded(String(parts[1])) : nil
    }

    package var bucket: String { path.split(separator: "/", maxSplits: 1).first.map(String.init) ?? "" }

    package var parameters: [String: String] {
        var found: [String: String] = [:]
        for pair in query.split(separator: "&") {
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            found[S3DoubleRequest.decoded(String(sides[0]))] =
                sides.count == 2 ? S3DoubleRequest.decoded(String(sides[1])) : ""
        }
        return found
    }

    private static func decoded(_ text: String) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

struct S3DoubleAnswer: Sendable {
    var status: Int
    var headers: [(String, String)] = []
    var body: [UInt8] = []
    /// Of an answer to HEAD.
    var announcedLength: Int?

    static func refusal(_ status: Int, _ code: String, _ more: String = "") -> S3DoubleAnswer {
        document(status, "<Error><Code>\(code)</Code><Message>injected or due</Message>\(more)</Error>")
    }

    static func document(_ status: Int, _ xml: String) -> S3DoubleAnswer {
        S3DoubleAnswer(
            status: status, headers: [("content-type", "application/xml")],
            body: Array("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\(xml)".utf8))
    }
}

struct S3Object: Sendable {
    let bytes: [UInt8]
    let mark: String?
    var tag: String { "\"" + S3Encoding.hash(bytes).prefix(32) + "\"" }
}

struct S3Bucket: Sendable {
    struct Upload: Sendable {
        let key: String
        let mark: String?
        var parts: [Int: S3Object] = [:]
    }

    static let pageEntries = 3

    var objects: [String: S3Object] = [:]
    var uploads: [String: Upload] = [:]
    private var nextUpload = 1

    mutating func begin(_ key: String, mark: String?) -> String {
        let id = "upload/\(nextUpload)&+=\""
        nextUpload += 1
        uploads[id] = Upload(key: key, mark: mark)
        return id
    }

    mutating func answer(_ request: S3DoubleRequest, knowsConditions: Bool, knowsRanges: Bool) -> S3DoubleAnswer {
        let parameters = request.parameters
        if !knowsConditions, request.headers["if-none-match"] != nil { return .refusal(501, "NotImplemented") }
        guard let key = request.key else {
            guard request.method == "GET" else { return .refusal(405, "MethodNotAllowed") }
            return parameters["uploads"] == nil ? list(parameters) : listUploads(parameters)
        }
        switch (request.method, parameters["uploadId"]) {
        case ("PUT", nil): return put(key, request)
        case ("PUT", let id?): return putPart(id, key, parameters, request)
        case ("POST", nil) where parameters["uploads"] != nil:
            let id = begin(key, mark: request.headers["x-amz-meta-cistern-put"])
            return .document(
                200,
                "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>\(S3Bucket.escaped(key))</Key>"
                    + "<UploadId>\(S3Bucket.escaped(id))</UploadId></InitiateMultipartUploadResult>")
        case ("POST", let id?): return complete(id, key, request)
        case ("DELETE", let id?):
            guard uploads[id]?.key == key else { return .refusal(404, "NoSuchUpload") }
            uploads[id] = nil
            return S3DoubleAnswer(status: 204)
        case ("DELETE", nil):
            objects[key] = nil
            return S3DoubleAnswer(status: 204)
        case ("HEAD", _), ("GET", _): return read(key, request, knowsRanges: knowsRanges)
        default: return .refusal(405, "MethodNotAllowed")
        }
    }

    private mutating func put(_ key: String, _ request: S3DoubleRequest) -> S3DoubleAnswer {
        if request.headers["if-none-match"] == "*", objects[key] != nil { return .refusal(412, "PreconditionFailed") }
        let object = S3Object(bytes: request.body, mark: request.headers["x-amz-meta-cistern-put"])
        objects[key] = object
        return S3DoubleAnswer(status: 200, headers: [("ETag", object.tag)])
    }

    private mutating func putPart(
        _ id: String, _ key: String, _ parameters: [String: String], _ request: S3DoubleRequest
    ) -> S3DoubleAnswer {
        guard uploads[id]?.key == key else { return .refusal(404, "NoSuchUpload") }
        guard let number = parameters["partNumber"].flatMap({ Int($0) }), (1...10_000).contains(number) else {
            return .refusal(400, "InvalidArgument")
        }
        let part = S3Object(bytes: request.body, mark: nil)
        uploads[id]?.parts[number] = part
        return S3DoubleAnswer(status: 200, headers: [("ETag", part.tag)])
    }

    private mutating func complete(_ id: String, _ key: String, _ request: S3DoubleRequest) -> S3DoubleAnswer {
        guard let upload = uploads[id], upload.key == key else { return .refusal(404, "NoSuchUpload") }
        if request.headers["if-none-match"] == "*", objects[key] != nil { return .refusal(412, "PreconditionFailed") }
        guard let root = try? XMLElement.parse(request.body), root.name == "CompleteMultipartUpload" else {
            return .refusal(400, "MalformedXML")
        }
        var bytes: [UInt8] = []
        for (index, part) in root.all("Part").enumerated() {
            guard part["PartNumber"] == "\(index + 1)", let stored = upload.parts[index + 1], part["ETag"] == stored.tag
            else { return .refusal(400, "InvalidPart") }
            bytes += stored.bytes
        }
        objects[key] = S3Object(bytes: bytes, mark: upload.mark)
        uploads[id] = nil
        // As servers do that have sent spaces while they worked.
        return S3DoubleAnswer(
            status: 200,
            body: Array(
                "  \n<?xml version=\"1.0\"?><CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>"
                    .utf8))
    }

    private func read(_ key: String, _ request: S3DoubleRequest, knowsRanges: Bool) -> S3DoubleAnswer {
        guard let object = objects[key] else { return .refusal(404, "NoSuchKey") }
        if let tag = request.headers["if-match"], tag != object.tag { return .refusal(412, "PreconditionFailed") }
        var answer = S3DoubleAnswer(status: 200, headers: [("ETag", object.tag)], body: object.bytes)
        if let mark = object.mark { answer.headers.append(("x-amz-meta-cistern-put", mark)) }
        if request.method == "HEAD" {
            answer.body = []
            answer.announcedLength = object.bytes.count
            return answer
        }
        guard knowsRanges, let range = request.headers["range"] else { return answer }
        let ends = range.dropFirst("bytes=".count).split(separator: "-").compactMap { Int($0) }
        guard ends.count == 2, ends[0] < object.bytes.count else {
            var refusal = S3DoubleAnswer.refusal(416, "InvalidRange")
            refusal.headers.append(("Content-Range", "bytes */\(object.bytes.count)"))
            return refusal
        }
        let last = min(ends[1], object.bytes.count - 1)
        answer.status = 206
        answer.body = Array(object.bytes[ends[0]...last])
        answer.headers.append(("Content-Range", "bytes \(ends[0])-\(last)/\(object.bytes.count)"))
        return answer
    }

    private func list(_ parameters: [String: String]) -> S3DoubleAnswer {
        guard parameters["list-type"] == "2" else { return .refusal(501, "NotImplemented") }
        let behind = parameters["continuation-token"].map { $0.dropFirst("behind ".count) } ?? ""
        let keys = objects.keys.filter { $0.hasPrefix(parameters["prefix"] ?? "") && $0 > behind }.sorted()
        let page = keys.prefix(S3Bucket.pageEntries)
        let items = page.map { key in
            "<Contents><Key>\(S3Bucket.escaped(key))</Key><Size>\(objects[key]?.bytes.count ?? 0)</Size></Contents>"
        }
        let more = keys.count > page.count
        return .document(
            200,
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>\(more)</IsTruncated>"
                + items.joined()
                + (more
                    ? "<NextContinuationToken>behind \(S3Bucket.escaped(page.last ?? ""))</NextContinuationToken>" : "")
                + "</ListBucketResult>")
    }

    private func listUploads(_ parameters: [String: String]) -> S3DoubleAnswer {
        let marker = (parameters["key-marker"] ?? "", parameters["upload-id-marker"] ?? "")
        let found = uploads.map { ($0.value.key, $0.key) }
            .filter { $0.0.hasPrefix(parameters["prefix"] ?? "") && $0 > marker }.sorted { $0 < $1 }
        let page = found.prefix(S3Bucket.pageEntries)
        let items = page.map {
            "<Upload><Key>\(S3Bucket.escaped($0.0))</Key><UploadId>\(S3Bucket.escaped($0.1))</UploadId></Upload>"
        }
        let more = found.count > page.count
        let next = page.last.map {
            "<NextKeyMarker>\(S3Bucket.escaped($0.0))</NextKeyMarker>"
                + "<NextUploadIdMarker>\(S3Bucket.escaped($0.1))</NextUploadIdMarker>"
        }
        return .document(
            200,
            "<ListMultipartUploadsResult><IsTruncated>\(more)</IsTruncated>\(more ? next ?? "" : "")\(items.joined())"
                + "</ListMultipartUploadsResult>")
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing("\"", with: "&quot;")
    }
}
