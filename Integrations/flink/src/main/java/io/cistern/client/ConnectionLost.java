package io.cistern.client;

import java.io.IOException;

/** The connection is gone; what was outstanding may or may not have been done. Inside the client. */
final class ConnectionLost extends IOException {
    private static final long serialVersionUID = 1L;

    ConnectionLost(String reason) {
        super(reason);
    }

    static ConnectionLost by(IOException error) {
        if (error instanceof ConnectionLost lost) {
            return lost;
        }
        String message = error.getMessage();
        return new ConnectionLost(message == null ? error.getClass().getSimpleName() : message);
    }
}
