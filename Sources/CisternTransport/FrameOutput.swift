// Frames gathered in one buffer, so that all that one read caused leaves in one write.
// Threading: owned by one connection, on its event loop.

internal import CisternWire
internal import NIOCore

struct FrameOutput {
    private let allocator: ByteBufferAllocator
    private var buffer: ByteBuffer?

    private static let capacityMin = 4096

    init(allocator: ByteBufferAllocator) { self.allocator = allocator }

    /// Bytes gathered.
    var count: Int { buffer?.readableBytes ?? 0 }

    /// Adds a frame whose body `fill` writes in place.
    mutating func append(
        _ header: FrameHeader, checksum: Bool, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        let size = header.frameSize
        // Taken out of `self` while it is changed, so that it stays uniquely referenced.
        var target = buffer ?? allocator.buffer(capacity: max(FrameOutput.capacityMin, size))
        buffer = nil
        _ = unsafe target.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { memory -> Int in
            let frame = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<size])
            unsafe fill(UnsafeMutableRawBufferPointer(rebasing: frame[FrameHeader.size...]))
            unsafe header.seal(frame, checksum: checksum)
            return size
        }
        buffer = target
    }

    mutating func append(_ header: FrameHeader, checksum: Bool, body: [UInt8]) {
        unsafe body.withUnsafeBytes { source in
            unsafe append(header, checksum: checksum) { unsafe copy(source, to: $0) }
        }
    }

    mutating func append(_ header: FrameHeader, checksum: Bool, body: UnsafeRawBufferPointer) {
        unsafe append(header, checksum: checksum) { unsafe copy(body, to: $0) }
    }

    /// What was gathered, to be written; nil when there is nothing.
    mutating func take() -> ByteBuffer? {
        defer { buffer = nil }
        return buffer
    }
}

private func copy(_ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer) {
    guard source.count > 0, let base = source.baseAddress else { return }
    unsafe target.baseAddress!.copyMemory(from: base, byteCount: source.count)
}
