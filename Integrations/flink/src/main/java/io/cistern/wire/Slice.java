package io.cistern.wire;

/** Bytes inside an array that somebody else owns. */
public record Slice(byte[] bytes, int offset, int length) {
    public static final Slice EMPTY = new Slice(new byte[0], 0, 0);

    public byte[] copy() {
        return java.util.Arrays.copyOfRange(bytes, offset, offset + length);
    }
}
