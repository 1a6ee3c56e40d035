package io.cistern.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;

/** The wire of this client is the wire of proto-spec: the same golden bytes as for the Swift one. */
final class GoldenFramesTest {
    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.ISO_8859_1);
    }

    private static void sends(String vector, int opcode, long request, int tree, byte[] body) throws Exception {
        Frame frame = Frame.request(opcode, request, tree, body);
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        bytes.writeBytes(frame.encodeHeader().array());
        bytes.writeBytes(frame.body());
        assertArrayEquals(Vectors.wire(vector), bytes.toByteArray(), vector);
    }

    private static byte[] body(String vector) throws Exception {
        return Vectors.frame(Vectors.wire(vector)).body();
    }

    @Test
    void everyGoldenFrameIsReadAndWrittenBackAsItIs() throws Exception {
        List<String> names = Vectors.wireNames();
        assertTrue(names.size() > 20);
        for (String name : names) {
            byte[] golden = Vectors.wire(name);
            Frame frame = Vectors.frame(golden);
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            bytes.writeBytes(frame.encodeHeader().array());
            bytes.writeBytes(frame.body());
            assertArrayEquals(golden, bytes.toByteArray(), name);
            assertEquals(name.contains("error"), frame.isError(), name);
        }
    }

    @Test
    void aFlippedBitIsFoundWhereverItIs() throws Exception {
        byte[] golden = Vectors.wire("write-batch");
        for (int bit = 32; bit < golden.length * 8; bit++) {
            byte[] damaged = golden.clone();
            damaged[bit / 8] ^= (byte) (1 << bit % 8);
            if (bit / 8 == 6 && bit % 8 == 0) {
                // That is the flag that says there is a checksum: a frame without one is the connection's matter.
                continue;
            }
            assertThrows(WireException.class, () -> Vectors.frame(damaged), "bit " + bit);
        }
    }

    @Test
    void requestsAreWrittenAsGolden() throws Exception {
        sends("hello", Opcode.HELLO, 0, 0, new Hello.Request(1, 1, 1, "client 1", 1 << 20).encode());
        sends("attach", Opcode.ATTACH, 7, 0, new Attach.Request("flights", 128, 64, 127, 3, "w1",
                List.of("flights/2/0-127-a", "flights/2/64-127-b"), true).encode());
        sends("detach", Opcode.DETACH, 7, 5, Attach.detach(3));
        sends("register-state-ttl", Opcode.REGISTER_STATE, 7, 5,
                RegisterState.encode(new StateDescriptor(2, "visits", StateKind.MAP.number, 60_000, 2)));
        sends("snapshot", Opcode.SNAPSHOT, 7, 5, Snapshots.take(3, 9, 12));
        sends("release-snapshot", Opcode.RELEASE_SNAPSHOT, 7, 0, Snapshots.release("flights", List.of("flights/9/64-127-c")));
        sends("multi-get", Opcode.MULTI_GET, 9, 5, MultiGet.encode(3, 77, List.of(ascii("\0\3a"), ascii("\0\3b"))));
        sends("scan", Opcode.SCAN, 9, 5, Scan.encode(3, 77, ascii("\0\3a"), ascii("\0\5c"), 1000, 1 << 20, true));
        sends("key-index", Opcode.KEY_INDEX, 9, 5, Scan.encodeKeyIndex(3, 77, ascii("\0\3b")));
        WriteBatch batch = new WriteBatch();
        batch.add(WriteBatch.PUT, ascii("\0\3a"), 1_700_000_000_000L);
        batch.value(ascii("one"), 0, 3);
        batch.add(WriteBatch.DELETE, ascii("\0\3b"), 0);
        batch.add(WriteBatch.APPEND, ascii("\0\5c"), 0);
        batch.value((byte) '+');
        batch.value((byte) '2');
        sends("write-batch", Opcode.WRITE_BATCH, 9, 5, batch.encode(3, 12, 77));
    }

    @Test
    void repliesAreReadAsGolden() throws Exception {
        Hello.Reply hello = Hello.Reply.decode(body("hello-reply"));
        assertEquals(new Hello.Reply(1, 1, "cistern 1", "b3", 16_842_752, 1024, 1 << 26, 1_700_000_000_000L), hello);
        Attach.Reply attach = Attach.Reply.decode(body("attach-reply"));
        assertEquals(new Attach.Reply(5, 12, true, List.of(new StateDescriptor(2, "visits", 3, 60_000, 0)), 850), attach);
        assertEquals(2, RegisterState.decodeReply(body("register-state-ttl-reply")).id());
        assertEquals(new Snapshots.Taken("flights/9/64-127-c", 100_000, 3000, 4), Snapshots.Taken.decode(body("snapshot-reply")));
        assertEquals(1, Snapshots.decodeReleased(body("release-snapshot-reply")));
        assertEquals(12, WriteBatch.decodeReply(body("write-batch-reply")));
        ErrorBody error = ErrorBody.decode(body("error"));
        assertEquals(ErrorBody.FENCED, error.code());
        assertEquals(ErrorBody.Category.FENCED, error.category());
        assertEquals(4, error.currentEpoch());
        assertEquals(ErrorBody.Category.FATAL, ErrorBody.decode(body("connection-error")).category());
    }

    @Test
    void valuesAndPagesAreReadAsGolden() throws Exception {
        MultiGet.Reply values = MultiGet.Reply.decode(body("multi-get-reply"));
        assertEquals(2, values.count());
        assertArrayEquals(ascii("one"), values.value(0).copy());
        assertEquals(1_700_000_000_000L, values.expiry(0));
        assertFalse(values.isPresent(1));
        Scan.Page page = Scan.Page.decode(body("scan-page"));
        assertEquals(2, page.count());
        assertArrayEquals(ascii("\0\5c"), page.key(1).copy());
        assertArrayEquals(ascii("+2"), page.value(1).copy());
        assertArrayEquals(ascii("\0\6"), page.next());
        Frame fragment = Vectors.frame(Vectors.wire("key-index-page"));
        assertTrue(fragment.hasMore());
        assertEquals(3, Scan.Page.decode(fragment.body()).count());
    }

    @Test
    void decodersTakeAnyBytes() throws Exception {
        for (String name : Vectors.wireNames()) {
            byte[] golden = body(name);
            for (int length = 0; length < golden.length; length++) {
                decodeAll(Arrays.copyOf(golden, length));
            }
            for (int i = 0; i < golden.length; i++) {
                byte[] changed = golden.clone();
                changed[i] ^= (byte) 0xFF;
                decodeAll(changed);
            }
        }
    }

    private interface Decoder {
        Object decode(byte[] body) throws WireException;
    }

    /** Nothing but a WireException may come out. */
    private static void decodeAll(byte[] bytes) {
        List<Decoder> decoders = List.of(Hello.Reply::decode, Attach.Reply::decode, RegisterState::decodeReply, Snapshots.Taken::decode,
                Snapshots::decodeReleased, WriteBatch::decodeReply, ErrorBody::decode, MultiGet.Reply::decode, Scan.Page::decode);
        for (Decoder decoder : decoders) {
            try {
                decoder.decode(bytes);
            } catch (WireException expected) {
                continue;
            }
        }
    }
}
