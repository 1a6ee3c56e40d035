// Writes the fields of a protobuf message into memory whose size was computed before, in the order of their numbers and
// without defaults, which is what makes the bytes equal to those of the generated encoders.

internal import CisternPrimitives

/// Sizes of fields, and the tags they start with. Field numbers are below 16, so a tag is one byte.
enum FieldSize {
    static func varint(_ value: Int) -> Int {
        // 7 bits a byte; `| 1` because 0 takes one byte as well.
        (70 - (UInt64(value) | 1).leadingZeroBitCount) / 7
    }

    static func fixed64(_ value: UInt64) -> Int { value == 0 ? 0 : 9 }
    static func fixed32(_ value: UInt32) -> Int { value == 0 ? 0 : 5 }
    static func bool(_ value: Bool) -> Int { value ? 2 : 0 }
    static func bytes(_ count: Int) -> Int { count == 0 ? 0 : 1 + varint(count) + count }
}

@safe struct BodyWriter {
    private let base: UnsafeMutableRawPointer?
    private let capacity: Int
    private var offset = 0

    init(_ memory: UnsafeMutableRawBufferPointer) {
        unsafe base = memory.baseAddress
        capacity = memory.count
    }

    mutating func fixed64(_ number: UInt8, _ value: UInt64) {
        if value == 0 { return }
        byte(number << 3 | 1)
        store(value.littleEndian)
    }

    mutating func fixed32(_ number: UInt8, _ value: UInt32) {
        if value == 0 { return }
        byte(number << 3 | 5)
        store(value.littleEndian)
    }

    mutating func bool(_ number: UInt8, _ value: Bool) {
        if !value { return }
        byte(number << 3 | 0)
        byte(1)
    }

    mutating func bytes(_ number: UInt8, _ slice: UnsafeRawBufferPointer) {
        guard let source = slice.baseAddress, slice.count > 0 else { return }
        byte(number << 3 | 2)
        var rest = slice.count
        while rest >= 0x80 {
            byte(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        byte(UInt8(truncatingIfNeeded: rest))
        precondition(slice.count <= capacity - offset, "a message is larger than its computed size")
        unsafe base!.advanced(by: offset).copyMemory(from: source, byteCount: slice.count)
        offset += slice.count
    }

    /// Checks that the computed size was the right one.
    func finish() {
        invariant(offset == capacity, "a message of \(offset) bytes was computed as \(capacity)")
    }

    private mutating func byte(_ value: UInt8) { store(value) }

    private mutating func store<T: FixedWidthInteger>(_ value: T) {
        precondition(MemoryLayout<T>.size <= capacity - offset, "a message is larger than its computed size")
        unsafe base!.storeBytes(of: value, toByteOffset: offset, as: T.self)
        offset += MemoryLayout<T>.size
    }
}

/// A body of `size` bytes, filled by `fill` through a writer that checks the size.
@inline(__always)
func makeBody(size: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) -> [UInt8] {
    unsafe [UInt8](unsafeUninitializedCapacity: size) { memory, count in
        unsafe fill(UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(memory)[..<size]))
        count = size
    }
}
