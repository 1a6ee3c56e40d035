// The fields of bodies: written into memory whose size was computed before, read from bytes that are not trusted.

internal import CisternLogProtocol
internal import CisternPrimitives
internal import CisternWire

@safe struct LogBodyWriter {
    private let base: UnsafeMutableRawPointer?
    private let capacity: Int
    private var offset = 0

    init(_ memory: UnsafeMutableRawBufferPointer) {
        unsafe base = memory.baseAddress
        capacity = memory.count
    }

    mutating func write<T: FixedWidthInteger>(_ value: T) {
        precondition(MemoryLayout<T>.size <= capacity - offset, "a body is larger than its computed size")
        unsafe base!.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
        offset += MemoryLayout<T>.size
    }

    mutating func write(_ ledger: LedgerID) { write(ledger.rawValue) }
    mutating func write(_ entry: EntryID) { write(entry.rawValue) }
    mutating func write(_ refusal: NodeRefusal?) { write(refusal?.rawValue ?? 0) }

    mutating func write(_ bytes: [UInt8]) {
        precondition(bytes.count <= capacity - offset, "a body is larger than its computed size")
        unsafe bytes.withUnsafeBytes { source in
            guard let from = source.baseAddress, source.count > 0 else { return }
            unsafe base!.advanced(by: offset).copyMemory(from: from, byteCount: source.count)
        }
        offset += bytes.count
    }

    /// Checks that the computed size was the right one.
    func finish() {
        invariant(offset == capacity, "a body of \(offset) bytes was computed otherwise")
    }
}

@safe struct LogBodyReader {
    private let message: String
    private var reader: ByteReader

    init(_ body: UnsafeRawBufferPointer, message: String) {
        self.message = message
        unsafe reader = ByteReader(body)
    }

    var remaining: Int { reader.remaining }

    mutating func integer<T: FixedWidthInteger>(_ field: String, as type: T.Type = T.self) throws(WireError) -> T {
        guard let value = reader.readInteger(as: type) else {
            throw malformed("it ends within \(field)")
        }
        return value
    }

    mutating func ledger() throws(WireError) -> LedgerID {
        let value = try integer("the ledger", as: UInt64.self)
        guard value <= LogWireLimits.ledgerIDMax else {
            throw malformed("the ledger is \(value), above \(LogWireLimits.ledgerIDMax)")
        }
        return LedgerID(value)
    }

    /// An entry that may be there.
    mutating func entry() throws(WireError) -> EntryID { try entry("the entry", from: 0) }

    /// A last add confirmed, which may be of nothing.
    mutating func lac() throws(WireError) -> EntryID { try entry("the last add confirmed", from: -1) }

    private mutating func entry(_ field: String, from least: Int64) throws(WireError) -> EntryID {
        let value = try integer(field, as: Int64.self)
        guard value >= least, value <= LogWireLimits.entryIDMax else {
            throw malformed("\(field) is \(value), outside \(least) to \(LogWireLimits.entryIDMax)")
        }
        return EntryID(value)
    }

    mutating func refusal() throws(WireError) -> NodeRefusal? {
        let value = try integer("the refusal", as: UInt8.self)
        if value == 0 { return nil }
        guard let refusal = NodeRefusal(rawValue: value) else { throw malformed("refusal \(value) is not known") }
        return refusal
    }

    /// Bits of which this version knows those of `known`.
    mutating func flags<T: FixedWidthInteger>(known: T) throws(WireError) -> T {
        let value = try integer("the flags", as: T.self)
        guard value & ~known == 0 else { throw malformed("flags \(value) are not all known") }
        return value
    }

    mutating func bytes(_ count: Int, _ field: String) throws(WireError) -> [UInt8] {
        guard let slice = unsafe reader.readBytes(count) else { throw malformed("it ends within \(field)") }
        return unsafe [UInt8](slice)
    }

    func finish() throws(WireError) {
        guard reader.isAtEnd else { throw malformed("\(reader.remaining) bytes follow its end") }
    }

    func malformed(_ detail: String) -> WireError {
        .malformed(message: message, offset: reader.offset, detail: detail)
    }

    func beyond(_ limit: String, _ max: Int, _ found: Int) -> WireError {
        .limitExceeded(message: message, limit: limit, max: max, found: found)
    }
}
