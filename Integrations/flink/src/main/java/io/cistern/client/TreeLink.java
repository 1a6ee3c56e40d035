package io.cistern.client;

import io.cistern.wire.Attach;
import io.cistern.wire.ErrorBody;
import io.cistern.wire.Opcode;
import io.cistern.wire.Snapshots;
import io.cistern.wire.WireException;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/**
 * The way to one tree: attaches, sends numbered batches and snapshots in order, keeps them until they are answered, and when the
 * other side is slow, full or gone, tries again until a deadline. A batch is applied once however often it is sent, because the
 * tree acknowledges a sequence it has without applying it.
 *
 * <p>Threads: the worker's thread submits and calls; any thread may wait in {@link #settle}. State is guarded by `this`; answers
 * arrive through the mailbox, so that the reading thread never waits for the monitor, which may be held while a frame is written.
 */
final class TreeLink implements AutoCloseable {
    /** How long a wait lasts before it looks at the connection and the deadlines. */
    private static final long LOOK_MILLISECONDS = 500;
    private static final long PAUSE_MILLISECONDS = 20;
    private static final long PAUSE_MILLISECONDS_MAX = 1_000;
    /** A closing worker does not wait longer for a server to take its tree back. */
    private static final long CLOSE_MILLISECONDS = 2_000;

    private enum State {
        UNSENT,
        SENT,
        DONE
    }

    /** A batch, or a snapshot of everything before it. */
    private static final class Item {
        final long sequence;
        /** Of a batch. */
        final byte[] body;
        /** Of a batch: what its writer gets back when it is acknowledged. */
        final Object tag;
        /** Of a snapshot. */
        final SnapshotTicket ticket;
        State state = State.UNSENT;
        long sentNanoseconds;

        Item(long sequence, byte[] body, Object tag, SnapshotTicket ticket) {
            this.sequence = sequence;
            this.body = body;
            this.tag = tag;
            this.ticket = ticket;
        }
    }

    private record Completion(long generation, Item item, byte[] body, IOException error) {}

    private final Endpoint endpoint;
    private final ClientSettings settings;
    private final Mailbox<Completion> mailbox = new Mailbox<>();

    // Guarded by `this`.
    private Attach.Request attach;
    private Connection connection;
    private int tree;
    /** Counts connections: answers of an earlier one say nothing any more. */
    private long generation;
    /** Oldest first. */
    private final ArrayDeque<Item> items = new ArrayDeque<>();
    private int batches;
    private int outstanding;
    private long lastSequence;
    private long ackedSequence;
    private List<Object> retired = new ArrayList<>();
    /** Why items must be sent again; null when all is well. */
    private String trouble;
    private long troubleSince;
    private int attempts;
    private long nextAttempt;

    private volatile CisternException failure;
    /** For {@link #close} from another thread, which must not wait for the monitor. */
    private volatile Connection current;
    /** Deposits that {@link #poll} has seen. Owned by the worker's thread. */
    private long polled;

    TreeLink(Endpoint endpoint, ClientSettings settings) {
        this.endpoint = endpoint;
        this.settings = settings;
    }

    // Attaching.

    /** Becomes the writer, with a new epoch. Tries until the deadline of the settings. */
    synchronized Attach.Reply attach(Attach.Request request) throws CisternException {
        attach = request;
        long end = deadline();
        for (int attempt = 0; ; attempt++) {
            ensureOpen();
            try {
                Attach.Reply reply = connect(request);
                if (reply.lastSequence() > 0) {
                    throw remember(new CisternException(CisternException.Kind.FENCED,
                            "the tree of " + name() + " holds batches of epoch " + request.epoch()
                                    + " already: a restarted worker attaches with a newer epoch", request.epoch(), null));
                }
                return reply;
            } catch (ServerError error) {
                CisternException fatal = fatal(error.body, "attach to " + name());
                if (fatal != null) {
                    throw fatal;
                }
                pauseBeforeAttaching(end, attempt, error, error.body.retryMilliseconds());
            } catch (ConnectionLost error) {
                pauseBeforeAttaching(end, attempt, error, 0);
            } catch (WireException error) {
                throw new CisternException(CisternException.Kind.REFUSED, "could not attach to " + name() + ": " + error.getMessage());
            } catch (CisternException error) {
                throw error;
            } catch (IOException error) {
                pauseBeforeAttaching(end, attempt, ConnectionLost.by(error), 0);
            }
        }
    }

