// The bytes of blocks that were read around the cache: immutable once filled, counted by reference.

// Unchecked: filled by the one thread that made it, before any other sees it; never written again.
@safe final class BlockMemory: @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer

    init(byteCount: Int) { unsafe bytes = .allocate(byteCount: byteCount, alignment: 16) }

    init(copying array: [UInt8]) {
        unsafe bytes = .allocate(byteCount: array.count, alignment: 16)
        unsafe bytes.copyBytes(from: array)
    }

    deinit { unsafe bytes.deallocate() }

    /// Of a block that was read with its trailer.
    var payloadBytes: Int { unsafe bytes.count - TableFormat.trailerBytes }

    func slice(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + count)])
    }
}
