// Checked access to columns of borrowed bytes: end offsets are proven monotonic and in bounds once, then a slice is two
// loads.

internal import CisternPrimitives

/// `count` slices of a blob, by running end offsets.
@safe package struct SliceColumn {
    package let count: Int
    let ends: UnsafeRawBufferPointer
    let blob: UnsafeRawBufferPointer

    /// nil unless the ends are monotonic and finish at the end of the blob. Also tells the longest slice.
    init?(ends: UnsafeRawBufferPointer, blob: UnsafeRawBufferPointer, longest: inout Int) {
        guard ends.count % 4 == 0, blob.count <= Int(UInt32.max) else { return nil }
        var previous: UInt32 = 0
        var widest: UInt32 = 0
        for index in 0..<(ends.count / 4) {
            let end = unsafe loadUInt32(ends, index)
            if end < previous { return nil }
            widest = max(widest, end &- previous)
            previous = end
        }
        guard Int(previous) == blob.count else { return nil }
        count = ends.count / 4
        unsafe self.ends = ends
        unsafe self.blob = blob
        longest = Int(widest)
    }

    /// - Precondition: `index` is in `0..<count`.
    package subscript(index: Int) -> UnsafeRawBufferPointer {
        precondition(index >= 0 && index < count, "slice \(index) of \(count)")
        let end = unsafe loadUInt32(ends, index)
        let start = index == 0 ? 0 : unsafe loadUInt32(ends, index - 1)
        return unsafe UnsafeRawBufferPointer(rebasing: blob[Int(start)..<Int(end)])
    }
}

@inline(__always)
func loadUInt32(_ column: UnsafeRawBufferPointer, _ index: Int) -> UInt32 {
    UInt32(littleEndian: unsafe column.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
}

@inline(__always)
func loadUInt64(_ column: UnsafeRawBufferPointer, _ index: Int) -> UInt64 {
    UInt64(littleEndian: unsafe column.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self))
}
