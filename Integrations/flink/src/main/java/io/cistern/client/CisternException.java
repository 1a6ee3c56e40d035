package io.cistern.client;

import java.io.IOException;

/** What a caller of the client sees. The message tells what was attempted, on what, what was found, and what to do. */
public final class CisternException extends IOException {
    private static final long serialVersionUID = 1L;

    /** What the caller can do about it. */
    public enum Kind {
        /** No server answered, or it refused for longer than the configuration allows: try again later. */
        UNAVAILABLE,
        /** A newer writer owns the key groups: stop. */
        FENCED,
        /** Acknowledged writes are missing: restore from a checkpoint. */
        LOST_WRITES,
        /** The server will never accept this. */
        REFUSED,
        /** The session was closed. */
        CLOSED
    }

    private final Kind kind;
    private final long currentEpoch;

    public CisternException(Kind kind, String message) {
        this(kind, message, 0, null);
    }

    CisternException(Kind kind, String message, long currentEpoch, Throwable cause) {
        super(message, cause);
        this.kind = kind;
        this.currentEpoch = currentEpoch;
    }

    public Kind kind() {
        return kind;
    }

    /** With {@link Kind#FENCED}: the epoch of the newer writer. */
    public long currentEpoch() {
        return currentEpoch;
    }
}
