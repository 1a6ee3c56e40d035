// An entry in a memtable's arena.
//
//    0  u32 key size │ 4 u32 value size │ 8 u32 value capacity │ 12 u8 kind │ 16 u64 expiry │ 24 key ‖ value
//
// The value may shrink and grow within its capacity. The key never changes and the slot is never reused, so nodes may point
// at the key of an entry that was replaced.

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
    @inline(__always) var valueCapacity: Int { unsafe Int(base.load(fromByteOffset: 8, as: UInt32.self)) }
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

    /// Writes `bytes` at `offset` of the value, which then ends behind them.
    @inline(__always)
    func writeValue(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        if let source = bytes.baseAddress, bytes.count > 0 {
            unsafe (valueBase + offset).copyMemory(from: source, byteCount: bytes.count)
        }
        valueCount = offset &+ bytes.count
    }
}
