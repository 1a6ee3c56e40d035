// A snapshot store in a bucket of an S3 server. An object appears whole or not at all, and is there for whoever asks after its PUT was
// answered; both are S3's own promises.
//
//   put   PUT with If-None-Match: *            larger than a part: HEAD ─► begin ─► parts ─► complete with If-None-Match: *
//   get   GET of ranges of a part's size, all of the object that the first one was of (If-Match)
//
// A request that had no answer is sent again, so a server may refuse what it carried out the first time. Each put has a random mark in the
// object's metadata, which tells whose the object is that is there.
//
// Threading: any thread; calls block.

package import CisternPrimitives
package import CisternSnapshotStore
internal import Synchronization

package final class S3SnapshotStore: SnapshotStore {
    let options: S3Options
    private let client: S3Client
    /// False once the server has said that it does not know conditions on writes.
    let knowsConditions = Atomic(true)

    static let mark = "x-amz-meta-cistern-put"

    /// - Throws: when the authorities cannot be used. Nothing is sent.
    package init(
        _ options: S3Options, credentials: S3CredentialSource, time: any TimeSource
    ) throws(SnapshotStoreError) {
        self.options = options
        do throws(S3Failure) {
            client = try S3Client(options, credentials: credentials, time: time)
        } catch {
            throw SnapshotStoreError(
                operation: "open", name: "the store", location: options.location.description, reason: error.reason,
                isTransient: error.isTransient)
        }
    }

    package var location: String { options.location.description }

    package func close() { client.close() }

    // MARK: Writing

    package func put(_ name: String, _ bytes: [UInt8]) throws(SnapshotStoreError) -> Bool {
        if bytes.count > options.limits.partBytes { return try putInParts(name, bytes) }
        var request = S3Request(.put, key: key(name))
        let mark = S3SnapshotStore.makeMark()
        request.headers = [(S3SnapshotStore.mark, mark)]
        request.body = bytes
        // Without conditions it is asked first: of a namespace's objects nobody else makes one in between.
        if !knowsConditions.load(ordering: .relaxed), try head("put", name) != nil { return false }
        let answer = try callIfAbsent("put", name, request)
        switch answer.status {
        case 200...204: return true
        case 412:
            guard answer.isOfRepetition else { return false }
            return try head("put", name)?.headers[S3SnapshotStore.mark] == mark
        default: throw refusal("put", name, answer)
        }
    }

    /// Sends what must not replace an object; to a server that does not know conditions, without one.
    func callIfAbsent(
        _ operation: String, _ name: String, _ request: S3Request
    ) throws(SnapshotStoreError) -> S3Answer {
        var conditional = request
        conditional.headers.append(("if-none-match", "*"))
        if knowsConditions.load(ordering: .relaxed) {
            let answer = try call(operation, name, conditional)
            if answer.status != 501 { return answer }
            knowsConditions.store(false, ordering: .relaxed)
            if try head(operation, name) != nil {
                return S3Answer(status: 412, headers: [:], body: [], isOfRepetition: answer.isOfRepetition)
            }
        }
        return try call(operation, name, request)
    }

    package func delete(_ names: [String]) throws(SnapshotStoreError) {
        var rest = names[...]
        while let first = rest.first {
            let some = rest.prefix(S3Limits.requestsMax)
            rest = rest.dropFirst(some.count)
            let answers = try calls("delete", first, some.map { S3Request(.delete, key: key($0)) })
            for (name, answer) in zip(some, answers) where !isGone(answer) { throw refusal("delete", name, answer) }
        }
    }

    /// Of an object or an upload. A bucket that is not there is another thing.
    func isGone(_ answer: S3Answer) -> Bool {
        (200...204).contains(answer.status)
            || answer.status == 404 && S3ErrorDocument(answer.body)?.code != S3Refusal.noSuchBucket
    }

    // MARK: Reading

    package func get(_ name: String, limit: Int) throws(SnapshotStoreError) -> [UInt8]? {
        try read("get", name, from: 0, asking: UInt64(max(limit, 1))) { (total) throws(SnapshotStoreError) in
            guard total <= UInt64(limit) else {
                throw failure("get", name, "it has \(total) bytes, and \(limit) are allowed", isTransient: false)
            }
            return total
        }
    }

    package func get(_ name: String, range: Range<UInt64>) throws(SnapshotStoreError) -> [UInt8]? {
        let operation = "get bytes \(range) of"
        func end(_ total: UInt64) throws(SnapshotStoreError) -> UInt64 {
            guard range.upperBound <= total else {
                throw failure(operation, name, "it ends at byte \(total)", isTransient: false)
            }
            return range.upperBound
        }
        guard range.isEmpty else {
            return try read(operation, name, from: range.lowerBound, asking: UInt64(range.count), until: end)
        }
        // There is no way to ask for no bytes.
        guard let found = try head(operation, name) else { return nil }
        guard let total = found.headers["content-length"].flatMap({ UInt64($0) }) else {
            throw failure(operation, name, "the server does not tell its size", isTransient: false)
        }
        _ = try end(total)
        return []
    }

    /// - Parameters:
    ///   - count: how many bytes are worth asking for before the object's size is known.
    ///   - end: where to stop in an object of this size; throws when it is not as it should be.
    private func read(
        _ operation: String, _ name: String, from start: UInt64, asking count: UInt64,
        until end: (UInt64) throws(SnapshotStoreError) -> UInt64
    ) throws(SnapshotStoreError) -> [UInt8]? {
        let pieceBytes = UInt64(options.limits.partBytes)
        guard let first = try piece(operation, name, start..<(start + min(count, pieceBytes)), of: nil) else {
            return nil
        }
        let stop = try end(first.total)
        var bytes = first.bytes
        while start + UInt64(bytes.count) < stop {
            let next = start + UInt64(bytes.count)
            guard let piece = try piece(operation, name, next..<min(next + pieceBytes, stop), of: first.tag) else {
                throw failure(operation, name, "it was deleted while it was read", isTransient: true)
            }
            guard piece.total == first.total, !piece.bytes.isEmpty else {
                throw failure(operation, name, "it was changed while it was read", isTransient: true)
            }
            bytes += piece.bytes
        }
        return bytes
    }

    private struct Piece {
        let bytes: [UInt8]
        let total: UInt64
        let tag: String?
    }

    /// - Parameter tag: of the object that it must still be.
    /// - Returns: what there is of the range, nil without the object.
    private func piece(
        _ operation: String, _ name: String, _ range: Range<UInt64>, of tag: String?
    ) throws(SnapshotStoreError) -> Piece? {
        var request = S3Request(.get, key: key(name))
        request.headers = [("range", "bytes=\(range.lowerBound)-\(range.upperBound - 1)")]
        if let tag { request.headers.append(("if-match", tag)) }
        // Refusals are longer than short ranges.
        request.answerBytesMax = max(range.count, S3Refusal.documentBytesMax)
        let answer = try call(operation, name, request)
        switch answer.status {
        case 206:
            guard let found = S3ContentRange(answer.headers["content-range"] ?? ""), let bytes = found.range,
                bytes.lowerBound == range.lowerBound, bytes.count == answer.body.count,
                bytes.upperBound == min(range.upperBound, found.total)
            else {
                throw failure(
                    operation, name,
                    "the server answers with \(answer.headers["content-range"] ?? "no range") and \(answer.body.count) bytes",
                    isTransient: true)
            }
            return Piece(bytes: answer.body, total: found.total, tag: answer.headers["etag"])
        case 200:
            // All of it: the server does not know ranges, or need not split so few.
            let total = UInt64(answer.body.count)
            let bytes = range.clamped(to: 0..<total)
            return Piece(
                bytes: Array(answer.body[Int(bytes.lowerBound)..<Int(bytes.upperBound)]), total: total,
                tag: answer.headers["etag"])
        case 416:
            // Behind the end: an empty object has no range at all. Some servers do not tell how long it is.
            let total = S3ContentRange(answer.headers["content-range"] ?? "")?.total
            return Piece(bytes: [], total: min(total ?? range.lowerBound, range.lowerBound), tag: nil)
        case 404 where isGone(answer): return nil
        case 412: throw failure(operation, name, "it was changed while it was read", isTransient: true)
        default: throw refusal(operation, name, answer)
        }
    }

    /// nil without the object.
    func head(_ operation: String, _ name: String) throws(SnapshotStoreError) -> S3Answer? {
        let answer = try call(operation, name, S3Request(.head, key: key(name)))
        switch answer.status {
        case 200: return answer
        case 404: return nil
        default: throw refusal(operation, name, answer)
        }
    }

    package func list(_ prefix: String) throws(SnapshotStoreError) -> [StoredObject] {
        var objects: [StoredObject] = []
        var token: String?
        for _ in 0..<S3Limits.pagesMax {
            var request = S3Request(.get)
            request.query = [("list-type", "2"), ("prefix", key(prefix))]
            if let token { request.query.append(("continuation-token", token)) }
            let answer = try call("list", prefix, request)
            guard answer.status == 200 else { throw refusal("list", prefix, answer) }
            let page = try readable("list", prefix) { () throws(S3AnswerDamage) in try S3ListPage(answer.body) }
            for object in page.objects {
                // Others than this store may have put something there.
                guard let name = options.location.name(ofKey: object.key), StoreName.isValid(name) else { continue }
                objects.append(StoredObject(name: name, bytes: object.bytes))
            }
            guard let next = page.next else { return objects.sorted { $0.name < $1.name } }
            token = next
        }
        throw failure("list", prefix, "there are more than \(S3Limits.pagesMax) pages", isTransient: false)
    }

    // MARK: Calls

    func key(_ name: String) -> String {
        precondition(
            name.isEmpty || name.hasSuffix("/") || StoreName.isValid(name),
            "\(name) is no name of a snapshot store's object")
        return options.location.key(name)
    }

    func call(
        _ operation: String, _ name: String, _ request: S3Request
    ) throws(SnapshotStoreError) -> S3Answer { try calls(operation, name, [request])[0] }

    private func calls(
        _ operation: String, _ name: String, _ requests: [S3Request]
    ) throws(SnapshotStoreError) -> [S3Answer] {
        do throws(S3Failure) { return try client.call(requests) } catch {
            throw failure(operation, name, error.reason, isTransient: error.isTransient)
        }
    }

    func readable<Value>(
        _ operation: String, _ name: String, _ body: () throws(S3AnswerDamage) -> Value
    ) throws(SnapshotStoreError) -> Value {
        do throws(S3AnswerDamage) { return try body() } catch {
            throw failure(
                operation, name, "\(error.detail); see that \(options.endpoint) is an S3 server", isTransient: true)
        }
    }

    func failure(_ operation: String, _ name: String, _ reason: String, isTransient: Bool) -> SnapshotStoreError {
        SnapshotStoreError(
            operation: operation, name: name, location: location, reason: reason, isTransient: isTransient)
    }

    func refusal(_ operation: String, _ name: String, _ answer: S3Answer) -> SnapshotStoreError {
        let refusal = S3Refusal(answer)
        return failure(operation, name, refusal.reason(options), isTransient: refusal.isTransient)
    }

    static func makeMark() -> String {
        var random = SystemRandomNumberGenerator()
        return S3Encoding.hexadecimal((0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) })
    }
}

/// `bytes 0-9/100`, or `bytes */100` when there is nothing.
struct S3ContentRange: Equatable {
    let range: Range<UInt64>?
    let total: UInt64

    init?(_ text: String) {
        let words = text.split(separator: " ")
        guard words.count == 2, words[0] == "bytes" else { return nil }
        let parts = words[1].split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let total = UInt64(parts[1]) else { return nil }
        self.total = total
        if parts[0] == "*" {
            range = nil
            return
        }
        let ends = parts[0].split(separator: "-", omittingEmptySubsequences: false).map { UInt64($0) }
        guard ends.count == 2, let first = ends[0], let last = ends[1], first <= last, last < total else { return nil }
        range = first..<(last + 1)
    }
}
