package io.cistern.client;

import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * What arrived from the reading thread and waits for its owner. Depositing never waits. The count of deposits tells whether
 * something has arrived since it was looked at, so that several threads may wait, whoever empties the box.
 */
final class Mailbox<T> {
    private final ConcurrentLinkedQueue<T> items = new ConcurrentLinkedQueue<>();
    /** Written under the monitor. */
    private volatile long deposits;

    void deposit(T item) {
        items.add(item);
        synchronized (this) {
            deposits++;
            notifyAll();
        }
    }

    long deposits() {
        return deposits;
    }

    void drain(Consumer<T> consumer) {
        for (T item = items.poll(); item != null; item = items.poll()) {
            consumer.accept(item);
        }
    }

    /** Returns when there are more deposits than {@code seen}, or after the time. */
    void await(long seen, long milliseconds) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(milliseconds);
        synchronized (this) {
            while (deposits == seen) {
                long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
                if (left <= 0) {
                    return;
                }
                wait(left);
            }
        }
    }
}
