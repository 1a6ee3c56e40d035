package io.cistern.test;

import io.cistern.wire.Frame;
import io.cistern.wire.Opcode;
import io.cistern.wire.ProtoWriter;

import java.io.DataInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.function.Function;

/** A server on loopback that answers what a test tells it to. */
public final class FakeServer implements AutoCloseable {
    private final ServerSocket socket;
    private final Function<Frame, byte[]> answers;

    private FakeServer(Function<Frame, byte[]> answers) throws IOException {
        this.answers = answers;
        socket = new ServerSocket(0, 8, InetAddress.getLoopbackAddress());
        Thread thread = new Thread(this::serve, "fake server");
        thread.setDaemon(true);
        thread.start();
    }

    /** @param answers bytes for each frame; null for none */
    public static FakeServer answering(Function<Frame, byte[]> answers) throws IOException {
        return new FakeServer(answers);
    }

    public String address() {
        return "127.0.0.1:" + socket.getLocalPort();
    }

    private void serve() {
        while (!socket.isClosed()) {
            try (Socket connection = socket.accept()) {
                DataInputStream input = new DataInputStream(connection.getInputStream());
                OutputStream output = connection.getOutputStream();
                byte[] header = new byte[Frame.HEADER_BYTES];
                while (true) {
                    input.readFully(header);
                    byte[] body = new byte[Frame.bodyBytes(header, 1 << 20)];
                    input.readFully(body);
                    byte[] answer = answers.apply(Frame.decode(header, body));
                    if (answer != null) {
                        output.write(answer);
                    }
                }
            } catch (IOException ended) {
                // The client has gone, or the test.
            }
        }
    }

    public static byte[] reply(Frame to, byte[] body) {
        return bytes(new Frame(to.opcode() | Opcode.REPLY, Frame.CHECKSUM, to.requestId(), 1 << 10, body));
    }

    /** @param category as in proto-spec/wire.md: 1 retry, 2 reroute, 3 fenced, 4 fatal */
    public static byte[] error(Frame to, int code, int category, String message) {
        byte[] body = new ProtoWriter(128).unsigned(1, code).unsigned(2, category).unsigned(3, 1).string(4, message).toByteArray();
        return bytes(new Frame(to.opcode() | Opcode.REPLY, Frame.CHECKSUM | Frame.ERROR, to.requestId(), 0, body));
    }

    /** The usual answer to a HELLO. */
    public static byte[] hello(Frame to) {
        return reply(to, new ProtoWriter(64).unsigned(1, 1).unsigned(2, 1).string(3, "fake").unsigned(5, 1 << 24).unsigned(6, 64)
                .unsigned(7, 1 << 24).toByteArray());
    }

    private static byte[] bytes(Frame frame) {
        byte[] header = frame.encodeHeader().array();
        byte[] all = java.util.Arrays.copyOf(header, header.length + frame.body().length);
        System.arraycopy(frame.body(), 0, all, header.length, frame.body().length);
        return all;
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}
