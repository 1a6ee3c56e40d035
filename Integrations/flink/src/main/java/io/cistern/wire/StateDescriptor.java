package io.cistern.wire;

/**
 * A named state of a store.
 *
 * @param id given by the server; 0 in a registration
 * @param kind as {@link StateKind#number}; a server may know kinds that this client does not
 * @param ttlMilliseconds 0 for none
 * @param ttlClock 0 unspecified, 1 processing time, 2 event time; in a registration
 */
public record StateDescriptor(int id, String name, int kind, long ttlMilliseconds, int ttlClock) {
    public static final int CLOCK_PROCESSING = 1;

    byte[] encode() {
        return new ProtoWriter(32 + name.length())
                .unsigned(1, id).string(2, name).unsigned(3, kind).unsigned(4, ttlMilliseconds).unsigned(5, ttlClock)
                .toByteArray();
    }

    static StateDescriptor decode(ProtoReader reader) throws WireException {
        int id = 0;
        String name = "";
        int kind = 0;
        long ttl = 0;
        int clock = 0;
        while (reader.next()) {
            switch (reader.field()) {
                case 1 -> id = (int) reader.unsigned();
                case 2 -> name = reader.string();
                case 3 -> kind = (int) reader.unsigned();
                case 4 -> ttl = reader.unsigned();
                case 5 -> clock = (int) reader.unsigned();
                default -> reader.skip();
            }
        }
        return new StateDescriptor(id, name, kind, ttl, clock);
    }
}
