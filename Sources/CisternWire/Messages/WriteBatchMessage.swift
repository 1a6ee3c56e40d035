// WRITE_BATCH (0x40): the hot message of writing. proto-spec/cistern/data.proto is the layout, proto-spec/wire.md the rules.
//
// Decoding gives a view of the columns where they lie in the frame; encoding collects columns and copies them once.
// Bytes are those of the generated encoder.

package import CisternPrimitives

/// A batch as it lies in a frame: valid as long as the frame's bytes are.
@safe package struct WriteBatchMessage {
    package let epoch: UInt64
    package let sequence: UInt64
    package let watermark: UInt64
    package let columns: EntryColumns

    static let name: StaticString = "WriteBatch"

    package static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> WriteBatchMessage {
        var epoch: UInt64 = 0
        var sequence: UInt64 = 0
        var watermark: UInt64 = 0
        var keyEnds = unsafe noBytes
        var valueEnds = unsafe noBytes
        var kinds = unsafe noBytes
        var expiries = unsafe noBytes
        var keys = unsafe noBytes
        var values = unsafe noBytes
        var fields = unsafe FieldReader(body, message: name)
        while try fields.next() {
            switch fields.number {
            case 1: epoch = try fields.fixed64()
            case 2: sequence = try fields.fixed64()
            case 3: watermark = try fields.fixed64()
            case 4: unsafe try fields.packed(elementSize: 4, into: &keyEnds)
            case 5: unsafe try fields.packed(elementSize: 4, into: &valueEnds)
            case 6: unsafe kinds = unsafe try fields.bytes()
            case 7: unsafe try fields.packed(elementSize: 8, into: &expiries)
            case 8: unsafe keys = unsafe try fields.bytes()
            case 9: unsafe values = unsafe try fields.bytes()
            default: break  // A field of a newer version.
            }
        }
        guard
            let columns = unsafe EntryColumns(
                keyEnds: keyEnds, valueEnds: valueEnds, kinds: kinds, expiries: expiries, keys: keys, values: values)
        else {
            throw fields.malformed(
                "the columns do not fit together: every entry has a key end, a value end and a kind of 1 to 3, ends "
                    + "ascend to the size of their column, and expiries are one an entry or none")
        }
        try checkLimits(columns)
        return WriteBatchMessage(epoch: epoch, sequence: sequence, watermark: watermark, columns: columns)
    }

    private static func checkLimits(_ columns: EntryColumns) throws(WireError) {
        func check(_ found: Int, _ limit: String, _ max: Int) throws(WireError) {
            guard found <= max else {
                throw .limitExceeded(message: "\(name)", limit: limit, max: max, found: found)
            }
        }
        try check(columns.count, "batchEntriesMax", WireLimits.batchEntriesMax)
        try check(unsafe longestSlice(columns.keyEnds), "keyBytesMax", WireLimits.keyBytesMax)
        if unsafe columns.values.count > WireLimits.valueBytesMax {
            try check(unsafe longestSlice(columns.valueEnds), "valueBytesMax", WireLimits.valueBytesMax)
        }
        if columns.count > 1 {
            let size = unsafe columns.keys.count + columns.values.count
            try check(size, "batchBytesMax", WireLimits.batchBytesMax)
        }
    }

    /// - Precondition: the ends are monotonic.
    private static func longestSlice(_ ends: UnsafeRawBufferPointer) -> Int {
        var previous: UInt32 = 0
        var longest: UInt32 = 0
        for index in 0..<(ends.count / 4) {
            let end = unsafe loadUInt32(ends, index)
            longest = max(longest, end &- previous)
            previous = end
        }
        return Int(longest)
    }
}

/// Collects the entries of one batch. Keep it and `reset()` it: its memory is reused.
///
/// Limits are the caller's: it splits its buffer into batches before it encodes them.
package struct WriteBatchEncoder: ~Copyable {
    package private(set) var count = 0
    private var keyEnds = ColumnBuffer(capacity: 4096)
    private var valueEnds = ColumnBuffer(capacity: 4096)
    private var kinds = ColumnBuffer(capacity: 1024)
    private var expiries = ExpiryColumn(capacity: 64)
    private var keys = ColumnBuffer(capacity: 16 << 10)
    private var values = ColumnBuffer(capacity: 64 << 10)

    package init() {}

    /// Bytes of keys and values so far: what `batchBytesMax` counts.
    package var contentBytes: Int { keys.count + values.count }

    package mutating func reset() {
        count = 0
        keyEnds.reset()
        valueEnds.reset()
        kinds.reset()
        expiries.reset()
        keys.reset()
        values.reset()
    }

    /// Copies the entry behind those before it. Keys come in ascending order, each once.
    package mutating func append(_ entry: EntryView) {
        unsafe keys.append(entry.key)
        keyEnds.append(keys.end)
        unsafe values.append(entry.value)
        valueEnds.append(values.end)
        kinds.append(entry.kind.rawValue)
        expiries.append(entry.expiry.rawValue, index: count)
        count += 1
    }

    package func encodedSize(epoch: UInt64, sequence: UInt64, watermark: UInt64) -> Int {
        FieldSize.fixed64(epoch) + FieldSize.fixed64(sequence) + FieldSize.fixed64(watermark)
            + FieldSize.bytes(keyEnds.count) + FieldSize.bytes(valueEnds.count) + FieldSize.bytes(kinds.count)
            + FieldSize.bytes(expiries.size) + FieldSize.bytes(keys.count) + FieldSize.bytes(values.count)
    }

    /// - Precondition: `memory` has exactly `encodedSize` bytes.
    package func encode(
        epoch: UInt64, sequence: UInt64, watermark: UInt64, into memory: UnsafeMutableRawBufferPointer
    ) {
        var body = unsafe BodyWriter(memory)
        body.fixed64(1, epoch)
        body.fixed64(2, sequence)
        body.fixed64(3, watermark)
        unsafe body.bytes(4, keyEnds.bytes)
        unsafe body.bytes(5, valueEnds.bytes)
        unsafe body.bytes(6, kinds.bytes)
        unsafe body.bytes(7, expiries.bytes)
        unsafe body.bytes(8, keys.bytes)
        unsafe body.bytes(9, values.bytes)
        body.finish()
    }

    package func encode(epoch: UInt64, sequence: UInt64, watermark: UInt64) -> [UInt8] {
        unsafe makeBody(size: encodedSize(epoch: epoch, sequence: sequence, watermark: watermark)) {
            unsafe encode(epoch: epoch, sequence: sequence, watermark: watermark, into: $0)
        }
    }
}

package struct WriteBatchReplyMessage: Equatable, Sendable {
    package let sequence: UInt64

    package init(sequence: UInt64) { self.sequence = sequence }

    package static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> WriteBatchReplyMessage {
        var sequence: UInt64 = 0
        var fields = unsafe FieldReader(body, message: "WriteBatchReply")
        while try fields.next() {
            if fields.number == 1 { sequence = try fields.fixed64() }
        }
        return WriteBatchReplyMessage(sequence: sequence)
    }

    package var encodedSize: Int { FieldSize.fixed64(sequence) }

    package func encode(into memory: UnsafeMutableRawBufferPointer) {
        var body = unsafe BodyWriter(memory)
        body.fixed64(1, sequence)
        body.finish()
    }

    package func encode() -> [UInt8] { unsafe makeBody(size: encodedSize) { unsafe encode(into: $0) } }
}
