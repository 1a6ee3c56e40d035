// A trained dictionary: immutable bytes under the id the server gave them. Values name the id, so a dictionary is never
// changed; training again makes another one.

/// How values of a state are compressed.
package enum Compression: Hashable, Sendable {
    case none
    case lz4
    /// Level as zstd counts them: 1 is fast, 3 zstd's default, negative ones trade size for more speed.
    case zstd(level: Int)

    package static let zstdLevelMin = -7
    package static let zstdLevelMax = 19
}

/// Dictionary bytes at a fixed address, because LZ4 states point into them.
///
/// `@unchecked Sendable`: the memory is written in `init` and read afterwards, and freed when nobody refers to it.
@safe package final class CompressionDictionary: @unchecked Sendable {
    /// LZ4 looks back 64 KiB and no further; a longer dictionary would be cut.
    package static let sizeMax = 64 * 1024

    package let id: UInt32
    package let bytes: UnsafeRawBufferPointer

    /// - Precondition: `bytes` is not empty and at most `sizeMax` long.
    package init(id: UInt32, bytes source: [UInt8]) {
        precondition(!source.isEmpty && source.count <= Self.sizeMax, "a dictionary of \(source.count) bytes")
        self.id = id
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 16)
        unsafe memory.copyBytes(from: source)
        unsafe bytes = UnsafeRawBufferPointer(memory)
    }

    deinit { unsafe bytes.deallocate() }
}
