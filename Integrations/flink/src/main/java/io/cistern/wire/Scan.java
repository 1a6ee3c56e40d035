package io.cistern.wire;

/** SCAN and KEY_INDEX: entries in the order of their keys. */
public final class Scan {
    private Scan() {}

    /**
     * One page of a scan.
     *
     * @param end empty for the end of the tree
     * @param entriesMax 0 for the server's limit
     */
    public static byte[] encode(long epoch, long watermark, byte[] start, byte[] end, int entriesMax, int bytesMax, boolean keysOnly) {
        return new ProtoWriter(start.length + end.length + 64)
                .fixed64(1, epoch).fixed64(2, watermark).bytes(3, start).bytes(4, end).fixed32(5, entriesMax)
                .fixed32(6, bytesMax).bool(7, keysOnly).toByteArray();
    }

    /** All keys from {@code start} on; empty for the beginning. */
    public static byte[] encodeKeyIndex(long epoch, long watermark, byte[] start) {
        return new ProtoWriter(start.length + 32).fixed64(1, epoch).fixed64(2, watermark).bytes(3, start).toByteArray();
    }

    /**
     * @param valueEnds empty when only keys were asked for
     * @param next start of the next page; empty behind the last
     */
    public record Page(int[] keyEnds, int[] valueEnds, long[] expiries, Slice keys, Slice values, byte[] next) {
        public static Page decode(byte[] body) throws WireException {
            int[] keyEnds = new int[0];
            int[] valueEnds = new int[0];
            long[] expiries = new long[0];
            Slice keys = Slice.EMPTY;
            Slice values = Slice.EMPTY;
            byte[] next = new byte[0];
            ProtoReader reader = new ProtoReader(body);
            while (reader.next()) {
                switch (reader.field()) {
                    case 1 -> keyEnds = reader.packed32();
                    case 2 -> valueEnds = reader.packed32();
                    case 3 -> expiries = reader.packed64();
                    case 4 -> keys = reader.slice();
                    case 5 -> values = reader.slice();
                    case 6 -> next = reader.bytes();
                    default -> reader.skip();
                }
            }
            Columns.check("key", keyEnds, keyEnds.length, keys);
            if (valueEnds.length != 0) {
                Columns.check("value", valueEnds, keyEnds.length, values);
            }
            Columns.checkExpiries(expiries, keyEnds.length);
            return new Page(keyEnds, valueEnds, expiries, keys, values, next);
        }

        public int count() {
            return keyEnds.length;
        }

        public Slice key(int index) {
            return Columns.part(keyEnds, index, keys);
        }

        public Slice value(int index) {
            return Columns.part(valueEnds, index, values);
        }

        public long expiry(int index) {
            return expiries.length == 0 ? 0 : expiries[index];
        }
    }
}
