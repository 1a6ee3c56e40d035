package io.cistern.client;

/**
 * The parts of a store key (proto-spec/entries.md).
 *
 * <pre>
 *   u16 BE key group | u16 BE state | varint size, key | varint size, namespace | user key, to the end
 * </pre>
 */
public final class StoreKey {
    /** Key group and state. */
    public static final int HEAD_BYTES = 4;

    private StoreKey() {}

    public static int keyGroup(byte[] key) {
        return (key[0] & 0xFF) << 8 | key[1] & 0xFF;
    }

    public static int state(byte[] key) {
        return (key[2] & 0xFF) << 8 | key[3] & 0xFF;
    }

    /** What all keys of a state in a key group start with. */
    public static byte[] head(int keyGroup, int state) {
        return new byte[] {(byte) (keyGroup >> 8), (byte) keyGroup, (byte) (state >> 8), (byte) state};
    }

    /** The first key behind all that start with the prefix; empty when there is none. */
    public static byte[] endOfPrefix(byte[] prefix) {
        for (int i = prefix.length - 1; i >= 0; i--) {
            if (prefix[i] != (byte) 0xFF) {
                byte[] end = java.util.Arrays.copyOf(prefix, i + 1);
                end[i]++;
                return end;
            }
        }
        return new byte[0];
    }

    /** Where the sized part that starts at {@code offset} starts, behind its size. */
    public static int partStart(byte[] key, int offset) {
        int position = offset;
        while (key[position] < 0) {
            position++;
        }
        return position + 1;
    }

    /** The size of the part that starts at {@code offset}. */
    public static int partSize(byte[] key, int offset) {
        int size = 0;
        int shift = 0;
        int position = offset;
        while (true) {
            byte next = key[position++];
            size |= (next & 0x7F) << shift;
            if (next >= 0) {
                return size;
            }
            shift += 7;
        }
    }

    /** Bytes up to the user key. */
    public static int prefixLength(byte[] key) {
        int namespace = partStart(key, HEAD_BYTES) + partSize(key, HEAD_BYTES);
        return partStart(key, namespace) + partSize(key, namespace);
    }
}
