// What is stored: the kinds of entry, their expiry, and views of entries and batches that borrow their bytes.
// The same view crosses every internal border: frame → engine → log → memtable → table, so that nothing is copied twice.

/// What an entry does to its key. On disk and on the wire: never renumber.
public enum EntryKind: UInt8, Sendable {
    /// Replaces whatever was there.
    case put = 1
    /// Hides whatever was there.
    case delete = 2
    /// Adds its bytes behind the value that was there (a list's operand; the engine only concatenates).
    case append = 3
}

/// When an entry stops being visible: 0 is never. Bit 63 tells the clock: clear is processing time (wall clock of the
/// server), set is event time (the newest watermark the tree's writer sent). The low 63 bits are milliseconds.
/// On disk and on the wire: never change.
public struct Expiry: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt64

    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    public static var never: Expiry { Expiry(rawValue: 0) }
    @inlinable
    static var eventTimeBit: UInt64 { 1 << 63 }

    public static func processingTime(milliseconds: UInt64) -> Expiry { Expiry(rawValue: milliseconds & ~eventTimeBit) }
    public static func eventTime(milliseconds: UInt64) -> Expiry { Expiry(rawValue: milliseconds | eventTimeBit) }

    @inlinable
    public var isEventTime: Bool { rawValue & Expiry.eventTimeBit != 0 }
    @inlinable
    public var milliseconds: UInt64 { rawValue & ~Expiry.eventTimeBit }
}

/// The two clocks expiry is judged by, read once for a batch of operations.
public struct ExpiryClock: Hashable, Sendable {
    /// Wall clock, milliseconds since 1970.
    public var processing: UInt64
    /// Watermark, milliseconds; never goes back.
    public var event: UInt64

    public init(processing: UInt64, event: UInt64) {
        self.processing = processing
        self.event = event
    }

    /// An entry lives while the clock is before its expiry.
    @inlinable
    public func isExpired(_ expiry: Expiry) -> Bool {
        if expiry.rawValue == 0 { return false }
        return expiry.milliseconds <= (expiry.isEventTime ? event : processing)
    }
}

/// One entry, borrowed: the bytes belong to whoever handed out the view, and are valid as long as that says.
@safe package struct EntryView {
    package let key: UnsafeRawBufferPointer
    package let kind: EntryKind
    /// True for a put of a sorted file whose value lies elsewhere: `value` says where. Batches, logs and memtables have none.
    package let isPointer: Bool
    package let expiry: Expiry
    package let value: UnsafeRawBufferPointer

    @inlinable @inline(__always)
    package init(
        key: UnsafeRawBufferPointer, kind: EntryKind, isPointer: Bool = false, expiry: Expiry,
        value: UnsafeRawBufferPointer
    ) {
        unsafe self.key = key
        self.kind = kind
        self.isPointer = isPointer
        self.expiry = expiry
        unsafe self.value = value
    }
}

/// A batch of entries as columns, borrowed. `init` proves that every slice lies inside its column, so element access needs
/// no further check.
@safe package struct EntryColumns {
    package let count: Int
    /// `count` little-endian UInt32 end offsets into `keys`, not necessarily aligned; the same for `valueEnds`.
    package let keyEnds: UnsafeRawBufferPointer
    package let valueEnds: UnsafeRawBufferPointer
    /// One `EntryKind` byte an entry.
    package let kinds: UnsafeRawBufferPointer
    /// `count` little-endian UInt64, or empty when no entry expires.
    package let expiries: UnsafeRawBufferPointer
    package let keys: UnsafeRawBufferPointer
    package let values: UnsafeRawBufferPointer

    /// nil unless the columns fit together: equal counts, monotonic ends that finish at the end of their column, known kinds.
    package init?(
        keyEnds: UnsafeRawBufferPointer, valueEnds: UnsafeRawBufferPointer, kinds: UnsafeRawBufferPointer,
        expiries: UnsafeRawBufferPointer, keys: UnsafeRawBufferPointer, values: UnsafeRawBufferPointer
    ) {
        let count = kinds.count
        guard keyEnds.count == count * 4, valueEnds.count == count * 4 else { return nil }
        guard unsafe expiries.isEmpty || expiries.count == count * 8 else { return nil }
        guard unsafe endsAreMonotonic(keyEnds, count: count, columnSize: keys.count) else { return nil }
        guard unsafe endsAreMonotonic(valueEnds, count: count, columnSize: values.count) else { return nil }
        for index in 0..<count where EntryKind(rawValue: unsafe kinds[index]) == nil { return nil }
        self.count = count
        unsafe self.keyEnds = keyEnds
        unsafe self.valueEnds = valueEnds
        unsafe self.kinds = kinds
        unsafe self.expiries = expiries
        unsafe self.keys = keys
        unsafe self.values = values
    }

    /// The same entries with other expiries.
    /// - Precondition: `count` little-endian UInt64.
    package init(_ other: EntryColumns, expiries: UnsafeRawBufferPointer) {
        precondition(
            expiries.count == other.count * 8, "\(expiries.count) bytes of expiries for \(other.count) entries")
        count = other.count
        unsafe keyEnds = unsafe other.keyEnds
        unsafe valueEnds = unsafe other.valueEnds
        unsafe kinds = unsafe other.kinds
        unsafe self.expiries = expiries
        unsafe keys = unsafe other.keys
        unsafe values = unsafe other.values
    }

    /// - Precondition: `index` is in `0..<count`.
    package subscript(index: Int) -> EntryView {
        precondition(index >= 0 && index < count, "entry \(index) of \(count)")
        let expiry =
            unsafe expiries.isEmpty
            ? 0 : UInt64(littleEndian: unsafe expiries.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self))
        return unsafe EntryView(
            key: slice(keys, keyEnds, index), kind: EntryKind(rawValue: kinds[index])!,
            expiry: Expiry(rawValue: expiry), value: slice(values, valueEnds, index))
    }
}

private func endsAreMonotonic(_ ends: UnsafeRawBufferPointer, count: Int, columnSize: Int) -> Bool {
    var previous: UInt32 = 0
    for index in 0..<count {
        let end = UInt32(littleEndian: unsafe ends.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
        if end < previous { return false }
        previous = end
    }
    return Int(previous) == columnSize
}

/// The slice `index` of a column, from running end offsets that were proven monotonic and in bounds.
@inline(__always)
private func slice(
    _ column: UnsafeRawBufferPointer, _ ends: UnsafeRawBufferPointer, _ index: Int
) -> UnsafeRawBufferPointer {
    let end = UInt32(littleEndian: unsafe ends.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
    let start =
        index == 0
        ? 0 : UInt32(littleEndian: unsafe ends.loadUnaligned(fromByteOffset: index * 4 - 4, as: UInt32.self))
    return unsafe UnsafeRawBufferPointer(rebasing: column[Int(start)..<Int(end)])
}
