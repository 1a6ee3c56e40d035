// An entry in a memtable's arena.
//
//    0  u32 key size │ 4 u32 value size │ 8 u32 value capacity │ 12 u8 kind │ 13 u8 pieces follow │ 16 u64 expiry │ 24 key ‖ value
//
// The value may shrink and grow within its capacity. The key never changes and the slot is never reused, so nodes may point
// at the key of an entry that was replaced.
//
// A value that grows by appends beyond its capacity goes on in pieces, each half as large again as the one before: nothing is
// copied and little is left unused. The capacity's place then holds the reference of the last piece, and the last piece leads
// to the first, so that both ends are at hand.
//
//    piece   0 u32 next │ 4 u32 size │ 8 u32 capacity │ 12 bytes

internal import CisternPrimitives

@safe struct MemtableEntry {
    static let headerBytes = 24

    let base: UnsafeMutableRawPointer

    @inline(__always)
    init(_ base: UnsafeMutableRawPointer) { unsafe self.base = unsafe base }

    @inline(__always) var keyCount: Int { unsafe Int(base.load(as: UInt32.self)) }
    @inline(__always) var keyBase: UnsafeRawPointer { unsafe UnsafeRawPointer(base + MemtableEntry.headerBytes) }
    @inline(__always) var key: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: keyBase, count: keyCount) }

    @inline(__always) var valueCount: Int {
        get { unsafe Int(base.load(fromByteOffset: 4, as: UInt32.self)) }
        nonmutating set { unsafe base.storeBytes(of: UInt32(newValue), toByteOffset: 4, as: UInt32.self) }
    }
    /// Of the part beside the key; what pieces hold does not count.
    @inline(__always) var valueCapacity: Int {
        hasPieces ? valueCount : unsafe Int(base.load(fromByteOffset: 8, as: UInt32.self))
    }
    @inline(__always) var hasPieces: Bool { unsafe base.load(fromByteOffset: 13, as: UInt8.self) != 0 }
    @inline(__always) var valueBase: UnsafeMutableRawPointer { unsafe base + (MemtableEntry.headerBytes &+ keyCount) }
    @inline(__always) var value: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: valueBase, count: valueCount)
    }

    @inline(__always) var kind: EntryKind {
        get { unsafe EntryKind(rawValue: base.load(fromByteOffset: 12, as: UInt8.self))! }
        nonmutating set { unsafe base.storeBytes(of: newValue.rawValue, toByteOffset: 12, as: UInt8.self) }
    }
    @inline(__always) var expiry: Expiry {
        get { unsafe Expiry(rawValue: base.load(fromByteOffset: 16, as: UInt64.self)) }
        nonmutating set { unsafe base.storeBytes(of: newValue.rawValue, toByteOffset: 16, as: UInt64.self) }
    }

    /// Without the bytes of pieces.
    @inline(__always) var view: EntryView { unsafe EntryView(key: key, kind: kind, expiry: expiry, value: value) }

    @inline(__always)
    func matches(_ other: UnsafeRawBufferPointer) -> Bool {
        guard keyCount == other.count, let otherBase = other.baseAddress else { return keyCount == other.count }
        return unsafe bytesAreEqual(keyBase, otherBase, count: keyCount)
    }

    /// A new entry with room for at least `valueCapacity` bytes; kind, expiry and value are the caller's to write.
    @inline(__always)
    static func make(_ key: UnsafeRawBufferPointer, valueCapacity: Int, in arena: inout Arena) -> (
        UInt32, MemtableEntry
    ) {
        let size = headerBytes &+ key.count &+ valueCapacity
        let (reference, address) = unsafe arena.allocate(size)
        // The allocation is rounded up: what is left over belongs to the value.
        let slack = (0 &- size) & (Arena.granuleBytes &- 1)
        let entry = unsafe MemtableEntry(address)
        unsafe entry.initialize(key: key, valueCapacity: valueCapacity &+ slack)
        return (reference, entry)
    }

    /// Writes a whole entry into fresh memory of `headerBytes + key + capacity` bytes.
    @inline(__always)
    func initialize(key: UnsafeRawBufferPointer, valueCapacity: Int) {
        unsafe base.storeBytes(of: UInt32(key.count), as: UInt32.self)
        unsafe base.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
        unsafe base.storeBytes(of: UInt32(valueCapacity), toByteOffset: 8, as: UInt32.self)
        unsafe base.storeBytes(of: 0, toByteOffset: 12, as: UInt32.self)
        if let source = key.baseAddress, key.count > 0 {
            unsafe (base + MemtableEntry.headerBytes).copyMemory(from: source, byteCount: key.count)
        }
    }

    /// The value ends with what is beside the key again.
    @inline(__always)
    func dropPieces() {
        guard hasPieces else { return }
        unsafe base.storeBytes(of: UInt32(valueCount), toByteOffset: 8, as: UInt32.self)
        unsafe base.storeBytes(of: 0, toByteOffset: 13, as: UInt8.self)
    }

    /// Adds bytes behind all that is there, in place or in a piece.
    /// - Precondition: the value together stays below 4 GiB.
    func append(_ bytes: UnsafeRawBufferPointer, in arena: inout Arena) {
        if !hasPieces {
            let size = valueCount
            if bytes.count <= valueCapacity &- size { return unsafe writeValue(bytes, at: size) }
            let (reference, piece) = ValuePiece.make(max(bytes.count, size), in: &arena)
            piece.next = reference
            unsafe piece.append(bytes)
            lastPiece = reference
            unsafe base.storeBytes(of: 1, toByteOffset: 13, as: UInt8.self)
            return
        }
        let last = unsafe ValuePiece(arena.address(lastPiece))
        if bytes.count <= last.capacity &- last.count { return unsafe last.append(bytes) }
        let wanted = min(last.capacity &+ last.capacity / 2, ValuePiece.grownBytesMax)
        let (reference, piece) = ValuePiece.make(max(bytes.count, wanted), in: &arena)
        piece.next = last.next
        last.next = reference
        unsafe piece.append(bytes)
        lastPiece = reference
    }

    /// - Precondition: there are pieces.
    @inline(__always) private var lastPiece: UInt32 {
        get { unsafe base.load(fromByteOffset: 8, as: UInt32.self) }
        nonmutating set { unsafe base.storeBytes(of: newValue, toByteOffset: 8, as: UInt32.self) }
    }

    /// Visits the parts of the value in their order.
    @inline(__always)
    func forEachPart(in view: ArenaView, _ visit: (UnsafeRawBufferPointer) -> Void) {
        unsafe visit(value)
        guard hasPieces else { return }
        let last = lastPiece
        var reference = last
        repeat {
            reference = unsafe ValuePiece(view.address(reference)).next
            unsafe visit(ValuePiece(view.address(reference)).bytes)
        } while reference != last
    }

    /// Of the whole value.
    func wholeValueCount(in view: ArenaView) -> Int {
        var count = 0
        unsafe forEachPart(in: view) { count += $0.count }
        return count
    }

    /// Writes `bytes` at `offset` of the value, which then ends behind them.
    @inline(__always)
    func writeValue(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        if let source = bytes.baseAddress, bytes.count > 0 {
            unsafe (valueBase + offset).copyMemory(from: source, byteCount: bytes.count)
        }
        valueCount = offset &+ bytes.count
    }
}

