package io.cistern.client;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** The answer of one frame that somebody waits for. */
final class PendingAnswer implements Connection.Receiver {
    /** How often a wait without a deadline looks whether the peer lives. */
    private static final long LOOK_MILLISECONDS = 5_000;

    private final CountDownLatch done = new CountDownLatch(1);
    // Written before the latch opens.
    private byte[] body;
    private IOException error;

    @Override
    public void take(byte[] bytes, boolean isLast) {
        body = bytes;
        done.countDown();
    }

    @Override
    public void fail(IOException reason) {
        error = reason;
        done.countDown();
    }

    /**
     * Waits for the answer. A connection on which a request timed out is closed: the answer may still come, and order is lost.
     *
     * @param timeoutMilliseconds 0 for as long as the peer lives
     */
    byte[] await(Connection connection, long timeoutMilliseconds) throws IOException {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeoutMilliseconds);
        try {
            while (true) {
                long wait = LOOK_MILLISECONDS;
                if (timeoutMilliseconds > 0) {
                    wait = Math.min(wait, TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime()) + 1);
                }
                if (done.await(wait, TimeUnit.MILLISECONDS)) {
                    break;
                }
                if (timeoutMilliseconds > 0 && System.nanoTime() >= end) {
                    connection.close();
                    throw new ConnectionLost("a request was not answered in " + timeoutMilliseconds + " ms");
                }
                connection.keepAlive();
            }
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
            connection.close();
            throw new CisternException(CisternException.Kind.CLOSED, "interrupted while it waited for an answer");
        }
        if (error != null) {
            throw error;
        }
        return body;
    }
}
