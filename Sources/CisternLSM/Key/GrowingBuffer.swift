// Owned raw memory that grows at its end: blocks under construction, folded values, rebuilt keys. One owner, no checks of
// uniqueness on the way of an entry, and an address that stays put between growths, which an array does not promise.

internal import CisternPrimitives

/// A byte string in memory of its own.
@safe struct GrowingBuffer: ~Copyable {
    private(set) var base: UnsafeMutableRawPointer
    private(set) var count = 0
    private(set) var capacity: Int

    init(capacity: Int = 64) {
        self.capacity = max(capacity, 64)
        unsafe base = .allocate(byteCount: self.capacity, alignment: 16)
    }

    deinit { unsafe base.deallocate() }

    /// What was appended; valid until the next call that changes the buffer.
    var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: base, count: count) }

    @inline(__always)
    mutating func reset() { count = 0 }

    /// The same, giving back what is beyond so many bytes of memory.
    mutating func reset(keepingAtMost kept: Int) {
        count = 0
        if capacity <= kept { return }
        unsafe base.deallocate()
        capacity = kept
        unsafe base = .allocate(byteCount: capacity, alignment: 16)
    }

    /// - Precondition: `newCount` is at most `count`.
    @inline(__always)
    mutating func truncate(to newCount: Int) {
        invariant(newCount <= count, "a buffer of \(count) bytes cannot be cut to \(newCount)")
        count = newCount
    }

    @inline(__always)
    mutating func append(_ slice: UnsafeRawBufferPointer) {
        let size = slice.count
        if size == 0 { return }
        reserve(size)
        unsafe copyBytes(to: base + count, from: slice.baseAddress!, count: size)
        count &+= size
    }

    mutating func append(_ array: [UInt8]) { unsafe array.withUnsafeBytes { unsafe append($0) } }

    /// Lengthens the buffer by bytes that the caller writes next; what they are until then is not defined.
    @inline(__always)
    mutating func extend(by size: Int) -> UnsafeMutableRawPointer {
        reserve(size)
        let start = unsafe base + count
        count &+= size
        return unsafe start
    }

    @inline(__always)
    mutating func append(_ byte: UInt8) {
        reserve(1)
        unsafe base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count &+= 1
    }

    @inline(__always)
    mutating func appendInteger<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
        reserve(MemoryLayout<T>.size)
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: count, as: T.self)
        count &+= MemoryLayout<T>.size
    }

    /// Room for `additional` more bytes without moving.
    @inline(__always)
    mutating func reserve(_ additional: Int) {
        if count &+ additional > capacity { grow(toHold: count + additional) }
    }

    @inline(never)
    private mutating func grow(toHold size: Int) {
        let newCapacity = max(size, capacity * 2)
        let larger = UnsafeMutableRawPointer.allocate(byteCount: newCapacity, alignment: 16)
        unsafe larger.copyMemory(from: base, byteCount: count)
        unsafe base.deallocate()
        unsafe base = unsafe larger
        capacity = newCapacity
    }
}

/// Copies bytes of which there are few as a rule: in place and by overlapping words where a call would cost more than the
/// copy. The areas do not overlap.
@inline(__always)
func copyBytes(to target: UnsafeMutableRawPointer, from source: UnsafeRawPointer, count: Int) {
    if count >= 16 {
        if count > copyInlineBytesMax { return unsafe target.copyMemory(from: source, byteCount: count) }
        let last = count &- 16
        var offset = 0
        while offset < last {
            unsafe copyWord(target, source, offset, SIMD2<UInt64>.self)
            offset &+= 16
        }
        unsafe copyWord(target, source, last, SIMD2<UInt64>.self)
    } else if count >= 8 {
        unsafe copyWord(target, source, 0, UInt64.self)
        unsafe copyWord(target, source, count &- 8, UInt64.self)
    } else if count >= 4 {
        unsafe copyWord(target, source, 0, UInt32.self)
        unsafe copyWord(target, source, count &- 4, UInt32.self)
    } else {
        var offset = 0
        while offset < count {
            unsafe copyWord(target, source, offset, UInt8.self)
            offset &+= 1
        }
    }
}

/// From here on `memcpy` is faster.
private let copyInlineBytesMax = 128

@inline(__always)
private func copyWord<T: BitwiseCopyable>(
    _ target: UnsafeMutableRawPointer, _ source: UnsafeRawPointer, _ offset: Int, _ type: T.Type
) {
    unsafe target.storeBytes(
        of: source.loadUnaligned(fromByteOffset: offset, as: type), toByteOffset: offset, as: type)
}
