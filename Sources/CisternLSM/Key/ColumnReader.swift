// A batch's columns for tight loops: base addresses taken once, no check on the way, because `EntryColumns.init` has proven
// that every slice lies in its column.

internal import CisternPrimitives

/// Valid as long as the columns it was made from.
@safe struct ColumnReader {
    private let keyEnds: UnsafeRawPointer
    private let valueEnds: UnsafeRawPointer
    private let kinds: UnsafeRawPointer
    private let expiries: UnsafeRawPointer?
    private let keys: UnsafeRawPointer
    private let values: UnsafeRawPointer

    init(_ columns: EntryColumns) {
        // Nothing is read from an empty column, so any address will do for it.
        let nowhere = unsafe UnsafeRawPointer(bitPattern: 16)!
        unsafe keyEnds = unsafe columns.keyEnds.baseAddress ?? nowhere
        unsafe valueEnds = unsafe columns.valueEnds.baseAddress ?? nowhere
        unsafe kinds = unsafe columns.kinds.baseAddress ?? nowhere
        unsafe expiries = unsafe columns.expiries.isEmpty ? nil : columns.expiries.baseAddress
        unsafe keys = unsafe columns.keys.baseAddress ?? nowhere
        unsafe values = unsafe columns.values.baseAddress ?? nowhere
    }

    @inline(__always)
    private func slice(_ column: UnsafeRawPointer, _ ends: UnsafeRawPointer, _ index: Int) -> UnsafeRawBufferPointer {
        let offset = index &* 4
        let end = unsafe UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        let start =
            index == 0
            ? 0 : unsafe UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: offset &- 4, as: UInt32.self))
        return unsafe UnsafeRawBufferPointer(start: column + Int(start), count: Int(end &- start))
    }

    // - Precondition of all: `index` is one of the batch's.

    @inline(__always)
    func key(_ index: Int) -> UnsafeRawBufferPointer { unsafe slice(keys, keyEnds, index) }

    @inline(__always)
    func value(_ index: Int) -> UnsafeRawBufferPointer { unsafe slice(values, valueEnds, index) }

    @inline(__always)
    func kind(_ index: Int) -> EntryKind {
        unsafe EntryKind(rawValue: kinds.load(fromByteOffset: index, as: UInt8.self))!
    }

    @inline(__always)
    func entry(_ index: Int) -> EntryView {
        var expiry: UInt64 = 0
        if let expiries = unsafe expiries {
            expiry = unsafe UInt64(littleEndian: expiries.loadUnaligned(fromByteOffset: index &* 8, as: UInt64.self))
        }
        return unsafe EntryView(
            key: key(index), kind: kind(index), expiry: Expiry(rawValue: expiry), value: value(index))
    }
}