    private void pauseBeforeAttaching(long end, int attempt, IOException error, long atLeast) throws CisternException {
        if (System.nanoTime() >= end) {
            throw unavailable("attach to " + name(), error.getMessage());
        }
        sleep(Math.max(atLeast, pause(attempt)));
    }

    private Attach.Reply connect(Attach.Request request) throws IOException {
        drop();
        Connection fresh = Connection.connect(endpoint, settings.clientName(), settings.requestTimeoutMilliseconds());
        current = fresh;
        if (failure != null) {
            fresh.close();
            throw failure;
        }
        PendingAnswer answer = new PendingAnswer();
        Attach.Reply reply;
        try {
            fresh.send(Opcode.ATTACH, 0, request.encode(), answer);
            // Building a tree from many snapshots takes as long as it takes; the keep-alive finds a dead server.
            reply = Attach.Reply.decode(answer.await(fresh, 0));
        } catch (IOException error) {
            fresh.close();
            throw error;
        }
        connection = fresh;
        tree = reply.tree();
        return reply;
    }

    private void drop() {
        if (connection != null) {
            connection.close();
            connection = null;
        }
        generation++;
        outstanding = 0;
        for (Item item : items) {
            if (item.state == State.SENT) {
                item.state = State.UNSENT;
            }
        }
    }

    // Writing.

    synchronized long epoch() {
        return attach.epoch();
    }

    synchronized long nextSequence() {
        return lastSequence + 1;
    }

    /** The connection's number: it changes when the link is made anew. */
    synchronized long generation() {
        return generation;
    }

    /**
     * Sends a batch, or keeps it until it may be sent.
     *
     * @param body encoded with {@link #nextSequence}
     * @param tag returned by {@link #poll} when the batch is acknowledged
     */
    synchronized void submit(byte[] body, Object tag) throws CisternException {
        ensureOpen();
        lastSequence++;
        items.add(new Item(lastSequence, body, tag, null));
        batches++;
        sendWaiting();
    }

    /** Asks for a snapshot of everything submitted before; answered through the ticket. */
    synchronized SnapshotTicket snapshot(long checkpoint) throws CisternException {
        ensureOpen();
        SnapshotTicket ticket = new SnapshotTicket(this, checkpoint);
        items.add(new Item(lastSequence, null, null, ticket));
        sendWaiting();
        return ticket;
    }

    /** Waits until fewer than so many batches are under way. */
    void awaitFewerThan(int limit) throws CisternException {
        settle("send writes", () -> batches < limit);
    }

    /** Waits until everything is acknowledged. */
    void awaitIdle(String what) throws CisternException {
        settle(what, items::isEmpty);
    }

    /** Tags of batches that were acknowledged since the last call, oldest first. Nearly free when nothing has arrived. */
    List<Object> poll() throws CisternException {
        long seen = mailbox.deposits();
        if (seen == polled) {
            return List.of();
        }
        polled = seen;
        return takeRetired();
    }

    /** The same, also for what somebody else has taken from the mailbox. */
    synchronized List<Object> takeRetired() throws CisternException {
        ensureOpen();
        takeCompletions();
        if (retired.isEmpty()) {
            return List.of();
        }
        List<Object> result = retired;
        retired = new ArrayList<>();
        return result;
    }

    /**
     * Waits until a condition on this link's state, sending again and reconnecting as needed. Each acknowledgement starts the
     * deadline anew.
     */
    void settle(String what, BooleanSupplier isDone) throws CisternException {
        while (true) {
            long seen = mailbox.deposits();
            long wait;
            synchronized (this) {
                ensureOpen();
                takeCompletions();
                if (isDone.getAsBoolean()) {
                    return;
                }
                if (trouble != null && outstanding == 0) {
                    wait = mend(what);
                } else {
                    wait = LOOK_MILLISECONDS;
                    lookAtConnection();
                }
            }
            if (wait > 0) {
                await(seen, wait);
            }
        }
    }

    private void await(long seen, long milliseconds) throws CisternException {
        try {
            mailbox.await(seen, milliseconds);
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
            throw new CisternException(CisternException.Kind.CLOSED, "interrupted while it waited for " + endpoint);
        }
    }

    /** Sends in order what is unsent. Behind a snapshot nothing is sent until it is answered. */
    private void sendWaiting() {
        if (trouble != null || connection == null) {
            return;
        }
        for (Item item : items) {
            if (item.state == State.UNSENT && !send(item)) {
                return;
            }
            if (item.ticket != null && item.state != State.DONE) {
                return;
            }
        }
    }

