package io.cistern.client;

/**
 * Which keys may exist on the server, as 64-bit hashes: 10 to 13 bytes a key, 16 to 19 with a time to live. "Absent" is certain; "may
 * exist" may be said of a key that does not. Not thread-safe.
 *
 * <p>Two keys of one hash cannot be told apart, so forgetting one could make the other one seem absent. Hence a slot is forgotten only
 * when it is provably one key's: {@link #add} of a hash that is there already makes the slot <em>shared</em>, and a shared one stays until
 * the keys are loaded anew, or until its expiry, which is the latest that any of its keys was added with. What stays although its key is
 * gone is counted in {@link #garbage}, so that the owner knows when to load anew.
 *
 * <pre>
 *   256 segments by the hash's upper bits, each growing by itself, so that a growing index never doubles:
 *   slots    [ hash u64, lowest bit: shared ]   open addressing, linear probing, deletion by shifting back; 0 is empty
 *   expiries [ seconds since 1970 u32, 0 never ]  a column that exists from the first expiry on
 * </pre>
 */
final class KeyFingerprints {
    private static final int SEGMENT_BITS = 8;
    private static final int SEGMENT_SLOTS_MIN = 16;
    private static final long SHARED = 1;
    /** Load at which a segment grows by a quarter. */
    private static final int LOAD_MAX_PERCENT = 80;
    /** Slots looked at by each addition in search of expired ones. */
    private static final int SWEEP_SLOTS = 2;
    private static final int SEGMENT_OVERHEAD_BYTES = 80;

    private static final class Segment {
        long[] slots = new long[SEGMENT_SLOTS_MIN];
        int[] expiries;
        int count;
        int sweepCursor;

        int home(long slot) {
            // The upper bits chose the segment: the next 32 are scaled to the segment's size.
            return (int) (((slot >>> 64 - SEGMENT_BITS - 32 & 0xFFFF_FFFFL) * slots.length) >>> 32);
        }

        int find(long hash) {
            int index = home(hash);
            while (slots[index] != 0) {
                if ((slots[index] & ~SHARED) == hash) {
                    return index;
                }
                index = next(index);
            }
            return -1;
        }

        int next(int index) {
            return index + 1 == slots.length ? 0 : index + 1;
        }

        void put(long slot, int expiry) {
            int index = home(slot);
            while (slots[index] != 0) {
                index = next(index);
            }
            slots[index] = slot;
            if (expiries != null) {
                expiries[index] = expiry;
            }
        }

        void grow() {
            long[] oldSlots = slots;
            int[] oldExpiries = expiries;
            slots = new long[oldSlots.length + oldSlots.length / 4];
            expiries = oldExpiries == null ? null : new int[slots.length];
            for (int i = 0; i < oldSlots.length; i++) {
                if (oldSlots[i] != 0) {
                    put(oldSlots[i], oldExpiries == null ? 0 : oldExpiries[i]);
                }
            }
        }

        void remove(int index) {
            int hole = index;
            int next = next(hole);
            while (slots[next] != 0) {
                // An entry may fill the hole unless its home lies behind the hole, cyclically.
                if (distance(home(slots[next]), next) >= distance(hole, next)) {
                    slots[hole] = slots[next];
                    if (expiries != null) {
                        expiries[hole] = expiries[next];
                    }
                    hole = next;
                }
                next = next(next);
            }
            slots[hole] = 0;
            count--;
        }

        private int distance(int from, int to) {
            return to >= from ? to - from : to - from + slots.length;
        }
    }

    private final Segment[] segments = new Segment[1 << SEGMENT_BITS];
    private long count;
    private long byteCount;
    private long garbage;

    /** Slots. */
    long count() {
        return count;
    }

    long byteCount() {
        return byteCount;
    }

    /** About how many slots stand for keys that are gone. */
    long garbage() {
        return garbage;
    }

    private static int segment(long hash) {
        return (int) (hash >>> 64 - SEGMENT_BITS);
    }

    /** The lowest bit says whether a slot is shared, and 0 that it is empty. */
    private static long fingerprint(long hash) {
        long fingerprint = hash & ~SHARED;
        return fingerprint == 0 ? 2 : fingerprint;
    }

    /** False is certain. */
    boolean mayContain(long hash) {
        long fingerprint = fingerprint(hash);
        Segment segment = segments[segment(fingerprint)];
        return segment != null && segment.find(fingerprint) >= 0;
    }

    /**
     * Adds a key that may have been added before.
     *
     * @param expiry in milliseconds since 1970, 0 for never: from when on the key need not be known any more
     */
    void add(long hash, long expiry, long now) {
        long fingerprint = fingerprint(hash);
        int number = segment(fingerprint);
        Segment segment = segments[number];
        if (segment == null) {
            segment = new Segment();
            segments[number] = segment;
            byteCount += SEGMENT_OVERHEAD_BYTES + bytes(segment);
        }
        int seconds = seconds(expiry);
        if (seconds != 0 && segment.expiries == null) {
            segment.expiries = new int[segment.slots.length];
            byteCount += 4L * segment.slots.length;
        }
        int index = segment.find(fingerprint);
        if (index >= 0) {
            segment.slots[index] |= SHARED;
            if (segment.expiries != null) {
                segment.expiries[index] = later(segment.expiries[index], seconds);
            }
        } else {
            if ((segment.count + 1L) * 100 > (long) segment.slots.length * LOAD_MAX_PERCENT) {
                byteCount -= bytes(segment);
                segment.grow();
                byteCount += bytes(segment);
            }
            segment.put(fingerprint, seconds);
            segment.count++;
            count++;
        }
        sweep(segment, now);
    }

    /** Forgets a key of which it is certain that it was added, that it was added without an expiry, and that it is gone. */
    void remove(long hash) {
        long fingerprint = fingerprint(hash);
        Segment segment = segments[segment(fingerprint)];
        int index = segment == null ? -1 : segment.find(fingerprint);
        if (index < 0) {
            return;
        }
        if (segment.slots[index] == fingerprint) {
            segment.remove(index);
            count--;
        } else {
            garbage++;
        }
    }

    /** A key is gone that may have been added; it cannot be forgotten. */
    void leave(long hash) {
        if (mayContain(hash)) {
            garbage++;
        }
    }

    private static long bytes(Segment segment) {
        return segment.slots.length * (segment.expiries == null ? 8L : 12L);
    }

    /** Rounded up, so that nothing is forgotten too early; what lies behind 2106 never expires. */
    private static int seconds(long expiry) {
        if (expiry <= 0) {
            return 0;
        }
        long seconds = (expiry - 1) / 1_000 + 1;
        return seconds > 0xFFFF_FFFFL ? 0 : (int) seconds;
    }

    private static int later(int a, int b) {
        return a == 0 || b == 0 ? 0 : Integer.compareUnsigned(a, b) > 0 ? a : b;
    }

    /** Expired keys are never asked for again, so nobody would notice them. */
    private void sweep(Segment segment, long now) {
        if (segment.expiries == null) {
            return;
        }
        for (int i = 0; i < SWEEP_SLOTS; i++) {
            segment.sweepCursor = segment.sweepCursor + 1 >= segment.slots.length ? 0 : segment.sweepCursor + 1;
            int index = segment.sweepCursor;
            int expiry = segment.slots[index] == 0 ? 0 : segment.expiries[index];
            if (expiry != 0 && (expiry & 0xFFFF_FFFFL) * 1_000 <= now) {
                segment.remove(index);
                count--;
                garbage = Math.max(0, garbage - 1);
            }
        }
    }
}
