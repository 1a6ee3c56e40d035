package io.cistern.client;

import io.cistern.wire.ErrorBody;

import java.io.IOException;

/** A request was answered with an error; the connection lives. Inside the client: callers see {@link CisternException}. */
final class ServerError extends IOException {
    private static final long serialVersionUID = 1L;

    final transient ErrorBody body;

    ServerError(ErrorBody body) {
        super(body.message());
        this.body = body;
    }
}
