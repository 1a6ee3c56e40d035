package io.cistern.wire;

import java.io.IOException;

/** Bytes that are not what the protocol says. The connection they came from cannot be used any more. */
public final class WireException extends IOException {
    private static final long serialVersionUID = 1L;

    public WireException(String message) {
        super(message);
    }
}
