// SCAN (0x42) asks for one page of live entries, KEY_INDEX (0x43) for all keys as a stream of pages.

package import CisternPrimitives

/// A scan as it lies in a frame: valid as long as the frame's bytes are.
@safe package struct ScanMessage {
    package var epoch: UInt64 = 0
    package var watermark: UInt64 = 0
    package var start: UnsafeRawBufferPointer = unsafe noBytes
    /// Empty: to the end of the tree's range.
    package var end: UnsafeRawBufferPointer = unsafe noBytes
    /// 0: the server's limit.
    package var entriesMax: UInt32 = 0
    package var bytesMax: UInt32 = 0
    package var keysOnly = false

    package init() {}

    package static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> ScanMessage {
        var scan = ScanMessage()
        var fields = unsafe FieldReader(body, message: "Scan")
        while try fields.next() {
            switch fields.number {
            case 1: scan.epoch = try fields.fixed64()
            case 2: scan.watermark = try fields.fixed64()
            case 3: unsafe scan.start = unsafe try fields.bytes()
            case 4: unsafe scan.end = unsafe try fields.bytes()
            case 5: scan.entriesMax = try fields.fixed32()
            case 6: scan.bytesMax = try fields.fixed32()
            case 7: scan.keysOnly = try fields.bool()
            default: break  // A field of a newer version.
            }
        }
        let longest = unsafe max(scan.start.count, scan.end.count)
        // A bound may be one byte longer than a key: the successor of the longest key.
        guard longest <= WireLimits.keyBytesMax + 1 else {
            throw .limitExceeded(message: "Scan", limit: "keyBytesMax", max: WireLimits.keyBytesMax, found: longest)
        }
        return scan
    }

    package func encode() -> [UInt8] {
        let size =
            unsafe FieldSize.fixed64(epoch) + FieldSize.fixed64(watermark) + FieldSize.bytes(start.count)
            + FieldSize.bytes(end.count) + FieldSize.fixed32(entriesMax) + FieldSize.fixed32(bytesMax)
            + FieldSize.bool(keysOnly)
        return unsafe makeBody(size: size) {
            var body = unsafe BodyWriter($0)
            body.fixed64(1, epoch)
            body.fixed64(2, watermark)
            unsafe body.bytes(3, start)
            unsafe body.bytes(4, end)
            body.fixed32(5, entriesMax)
            body.fixed32(6, bytesMax)
            body.bool(7, keysOnly)
            body.finish()
        }
    }
}

/// One page of entries as it lies in a frame.
@safe package struct ScanPageMessage {
    package let count: Int
    package let keys: SliceColumn
    /// False for a page of keys only.
    package let hasValues: Bool
    /// Start of the next page; empty when this was the last.
    package let next: UnsafeRawBufferPointer
    private let values: SliceColumn
    private let expiries: UnsafeRawBufferPointer

    package static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> ScanPageMessage {
        var keyEnds = unsafe noBytes
        var valueEnds = unsafe noBytes
        var expiries = unsafe noBytes
        var keys = unsafe noBytes
        var values = unsafe noBytes
        var next = unsafe noBytes
        var fields = unsafe FieldReader(body, message: "ScanPage")
        while try fields.next() {
            switch fields.number {
            case 1: unsafe try fields.packed(elementSize: 4, into: &keyEnds)
            case 2: unsafe try fields.packed(elementSize: 4, into: &valueEnds)
            case 3: unsafe try fields.packed(elementSize: 8, into: &expiries)
            case 4: unsafe keys = unsafe try fields.bytes()
            case 5: unsafe values = unsafe try fields.bytes()
            case 6: unsafe next = unsafe try fields.bytes()
            default: break  // A field of a newer version.
            }
        }
        var longest = 0
        guard let keyColumn = unsafe SliceColumn(ends: keyEnds, blob: keys, longest: &longest),
            let valueColumn = unsafe SliceColumn(ends: valueEnds, blob: values, longest: &longest),
            valueColumn.count == 0 || valueColumn.count == keyColumn.count,
            unsafe expiries.isEmpty || expiries.count == keyColumn.count * 8
        else {
            throw fields.malformed("keys, values and expiries do not fit together")
        }
        return unsafe ScanPageMessage(
            count: keyColumn.count, keys: keyColumn, hasValues: valueColumn.count > 0, next: next, values: valueColumn,
            expiries: expiries)
    }

    /// The entry as a put; its value is empty in a page of keys only.
    /// - Precondition: `index` is in `0..<count`.
    package subscript(index: Int) -> EntryView {
        let value = unsafe hasValues ? values[index] : noBytes
        return unsafe EntryView(key: keys[index], kind: .put, expiry: expiry(index), value: value)
    }

    package func expiry(_ index: Int) -> Expiry {
        precondition(index >= 0 && index < count, "entry \(index) of \(count)")
        return Expiry(rawValue: unsafe expiries.isEmpty ? 0 : loadUInt64(expiries, index))
    }
}

