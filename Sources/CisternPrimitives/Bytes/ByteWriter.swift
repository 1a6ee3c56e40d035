// Append-only builder with the vocabulary of `ByteReader`, in the same order.

/// Builds little-endian records in one growing array. Reuse it with `reset()` to keep the memory.
package struct ByteWriter {
    package private(set) var bytes: [UInt8]

    package init(capacity: Int = 0) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    package var count: Int { bytes.count }

    package mutating func reset() { bytes.removeAll(keepingCapacity: true) }

    package mutating func writeUInt8(_ value: UInt8) { bytes.append(value) }

    package mutating func writeInteger<T: FixedWidthInteger>(_ value: T) {
        unsafe withUnsafeBytes(of: value.littleEndian) { unsafe bytes.append(contentsOf: $0) }
    }

    package mutating func writeVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    package mutating func writeBytes(_ slice: UnsafeRawBufferPointer) { unsafe bytes.append(contentsOf: slice) }

    package mutating func writeBytes(_ slice: some Sequence<UInt8>) { bytes.append(contentsOf: slice) }

    package mutating func writeLengthPrefixed(_ slice: UnsafeRawBufferPointer) {
        writeVarint(UInt64(slice.count))
        unsafe bytes.append(contentsOf: slice)
    }

    package mutating func writeLengthPrefixed(_ slice: [UInt8]) {
        writeVarint(UInt64(slice.count))
        bytes.append(contentsOf: slice)
    }

    /// Overwrites an integer written earlier, for lengths and checksums that are known last.
    /// - Precondition: `offset` and the integer's size lie within what was written.
    package mutating func patchInteger<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && offset + MemoryLayout<T>.size <= bytes.count, "patch outside of what was written")
        unsafe withUnsafeBytes(of: value.littleEndian) { source in
            for index in 0..<MemoryLayout<T>.size { bytes[offset + index] = unsafe source[index] }
        }
    }
}
