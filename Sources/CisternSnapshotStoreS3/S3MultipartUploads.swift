// Objects that are larger than a part, and what is left of those that did not become whole: parts that nobody sees, and that cost.

package import CisternSnapshotStore
internal import Synchronization

extension S3SnapshotStore {
    func putInParts(_ name: String, _ bytes: [UInt8]) throws(SnapshotStoreError) -> Bool {
        let partBytes = options.limits.partBytes
        guard bytes.count <= partBytes * S3Limits.partsMax else {
            throw failure(
                "put", name, "it has \(bytes.count) bytes, and \(partBytes * S3Limits.partsMax) are allowed",
                isTransient: false)
        }
        // Only the end of an upload has a condition, and that is late to learn that it was for nothing.
        if try head("put", name) != nil { return false }
        let mark = S3SnapshotStore.makeMark()
        var begin = S3Request(.post, key: key(name))
        begin.query = [("uploads", "")]
        begin.headers = [(S3SnapshotStore.mark, mark)]
        let begun = try call("put", name, begin)
        guard begun.status == 200 else { throw refusal("put", name, begun) }
        let id = try readable("put", name) { () throws(S3AnswerDamage) in try S3Multipart.id(begun.body) }
        let isPut: Bool
        do throws(SnapshotStoreError) {
            isPut = try complete(name, id, mark, try sendParts(name, id, bytes))
        } catch {
            abandon(name, id)
            throw error
        }
        if !isPut { abandon(name, id) }
        // The attempt that had no answer has an upload of its own.
        if begun.isOfRepetition { try removeUploads(key(name)) { $0 == self.key(name) } }
        return isPut
    }

    /// - Returns: the parts' tags, in order.
    private func sendParts(_ name: String, _ id: String, _ bytes: [UInt8]) throws(SnapshotStoreError) -> [String] {
        var tags: [String] = []
        for start in stride(from: 0, to: bytes.count, by: options.limits.partBytes) {
            let end = min(start + options.limits.partBytes, bytes.count)
            var part = S3Request(.put, key: key(name))
            part.query = [("partNumber", "\(tags.count + 1)"), ("uploadId", id)]
            part.body = Array(bytes[start..<end])
            let answer = try call("put part \(tags.count + 1) of", name, part)
            guard answer.status == 200 else { throw refusal("put part \(tags.count + 1) of", name, answer) }
            guard let tag = answer.headers["etag"] else {
                throw failure("put part \(tags.count + 1) of", name, "the answer has no ETag", isTransient: true)
            }
            tags.append(tag)
        }
        return tags
    }

    /// - Returns: false when there is an object of this name already.
    private func complete(
        _ name: String, _ id: String, _ mark: String, _ tags: [String]
    ) throws(SnapshotStoreError) -> Bool {
        var request = S3Request(.post, key: key(name))
        request.query = [("uploadId", id)]
        request.body = S3Multipart.completion(tags)
        request.mayFailLate = true
        let answer = try callIfAbsent("put", name, request)
        if answer.status == 200, S3ErrorDocument(answer.body) == nil {
            try readable("put", name) { () throws(S3AnswerDamage) in try S3Multipart.isComplete(answer.body) }
            return true
        }
        // Of a repetition: the first attempt has ended the upload.
        let mayBeMine = answer.isOfRepetition && (answer.status == 404 || answer.status == 412)
        if mayBeMine, try head("put", name)?.headers[S3SnapshotStore.mark] == mark { return true }
        if answer.status == 412 { return false }
        throw refusal("put", name, answer)
    }

    /// What cannot be removed now is removed at the next start.
    private func abandon(_ name: String, _ id: String) {
        do throws(SnapshotStoreError) { try remove(key(name), id) } catch { return }
    }

    private func remove(_ key: String, _ id: String) throws(SnapshotStoreError) {
        var request = S3Request(.delete, key: key)
        request.query = [("uploadId", id)]
        let answer = try call("remove an upload of", key, request)
        guard isGone(answer) else { throw refusal("remove an upload of", key, answer) }
    }

    /// Uploads whose key is in the prefix: their parts.
    package func removeLeftovers(_ prefix: String) throws(SnapshotStoreError) {
        try removeUploads(key(prefix)) { _ in true }
    }

    private func removeUploads(_ prefix: String, where isMeant: (String) -> Bool) throws(SnapshotStoreError) {
        let operation = "remove unfinished uploads of"
        var next: S3UploadsPage.Upload?
        for _ in 0..<S3Limits.pagesMax {
            var request = S3Request(.get)
            request.query = [("uploads", ""), ("prefix", prefix)]
            if let next {
                request.query += [("key-marker", next.key)]
                if !next.id.isEmpty { request.query += [("upload-id-marker", next.id)] }
            }
            let answer = try call(operation, prefix, request)
            // A server without uploads has none that are unfinished.
            if answer.status == 501 { return }
            guard answer.status == 200 else { throw refusal(operation, prefix, answer) }
            let page = try readable(operation, prefix) { () throws(S3AnswerDamage) in try S3UploadsPage(answer.body) }
            for upload in page.uploads where upload.key.hasPrefix(prefix) && isMeant(upload.key) {
                try remove(upload.key, upload.id)
            }
            next = page.next
            if next == nil { return }
        }
        throw failure(operation, prefix, "there are more than \(S3Limits.pagesMax) pages", isTransient: false)
    }
}
