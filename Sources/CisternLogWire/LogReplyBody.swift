// What a log node answers, as the bodies of frames. proto-spec/log-wire.md is the specification.
//
//    LOG_ADD        │ ledger │ entry │ refusal u8 │
//    LOG_READ       0        8       16     24         25         26          30
//                   │ ledger │ first │ LAC  │ flags u8 │ refusal  │ count u32 │ kind u8 × count │ size u32 × PRESENT │ bodies …
//    LOG_READ_LAC   │ ledger │ LAC   │ flags u8 │ refusal u8 │                                      flags: 1 FENCED
//    LOG_WRITE_LAC, LOG_DELETE: empty, the request has reached the node
//
// A kind is PRESENT, ABSENT or UNKNOWN and nothing else: a failed read can become no negative on its way.

package import CisternLogProtocol
internal import CisternPrimitives
package import CisternWire

package enum LogReplyBody {
    static let readHeaderSize = 30

    private static let fenced: UInt8 = 1

    /// On the wire: never renumber.
    private enum Kind: UInt8 {
        case present = 1
        case absent = 2
        case unknown = 3

        init(_ answer: EntryAnswer) {
            switch answer {
            case .present: self = .present
            case .absent: self = .absent
            case .unknown: self = .unknown
            }
        }
    }

    package static func opcode(of reply: NodeReply) -> Opcode {
        switch reply {
        case .add: .logAdd
        case .read: .logRead
        case .lac: .logReadLac
        }
    }

    package static func size(of reply: NodeReply) -> Int {
        switch reply {
        case .add: 17
        case .lac: 18
        case .read(let read):
            read.answers.reduce(into: readHeaderSize + read.answers.count) { size, answer in
                if case .present(let body) = answer { size += 4 + body.count }
            }
        }
    }

    /// Fills memory of `size(of: reply)` bytes.
    package static func encode(_ reply: NodeReply, into memory: UnsafeMutableRawBufferPointer) {
        var writer = unsafe LogBodyWriter(memory)
        writer.write(reply.ledger)
        switch reply {
        case .add(let add):
            writer.write(add.entry)
            writer.write(add.refusal)
        case .lac(let answer):
            writer.write(answer.lac)
            writer.write(answer.isFenced ? fenced : 0)
            writer.write(answer.refusal)
        case .read(let read): encode(read, into: &writer)
        }
        writer.finish()
    }

    private static func encode(_ read: ReadReply, into writer: inout LogBodyWriter) {
        writer.write(read.first)
        writer.write(read.lac)
        writer.write(read.isFenced ? fenced : 0)
        writer.write(read.refusal)
        writer.write(UInt32(read.answers.count))
        for answer in read.answers { writer.write(Kind(answer).rawValue) }
        for case .present(let body) in read.answers { writer.write(UInt32(body.count)) }
        for case .present(let body) in read.answers { writer.write(body) }
    }

    package static func encode(_ reply: NodeReply) -> [UInt8] {
        let size = size(of: reply)
        return unsafe [UInt8](unsafeUninitializedCapacity: size) { memory, count in
            unsafe encode(
                reply, into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(memory)[..<size]))
            count = size
        }
    }

    /// Decodes any bytes as the answer to a request of `opcode`; nil for one that has no answer.
    package static func decode(_ opcode: Opcode, _ body: UnsafeRawBufferPointer) throws(WireError) -> NodeReply? {
        switch opcode {
        case .logAdd: unsafe try add(body)
        case .logRead: unsafe try read(body)
        case .logReadLac: unsafe try readLAC(body)
        case .logWriteLac, .logDelete, .connection, .hello, .goAway, .ping, .attach, .detach, .registerState,
            .putDictionary, .getDictionary, .snapshot, .releaseSnapshot, .listSnapshots, .writeBatch, .multiGet,
            .scan, .keyIndex:
            nil
        }
    }

    private static func add(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeReply {
        var reader = unsafe LogBodyReader(body, message: "the answer to LOG_ADD")
        let ledger = try reader.ledger()
        let entry = try reader.entry()
        let refusal = try reader.refusal()
        try reader.finish()
        return .add(AddReply(ledger: ledger, entry: entry, refusal: refusal))
    }

    private static func readLAC(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeReply {
        var reader = unsafe LogBodyReader(body, message: "the answer to LOG_READ_LAC")
        let ledger = try reader.ledger()
        let lac = try reader.lac()
        let flags = try reader.flags(known: fenced)
        let refusal = try reader.refusal()
        try reader.finish()
        return .lac(ReadLACReply(ledger: ledger, lac: lac, isFenced: flags != 0, refusal: refusal))
    }

    private static func read(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeReply {
        var reader = unsafe LogBodyReader(body, message: "the answer to LOG_READ")
        let ledger = try reader.ledger()
        let first = try reader.entry()
        let lac = try reader.lac()
        let flags = try reader.flags(known: fenced)
        let refusal = try reader.refusal()
        let count = Int(try reader.integer("the count", as: UInt32.self))
        guard count <= LogWireLimits.readEntriesMax else {
            throw reader.beyond("readEntriesMax", LogWireLimits.readEntriesMax, count)
        }
        if count > 0, let refusal { throw reader.malformed("it is refused (\(refusal)) and answers \(count) entries") }
        let answers = try answers(count, &reader)
        try reader.finish()
        return .read(
            ReadReply(
                ledger: ledger, first: first, answers: answers, lac: lac, isFenced: flags != 0, refusal: refusal))
    }

    private static func answers(_ count: Int, _ reader: inout LogBodyReader) throws(WireError) -> [EntryAnswer] {
        let kinds = try reader.bytes(count, "the kinds")
        var sizes: [Int] = []
        for kind in kinds {
            guard let kind = Kind(rawValue: kind) else { throw reader.malformed("kind \(kind) is none of 1 to 3") }
            guard kind == .present else { continue }
            let size = Int(try reader.integer("the sizes", as: UInt32.self))
            guard size <= LogWireLimits.entryBytesMax else {
                throw reader.beyond("entryBytesMax", LogWireLimits.entryBytesMax, size)
            }
            sizes.append(size)
        }
        var answers: [EntryAnswer] = []
        answers.reserveCapacity(count)
        var present = 0
        for kind in kinds {
            switch Kind(rawValue: kind) {
            case .present:
                answers.append(.present(try reader.bytes(sizes[present], "an entry")))
                present += 1
            case .absent: answers.append(.absent)
            // Kinds were checked above.
            case .unknown, nil: answers.append(.unknown)
            }
        }
        return answers
    }
}