/// Collects a page. Use one kind of append for a whole page.
package struct ScanPageEncoder: ~Copyable {
    package private(set) var count = 0
    private var keyEnds = ColumnBuffer(capacity: 1024)
    private var valueEnds = ColumnBuffer(capacity: 1024)
    private var expiries = ExpiryColumn(capacity: 64)
    private var keys = ColumnBuffer(capacity: 4096)
    private var values = ColumnBuffer(capacity: 4096)
    private var next: [UInt8] = []

    package init() {}

    package mutating func reset() {
        count = 0
        keyEnds.reset()
        valueEnds.reset()
        expiries.reset()
        keys.reset()
        values.reset()
        next.removeAll(keepingCapacity: true)
    }

    /// Bytes of keys and values so far.
    package var contentBytes: Int { keys.count + values.count }

    package mutating func append(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, expiry: Expiry) {
        unsafe values.append(value)
        valueEnds.append(values.end)
        unsafe appendKey(key, expiry: expiry)
    }

    /// For a page of keys only.
    package mutating func appendKey(_ key: UnsafeRawBufferPointer, expiry: Expiry) {
        unsafe keys.append(key)
        keyEnds.append(keys.end)
        expiries.append(expiry.rawValue, index: count)
        count += 1
    }

    /// Where the next page starts; empty when this is the last.
    package mutating func setNext(_ key: [UInt8]) { next = key }

    package var encodedSize: Int {
        FieldSize.bytes(keyEnds.count) + FieldSize.bytes(valueEnds.count) + FieldSize.bytes(expiries.size)
            + FieldSize.bytes(keys.count) + FieldSize.bytes(values.count) + FieldSize.bytes(next.count)
    }

    /// - Precondition: `memory` has exactly `encodedSize` bytes.
    package func encode(into memory: UnsafeMutableRawBufferPointer) {
        var body = unsafe BodyWriter(memory)
        unsafe body.bytes(1, keyEnds.bytes)
        unsafe body.bytes(2, valueEnds.bytes)
        unsafe body.bytes(3, expiries.bytes)
        unsafe body.bytes(4, keys.bytes)
        unsafe body.bytes(5, values.bytes)
        body = unsafe next.withUnsafeBytes { bytes in
            var rest = body
            unsafe rest.bytes(6, bytes)
            return rest
        }
        body.finish()
    }

    package func encode() -> [UInt8] { unsafe makeBody(size: encodedSize) { unsafe encode(into: $0) } }
}

/// A request for the whole key index as it lies in a frame.
@safe package struct KeyIndexMessage {
    package var epoch: UInt64 = 0
    package var watermark: UInt64 = 0
    /// Where to go on after a lost connection; empty: the beginning.
    package var start: UnsafeRawBufferPointer = unsafe noBytes

    package init() {}

    package static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> KeyIndexMessage {
        var request = KeyIndexMessage()
        var fields = unsafe FieldReader(body, message: "KeyIndex")
        while try fields.next() {
            switch fields.number {
            case 1: request.epoch = try fields.fixed64()
            case 2: request.watermark = try fields.fixed64()
            case 3: unsafe request.start = unsafe try fields.bytes()
            default: break  // A field of a newer version.
            }
        }
        let size = unsafe request.start.count
        guard size <= WireLimits.keyBytesMax + 1 else {
            throw .limitExceeded(message: "KeyIndex", limit: "keyBytesMax", max: WireLimits.keyBytesMax, found: size)
        }
        return request
    }

    package func encode() -> [UInt8] {
        let size = unsafe FieldSize.fixed64(epoch) + FieldSize.fixed64(watermark) + FieldSize.bytes(start.count)
        return unsafe makeBody(size: size) {
            var body = unsafe BodyWriter($0)
            body.fixed64(1, epoch)
            body.fixed64(2, watermark)
            unsafe body.bytes(3, start)
            body.finish()
        }
    }
}
