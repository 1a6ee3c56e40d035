// MULTI_GET (0x41): many keys in one frame, many values in the answer, in the order of the keys.

package import CisternPrimitives

/// Keys as they lie in a frame: valid as long as the frame's bytes are.
@safe package struct MultiGetMessage {
    package let epoch: UInt64
    package let watermark: UInt64
    package let keys: SliceColumn

    package static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> MultiGetMessage {
        var epoch: UInt64 = 0
        var watermark: UInt64 = 0
        var keyEnds = unsafe noBytes
        var keys = unsafe noBytes
        var fields = unsafe FieldReader(body, message: "MultiGet")
        while try fields.next() {
            switch fields.number {
            case 1: epoch = try fields.fixed64()
            case 2: watermark = try fields.fixed64()
            case 3: unsafe try fields.packed(elementSize: 4, into: &keyEnds)
            case 4: unsafe keys = unsafe try fields.bytes()
            default: break  // A field of a newer version.
            }
        }
        var longest = 0
        guard let column = unsafe SliceColumn(ends: keyEnds, blob: keys, longest: &longest) else {
            throw fields.malformed("key ends do not ascend to the size of the keys")
        }
        guard longest <= WireLimits.keyBytesMax else {
            throw .limitExceeded(
                message: "MultiGet", limit: "keyBytesMax", max: WireLimits.keyBytesMax, found: longest)
        }
        guard column.count <= WireLimits.multiGetKeysMax else {
            throw .limitExceeded(
                message: "MultiGet", limit: "multiGetKeysMax", max: WireLimits.multiGetKeysMax, found: column.count)
        }
        return MultiGetMessage(epoch: epoch, watermark: watermark, keys: column)
    }

    /// - Parameters:
    ///   - keyEnds: little-endian 32-bit running ends.
    ///   - keys: one behind the other.
    package static func encode(
        epoch: UInt64, watermark: UInt64, keyEnds: UnsafeRawBufferPointer, keys: UnsafeRawBufferPointer
    ) -> [UInt8] {
        let size =
            FieldSize.fixed64(epoch) + FieldSize.fixed64(watermark) + FieldSize.bytes(keyEnds.count)
            + FieldSize.bytes(keys.count)
        return unsafe makeBody(size: size) {
            var body = unsafe BodyWriter($0)
            body.fixed64(1, epoch)
            body.fixed64(2, watermark)
            unsafe body.bytes(3, keyEnds)
            unsafe body.bytes(4, keys)
            body.finish()
        }
    }
}

package struct MultiGetEncoder: ~Copyable {
    package private(set) var count = 0
    private var keyEnds = ColumnBuffer(capacity: 64)
    private var keys = ColumnBuffer(capacity: 1024)

    package init() {}

    package mutating func reset() {
        count = 0
        keyEnds.reset()
        keys.reset()
    }

    package mutating func append(_ key: UnsafeRawBufferPointer) {
        unsafe keys.append(key)
        keyEnds.append(keys.end)
        count += 1
    }

    package func encode(epoch: UInt64, watermark: UInt64) -> [UInt8] {
        unsafe MultiGetMessage.encode(epoch: epoch, watermark: watermark, keyEnds: keyEnds.bytes, keys: keys.bytes)
    }
}

/// Values as they lie in a frame, one for each key asked for.
@safe package struct MultiGetReplyMessage {
    package let count: Int
    /// A byte a key, 1 for one that is there.
    package let found: UnsafeRawBufferPointer
    private let column: SliceColumn
    /// Little-endian, 64 bits a key; empty when none expires.
    package let expiries: UnsafeRawBufferPointer

    /// Little-endian 32-bit running ends of `values`.
    package var valueEnds: UnsafeRawBufferPointer { unsafe column.ends }
    package var values: UnsafeRawBufferPointer { unsafe column.blob }

    package static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> MultiGetReplyMessage {
        var found = unsafe noBytes
        var valueEnds = unsafe noBytes
        var expiries = unsafe noBytes
        var values = unsafe noBytes
        var fields = unsafe FieldReader(body, message: "MultiGetReply")
        while try fields.next() {
            switch fields.number {
            case 1: unsafe found = unsafe try fields.bytes()
            case 2: unsafe try fields.packed(elementSize: 4, into: &valueEnds)
            case 3: unsafe try fields.packed(elementSize: 8, into: &expiries)
            case 4: unsafe values = unsafe try fields.bytes()
            default: break  // A field of a newer version.
            }
        }
        var longest = 0
        guard let column = unsafe SliceColumn(ends: valueEnds, blob: values, longest: &longest),
            column.count == found.count, unsafe expiries.isEmpty || expiries.count == found.count * 8
        else {
            throw fields.malformed("found, value ends and expiries do not fit together")
        }
        for index in 0..<column.count where unsafe found[index] > 1 || (found[index] == 0 && !column[index].isEmpty) {
            throw fields.malformed("key \(index) is neither absent with an empty value nor present")
        }
        return unsafe MultiGetReplyMessage(count: column.count, found: found, column: column, expiries: expiries)
    }

    /// nil for an absent key.
    /// - Precondition: `index` is in `0..<count`.
    package subscript(index: Int) -> (value: UnsafeRawBufferPointer, expiry: Expiry)? {
        precondition(index >= 0 && index < count, "value \(index) of \(count)")
        guard unsafe found[index] == 1 else { return nil }
        let expiry = unsafe expiries.isEmpty ? 0 : loadUInt64(expiries, index)
        return unsafe (column[index], Expiry(rawValue: expiry))
    }
}

/// Collects values in the order of the keys asked for.
package struct MultiGetReplyEncoder: ~Copyable {
    package private(set) var count = 0
    private var found = ColumnBuffer(capacity: 64)
    private var valueEnds = ColumnBuffer(capacity: 256)
    private var expiries = ExpiryColumn(capacity: 64)
    private var values = ColumnBuffer(capacity: 4096)

    package init() {}

    package mutating func reset() {
        count = 0
        found.reset()
        valueEnds.reset()
        expiries.reset()
        values.reset()
    }

    /// Bytes of values so far.
    package var contentBytes: Int { values.count }

    package mutating func append(value: UnsafeRawBufferPointer, expiry: Expiry) {
        unsafe values.append(value)
        add(found: 1, expiry: expiry.rawValue)
    }

    package mutating func appendAbsent() { add(found: 0, expiry: 0) }

    private mutating func add(found flag: UInt8, expiry: UInt64) {
        found.append(flag)
        valueEnds.append(values.end)
        expiries.append(expiry, index: count)
        count += 1
    }

    package var encodedSize: Int {
        FieldSize.bytes(found.count) + FieldSize.bytes(valueEnds.count) + FieldSize.bytes(expiries.size)
            + FieldSize.bytes(values.count)
    }

    /// - Precondition: `memory` has exactly `encodedSize` bytes.
    package func encode(into memory: UnsafeMutableRawBufferPointer) {
        var body = unsafe BodyWriter(memory)
        unsafe body.bytes(1, found.bytes)
        unsafe body.bytes(2, valueEnds.bytes)
        unsafe body.bytes(3, expiries.bytes)
        unsafe body.bytes(4, values.bytes)
        body.finish()
    }

    package func encode() -> [UInt8] { unsafe makeBody(size: encodedSize) { unsafe encode(into: $0) } }
}