/// A further part of a value that appends made.
@safe struct ValuePiece {
    static let headerBytes = 12
    /// Pieces grow up to this size unless one append is longer.
    static let grownBytesMax = 64 << 10

    private let base: UnsafeMutableRawPointer

    @inline(__always)
    init(_ base: UnsafeMutableRawPointer) { unsafe self.base = unsafe base }

    static func make(_ capacity: Int, in arena: inout Arena) -> (UInt32, ValuePiece) {
        // All of the rounded allocation belongs to the piece.
        let size = (headerBytes + capacity + Arena.granuleBytes - 1) & ~(Arena.granuleBytes - 1)
        let (reference, address) = unsafe arena.allocate(size)
        unsafe address.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
        unsafe address.storeBytes(of: UInt32(size - headerBytes), toByteOffset: 8, as: UInt32.self)
        return unsafe (reference, ValuePiece(address))
    }

    @inline(__always) var next: UInt32 {
        get { unsafe base.load(as: UInt32.self) }
        nonmutating set { unsafe base.storeBytes(of: newValue, as: UInt32.self) }
    }
    @inline(__always) var count: Int { unsafe Int(base.load(fromByteOffset: 4, as: UInt32.self)) }
    @inline(__always) var capacity: Int { unsafe Int(base.load(fromByteOffset: 8, as: UInt32.self)) }
    @inline(__always) var bytes: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: base + ValuePiece.headerBytes, count: count)
    }

    /// - Precondition: the capacity suffices.
    @inline(__always)
    func append(_ bytes: UnsafeRawBufferPointer) {
        let size = count
        if let source = bytes.baseAddress, bytes.count > 0 {
            unsafe (base + (ValuePiece.headerBytes &+ size)).copyMemory(from: source, byteCount: bytes.count)
        }
        unsafe base.storeBytes(of: UInt32(size &+ bytes.count), toByteOffset: 4, as: UInt32.self)
    }
}
