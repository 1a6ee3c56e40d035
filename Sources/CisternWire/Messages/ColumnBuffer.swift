// Growing memory of one column while a message is built. Appending is a bound check and a copy: an array's generic append
// costs several times the copy of a 24-byte key.

internal import CisternPrimitives

@safe struct ColumnBuffer: ~Copyable {
    private var base: UnsafeMutableRawPointer
    private var capacity: Int
    private(set) var count = 0

    /// A column is addressed by 32-bit ends.
    static let bytesMax = Int(UInt32.max)

    init(capacity: Int) {
        self.capacity = max(capacity, 64)
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: self.capacity, alignment: 16)
    }

    deinit { unsafe base.deallocate() }

    /// Valid until the next mutation.
    var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: base, count: count) }

    mutating func reset() { count = 0 }

    @inline(__always)
    mutating func append(_ slice: UnsafeRawBufferPointer) {
        let size = slice.count
        if size == 0 { return }
        if size > capacity - count { grow(by: size) }
        unsafe base.advanced(by: count).copyMemory(from: slice.baseAddress!, byteCount: size)
        count += size
    }

    @inline(__always)
    mutating func append<T: FixedWidthInteger>(_ value: T) {
        if MemoryLayout<T>.size > capacity - count { grow(by: MemoryLayout<T>.size) }
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: count, as: T.self)
        count += MemoryLayout<T>.size
    }

    mutating func appendZeros(_ size: Int) {
        if size == 0 { return }
        if size > capacity - count { grow(by: size) }
        unsafe base.advanced(by: count).initializeMemory(as: UInt8.self, repeating: 0, count: size)
        count += size
    }

    /// The running end offset a column stands at.
    var end: UInt32 {
        invariant(count <= ColumnBuffer.bytesMax, "a column of \(count) bytes")
        return UInt32(truncatingIfNeeded: count)
    }

    @inline(never)
    private mutating func grow(by size: Int) {
        let larger = max(capacity * 2, count + size)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
        unsafe memory.copyMemory(from: base, byteCount: count)
        unsafe base.deallocate()
        unsafe base = memory
        capacity = larger
    }
}

/// Expiries are sent only when an entry has one; the column is filled up with zeros at the first.
struct ExpiryColumn: ~Copyable {
    private var column: ColumnBuffer

    init(capacity: Int) { column = ColumnBuffer(capacity: capacity) }

    var bytes: UnsafeRawBufferPointer { unsafe column.bytes }
    var size: Int { column.count }

    mutating func reset() { column.reset() }

    /// Adds the expiry of entry `index`.
    @inline(__always)
    mutating func append(_ expiry: UInt64, index: Int) {
        if column.count == 0 {
            if expiry == 0 { return }
            column.appendZeros(index * 8)
        }
        column.append(expiry)
    }
}
