package io.cistern.client;

import io.cistern.wire.Slice;
import io.cistern.wire.WriteBatch;

/** What is stored as the value of a put: one byte that names the codec, then the value (proto-spec/value-envelope.md). */
final class ValueEnvelope {
    static final byte RAW = 0;

    private ValueEnvelope() {}

    /** Wraps a value into the entry that was added last. */
    static void seal(byte[] value, int size, WriteBatch batch) {
        batch.value(RAW);
        batch.value(value, 0, size);
    }

    /** The value in place when it is raw. */
    static Slice open(Slice stored) throws CisternException {
        if (stored.length() > 0 && stored.bytes()[stored.offset()] == RAW) {
            return new Slice(stored.bytes(), stored.offset() + 1, stored.length() - 1);
        }
        byte[] raw = open(stored.copy());
        return new Slice(raw, 0, raw.length);
    }

    static byte[] open(byte[] stored) throws CisternException {
        String found = stored.length == 0 ? "no envelope" : "codec " + stored[0];
        throw new CisternException(CisternException.Kind.REFUSED, "a value has " + found
                + ", this client reads raw values only: it was damaged, or written by a client with compression");
    }
}
