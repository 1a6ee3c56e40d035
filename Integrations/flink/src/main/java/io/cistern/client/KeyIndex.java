package io.cistern.client;

import io.cistern.wire.LittleEndian;

import java.util.Arrays;

/**
 * A set of keys that keeps them whole, so that both answers are certain but for expired ones. Not thread-safe.
 *
 * <pre>
 *   slots   [ hash bits u32 | record offset + 1 u32 ]   open addressing, linear probing, deletion by shifting back
 *   arena   chunks of 1 MiB of records:  u16 key size, bit 15: expiry | u64 expiry, if bit 15 | key
 * </pre>
 */
final class KeyIndex {
    private static final int CHUNK_BITS = 20;
    private static final int CHUNK_BYTES = 1 << CHUNK_BITS;
    private static final int EXPIRES = 1 << 15;
    /** Slots looked at by each insertion in search of expired keys: enough to go round once while the table doubles. */
    private static final int SWEEP_SLOTS = 2;
    /** Offsets have 32 bits, and the table grows by doubling. */
    static final long BYTES_MAX = 2L << 30;

    private long[] slots = new long[64];
    private byte[][] chunks = new byte[0][];
    private int used = CHUNK_BYTES;
    private int count;
    private long garbageBytes;
    private int sweepCursor;

    int count() {
        return count;
    }

    long byteCount() {
        return (long) chunks.length * CHUNK_BYTES + slots.length * 8L;
    }

    boolean contains(byte[] key, int length, long hash) {
        return find(key, length, hash) >= 0;
    }

    /** @param expiry in milliseconds since 1970, 0 for never; only tells when the key may be forgotten */
    void insert(byte[] key, int length, long hash, long expiry, long now) {
        int slot = find(key, length, hash);
        if (slot >= 0) {
            if (expiryAt(offset(slots[slot])) == expiry) {
                return;
            }
            removeSlot(slot);
        }
        if ((count + 1) * 4 > slots.length * 3) {
            growSlots();
        }
        insertSlot(append(key, length, hash, expiry));
        count++;
        sweep(now);
    }

    void remove(byte[] key, int length, long hash) {
        int slot = find(key, length, hash);
        if (slot >= 0) {
            removeSlot(slot);
        }
    }

    private void removeSlot(int slot) {
        garbageBytes += recordBytes(offset(slots[slot]));
        closeHole(slot);
        count--;
        if (garbageBytes > CHUNK_BYTES && garbageBytes > (long) chunks.length * CHUNK_BYTES / 2) {
            compact();
        }
    }

    /** Expired keys are never asked for again, so nobody would notice them: each insertion looks at a few slots. */
    private void sweep(long now) {
        for (int i = 0; i < SWEEP_SLOTS; i++) {
            sweepCursor = (sweepCursor + 1) & (slots.length - 1);
            if (slots[sweepCursor] != 0) {
                long expiry = expiryAt(offset(slots[sweepCursor]));
                if (expiry != 0 && expiry <= now) {
                    removeSlot(sweepCursor);
                }
            }
        }
    }

    // Slots.

    private int home(long slot) {
        return (int) (slot >>> 32) & (slots.length - 1);
    }

    private static int offset(long slot) {
        return (int) slot - 1;
    }

    private int find(byte[] key, int length, long hash) {
        long tag = hash >>> 32;
        int mask = slots.length - 1;
        int index = (int) tag & mask;
        while (slots[index] != 0) {
            if (slots[index] >>> 32 == tag && matches(offset(slots[index]), key, length)) {
                return index;
            }
            index = (index + 1) & mask;
        }
        return -1;
    }

    private void insertSlot(long slot) {
        int mask = slots.length - 1;
        int index = home(slot);
        while (slots[index] != 0) {
            index = (index + 1) & mask;
        }
        slots[index] = slot;
    }

    private void closeHole(int index) {
        int mask = slots.length - 1;
        int hole = index;
        int next = (hole + 1) & mask;
        while (slots[next] != 0) {
            // An entry may fill the hole unless its home lies behind the hole, cyclically.
            if (((next - home(slots[next])) & mask) >= ((next - hole) & mask)) {
                slots[hole] = slots[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        slots[hole] = 0;
    }

    private void growSlots() {
        long[] old = slots;
        slots = new long[old.length * 2];
        for (long slot : old) {
            if (slot != 0) {
                insertSlot(slot);
            }
        }
    }

    // Records.

    private long append(byte[] key, int length, long hash, long expiry) {
        int bytes = 2 + (expiry == 0 ? 0 : 8) + length;
        int at = reserve(bytes);
        byte[] chunk = chunks[at >>> CHUNK_BITS];
        int local = at & (CHUNK_BYTES - 1);
        int header = length | (expiry == 0 ? 0 : EXPIRES);
        chunk[local] = (byte) header;
        chunk[local + 1] = (byte) (header >> 8);
        local += 2;
        if (expiry != 0) {
            LittleEndian.setLong(chunk, local, expiry);
            local += 8;
        }
        System.arraycopy(key, 0, chunk, local, length);
        return hash >>> 32 << 32 | (at + 1) & 0xFFFF_FFFFL;
    }

    private int reserve(int bytes) {
        if (used + bytes > CHUNK_BYTES) {
            chunks = Arrays.copyOf(chunks, chunks.length + 1);
            chunks[chunks.length - 1] = new byte[CHUNK_BYTES];
            used = 0;
        }
        int at = (chunks.length - 1) << CHUNK_BITS | used;
        used += bytes;
        return at;
    }

    private int header(int offset) {
        byte[] chunk = chunks[offset >>> CHUNK_BITS];
        int local = offset & (CHUNK_BYTES - 1);
        return chunk[local] & 0xFF | (chunk[local + 1] & 0xFF) << 8;
    }

    private int recordBytes(int offset) {
        int header = header(offset);
        return 2 + ((header & EXPIRES) != 0 ? 8 : 0) + (header & ~EXPIRES);
    }

    private long expiryAt(int offset) {
        if ((header(offset) & EXPIRES) == 0) {
            return 0;
        }
        return LittleEndian.getLong(chunks[offset >>> CHUNK_BITS], (offset & (CHUNK_BYTES - 1)) + 2);
    }

    private boolean matches(int offset, byte[] key, int length) {
        int header = header(offset);
        if ((header & ~EXPIRES) != length) {
            return false;
        }
        byte[] chunk = chunks[offset >>> CHUNK_BITS];
        int start = (offset & (CHUNK_BYTES - 1)) + 2 + ((header & EXPIRES) != 0 ? 8 : 0);
        return Arrays.equals(chunk, start, start + length, key, 0, length);
    }

    /** Copies the live records into fresh chunks. */
    private void compact() {
        byte[][] old = chunks;
        long[] kept = slots.clone();
        int[] sizes = new int[kept.length];
        for (int i = 0; i < kept.length; i++) {
            sizes[i] = kept[i] == 0 ? 0 : recordBytes(offset(kept[i]));
        }
        chunks = new byte[0][];
        used = CHUNK_BYTES;
        garbageBytes = 0;
        for (int i = 0; i < kept.length; i++) {
            if (kept[i] != 0) {
                int from = offset(kept[i]);
                int to = reserve(sizes[i]);
                System.arraycopy(old[from >>> CHUNK_BITS], from & (CHUNK_BYTES - 1), chunks[to >>> CHUNK_BITS],
                        to & (CHUNK_BYTES - 1), sizes[i]);
                slots[i] = kept[i] >>> 32 << 32 | (to + 1) & 0xFFFF_FFFFL;
            }
        }
    }
}