    private boolean send(Item item) {
        long generation = this.generation;
        byte[] body = item.body != null ? item.body : Snapshots.take(attach.epoch(), item.ticket.checkpoint, item.sequence);
        item.state = State.SENT;
        item.sentNanoseconds = System.nanoTime();
        outstanding++;
        try {
            connection.send(item.body != null ? Opcode.WRITE_BATCH : Opcode.SNAPSHOT, tree, body, new Connection.Receiver() {
                @Override
                public void take(byte[] answer, boolean isLast) {
                    mailbox.deposit(new Completion(generation, item, answer, null));
                }

                @Override
                public void fail(IOException error) {
                    mailbox.deposit(new Completion(generation, item, null, error));
                }
            });
            return true;
        } catch (ConnectionLost error) {
            item.state = State.UNSENT;
            outstanding--;
            disconnected(error.getMessage());
            return false;
        }
    }

    private void takeCompletions() throws CisternException {
        CisternException[] fatal = new CisternException[1];
        mailbox.drain(completion -> {
            if (completion.generation() == generation) {
                CisternException error = take(completion);
                if (error != null && fatal[0] == null) {
                    fatal[0] = error;
                }
            }
        });
        if (fatal[0] != null) {
            throw remember(fatal[0]);
        }
        retire();
        sendWaiting();
    }

    private CisternException take(Completion completion) {
        Item item = completion.item();
        outstanding--;
        if (completion.error() == null) {
            return acknowledge(item, completion.body());
        }
        item.state = State.UNSENT;
        if (!(completion.error() instanceof ServerError error)) {
            disconnected(completion.error().getMessage());
            return null;
        }
        ErrorBody body = error.body;
        if (body.code() == ErrorBody.SEQUENCE_GAP) {
            // An earlier batch was refused, and this one followed it: both go again. A tree that waits for a batch which it
            // acknowledged has lost it.
            if (body.expectedSequence() <= ackedSequence) {
                return lost("the tree waits for batch " + body.expectedSequence() + ", but " + ackedSequence + " was acknowledged");
            }
            refused(1, body.message());
            return null;
        }
        String what = item.body != null ? "write batch " + item.sequence : "take a snapshot";
        CisternException fatal = fatal(body, what + " of " + name());
        if (fatal == null) {
            if (body.category() == ErrorBody.Category.REROUTE) {
                disconnected(body.message());
            } else {
                refused(body.retryMilliseconds(), body.message());
            }
        }
        return fatal;
    }

    private CisternException acknowledge(Item item, byte[] answer) {
        if (item.ticket != null) {
            try {
                item.ticket.taken = Snapshots.Taken.decode(answer);
            } catch (WireException error) {
                return new CisternException(CisternException.Kind.REFUSED, "a snapshot was answered with " + error.getMessage());
            }
        }
        item.state = State.DONE;
        return null;
    }

    private void retire() {
        while (!items.isEmpty() && items.peek().state == State.DONE) {
            Item item = items.poll();
            if (item.body != null) {
                batches--;
                ackedSequence = item.sequence;
                retired.add(item.tag);
            }
            attempts = 0;
            troubleSince = System.nanoTime();
        }
    }

    private void lookAtConnection() {
        if (connection == null) {
            return;
        }
        connection.keepAlive();
        long oldest = System.nanoTime() - TimeUnit.MILLISECONDS.toNanos(settings.requestTimeoutMilliseconds());
        for (Item item : items) {
            if (item.state == State.SENT && item.sentNanoseconds < oldest) {
                // The failure comes back through the mailbox.
                connection.close();
                return;
            }
        }
    }

    // Calls.

    /** A request and its one answer, through lost connections and refusals; only for what may be repeated. */
    byte[] call(String what, int opcode, byte[] body) throws CisternException {
        return call(what, opcode, body, true);
    }

    /** The same; null when the answer would be larger than a frame. */
    byte[] callWithin(String what, int opcode, byte[] body) throws CisternException {
        return call(what, opcode, body, false);
    }

