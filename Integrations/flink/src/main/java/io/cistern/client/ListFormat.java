package io.cistern.client;

import io.cistern.wire.LittleEndian;

import java.io.IOException;
import java.util.Arrays;

/**
 * Elements of a list, one behind the other, so that adding is an append (proto-spec/value-envelope.md).
 *
 * <pre>
 *   varint size of the envelope | u64 expiry of the element | envelope: codec u8, bytes
 * </pre>
 *
 * Flink judges the life of elements by itself: their expiry is always "never" here.
 */
public final class ListFormat {
    private static final int SIZE_BYTES_MAX = 5;

    private ListFormat() {}

    /** Bytes that {@link #frame} needs in front of an element. */
    public static final int HEAD_BYTES_MAX = SIZE_BYTES_MAX + 8 + 1;

    /**
     * Writes the head of an element of {@code length} bytes so that it ends at {@code end}; returns where it starts.
     *
     * @param end at least {@link #HEAD_BYTES_MAX}
     */
    public static int frame(byte[] buffer, int end, int length) {
        buffer[end - 1] = ValueEnvelope.RAW;
        LittleEndian.setLong(buffer, end - 9, 0);
        int envelope = length + 1;
        int bytes = 1;
        for (int rest = envelope >>> 7; rest != 0; rest >>>= 7) {
            bytes++;
        }
        int start = end - 9 - bytes;
        int rest = envelope;
        for (int i = 0; i < bytes; i++) {
            buffer[start + i] = (byte) (i == bytes - 1 ? rest : rest | 0x80);
            rest >>>= 7;
        }
        return start;
    }

    /** Called for each element with its place in the bytes. */
    public interface Visitor {
        void element(byte[] bytes, int offset, int length) throws IOException;
    }

    public static void forEach(byte[] bytes, int offset, int size, Visitor visitor) throws IOException {
        int position = offset;
        int end = offset + size;
        while (position < end) {
            int envelope = 0;
            int shift = 0;
            byte next;
            do {
                if (position == end || shift > 28) {
                    throw damaged(size);
                }
                next = bytes[position++];
                envelope |= (next & 0x7F) << shift;
                shift += 7;
            } while (next < 0);
            position += 8;
            if (envelope < 1 || envelope > end - position) {
                throw damaged(size);
            }
            if (bytes[position] == ValueEnvelope.RAW) {
                visitor.element(bytes, position + 1, envelope - 1);
            } else {
                byte[] raw = ValueEnvelope.open(Arrays.copyOfRange(bytes, position, position + envelope));
                visitor.element(raw, 0, raw.length);
            }
            position += envelope;
        }
    }

    private static CisternException damaged(int size) {
        return new CisternException(CisternException.Kind.REFUSED,
                "a list of " + size + " bytes has an element that does not end in it: it was damaged or written by an incompatible client");
    }
}
