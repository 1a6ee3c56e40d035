package io.cistern.wire;

/** Columns of data messages: running ends into a blob of bytes. */
final class Columns {
    private Columns() {}

    /** Ends must not fall, there must be one for each entry, and the last must be the end of the blob. */
    static void check(String name, int[] ends, int count, Slice blob) throws WireException {
        if (ends.length != count) {
            throw new WireException(count + " entries have " + ends.length + " " + name + " ends");
        }
        int before = 0;
        for (int end : ends) {
            if (end < before) {
                throw new WireException("a " + name + " ends at " + end + ", before its start at " + before);
            }
            before = end;
        }
        if (before != blob.length()) {
            throw new WireException("the " + name + "s end at " + before + ", their bytes at " + blob.length());
        }
    }

    static void checkExpiries(long[] expiries, int count) throws WireException {
        if (expiries.length != 0 && expiries.length != count) {
            throw new WireException(count + " entries have " + expiries.length + " expiries");
        }
    }

    static Slice part(int[] ends, int index, Slice blob) {
        int start = index == 0 ? 0 : ends[index - 1];
        return new Slice(blob.bytes(), blob.offset() + start, ends[index] - start);
    }
}
