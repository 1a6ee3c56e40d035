package io.cistern.client;

import io.cistern.wire.LittleEndian;

/** The one 64-bit hash of keys (proto-spec/hash64.md). Frozen. */
public final class Hash64 {
    private static final long K0 = 0x9e3779b97f4a7c15L;
    private static final long K1 = 0xa0761d6478bd642fL;
    private static final long K2 = 0xe7037ed1a0b428dbL;
    private static final long K3 = 0x8ebc6af09c88c6e3L;

    private Hash64() {}

    /** Of the first {@code length} bytes. */
    public static long hash(byte[] bytes, int length) {
        return hash(bytes, 0, length);
    }

    public static long hash(byte[] bytes, int offset, int length) {
        int n = length;
        long seed = K0 ^ fold(n ^ K1, K2);
        if (n == 0) {
            return fold(seed ^ K3, K1);
        }
        long a;
        long b;
        if (n >= 16) {
            int i = 0;
            while (i + 16 < n) {
                seed = fold(u64(bytes, offset + i) ^ K1, u64(bytes, offset + i + 8) ^ seed);
                i += 16;
            }
            a = u64(bytes, offset + n - 16);
            b = u64(bytes, offset + n - 8);
        } else if (n >= 8) {
            a = u64(bytes, offset);
            b = u64(bytes, offset + n - 8);
        } else if (n >= 4) {
            a = u32(bytes, offset);
            b = u32(bytes, offset + n - 4);
        } else {
            a = (bytes[offset] & 0xFFL) << 16 | (bytes[offset + n / 2] & 0xFFL) << 8 | (bytes[offset + n - 1] & 0xFFL);
            b = 0;
        }
        return fold(fold(a ^ K1, b ^ seed) ^ n, K3);
    }

    private static long u64(byte[] bytes, int offset) {
        return LittleEndian.getLong(bytes, offset);
    }

    private static long u32(byte[] bytes, int offset) {
        return LittleEndian.getInt(bytes, offset) & 0xFFFF_FFFFL;
    }

    /** High half xor low half of the unsigned 128-bit product. */
    private static long fold(long a, long b) {
        long high = Math.multiplyHigh(a, b) + ((a >> 63) & b) + ((b >> 63) & a);
        return high ^ (a * b);
    }
}
