package io.cistern.wire;

/** HELLO: the first frame of a connection, in both directions. */
public final class Hello {
    public static final int VERSION = 1;
    /** Every frame carries a checksum. */
    public static final long FEATURE_CHECKSUM = 1;

    private Hello() {}

    public record Request(int versionMin, int versionMax, long features, String client, int frameBytesMax) {
        public byte[] encode() {
            return new ProtoWriter(64)
                    .unsigned(1, versionMin).unsigned(2, versionMax).unsigned(3, features).string(4, client)
                    .unsigned(5, frameBytesMax).toByteArray();
        }
    }

    /**
     * @param requestsMax credit: requests that may be outstanding
     * @param bytesMax credit: body bytes that may be outstanding
     */
    public record Reply(int version, long features, String server, String serverId, int frameBytesMax, int requestsMax,
            long bytesMax, long wallMilliseconds) {
        public static Reply decode(byte[] body) throws WireException {
            int version = 0;
            long features = 0;
            String server = "";
            String serverId = "";
            int frameBytesMax = 0;
            int requestsMax = 0;
            long bytesMax = 0;
            long wallMilliseconds = 0;
            ProtoReader reader = new ProtoReader(body);
            while (reader.next()) {
                switch (reader.field()) {
                    case 1 -> version = (int) reader.unsigned();
                    case 2 -> features = reader.unsigned();
                    case 3 -> server = reader.string();
                    case 4 -> serverId = reader.string();
                    case 5 -> frameBytesMax = (int) reader.unsigned();
                    case 6 -> requestsMax = (int) reader.unsigned();
                    case 7 -> bytesMax = reader.unsigned();
                    case 8 -> wallMilliseconds = reader.unsigned();
                    default -> reader.skip();
                }
            }
            return new Reply(version, features, server, serverId, frameBytesMax, requestsMax, bytesMax, wallMilliseconds);
        }
    }
}