    private byte[] call(String what, int opcode, byte[] body, boolean isLimitFatal) throws CisternException {
        long end = deadline();
        for (int attempt = 0; ; attempt++) {
            Connection link = connected(what);
            PendingAnswer answer = new PendingAnswer();
            long wait;
            try {
                link.send(opcode, tree(), body, answer);
                return answer.await(link, settings.requestTimeoutMilliseconds());
            } catch (ServerError error) {
                if (!isLimitFatal && error.body.code() == ErrorBody.LIMIT_EXCEEDED) {
                    return null;
                }
                CisternException fatal = fatal(error.body, what + " of " + name());
                if (fatal != null) {
                    throw remember(fatal);
                }
                if (error.body.code() == ErrorBody.SEQUENCE_GAP) {
                    awaitIdle(what);
                } else if (error.body.category() == ErrorBody.Category.REROUTE) {
                    lose(link, error.getMessage());
                }
                wait = error.body.retryMilliseconds();
                if (System.nanoTime() >= end) {
                    throw unavailable(what, error.getMessage());
                }
            } catch (ConnectionLost error) {
                lose(link, error.getMessage());
                wait = 0;
                if (System.nanoTime() >= end) {
                    throw unavailable(what, error.getMessage());
                }
            } catch (CisternException error) {
                throw error;
            } catch (IOException error) {
                throw new CisternException(CisternException.Kind.REFUSED, "could not " + what + " of " + name() + ": " + error.getMessage());
            }
            if (attempt > 0 || wait > 0) {
                sleep(Math.max(wait, pause(attempt)));
            }
        }
    }

    /** A request answered by many frames; the receiver hears of a lost connection. */
    void stream(int opcode, byte[] body, Connection.Receiver receiver) throws CisternException {
        try {
            connected("stream").send(opcode, tree(), body, receiver);
        } catch (ConnectionLost error) {
            receiver.fail(error);
        }
    }

    /** Of a server that does not answer; whoever waits is told, and the next call makes it anew. */
    synchronized void giveUpConnection() {
        if (connection != null) {
            connection.close();
        }
    }

    private synchronized int tree() {
        return tree;
    }

    /** The connection; made anew when it is gone. */
    private Connection connected(String what) throws CisternException {
        settle(what, () -> connection != null && trouble == null);
        synchronized (this) {
            ensureOpen();
            return connection;
        }
    }

    private synchronized void lose(Connection link, String reason) {
        if (connection == link) {
            disconnected(reason);
        }
    }

    // Trouble.

    private void disconnected(String reason) {
        drop();
        trouble(reason, 0);
    }

    private void refused(long milliseconds, String reason) {
        if (trouble == null) {
            trouble(reason, milliseconds);
        }
    }

    private void trouble(String reason, long milliseconds) {
        if (trouble == null) {
            troubleSince = System.nanoTime();
        }
        trouble = reason;
        // At once after the first loss, behind pauses after further ones.
        long wait = attempts == 0 ? milliseconds : Math.max(milliseconds, pause(attempts - 1));
        nextAttempt = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(wait);
        attempts++;
    }

    /** One attempt to mend what is wrong. Returns the milliseconds to wait before the next look. */
    private long mend(String what) throws CisternException {
        long now = System.nanoTime();
        if (now < nextAttempt) {
            return TimeUnit.NANOSECONDS.toMillis(nextAttempt - now) + 1;
        }
        if (now - troubleSince > TimeUnit.MILLISECONDS.toNanos(settings.retryForMilliseconds())) {
            throw unavailable(what, trouble);
        }
        if (connection == null) {
            try {
                resume(connect(attach.again()));
            } catch (ServerError error) {
                CisternException fatal = fatal(error.body, "attach again to " + name());
                if (fatal != null) {
                    throw remember(fatal);
                }
                trouble(error.getMessage(), error.body.retryMilliseconds());
                return 0;
            } catch (CisternException error) {
                throw error;
            } catch (IOException error) {
                trouble(error.getMessage() == null ? error.toString() : error.getMessage(), 0);
                return 0;
            }
        }
        trouble = null;
        sendWaiting();
        return 0;
    }

    private void resume(Attach.Reply reply) throws CisternException {
        if (!reply.resumed()) {
            throw remember(lost("the server has no tree with epoch " + attach.epoch()));
        }
        if (reply.lastSequence() < ackedSequence) {
            throw remember(lost("the tree holds batches up to " + reply.lastSequence() + ", but " + ackedSequence + " was acknowledged"));
        }
        if (reply.lastSequence() > lastSequence) {
            throw remember(new CisternException(CisternException.Kind.FENCED, "after reconnecting, the tree of " + name()
                    + " holds batch " + reply.lastSequence() + ", but only " + lastSequence
                    + " were sent: two writers use one epoch and name"));
        }
    }

