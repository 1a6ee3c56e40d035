package io.cistern.wire;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Writes the protobuf fields that the protocol uses, in the order of the calls. Scalar fields with their default value are left
 * out, as generated code does, so that bytes are equal to those of every other encoder. Not thread-safe.
 */
public final class ProtoWriter {
    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int LENGTH = 2;
    private static final int FIXED32 = 5;

    private byte[] buffer;
    private int size;

    public ProtoWriter(int expectedBytes) {
        buffer = new byte[Math.max(16, expectedBytes)];
    }

    public ProtoWriter unsigned(int field, long value) {
        if (value != 0) {
            tag(field, VARINT);
            varint(value);
        }
        return this;
    }

    public ProtoWriter bool(int field, boolean value) {
        return unsigned(field, value ? 1 : 0);
    }

    public ProtoWriter fixed64(int field, long value) {
        if (value != 0) {
            tag(field, FIXED64);
            raw64(value);
        }
        return this;
    }

    public ProtoWriter fixed32(int field, int value) {
        if (value != 0) {
            tag(field, FIXED32);
            raw32(value);
        }
        return this;
    }

    public ProtoWriter string(int field, String value) {
        byte[] bytes = value.getBytes(StandardCharsets.UTF_8);
        return bytes(field, bytes, 0, bytes.length);
    }

    /** An element of a repeated string: written even when it is empty. */
    public ProtoWriter element(int field, String value) {
        byte[] bytes = value.getBytes(StandardCharsets.UTF_8);
        return message(field, bytes, bytes.length);
    }

    public ProtoWriter bytes(int field, byte[] value) {
        return bytes(field, value, 0, value.length);
    }

    public ProtoWriter bytes(int field, byte[] value, int offset, int length) {
        if (length > 0) {
            lengthOf(field, length);
            raw(value, offset, length);
        }
        return this;
    }

    /** A nested message: written even when it is empty. */
    public ProtoWriter message(int field, byte[] encoded, int length) {
        lengthOf(field, length);
        raw(encoded, 0, length);
        return this;
    }

    /** A packed column of the first {@code count} numbers. */
    public ProtoWriter packed32(int field, int[] values, int count) {
        if (count > 0) {
            lengthOf(field, count * 4);
            for (int i = 0; i < count; i++) {
                raw32(values[i]);
            }
        }
        return this;
    }

    public ProtoWriter packed64(int field, long[] values, int count) {
        if (count > 0) {
            lengthOf(field, count * 8);
            for (int i = 0; i < count; i++) {
                raw64(values[i]);
            }
        }
        return this;
    }

    public byte[] toByteArray() {
        return size == buffer.length ? buffer : Arrays.copyOf(buffer, size);
    }

    private void lengthOf(int field, int length) {
        tag(field, LENGTH);
        varint(length);
    }

    private void tag(int field, int type) {
        varint((long) field << 3 | type);
    }

    private void varint(long value) {
        ensure(10);
        long rest = value;
        while ((rest & ~0x7FL) != 0) {
            buffer[size++] = (byte) (rest | 0x80);
            rest >>>= 7;
        }
        buffer[size++] = (byte) rest;
    }

    private void raw64(long value) {
        ensure(8);
        LittleEndian.setLong(buffer, size, value);
        size += 8;
    }

    private void raw32(int value) {
        ensure(4);
        LittleEndian.setInt(buffer, size, value);
        size += 4;
    }

    private void raw(byte[] value, int offset, int length) {
        ensure(length);
        System.arraycopy(value, offset, buffer, size, length);
        size += length;
    }

    private void ensure(int more) {
        if (size + more > buffer.length) {
            buffer = Arrays.copyOf(buffer, Math.max(size + more, buffer.length * 2));
        }
    }
}
