package io.cistern.wire;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Walks the fields of a protobuf message. Takes any bytes: it throws {@link WireException} and never reads past the end. Unknown
 * fields are skipped by the caller with {@link #skip()}.
 *
 * <pre>{@code
 * while (reader.next()) {
 *     switch (reader.field()) {
 *         case 1 -> store = reader.string();
 *         default -> reader.skip();
 *     }
 * }
 * }</pre>
 */
public final class ProtoReader {
    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int LENGTH = 2;
    private static final int FIXED32 = 5;

    private final byte[] bytes;
    private final int end;
    private int position;
    private int field;
    private int type;

    public ProtoReader(byte[] bytes) {
        this(bytes, 0, bytes.length);
    }

    private ProtoReader(byte[] bytes, int start, int end) {
        this.bytes = bytes;
        this.position = start;
        this.end = end;
    }

    /** Goes to the next field; false at the end. The value of each field is read or skipped exactly once. */
    public boolean next() throws WireException {
        if (position == end) {
            return false;
        }
        long tag = varint();
        field = (int) (tag >>> 3);
        type = (int) (tag & 7);
        if (tag >>> 32 != 0 || field == 0) {
            throw new WireException("a message has the field tag " + tag);
        }
        return true;
    }

    public int field() {
        return field;
    }

    public long unsigned() throws WireException {
        expect(VARINT);
        return varint();
    }

    public boolean bool() throws WireException {
        return unsigned() != 0;
    }

    public long fixed64() throws WireException {
        expect(FIXED64);
        int start = advance(8);
        return LittleEndian.getLong(bytes, start);
    }

    public int fixed32() throws WireException {
        expect(FIXED32);
        int start = advance(4);
        return LittleEndian.getInt(bytes, start);
    }

    public String string() throws WireException {
        int length = length();
        int start = advance(length);
        return new String(bytes, start, length, StandardCharsets.UTF_8);
    }

    public byte[] bytes() throws WireException {
        int length = length();
        int start = advance(length);
        return Arrays.copyOfRange(bytes, start, start + length);
    }

    /** The bytes of the field in place: no copy is made. */
    public Slice slice() throws WireException {
        int length = length();
        return new Slice(bytes, advance(length), length);
    }

    public ProtoReader message() throws WireException {
        int length = length();
        int start = advance(length);
        return new ProtoReader(bytes, start, start + length);
    }

    public int[] packed32() throws WireException {
        int length = length();
        if (length % 4 != 0) {
            throw new WireException("a column of 32-bit numbers has " + length + " bytes");
        }
        int start = advance(length);
        int[] values = new int[length / 4];
        for (int i = 0; i < values.length; i++) {
            values[i] = LittleEndian.getInt(bytes, start + i * 4);
        }
        return values;
    }

    public long[] packed64() throws WireException {
        int length = length();
        if (length % 8 != 0) {
            throw new WireException("a column of 64-bit numbers has " + length + " bytes");
        }
        int start = advance(length);
        long[] values = new long[length / 8];
        for (int i = 0; i < values.length; i++) {
            values[i] = LittleEndian.getLong(bytes, start + i * 8);
        }
        return values;
    }

    public void skip() throws WireException {
        switch (type) {
            case VARINT -> varint();
            case FIXED64 -> advance(8);
            case LENGTH -> advance(length());
            case FIXED32 -> advance(4);
            default -> throw new WireException("field " + field + " has the wire type " + type);
        }
    }

    private int length() throws WireException {
        expect(LENGTH);
        long length = varint();
        if (length < 0 || length > end - position) {
            throw new WireException("field " + field + " has " + Long.toUnsignedString(length) + " bytes, the message " + (end - position) + " more");
        }
        return (int) length;
    }

    private void expect(int wanted) throws WireException {
        if (type != wanted) {
            throw new WireException("field " + field + " has the wire type " + type + " where " + wanted + " was expected");
        }
    }

    private int advance(int count) throws WireException {
        if (count > end - position) {
            throw new WireException("a message ends inside field " + field);
        }
        int start = position;
        position += count;
        return start;
    }

    private long varint() throws WireException {
        long value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            byte next = bytes[advance(1)];
            value |= (long) (next & 0x7F) << shift;
            if (next >= 0) {
                return value;
            }
        }
        throw new WireException("a varint has more than ten bytes");
    }
}
