package io.cistern.wire;

import java.util.Arrays;

/**
 * WRITE_BATCH: columns of entries whose keys are unique and ascending. Filled with {@link #add}, encoded, cleared and filled again:
 * a worker has one. Not thread-safe.
 */
public final class WriteBatch {
    public static final byte PUT = 1;
    public static final byte DELETE = 2;
    public static final byte APPEND = 3;

    private int count;
    private int[] keyEnds = new int[256];
    private int[] valueEnds = new int[256];
    private byte[] kinds = new byte[256];
    private long[] expiries = new long[256];
    private boolean expires;
    private byte[] keys = new byte[4096];
    private byte[] values = new byte[4096];

    public int count() {
        return count;
    }

    /** Bytes of keys and values. */
    public int contentBytes() {
        return count == 0 ? 0 : keyEnds[count - 1] + valueEnds[count - 1];
    }

    /**
     * @param key greater than all keys before
     * @param expiry proto-spec/entries.md; 0 for never
     */
    public void add(byte kind, byte[] key, long expiry) {
        if (count == kinds.length) {
            grow();
        }
        int keyStart = count == 0 ? 0 : keyEnds[count - 1];
        keys = copy(key, 0, key.length, keys, keyStart);
        keyEnds[count] = keyStart + key.length;
        valueEnds[count] = count == 0 ? 0 : valueEnds[count - 1];
        kinds[count] = kind;
        expiries[count] = expiry;
        expires |= expiry != 0;
        count++;
    }

    /** Adds bytes to the value of the entry that was added last. */
    public void value(byte[] bytes, int offset, int length) {
        int start = valueEnds[count - 1];
        values = copy(bytes, offset, length, values, start);
        valueEnds[count - 1] = start + length;
    }

    /** Adds one byte to the value of the entry that was added last. */
    public void value(byte single) {
        int start = valueEnds[count - 1];
        if (start == values.length) {
            values = Arrays.copyOf(values, values.length * 2);
        }
        values[start] = single;
        valueEnds[count - 1] = start + 1;
    }

    public byte[] encode(long epoch, long sequence, long watermark) {
        return new ProtoWriter(contentBytes() + count * (expires ? 17 : 9) + 96)
                .fixed64(1, epoch).fixed64(2, sequence).fixed64(3, watermark)
                .packed32(4, keyEnds, count).packed32(5, valueEnds, count).bytes(6, kinds, 0, count)
                .packed64(7, expiries, expires ? count : 0)
                .bytes(8, keys, 0, count == 0 ? 0 : keyEnds[count - 1])
                .bytes(9, values, 0, count == 0 ? 0 : valueEnds[count - 1])
                .toByteArray();
    }

    public void clear() {
        count = 0;
        expires = false;
    }

    /** The sequence that a WRITE_BATCH was acknowledged with. */
    public static long decodeReply(byte[] body) throws WireException {
        long sequence = 0;
        ProtoReader reader = new ProtoReader(body);
        while (reader.next()) {
            switch (reader.field()) {
                case 1 -> sequence = reader.fixed64();
                default -> reader.skip();
            }
        }
        return sequence;
    }

    private void grow() {
        int size = count * 2;
        keyEnds = Arrays.copyOf(keyEnds, size);
        valueEnds = Arrays.copyOf(valueEnds, size);
        kinds = Arrays.copyOf(kinds, size);
        expiries = Arrays.copyOf(expiries, size);
    }

    private static byte[] copy(byte[] from, int offset, int length, byte[] to, int at) {
        byte[] target = at + length <= to.length ? to : Arrays.copyOf(to, Math.max(at + length, to.length * 2));
        System.arraycopy(from, offset, target, at, length);
        return target;
    }
}
