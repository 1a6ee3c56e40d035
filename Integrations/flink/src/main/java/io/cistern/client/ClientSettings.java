package io.cistern.client;

import java.io.Serializable;

/**
 * How a client connects and how much memory and time it may take.
 *
 * @param writeBufferBytes keys and values at which the write buffer is sent; 64 KiB to 4 MiB
 * @param writeBufferEntries distinct keys at which it is sent; 1 to 65,536
 * @param batchesInFlight batches that may wait for their acknowledgement; the writer waits when there would be more
 * @param cacheBytes memory for values read or written before, and for the writes under way
 * @param keyIndexBytes memory for knowing which keys exist; 0 for none. When they need more, they are forgotten, and reading an
 *     absent key costs a request
 * @param requestTimeoutMilliseconds a request without an answer for so long is taken as a lost connection
 * @param retryForMilliseconds for how long a call tries again (reconnecting, busy server) before it throws
 * @param clientName in the server's log
 */
public record ClientSettings(int writeBufferBytes, int writeBufferEntries, int batchesInFlight, long cacheBytes, long keyIndexBytes,
        long requestTimeoutMilliseconds, long retryForMilliseconds, String clientName) implements Serializable {
    private static final int WRITE_BUFFER_BYTES_MIN = 64 << 10;
    /** So that a batch stays below the server's 8 MiB. */
    public static final int WRITE_BUFFER_BYTES_MAX = 4 << 20;
    private static final int WRITE_BUFFER_ENTRIES_MAX = 65_536;
    private static final int BATCHES_IN_FLIGHT_MAX = 64;

    public static final ClientSettings DEFAULT =
            new ClientSettings(1 << 20, 8192, 4, 64L << 20, 128L << 20, 30_000, 60_000, "cistern-java");

    public ClientSettings {
        check("write buffer bytes", writeBufferBytes, WRITE_BUFFER_BYTES_MIN, WRITE_BUFFER_BYTES_MAX);
        check("write buffer entries", writeBufferEntries, 1, WRITE_BUFFER_ENTRIES_MAX);
        check("batches in flight", batchesInFlight, 1, BATCHES_IN_FLIGHT_MAX);
        check("cache bytes", cacheBytes, 1 << 20, Long.MAX_VALUE);
        check("key index bytes", keyIndexBytes, 0, KeyIndex.BYTES_MAX);
        check("request timeout", requestTimeoutMilliseconds, 1, 3_600_000);
        check("retry time", retryForMilliseconds, 0, 86_400_000);
    }

    private static void check(String name, long value, long least, long most) {
        if (value < least || value > most) {
            throw new IllegalArgumentException(name + " is " + value + "; it must be within " + least + " to " + most);
        }
    }
}
