// What a log node is asked, as the bodies of frames. proto-spec/log-wire.md is the specification.
//
//    LOG_ADD        0        8        16       24      28
//                   │ ledger │ entry  │ LAC    │ flags │ body …            flags: 1 RECOVERY
//    LOG_READ       │ ledger │ first  │ count u32 │ bytes max u32 │ flags │  flags: 1 FENCE
//    LOG_READ_LAC   │ ledger │ newer than │ flags │                         flags: 1 FENCE, 2 WAIT
//    LOG_WRITE_LAC  │ ledger │ LAC    │
//    LOG_DELETE     │ ledger │
//
// An entry's bytes are copied once: from its array into the frame, and from the frame into an array.

package import CisternLogProtocol
internal import CisternPrimitives
package import CisternWire

package enum LogRequestBody {
    static let addHeaderSize = 28

    private enum Flag {
        static let recovery: UInt32 = 1
        static let fence: UInt32 = 1
        static let wait: UInt32 = 2
    }

    package static func opcode(of request: NodeRequest) -> Opcode {
        switch request {
        case .add: .logAdd
        case .read: .logRead
        case .readLAC: .logReadLac
        case .writeLAC: .logWriteLac
        case .delete: .logDelete
        }
    }

    package static func size(of request: NodeRequest) -> Int {
        switch request {
        case .add(let add): addHeaderSize + add.body.count
        case .read: 28
        case .readLAC: 20
        case .writeLAC: 16
        case .delete: 8
        }
    }

    /// Fills memory of `size(of: request)` bytes.
    package static func encode(_ request: NodeRequest, into memory: UnsafeMutableRawBufferPointer) {
        var writer = unsafe LogBodyWriter(memory)
        writer.write(request.ledger)
        switch request {
        case .add(let add):
            writer.write(add.entry)
            writer.write(add.lac)
            writer.write(add.isRecovery ? Flag.recovery : 0)
            writer.write(add.body)
        case .read(let read):
            writer.write(read.first)
            writer.write(UInt32(read.count))
            writer.write(UInt32(min(read.bytesMax, LogWireLimits.readBytesMax)))
            writer.write(read.fence ? Flag.fence : 0)
        case .readLAC(let read):
            writer.write(read.newerThan ?? .none)
            writer.write((read.fence ? Flag.fence : 0) | (read.newerThan == nil ? 0 : Flag.wait))
        case .writeLAC(_, let lac): writer.write(lac)
        case .delete: break
        }
        writer.finish()
    }

    package static func encode(_ request: NodeRequest) -> [UInt8] {
        let size = size(of: request)
        return unsafe [UInt8](unsafeUninitializedCapacity: size) { memory, count in
            unsafe encode(
                request, into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(memory)[..<size]))
            count = size
        }
    }

    /// Decodes any bytes; nil for an opcode that asks a log node nothing.
    package static func decode(_ opcode: Opcode, _ body: UnsafeRawBufferPointer) throws(WireError) -> NodeRequest? {
        switch opcode {
        case .logAdd: unsafe try add(body)
        case .logRead: unsafe try read(body)
        case .logReadLac: unsafe try readLAC(body)
        case .logWriteLac: unsafe try writeLAC(body)
        case .logDelete: unsafe try delete(body)
        case .connection, .hello, .goAway, .ping, .attach, .detach, .registerState, .putDictionary, .getDictionary,
            .snapshot, .releaseSnapshot, .listSnapshots, .writeBatch, .multiGet, .scan, .keyIndex:
            nil
        }
    }

    private static func add(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeRequest {
        var reader = unsafe LogBodyReader(body, message: "LOG_ADD")
        let ledger = try reader.ledger()
        let entry = try reader.entry()
        let lac = try reader.lac()
        let flags = try reader.flags(known: Flag.recovery)
        guard reader.remaining <= LogWireLimits.entryBytesMax else {
            throw reader.beyond("entryBytesMax", LogWireLimits.entryBytesMax, reader.remaining)
        }
        // An entry cannot be confirmed before it is added.
        guard lac < entry else { throw reader.malformed("the last add confirmed \(lac) is not before \(entry)") }
        let bytes = try reader.bytes(reader.remaining, "the entry")
        return .add(AddRequest(ledger: ledger, entry: entry, lac: lac, body: bytes, isRecovery: flags != 0))
    }

    private static func read(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeRequest {
        var reader = unsafe LogBodyReader(body, message: "LOG_READ")
        let ledger = try reader.ledger()
        let first = try reader.entry()
        let count = Int(try reader.integer("the count", as: UInt32.self))
        let bytesMax = Int(try reader.integer("the bytes", as: UInt32.self))
        let flags = try reader.flags(known: Flag.fence)
        try reader.finish()
        guard count >= 1 else { throw reader.malformed("no entry is asked for") }
        guard count <= LogWireLimits.readEntriesMax else {
            throw reader.beyond("readEntriesMax", LogWireLimits.readEntriesMax, count)
        }
        return .read(
            ReadRequest(
                ledger: ledger, first: first, count: count, bytesMax: min(bytesMax, LogWireLimits.readBytesMax),
                fence: flags != 0))
    }

    private static func readLAC(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeRequest {
        var reader = unsafe LogBodyReader(body, message: "LOG_READ_LAC")
        let ledger = try reader.ledger()
        let newerThan = try reader.lac()
        let flags = try reader.flags(known: Flag.fence | Flag.wait)
        try reader.finish()
        return .readLAC(
            ReadLACRequest(
                ledger: ledger, fence: flags & Flag.fence != 0, newerThan: flags & Flag.wait != 0 ? newerThan : nil))
    }

    private static func writeLAC(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeRequest {
        var reader = unsafe LogBodyReader(body, message: "LOG_WRITE_LAC")
        let ledger = try reader.ledger()
        let lac = try reader.lac()
        try reader.finish()
        return .writeLAC(ledger, lac: lac)
    }

    private static func delete(_ body: UnsafeRawBufferPointer) throws(WireError) -> NodeRequest {
        var reader = unsafe LogBodyReader(body, message: "LOG_DELETE")
        let ledger = try reader.ledger()
        try reader.finish()
        return .delete(ledger)
    }
}
