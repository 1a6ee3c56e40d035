// CRC-32C (Castagnoli), the checksum of every block, record and frame. Hardware where the CPU has it.

internal import CCisternShims

package enum CRC32C {
    /// Checksum of `bytes`, continuing from `seed` (the checksum of the bytes before it; 0 to start).
    package static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        guard let base = bytes.baseAddress else { return seed }
        return unsafe cistern_crc32c(seed, base, bytes.count)
    }

    package static func checksum(_ bytes: [UInt8], seed: UInt32 = 0) -> UInt32 {
        unsafe bytes.withUnsafeBytes { unsafe checksum($0, seed: seed) }
    }
}
