package io.cistern.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.test.FakeServer;
import io.cistern.test.ServerProcess;
import io.cistern.wire.ErrorBody;
import io.cistern.wire.Frame;
import io.cistern.wire.Opcode;
import io.cistern.wire.ProtoWriter;

import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.BackendBuildingException;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.internal.InternalValueState;

import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/** What a task says when the server is not there, is another one, or refuses: the exception tells what to do. */
final class BadDaysTest {
    private static StateBackend at(String address) {
        Configuration config = Configuration.fromMap(Map.of("state.backend.cistern.address", address, "state.backend.cistern.retry-for", "300 ms"));
        return new CisternStateBackendFactory().createFromConfig(config, BadDaysTest.class.getClassLoader());
    }

    private static AbstractKeyedStateBackend<String> open(String address) throws Exception {
        return Backends.open(at(address), new JobID(), StringSerializer.INSTANCE, Backends.all(), List.of());
    }

    private static void says(Exception error, String... parts) {
        for (String part : parts) {
            assertTrue(error.getMessage().contains(part), "\"" + part + "\" is missing in: " + error.getMessage());
        }
    }

    private static String refusal(Function<Frame, byte[]> answers) throws Exception {
        try (FakeServer server = FakeServer.answering(answers)) {
            return assertThrows(BackendBuildingException.class, () -> open(server.address())).getMessage();
        }
    }

    @Test
    void anAddressWithoutAServerIsAskedFor() throws Exception {
        int port;
        try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            port = free.getLocalPort();
        }
        Exception error = assertThrows(BackendBuildingException.class, () -> open("127.0.0.1:" + port));
        says(error, "127.0.0.1:" + port, "could not attach", "is the server running, and is this its address?");
    }

    @Test
    void aPortOfSomethingElseIsNamed() throws Exception {
        String message = refusal(frame -> "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
        assertTrue(message.contains("is this a cistern server's port?"), message);
    }

    @Test
    void aServerOfAnotherVersionSaysWhoIsToBeUpgraded() throws Exception {
        String message = refusal(frame -> FakeServer.error(frame, ErrorBody.UNSUPPORTED_VERSION, 4, "this server speaks protocol 7 to 9, the client 1 to 1"));
        assertTrue(message.contains("this server speaks protocol 7 to 9") && message.contains("upgrade the older one"), message);
    }

    @Test
    void aServerWithoutRoomIsWaitedForAndThenNamedWithItsReason() throws Exception {
        String disk = "the disk is full: writes wait until there is room";
        try (FakeServer server = FakeServer.answering(frame -> switch (frame.opcode()) {
            case Opcode.HELLO -> FakeServer.hello(frame);
            case Opcode.ATTACH -> FakeServer.reply(frame, new ProtoWriter(16).unsigned(1, 1).toByteArray());
            case Opcode.REGISTER_STATE -> FakeServer.reply(frame,
                    new ProtoWriter(16).message(1, new ProtoWriter(16).unsigned(1, 1).toByteArray(), 2).toByteArray());
            default -> FakeServer.error(frame, 36, 1, disk);
        })) {
            AbstractKeyedStateBackend<String> backend = open(server.address());
            InternalValueState<String, String, Long> count = backend.createOrUpdateInternalState(StringSerializer.INSTANCE,
                    new ValueStateDescriptor<>("count", LongSerializer.INSTANCE));
            backend.setCurrentKey("a");
            count.setCurrentNamespace("n");
            count.update(1L);
            Exception error = assertThrows(Exception.class, () -> Backends.checkpoint(backend, 1));
            Throwable cause = error;
            while (cause.getCause() != null && !(cause instanceof IOException)) {
                cause = cause.getCause();
            }
            says((Exception) cause, disk, server.address());
            backend.dispose();
        }
    }

    /** Below the limits of a frame, so that the job does not end with a connection that is cut. */
    @Test
    void aValueThatIsTooLargeSaysHowLargeItMayBe() throws Exception {
        try (ServerProcess server = ServerProcess.launch()) {
            AbstractKeyedStateBackend<String> backend = Backends.open(Backends.cistern(server, Map.of()), new JobID(), StringSerializer.INSTANCE,
                    Backends.all(), List.of());
            InternalValueState<String, String, String> text = backend.createOrUpdateInternalState(StringSerializer.INSTANCE,
                    new ValueStateDescriptor<>("text", StringSerializer.INSTANCE));
            backend.setCurrentKey("a");
            text.setCurrentNamespace("n");
            Exception error = assertThrows(IOException.class, () -> text.update("x".repeat(17 << 20)));
            says(error, "the limit is 16777216", "split it");
            backend.setCurrentKey("k".repeat(40_000));
            Exception key = assertThrows(IOException.class, () -> text.update("short"));
            says(key, "the limit is 32768");
            backend.setCurrentKey("a");
            text.update("fits");
            assertEquals("fits", text.value());
            Backends.close(backend);
        }
    }
}
