package io.cistern.client;

import io.cistern.wire.Opcode;
import io.cistern.wire.Scan;
import io.cistern.wire.WireException;

import java.io.IOException;
import java.util.function.Consumer;

/**
 * Has the server name all keys while the worker works. Pages arrive on the reading thread and wait in the mailbox; the worker takes
 * them between its own operations. A lost connection goes on where it was.
 */
final class KeyIndexLoader {
    private record Arrival(long generation, byte[] body, boolean isLast, IOException error) {}

    private final TreeLink link;
    private final Mailbox<Arrival> mailbox = new Mailbox<>();
    private byte[] start = new byte[0];
    private long generation;
    private long seen;
    private boolean isInterrupted = true;
    private boolean isDone;
    private long notBefore = System.nanoTime();
    private static final long PAUSE_NANOSECONDS = 100_000_000L;

    KeyIndexLoader(TreeLink link) {
        this.link = link;
    }

    boolean isDone() {
        return isDone;
    }

    /** Somebody else no longer wants the keys. */
    void stop() {
        isDone = true;
    }

    /** Asks for all keys once more. */
    void restart() {
        start = new byte[0];
        isInterrupted = true;
        isDone = false;
    }

    /** Takes what has arrived; asks anew when the stream was cut. Nearly free when nothing has. */
    void advance(Consumer<Scan.Page> onPage) throws CisternException {
        if (isInterrupted) {
            if (System.nanoTime() >= notBefore) {
                ask();
            }
            return;
        }
        long deposits = mailbox.deposits();
        if (deposits == seen) {
            return;
        }
        seen = deposits;
        CisternException[] failure = new CisternException[1];
        mailbox.drain(arrival -> {
            if (arrival.generation() == generation && !isInterrupted && failure[0] == null) {
                try {
                    take(arrival, onPage);
                } catch (CisternException error) {
                    failure[0] = error;
                }
            }
        });
        if (failure[0] != null) {
            throw failure[0];
        }
    }

    private void ask() throws CisternException {
        isInterrupted = false;
        generation++;
        long mine = generation;
        link.stream(Opcode.KEY_INDEX, Scan.encodeKeyIndex(link.epoch(), 0, start), new Connection.Receiver() {
            @Override
            public void take(byte[] body, boolean isLast) {
                mailbox.deposit(new Arrival(mine, body, isLast, null));
            }

            @Override
            public void fail(IOException error) {
                mailbox.deposit(new Arrival(mine, null, true, error));
            }
        });
    }

    private void take(Arrival arrival, Consumer<Scan.Page> onPage) throws CisternException {
        if (arrival.error() != null) {
            isInterrupted = true;
            notBefore = System.nanoTime() + PAUSE_NANOSECONDS;
            return;
        }
        try {
            Scan.Page page = Scan.Page.decode(arrival.body());
            onPage.accept(page);
            if (page.next().length > 0) {
                start = page.next();
            }
        } catch (WireException error) {
            throw new CisternException(CisternException.Kind.REFUSED, "a page of keys cannot be read: " + error.getMessage());
        }
        isDone = arrival.isLast();
    }
}
