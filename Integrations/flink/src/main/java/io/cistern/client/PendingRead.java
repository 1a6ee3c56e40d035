package io.cistern.client;

import java.io.IOException;
import java.util.List;

/** A read of many keys under way. Made and finished by the worker's thread; answered on the reading one. */
public final class PendingRead implements Connection.Receiver {
    final List<byte[]> keys;
    private final Runnable onArrival;
    private final long sentNanoseconds = System.nanoTime();
    /** Null until it is there, and when it will not come. Written before {@link #onArrival} is run. */
    volatile byte[] answer;

    PendingRead(List<byte[]> keys, Runnable onArrival) {
        this.keys = keys;
        this.onArrival = onArrival;
    }

    long ageNanoseconds() {
        return System.nanoTime() - sentNanoseconds;
    }

    @Override
    public void take(byte[] body, boolean isLast) {
        answer = body;
        onArrival.run();
    }

    /** Whatever the reason is, whoever finishes the read asks again, with patience. */
    @Override
    public void fail(IOException error) {
        onArrival.run();
    }
}
