package io.cistern.client;

import io.cistern.wire.ErrorBody;
import io.cistern.wire.Opcode;
import io.cistern.wire.Snapshots;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Releases snapshots, as the job manager does all the time: one connection for each server, kept open. Any thread.
 */
public final class SnapshotReleaser {
    private static final long TIMEOUT_MILLISECONDS = 10_000;
    private static final int ATTEMPTS = 3;

    private static final Map<String, SnapshotReleaser> SERVERS = new HashMap<>();

    private final Endpoint endpoint;
    /** Guarded by `this`. */
    private Connection connection;

    private SnapshotReleaser(Endpoint endpoint) {
        this.endpoint = endpoint;
    }

    /**
     * @return false when the server does not know the snapshot (any more), which is fine
     * @throws IOException when the server cannot be reached: the snapshot stays
     */
    public static boolean release(String address, String store, String handle) throws IOException {
        SnapshotReleaser server;
        synchronized (SERVERS) {
            server = SERVERS.computeIfAbsent(address, text -> new SnapshotReleaser(Endpoint.parse(text)));
        }
        return server.release(store, handle);
    }

    private synchronized boolean release(String store, String handle) throws IOException {
        for (int attempt = 1; ; attempt++) {
            try {
                if (connection == null) {
                    connection = Connection.connect(endpoint, "flink job manager", TIMEOUT_MILLISECONDS);
                }
                PendingAnswer answer = new PendingAnswer();
                connection.send(Opcode.RELEASE_SNAPSHOT, 0, Snapshots.release(store, List.of(handle)), answer);
                return Snapshots.decodeReleased(answer.await(connection, TIMEOUT_MILLISECONDS)) > 0;
            } catch (ServerError error) {
                if (attempt == ATTEMPTS || error.body.category() == ErrorBody.Category.FATAL) {
                    throw new IOException("could not release snapshot " + handle + " at " + endpoint + ": " + error.getMessage(), error);
                }
            } catch (ConnectionLost error) {
                if (connection != null) {
                    connection.close();
                    connection = null;
                }
                if (attempt == ATTEMPTS) {
                    throw new IOException("could not release snapshot " + handle + " at " + endpoint + ": " + error.getMessage(), error);
                }
            }
        }
    }
}
