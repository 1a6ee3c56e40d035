package io.cistern.wire;

import java.util.List;

/** MULTI_GET: many keys, one answer. */
public final class MultiGet {
    private MultiGet() {}

    public static byte[] encode(long epoch, long watermark, List<byte[]> keys) {
        int[] ends = new int[keys.size()];
        int total = 0;
        for (int i = 0; i < ends.length; i++) {
            total += keys.get(i).length;
            ends[i] = total;
        }
        byte[] blob = new byte[total];
        int position = 0;
        for (byte[] key : keys) {
            System.arraycopy(key, 0, blob, position, key.length);
            position += key.length;
        }
        return new ProtoWriter(total + ends.length * 4 + 64)
                .fixed64(1, epoch).fixed64(2, watermark).packed32(3, ends, ends.length).bytes(4, blob).toByteArray();
    }

    /** What was found; positions are those of the keys that were asked for. */
    public record Reply(byte[] found, int[] valueEnds, long[] expiries, Slice values) {
        public static Reply decode(byte[] body) throws WireException {
            byte[] found = new byte[0];
            int[] valueEnds = new int[0];
            long[] expiries = new long[0];
            Slice values = Slice.EMPTY;
            ProtoReader reader = new ProtoReader(body);
            while (reader.next()) {
                switch (reader.field()) {
                    case 1 -> found = reader.bytes();
                    case 2 -> valueEnds = reader.packed32();
                    case 3 -> expiries = reader.packed64();
                    case 4 -> values = reader.slice();
                    default -> reader.skip();
                }
            }
            Columns.check("value", valueEnds, found.length, values);
            Columns.checkExpiries(expiries, found.length);
            return new Reply(found, valueEnds, expiries, values);
        }

        public int count() {
            return found.length;
        }

        public boolean isPresent(int index) {
            return found[index] != 0;
        }

        public long expiry(int index) {
            return expiries.length == 0 ? 0 : expiries[index];
        }

        /** The bytes of a value inside the answer. */
        public Slice value(int index) {
            return Columns.part(valueEnds, index, values);
        }
    }
}
