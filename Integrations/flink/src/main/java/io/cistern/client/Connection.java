package io.cistern.client;

import io.cistern.wire.ErrorBody;
import io.cistern.wire.Frame;
import io.cistern.wire.Hello;
import io.cistern.wire.Opcode;
import io.cistern.wire.ProtoReader;
import io.cistern.wire.WireException;
import io.cistern.wire.WireLimits;

import java.io.IOException;
import java.net.SocketTimeoutException;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * One connection: frames out, frames in, answers matched to requests, within the server's credits.
 *
 * <p>Threads: any thread sends; requests go out in the order of the calls. One thread of its own reads, and calls the
 * {@link Receiver}s; it never waits for anybody. {@link #close} may be called from anywhere, also to end a call of another thread.
 */
final class Connection implements AutoCloseable {
    private static final int FRAME_BYTES_MAX = WireLimits.FRAME_BYTES_MAX_HARD;
    /** A peer that sent nothing for so long is asked whether it is there. */
    private static final long KEEP_ALIVE_NANOSECONDS = TimeUnit.SECONDS.toNanos(10);
    private static final int KEEP_ALIVE_MISSED_MAX = 2;
    private static final byte[] EMPTY = new byte[0];

    /** Takes the answers to one request. Called on the reading thread, or on the one that closes; must not wait. */
    interface Receiver {
        /** @param isLast false when further frames of this answer follow */
        void take(byte[] body, boolean isLast);

        /** The answer is an error, or the connection is gone: {@link ServerError} or {@link ConnectionLost}. Nothing follows. */
        void fail(IOException error);
    }

    private record Outstanding(Receiver receiver, int kibibytes) {}

    private final Endpoint endpoint;
    private final SocketChannel channel;
    private final Object writing = new Object();

    // Guarded by `this`.
    private final Map<Long, Outstanding> outstanding = new HashMap<>();
    private long lastRequest;
    private int requestCredit;
    private long kibibyteCredit;
    private IOException failure;
    /** The server drains: it answers what it has, and takes nothing more. */
    private String goingAway;

    /** Written by the reading thread. */
    private volatile long lastInboundNanoseconds = System.nanoTime();

    private Hello.Reply hello;

    private Connection(Endpoint endpoint, SocketChannel channel) {
        this.endpoint = endpoint;
        this.channel = channel;
    }

    /**
     * Connects and shakes hands.
     *
     * @throws ConnectionLost when nobody answers in time
     * @throws ServerError when the server refuses the version
     */
    static Connection connect(Endpoint endpoint, String clientName, long timeoutMilliseconds) throws IOException {
        SocketChannel channel = open(endpoint, timeoutMilliseconds);
        Connection connection = new Connection(endpoint, channel);
        try {
            connection.start(clientName, timeoutMilliseconds);
        } catch (IOException error) {
            connection.close();
            throw error;
        }
        return connection;
    }

    private static SocketChannel open(Endpoint endpoint, long timeoutMilliseconds) throws IOException {
        SocketChannel channel = null;
        try {
            if (endpoint.isUnix()) {
                return SocketChannel.open(endpoint.resolve());
            }
            channel = SocketChannel.open();
            channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
            channel.setOption(StandardSocketOptions.SO_KEEPALIVE, true);
            channel.socket().connect(endpoint.resolve(), (int) Math.min(timeoutMilliseconds, Integer.MAX_VALUE));
            return channel;
        } catch (IOException | RuntimeException error) {
            if (channel != null) {
                channel.close();
            }
            String why = error instanceof SocketTimeoutException ? "no answer in " + timeoutMilliseconds + " ms" : error.toString();
            throw new ConnectionLost("could not connect to " + endpoint + ": " + why);
        }
    }

    private void start(String clientName, long timeoutMilliseconds) throws IOException {
        PendingAnswer answer = new PendingAnswer();
        synchronized (this) {
            outstanding.put(0L, new Outstanding(answer, 0));
        }
        Thread reader = new Thread(this::read, "cistern reader of " + endpoint);
        reader.setDaemon(true);
        reader.start();
        byte[] request =
                new Hello.Request(Hello.VERSION, Hello.VERSION, Hello.FEATURE_CHECKSUM, clientName, FRAME_BYTES_MAX).encode();
        write(Frame.request(Opcode.HELLO, 0, 0, request));
        Hello.Reply reply = Hello.Reply.decode(answer.await(this, timeoutMilliseconds));
        synchronized (this) {
            hello = reply;
            requestCredit = reply.requestsMax();
            kibibyteCredit = reply.bytesMax() >> 10;
        }
    }

    Hello.Reply hello() {
        return hello;
    }

    /**
     * Sends a request; waits only for credit and for room in the socket.
     *
     * @throws ConnectionLost when the connection is gone; then the receiver is not called
     */
    void send(int opcode, int tree, byte[] body, Receiver receiver) throws ConnectionLost {
        int kibibytes = (body.length + 1023) >> 10;
        // Held while writing, so that requests leave in the order of their numbers.
        synchronized (writing) {
            long request;
            synchronized (this) {
                awaitCredit(kibibytes);
                request = ++lastRequest;
                outstanding.put(request, new Outstanding(receiver, kibibytes));
            }
            try {
                write(Frame.request(opcode, request, tree, body));
            } catch (IOException error) {
                synchronized (this) {
                    if (outstanding.remove(request) == null) {
                        // The reading thread has told the receiver already.
                        return;
                    }
                }
                fail(error);
                throw ConnectionLost.by(error);
            }
        }
    }

    private void awaitCredit(int kibibytes) throws ConnectionLost {
        while (failure == null && goingAway == null && (requestCredit < 1 || kibibyteCredit < kibibytes)) {
            try {
                wait();
            } catch (InterruptedException interrupt) {
                Thread.currentThread().interrupt();
                throw new ConnectionLost("interrupted while it waited for credit of " + endpoint);
            }
        }
        if (failure != null) {
            throw ConnectionLost.by(failure);
        }
        if (goingAway != null) {
            throw new ConnectionLost(goingAway);
        }
        requestCredit--;
        kibibyteCredit -= kibibytes;
    }

    private void write(Frame frame) throws IOException {
        ByteBuffer[] parts = {frame.encodeHeader(), ByteBuffer.wrap(frame.body())};
        synchronized (writing) {
            while (parts[0].hasRemaining() || parts[1].hasRemaining()) {
                channel.write(parts);
            }
        }
    }

    /** Asks a silent peer whether it is there, and gives it up when it stays silent. Called by those who wait long. */
    void keepAlive() {
        long silence = System.nanoTime() - lastInboundNanoseconds;
        if (silence > KEEP_ALIVE_NANOSECONDS * (KEEP_ALIVE_MISSED_MAX + 1)) {
            fail(new ConnectionLost(endpoint + " sent nothing for " + TimeUnit.NANOSECONDS.toSeconds(silence) + " s"));
        } else if (silence > KEEP_ALIVE_NANOSECONDS) {
            try {
                write(Frame.request(Opcode.PING, Long.MAX_VALUE, 0, EMPTY));
            } catch (IOException error) {
                fail(error);
            }
        }
    }

    // The reading thread.

    private void read() {
        byte[] header = new byte[Frame.HEADER_BYTES];
        try (var input = Channels.newInputStream(channel)) {
            while (true) {
                readFully(input, header, header.length);
                byte[] body = new byte[Frame.bodyBytes(header, FRAME_BYTES_MAX)];
                readFully(input, body, body.length);
                lastInboundNanoseconds = System.nanoTime();
                dispatch(Frame.decode(header, body));
            }
        } catch (IOException error) {
            fail(error);
        } catch (RuntimeException | Error error) {
            fail(new IOException("reading from " + endpoint + " failed: " + error, error));
        }
    }

    private void readFully(java.io.InputStream input, byte[] into, int length) throws IOException {
        int count = input.readNBytes(into, 0, length);
        if (count < length) {
            throw new ConnectionLost(endpoint + " closed the connection");
        }
    }

    private void dispatch(Frame frame) throws IOException {
        if (!frame.isReply()) {
            serve(frame);
            return;
        }
        int opcode = frame.opcode() & ~Opcode.REPLY;
        if (opcode == Opcode.PING) {
            return;
        }
        if (opcode == Opcode.CONNECTION) {
            throw new ConnectionLost(endpoint + " ended the connection: " + ErrorBody.decode(frame.body()).message());
        }
        Outstanding request;
        synchronized (this) {
            request = frame.hasMore() ? outstanding.get(frame.requestId()) : outstanding.remove(frame.requestId());
            if (!frame.hasMore() && request != null && frame.requestId() != 0) {
                requestCredit++;
                kibibyteCredit += frame.treeOrCredit();
                notifyAll();
            }
        }
        if (request == null) {
            throw new WireException(endpoint + " answered request " + frame.requestId() + ", which is not outstanding");
        }
        if (frame.isError()) {
            request.receiver().fail(new ServerError(ErrorBody.decode(frame.body())));
        } else {
            request.receiver().take(frame.body(), !frame.hasMore());
        }
    }

    /** What the server asks of us. */
    private void serve(Frame frame) throws IOException {
        switch (frame.opcode()) {
            case Opcode.PING ->
                    write(new Frame(Opcode.PING | Opcode.REPLY, Frame.CHECKSUM, frame.requestId(), 0, frame.body()));
            case Opcode.GO_AWAY -> {
                String reason = "the server drains";
                ProtoReader reader = new ProtoReader(frame.body());
                while (reader.next()) {
                    if (reader.field() == 2) {
                        reason = reader.string();
                    } else {
                        reader.skip();
                    }
                }
                synchronized (this) {
                    goingAway = endpoint + " goes away: " + reason;
                    notifyAll();
                }
            }
            default -> throw new WireException(endpoint + " sent a request of opcode " + frame.opcode());
        }
    }

    /** Ends the connection; whoever waits for an answer is told why. */
    private void fail(IOException error) {
        List<Outstanding> abandoned;
        ConnectionLost lost = ConnectionLost.by(error);
        synchronized (this) {
            if (failure != null) {
                return;
            }
            failure = lost;
            abandoned = new ArrayList<>(outstanding.values());
            outstanding.clear();
            notifyAll();
        }
        try {
            channel.close();
        } catch (IOException ignored) {
            // It is given up either way, for the reason that counts.
        }
        for (Outstanding request : abandoned) {
            request.receiver().fail(lost);
        }
    }

    @Override
    public void close() {
        fail(new ConnectionLost("the connection to " + endpoint + " was closed"));
    }
}
