package io.cistern.client;

import java.util.Arrays;

/**
 * What the worker knows of one key, and what it has yet to tell the server. Owned by the worker's thread.
 *
 * <p>{@link #value} is what a reader sees, writes under way included. When the base is not known, it holds only the appended bytes
 * that no batch has taken yet.
 */
final class Entry {
    static final byte NOTHING = 0;
    // The other kinds of what is pending are those of WriteBatch.

    /** What an entry costs beside its key and value: the object, its links, two array headers. */
    static final int OVERHEAD_BYTES = 150;

    final byte[] key;
    final long hash;
    /** The first eight bytes, so that sorting compares one number as a rule. */
    final long prefix;
    /** The map that the entry is of; null when the state is not a map. */
    final Group group;
    /** Written and never read back: forgotten when it is acknowledged. */
    final boolean isTransient;

    byte[] value = EMPTY;
    int size;
    boolean isBaseKnown;
    boolean isPresent;
    /** What the next batch says of the key. */
    byte pending = NOTHING;
    /** With a pending append: where the bytes of the next batch start. */
    int pendingFrom;
    /** proto-spec/entries.md; 0 for never. */
    long expiry;
    /**
     * {@link KnownKeys} was told of this key, has a slot that never expires for it, and unless that is shared, for no other key.
     */
    boolean isNamedAlone;
    /** Batches under way with the key, the next one included. Only entries without any are evicted. */
    int pins;

    // Links of the working set.
    boolean isVisited;
    Entry newer;
    Entry older;
    Entry chain;
    Entry groupNext;
    Entry groupPrevious;

    static final byte[] EMPTY = new byte[0];

    Entry(byte[] key, long hash, Group group, boolean isTransient) {
        this.key = key;
        this.hash = hash;
        this.group = group;
        this.isTransient = isTransient;
        this.prefix = prefix(key);
    }

    private static long prefix(byte[] key) {
        long prefix = 0;
        for (int i = 0; i < 8; i++) {
            prefix = prefix << 8 | (i < key.length ? key[i] & 0xFF : 0);
        }
        return prefix;
    }

    /** Order of keys, unsigned. */
    static int compare(Entry a, Entry b) {
        int order = Long.compareUnsigned(a.prefix, b.prefix);
        return order != 0 ? order : Arrays.compareUnsigned(a.key, b.key);
    }

    boolean hasKey(byte[] bytes, int length, long keyHash) {
        return hash == keyHash && key.length == length && Arrays.equals(key, 0, length, bytes, 0, length);
    }

    int byteCount() {
        return OVERHEAD_BYTES + key.length + value.length;
    }

    void set(byte[] bytes, int offset, int length) {
        if (value.length < length || value.length > length * 2 + 64) {
            value = new byte[length];
        }
        System.arraycopy(bytes, offset, value, 0, length);
        size = length;
    }

    void extend(byte[] bytes, int offset, int length) {
        if (size + length > value.length) {
            value = Arrays.copyOf(value, Math.max(size + length, value.length * 2));
        }
        System.arraycopy(bytes, offset, value, size, length);
        size += length;
    }

    void clear() {
        value = EMPTY;
        size = 0;
    }

    /** Bytes the next batch takes for the entry. */
    int pendingBytes() {
        return switch (pending) {
            case io.cistern.wire.WriteBatch.PUT -> key.length + size;
            case io.cistern.wire.WriteBatch.APPEND -> key.length + size - pendingFrom;
            case io.cistern.wire.WriteBatch.DELETE -> key.length;
            default -> 0;
        };
    }
}
