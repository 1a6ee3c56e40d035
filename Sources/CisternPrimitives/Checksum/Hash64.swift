// The one 64-bit key hash: filters, key index, key groups of Swift programs. Frozen: it decides what is on disk
// (filters) and which key group a key lives in. Definition and vectors: proto-spec/hash64.md.
//
// The construction is the folded 64 × 64 → 128-bit multiply of the wyhash family: 16 bytes a step, the last 16 bytes
// read again when the length is not a multiple of 16.

package enum Hash64 {
    @usableFromInline static let k0: UInt64 = 0x9E37_79B9_7F4A_7C15
    @usableFromInline static let k1: UInt64 = 0xA076_1D64_78BD_642F
    @usableFromInline static let k2: UInt64 = 0xE703_7ED1_A0B4_28DB
    @usableFromInline static let k3: UInt64 = 0x8EBC_6AF0_9C88_C6E3

    @inlinable @inline(__always)
    static func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let (high, low) = a.multipliedFullWidth(by: b)
        return high ^ low
    }

    @inlinable @inline(__always)
    static func load64(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        UInt64(littleEndian: unsafe base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    @inlinable @inline(__always)
    static func load32(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        UInt64(UInt32(littleEndian: unsafe base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
    }

    @inlinable
    package static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        unsafe hash(bytes, k1, k2, k3)
    }

    package static func hash(_ bytes: [UInt8]) -> UInt64 {
        unsafe bytes.withUnsafeBytes { unsafe hash($0) }
    }

    /// The same construction under a secret: who does not know it cannot choose keys that collide. For tables in memory; never
    /// on disk or on the wire.
    @inlinable
    package static func hash(_ bytes: UnsafeRawBufferPointer, secret: UInt64) -> UInt64 {
        // A word equal to a factor would make a product 0 whatever the other word is: the secret hides the factors.
        unsafe hash(bytes, k1 ^ secret, k2 ^ secret, k3 ^ secret)
    }

    @inlinable @inline(__always)
    static func hash(_ bytes: UnsafeRawBufferPointer, _ k1: UInt64, _ k2: UInt64, _ k3: UInt64) -> UInt64 {
        let count = bytes.count
        var seed = k0 ^ fold(UInt64(count) ^ k1, k2)
        guard count > 0, let base = bytes.baseAddress else { return fold(seed ^ k3, k1) }
        let a: UInt64
        let b: UInt64
        if count >= 16 {
            var offset = 0
            // The last step always covers the final 16 bytes, so the loop stops before it.
            while offset + 16 < count {
                seed = unsafe fold(load64(base, offset) ^ k1, load64(base, offset + 8) ^ seed)
                offset += 16
            }
            a = unsafe load64(base, count - 16)
            b = unsafe load64(base, count - 8)
        } else if count >= 8 {
            a = unsafe load64(base, 0)
            b = unsafe load64(base, count - 8)
        } else if count >= 4 {
            a = unsafe load32(base, 0)
            b = unsafe load32(base, count - 4)
        } else {
            a = UInt64(unsafe bytes[0]) << 16 | UInt64(unsafe bytes[count >> 1]) << 8 | UInt64(unsafe bytes[count - 1])
            b = 0
        }
        return fold(fold(a ^ k1, b ^ seed) ^ UInt64(count), k3)
    }
}
