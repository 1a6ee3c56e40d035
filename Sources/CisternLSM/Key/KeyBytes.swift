// Byte work on store keys that memtable, tables and cursors share. Keys are ordered bytewise; the first two bytes are the
// key group, big-endian, so a window of key groups is a range of keys.

internal import CisternPrimitives

/// Bytes of a key that name its key group.
let keyGroupBytes = 2

/// The key group a store key begins with.
/// - Precondition: the key has at least `keyGroupBytes` bytes.
@inline(__always)
func keyGroup(of key: UnsafeRawBufferPointer) -> UInt16 {
    unsafe UInt16(key[0]) << 8 | UInt16(key[1])
}

/// The state a store key names behind its key group.
/// - Precondition: the key has at least `EngineLimits.keyBytesMin` bytes.
@inline(__always)
func stateNumber(of key: UnsafeRawBufferPointer) -> UInt16 {
    unsafe UInt16(key[2]) << 8 | UInt16(key[3])
}

/// The smallest key of a key group.
func firstKey(ofGroup group: UInt16) -> [UInt8] {
    [UInt8(truncatingIfNeeded: group >> 8), UInt8(truncatingIfNeeded: group)]
}

/// Equality by 8-byte words with an overlapping last word: most keys are compared once, and equal.
@inline(__always)
func bytesAreEqual(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, count: Int) -> Bool {
    guard count >= 8 else { return unsafe shortBytesAreEqual(left, right, count: count) }
    var offset = 0
    while offset &+ 8 <= count {
        if unsafe left.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            != right.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        {
            return false
        }
        offset &+= 8
    }
    return unsafe left.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
        == right.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
}

@inline(__always)
private func shortBytesAreEqual(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, count: Int) -> Bool {
    var offset = 0
    while offset < count {
        if unsafe left.load(fromByteOffset: offset, as: UInt8.self)
            != right.load(fromByteOffset: offset, as: UInt8.self)
        {
            return false
        }
        offset &+= 1
    }
    return true
}

/// Bytes two strings have in common at their start.
@inline(__always)
func commonPrefixCount(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Int {
    let limit = min(left.count, right.count)
    guard limit > 0, let a = left.baseAddress, let b = right.baseAddress else { return 0 }
    var offset = 0
    while offset &+ 8 <= limit {
        let difference =
            unsafe a.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            ^ b.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        if difference != 0 { return offset &+ UInt64(littleEndian: difference).trailingZeroBitCount / 8 }
        offset &+= 8
    }
    while offset < limit,
        unsafe a.load(fromByteOffset: offset, as: UInt8.self) == b.load(fromByteOffset: offset, as: UInt8.self)
    {
        offset &+= 1
    }
    return offset
}

/// Bytes of a key that its head has.
let keyHeadBytes = 16

/// The first 16 bytes of a key as one big-endian number, zero behind a shorter key. Different heads order as their keys do;
/// equal heads decide nothing.
@inline(__always)
func keyHead(_ key: UnsafeRawBufferPointer) -> UInt128 {
    if key.count >= 16, let base = key.baseAddress {
        let high = unsafe UInt64(bigEndian: base.loadUnaligned(as: UInt64.self))
        let low = unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        return UInt128(high) << 64 | UInt128(low)
    }
    if key.count >= 8, let base = key.baseAddress {
        let high = unsafe UInt64(bigEndian: base.loadUnaligned(as: UInt64.self))
        // The last eight bytes; those that `high` has fall off the left.
        let last = unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: key.count &- 8, as: UInt64.self))
        return UInt128(high) << 64 | UInt128(last << UInt64(8 &* (16 &- key.count)))
    }
    return unsafe shortKeyHead(key)
}

/// Eight bytes of a key as a big-endian number, zero behind its end.
@inline(__always)
func keyWord(_ key: UnsafeRawBufferPointer, at offset: Int) -> UInt64 {
    if offset &+ 8 <= key.count, let base = key.baseAddress {
        return unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    return unsafe shortKeyWord(key, at: offset)
}

private func shortKeyWord(_ key: UnsafeRawBufferPointer, at offset: Int) -> UInt64 {
    var word: UInt64 = 0
    for index in offset..<(offset + 8) { word = unsafe word << 8 | (index < key.count ? UInt64(key[index]) : 0) }
    return word
}

private func shortKeyHead(_ key: UnsafeRawBufferPointer) -> UInt128 {
    var head: UInt128 = 0
    var index = 0
    while index < 16 {
        head = unsafe head << 8 | (index < key.count ? UInt128(key[index]) : 0)
        index += 1
    }
    return head
}

/// `compareBytes` without a call, word by word: for keys that differ soon as a rule.
/// - Parameter skip: bytes at the start that are known to be equal.
@inline(__always)
func compareInPlace(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer, skip: Int = 0) -> Int {
    let limit = min(left.count, right.count)
    guard let a = left.baseAddress, let b = right.baseAddress else { return left.count &- right.count }
    var offset = skip
    while offset &+ 8 <= limit {
        let x = unsafe UInt64(bigEndian: a.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        let y = unsafe UInt64(bigEndian: b.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        if x != y { return x < y ? -1 : 1 }
        offset &+= 8
    }
    while offset < limit {
        let x = unsafe a.load(fromByteOffset: offset, as: UInt8.self)
        let y = unsafe b.load(fromByteOffset: offset, as: UInt8.self)
        if x != y { return x < y ? -1 : 1 }
        offset &+= 1
    }
    return left.count &- right.count
}

/// How many bytes of `key` are enough to be greater than `previous`, at least the key group's.
/// - Precondition: `previous < key`, so they differ inside `key`.
func separatorCount(previous: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer) -> Int {
    unsafe min(key.count, max(commonPrefixCount(previous, key) + 1, keyGroupBytes))
}