    private CisternException lost(String found) {
        return new CisternException(CisternException.Kind.LOST_WRITES, "the server lost writes of " + name() + ": " + found
                + "; restore from a checkpoint, and look whether the server's log is off or its disk was exchanged");
    }

    /** The exception for an error that repeating does not cure; null when it may. */
    private CisternException fatal(ErrorBody body, String what) {
        String message = "could not " + what + " at " + endpoint + ": " + body.message();
        if (body.category() == ErrorBody.Category.FENCED) {
            return new CisternException(CisternException.Kind.FENCED, message, body.currentEpoch(), null);
        }
        if (body.code() == ErrorBody.LOST_WRITES) {
            return new CisternException(CisternException.Kind.LOST_WRITES, message);
        }
        if (body.code() == ErrorBody.UNSUPPORTED_VERSION) {
            return new CisternException(CisternException.Kind.REFUSED, message
                    + "; server and cistern-flink.jar speak no common version of the protocol: upgrade the older one");
        }
        boolean mayRetry = body.category() == ErrorBody.Category.RETRY || body.category() == ErrorBody.Category.REROUTE;
        return mayRetry ? null : new CisternException(CisternException.Kind.REFUSED, message);
    }

    private CisternException unavailable(String what, String reason) {
        return new CisternException(CisternException.Kind.UNAVAILABLE, "could not " + what + " at " + endpoint + " for "
                + settings.retryForMilliseconds() + " ms, last reason: " + reason + "; is the server running, and is this its address?");
    }

    private CisternException remember(CisternException error) {
        if (failure == null) {
            failure = error;
        }
        return error;
    }

    private void ensureOpen() throws CisternException {
        CisternException error = failure;
        if (error != null) {
            throw new CisternException(error.kind(), error.getMessage(), error.currentEpoch(), error);
        }
    }

    private String name() {
        return "store " + attach.store() + " key groups " + attach.keyGroupFirst() + "..." + attach.keyGroupLast();
    }

    private long deadline() {
        return System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(settings.retryForMilliseconds());
    }

    /** Doubling pauses with jitter, so that many workers do not come back in step. */
    private static long pause(int attempt) {
        long step = Math.min(PAUSE_MILLISECONDS_MAX, PAUSE_MILLISECONDS << Math.min(attempt, 16));
        return step / 2 + ThreadLocalRandom.current().nextLong(step / 2 + 1);
    }

    private void sleep(long milliseconds) throws CisternException {
        await(mailbox.deposits(), milliseconds);
    }

    // The end.

    /**
     * Ends the link at once; calls of other threads end with {@link CisternException.Kind#CLOSED}.
     */
    @Override
    public void close() {
        remember(new CisternException(CisternException.Kind.CLOSED, "the session was closed"));
        Connection link = current;
        if (link != null) {
            link.close();
        }
    }

    /**
     * Ends the link and leaves an empty tree behind, when the server answers soon and no newer writer has the range: a worker that
     * comes back starts from a snapshot, so what the tree holds is garbage.
     */
    void discard() {
        Attach.Request mine;
        boolean isOurs;
        synchronized (this) {
            mine = attach;
            isOurs = connection != null && (failure == null || failure.kind() != CisternException.Kind.FENCED);
        }
        close();
        if (!isOurs) {
            return;
        }
        Attach.Request empty = new Attach.Request(mine.store(), mine.keyGroupCount(), mine.keyGroupFirst(), mine.keyGroupLast(),
                mine.epoch() + 1, mine.writer(), List.of(), true);
        try (Connection last = Connection.connect(endpoint, settings.clientName(), CLOSE_MILLISECONDS)) {
            PendingAnswer attached = new PendingAnswer();
            last.send(Opcode.ATTACH, 0, empty.encode(), attached);
            int handle = Attach.Reply.decode(attached.await(last, CLOSE_MILLISECONDS)).tree();
            PendingAnswer detached = new PendingAnswer();
            last.send(Opcode.DETACH, handle, Attach.detach(empty.epoch()), detached);
            detached.await(last, CLOSE_MILLISECONDS);
        } catch (IOException ignored) {
            // The server is gone or somebody newer has the range: then there is nothing of ours to empty, or the next attach does it.
        }
    }
}
