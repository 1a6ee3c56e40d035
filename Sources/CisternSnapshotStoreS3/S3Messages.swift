// What S3 servers answer with, and the one document that is sent. Elements that are not known are read over: servers add their own.

/// An answer that cannot be read.
package struct S3AnswerDamage: Error, Equatable, Sendable {
    package let detail: String
}

/// A refusal.
package struct S3ErrorDocument: Equatable, Sendable {
    package let code: String
    package let message: String
    /// Where the bucket is, when that is what is wrong.
    package let region: String?

    /// nil for anything else: a proxy's page, nothing at all.
    package init?(_ bytes: [UInt8]) {
        guard let root = try? parsed(bytes, "Error"), let code = root["Code"] else { return nil }
        self.code = code
        message = root["Message"] ?? ""
        region = root["Region"]
    }
}

/// A page of `ListObjectsV2`.
package struct S3ListPage: Equatable, Sendable {
    package struct Object: Equatable, Sendable {
        package let key: String
        package let bytes: UInt64
    }

    package let objects: [Object]
    /// What asks for the next page; nil: this is the last one.
    package let next: String?

    package init(_ bytes: [UInt8]) throws(S3AnswerDamage) {
        let root = try parsed(bytes, "ListBucketResult")
        var objects: [Object] = []
        for item in root.all("Contents") {
            guard let key = item["Key"], let size = item["Size"].flatMap({ UInt64($0) }) else {
                throw S3AnswerDamage(detail: "an object is listed without its key or its size")
            }
            objects.append(Object(key: key, bytes: size))
        }
        self.objects = objects
        next = try continuation(of: root, "NextContinuationToken")
    }
}

/// A page of `ListMultipartUploads`.
package struct S3UploadsPage: Equatable, Sendable {
    package struct Upload: Equatable, Sendable {
        package let key: String
        package let id: String
    }

    package let uploads: [Upload]
    /// What the next page begins behind; nil: this is the last one.
    package let next: Upload?

    package init(_ bytes: [UInt8]) throws(S3AnswerDamage) {
        let root = try parsed(bytes, "ListMultipartUploadsResult")
        var uploads: [Upload] = []
        for item in root.all("Upload") {
            guard let key = item["Key"], let id = item["UploadId"] else {
                throw S3AnswerDamage(detail: "a multipart upload is listed without its key or its id")
            }
            uploads.append(Upload(key: key, id: id))
        }
        self.uploads = uploads
        next = try continuation(of: root, "NextKeyMarker").map {
            Upload(key: $0, id: root["NextUploadIdMarker"] ?? "")
        }
    }
}

package enum S3Multipart {
    /// The answer that begins an upload.
    package static func id(_ bytes: [UInt8]) throws(S3AnswerDamage) -> String {
        guard let id = try parsed(bytes, "InitiateMultipartUploadResult")["UploadId"], !id.isEmpty else {
            throw S3AnswerDamage(detail: "a multipart upload was begun and has no id")
        }
        return id
    }

    /// The answer that ends one. Its status is 200 as soon as the server begins to work on it, so only this tells the outcome.
    package static func isComplete(_ bytes: [UInt8]) throws(S3AnswerDamage) {
        // Servers do not agree on the end of its name.
        _ = try parsed(bytes, "CompleteMultipartUpload", isBeginning: true)
    }

    /// The document that ends one.
    package static func completion(_ tags: [String]) -> [UInt8] {
        let parts = tags.enumerated().map { index, tag in
            "<Part><PartNumber>\(index + 1)</PartNumber><ETag>\(escaped(tag))</ETag></Part>"
        }
        return Array("<CompleteMultipartUpload>\(parts.joined())</CompleteMultipartUpload>".utf8)
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;")
    }
}

/// - Parameter isBeginning: the root's name may go on behind `name`.
private func parsed(
    _ bytes: [UInt8], _ name: String, isBeginning: Bool = false
) throws(S3AnswerDamage) -> XMLElement {
    let root: XMLElement
    do throws(XMLDamage) { root = try XMLElement.parse(bytes) } catch {
        throw S3AnswerDamage(detail: "byte \(error.offset) of the answer: \(error.detail)")
    }
    guard root.name == name || isBeginning && root.name.hasPrefix(name) else {
        throw S3AnswerDamage(detail: "the answer is \(root.name), not \(name)")
    }
    return root
}

/// - Throws: for a page that is not the last and does not tell how to go on: the rest would be taken for missing.
private func continuation(of root: XMLElement, _ name: String) throws(S3AnswerDamage) -> String? {
    switch root["IsTruncated"] {
    case "false": return nil
    case "true":
        guard let next = root[name], !next.isEmpty else {
            throw S3AnswerDamage(detail: "a listing goes on and has no \(name)")
        }
        return next
    default: throw S3AnswerDamage(detail: "a listing does not tell whether it goes on")
    }
}
