package io.cistern.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.test.Seed;
import io.cistern.test.ServerProcess;
import io.cistern.wire.Attach;
import io.cistern.wire.Opcode;
import io.cistern.wire.Slice;
import io.cistern.wire.Snapshots;
import io.cistern.wire.StateKind;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;

/** The session against the built server: what is written is read, through caches, lost connections and restores. */
final class TreeSessionTest {
    private static final int GROUPS = 16;
    private static final ClientSettings SMALL = new ClientSettings(64 << 10, 64, 2, 1 << 20, 64 << 20, 10_000, 20_000, "test");

    private static ServerProcess server;

    @BeforeAll
    static void start() throws Exception {
        server = ServerProcess.launch();
    }

    @AfterAll
    static void stop() throws Exception {
        server.close();
    }

    private static TreeSession open(ServerProcess server, String store, long epoch, List<String> restore, int first, int last)
            throws Exception {
        return TreeSession.open(server.endpoint(), SMALL, new Attach.Request(store, GROUPS, first, last, epoch, "worker", restore, true));
    }

    private static void put(TreeSession session, StateAccess state, byte[] key, String value) throws Exception {
        byte[] bytes = TestKeys.bytes(value);
        session.put(state, key, key.length, bytes, 0, bytes.length, 0);
    }

    private static String get(TreeSession session, StateAccess state, byte[] key) throws Exception {
        return TestKeys.text(session.get(state, key, key.length));
    }

    private static void append(TreeSession session, StateAccess state, byte[] key, String element) throws Exception {
        byte[] bytes = TestKeys.bytes(element);
        byte[] framed = new byte[ListFormat.HEAD_BYTES_MAX + bytes.length];
        System.arraycopy(bytes, 0, framed, ListFormat.HEAD_BYTES_MAX, bytes.length);
        int start = ListFormat.frame(framed, ListFormat.HEAD_BYTES_MAX, bytes.length);
        session.append(state, key, key.length, framed, start, framed.length - start, 0);
    }

    private static List<String> list(TreeSession session, StateAccess state, byte[] key) throws Exception {
        List<String> elements = new ArrayList<>();
        Slice bytes = session.get(state, key, key.length);
        if (bytes != null) {
            ListFormat.forEach(bytes.bytes(), bytes.offset(), bytes.length(),
                    (from, offset, length) -> elements.add(TestKeys.text(new Slice(from, offset, length))));
        }
        return elements;
    }

    @Test
    void readsSeeTheWritesBeforeThemWhateverIsCached() throws Exception {
        Random random = Seed.random("TreeSessionTest.model");
        try (Model model = new Model(open(server, "model", 1, List.of(), 0, GROUPS - 1))) {
            // Far more than the cache of 1 MiB, so that values come and go.
            for (int step = 0; step < 60_000; step++) {
                model.step(random);
            }
            model.checkAll();
        }
    }

    @Test
    void aRestoredTreeHoldsWhatTheSnapshotHeldAtAnyParallelism() throws Exception {
        Random random = Seed.random("TreeSessionTest.restore");
        String handle;
        Model before = new Model(open(server, "restored", 1, List.of(), 0, GROUPS - 1));
        for (int step = 0; step < 20_000; step++) {
            before.step(random);
        }
        SnapshotTicket ticket = before.session.snapshot(1);
        Map<String, String> values = new HashMap<>(before.values);
        // Behind the snapshot: not in it.
        for (int step = 0; step < 2_000; step++) {
            before.step(random);
        }
        handle = ticket.await().handle();
        before.session.close();
        for (int half = 0; half < 2; half++) {
            int first = half * GROUPS / 2;
            try (TreeSession session = open(server, "restored", 2, List.of(handle), first, first + GROUPS / 2 - 1)) {
                StateAccess state = session.register("values", StateKind.VALUE, 0);
                for (int key = 0; key < Model.KEYS; key++) {
                    if (Model.group(key) / (GROUPS / 2) == half) {
                        assertEquals(values.get("k" + key), get(session, state, TestKeys.key(Model.group(key), state, "k" + key, "")));
                    }
                }
            }
        }
    }

    @Test
    void aServerThatIsKilledComesBackAndNothingIsLostOrDoubled() throws Exception {
        Random random = Seed.random("TreeSessionTest.kill");
        try (ServerProcess own = ServerProcess.launch(); Model model = new Model(open(own, "killed", 1, List.of(), 0, GROUPS - 1))) {
            for (int round = 0; round < 3; round++) {
                for (int step = 0; step < 5_000; step++) {
                    model.step(random);
                }
                own.kill();
                own.start();
            }
            assertNotNull(model.session.snapshot(7).await().handle());
            model.checkAll();
        }
    }

    @Test
    void namesOfKeysThatAreGoneMakeRoomAndThoseThatStayAreFound() throws Exception {
        int lists = 150_000;
        try (TreeSession session = open(server, "garbage", 1, List.of(), 0, GROUPS - 1)) {
            StateAccess state = session.register("lists", StateKind.LIST, 0);
            // Twice, and the cache has forgotten the first time: the worker cannot know which name is whose.
            for (int round = 0; round < 2; round++) {
                for (int i = 0; i < lists; i++) {
                    append(session, state, TestKeys.key(i % GROUPS, state, "list-" + i, ""), "element");
                }
            }
            for (int i = 0; i < lists; i++) {
                if (i % 10 != 0) {
                    byte[] key = TestKeys.key(i % GROUPS, state, "list-" + i, "");
                    session.delete(state, key, key.length);
                }
            }
            session.snapshot(1).await();
            assertTrue(session.figures().keyLoads > 0, "keys were not loaded anew");
            long end = System.nanoTime() + 60_000_000_000L;
            boolean isKnown = false;
            while (!isKnown && System.nanoTime() < end) {
                long before = session.figures().absentKnown;
                byte[] never = TestKeys.key(3, state, "never" + System.nanoTime(), "");
                session.get(state, never, never.length);
                isKnown = session.figures().absentKnown > before;
            }
            assertTrue(isKnown, "the keys were not loaded in a minute");
            for (int i = 0; i < lists; i += 10) {
                assertEquals(2, list(session, state, TestKeys.key(i % GROUPS, state, "list-" + i, "")).size(), "list " + i);
            }
        }
    }

    @Test
    void anOlderEpochIsFenced() throws Exception {
        TreeSession zombie = open(server, "fenced", 5, List.of(), 0, GROUPS - 1);
        StateAccess state = zombie.register("values", StateKind.VALUE, 0);
        put(zombie, state, TestKeys.key(1, state, "a", ""), "1");
        TreeSession successor = open(server, "fenced", 6, List.of(), 0, GROUPS - 1);
        CisternException error = assertThrows(CisternException.class, () -> zombie.snapshot(1).await());
        assertEquals(CisternException.Kind.FENCED, error.kind());
        assertEquals(6, error.currentEpoch());
        CisternException late = assertThrows(CisternException.class, () -> open(server, "fenced", 4, List.of(), 0, GROUPS - 1));
        assertEquals(CisternException.Kind.FENCED, late.kind());
        zombie.close();
        successor.discard();
    }

    @Test
    void anAddressWithoutAServerIsNamedTogetherWithWhatToDo() {
        ClientSettings hasty = new ClientSettings(64 << 10, 64, 2, 1 << 20, 0, 1_000, 50, "test");
        CisternException error = assertThrows(CisternException.class, () -> TreeSession.open(Endpoint.parse("unix:/nowhere/socket"), hasty,
                new Attach.Request("store", 1, 0, 0, 1, "w", List.of(), true)));
        assertEquals(CisternException.Kind.UNAVAILABLE, error.kind());
        assertTrue(error.getMessage().contains("/nowhere/socket") && error.getMessage().contains("is the server running"), error.getMessage());
    }

    @Test
    void absentKeysCostNoRequest() throws Exception {
        try (TreeSession session = open(server, "absent", 1, List.of(), 0, GROUPS - 1)) {
            StateAccess values = session.register("values", StateKind.VALUE, 0);
            StateAccess maps = session.register("maps", StateKind.MAP, 0);
            for (int i = 0; i < 10_000; i++) {
                assertNull(get(session, values, TestKeys.key(3, values, "k" + i, "")));
                put(session, values, TestKeys.key(3, values, "k" + i, ""), "some value of some length " + i);
                byte[] prefix = TestKeys.key(3, maps, "m" + i, "");
                assertEquals(0, session.map(prefix, prefix.length).size());
            }
            assertEquals(0, session.figures().readRequests);
            assertEquals(0, session.figures().scanRequests);
            assertTrue(session.figures().evictions > 0);
        }
    }

    @Test
    void aLostConnectionBehindASnapshotDoesNotChangeWhatIsInIt() throws Exception {
        try (ServerProcess own = ServerProcess.launch()) {
            TreeSession session = open(own, "cut", 1, List.of(), 0, GROUPS - 1);
            StateAccess state = session.register("values", StateKind.VALUE, 0);
            byte[] key = TestKeys.key(1, state, "a", "");
            put(session, state, key, "before");
            own.kill();
            SnapshotTicket ticket = session.snapshot(1);
            put(session, state, key, "behind");
            own.start();
            String handle = ticket.await().handle();
            session.flush();
            assertEquals("behind", get(session, state, key));
            session.close();
            try (TreeSession restored = open(own, "cut", 2, List.of(handle), 0, GROUPS - 1)) {
                StateAccess again = restored.register("values", StateKind.VALUE, 0);
                assertEquals("before", get(restored, again, key));
            }
        }
    }

    @Test
    void discardingLeavesAnEmptyTreeAndSnapshotsStay() throws Exception {
        TreeSession session = open(server, "discarded", 1, List.of(), 0, GROUPS - 1);
        StateAccess state = session.register("values", StateKind.VALUE, 0);
        byte[] key = TestKeys.key(1, state, "a", "");
        put(session, state, key, "1");
        String handle = session.snapshot(1).await().handle();
        session.discard();
        TreeSession next = TreeSession.open(server.endpoint(), SMALL,
                new Attach.Request("discarded", GROUPS, 0, GROUPS - 1, 9, "next", List.of(), false));
        assertNull(get(next, next.register("values", StateKind.VALUE, 0), key));
        next.close();
        TreeSession restored = open(server, "discarded", 10, List.of(handle), 0, GROUPS - 1);
        assertEquals("1", get(restored, restored.register("values", StateKind.VALUE, 0), key));
        restored.close();
        try (Connection connection = Connection.connect(server.endpoint(), "test", 5_000)) {
            PendingAnswer answer = new PendingAnswer();
            connection.send(Opcode.RELEASE_SNAPSHOT, 0, Snapshots.release("discarded", List.of(handle)), answer);
            assertEquals(1, Snapshots.decodeReleased(answer.await(connection, 5_000)));
        }
        CisternException gone = assertThrows(CisternException.class, () -> open(server, "discarded", 11, List.of(handle), 0, GROUPS - 1));
        assertEquals(CisternException.Kind.REFUSED, gone.kind());
    }

    /** Random operations on values, lists and maps beside plain collections. */
    private static final class Model implements AutoCloseable {
        static final int KEYS = 2_000;

        final TreeSession session;
        final StateAccess valueState;
        final StateAccess listState;
        final StateAccess mapState;
        final Map<String, String> values = new HashMap<>();
        final Map<String, List<String>> lists = new HashMap<>();
        final Map<String, Map<String, String>> maps = new HashMap<>();

        Model(TreeSession session) throws Exception {
            this.session = session;
            valueState = session.register("values", StateKind.VALUE, 0);
            listState = session.register("lists", StateKind.LIST, 0);
            mapState = session.register("maps", StateKind.MAP, 0);
        }

        static int group(int key) {
            return key % GROUPS;
        }

        void step(Random random) throws Exception {
            int number = random.nextInt(KEYS);
            String name = "k" + number;
            byte[] value = TestKeys.key(group(number), valueState, name, "");
            byte[] list = TestKeys.key(group(number), listState, name, "");
            String user = "u" + random.nextInt(6);
            byte[] map = TestKeys.key(group(number), mapState, name, user);
            switch (random.nextInt(12)) {
                case 0, 1 -> {
                    String text = "v".repeat(random.nextInt(400)) + random.nextInt();
                    put(session, valueState, value, text);
                    values.put(name, text);
                }
                case 2 -> {
                    session.delete(valueState, value, value.length);
                    values.remove(name);
                }
                case 3, 4 -> assertEquals(values.get(name), get(session, valueState, value));
                case 5, 6 -> {
                    String text = "e" + random.nextInt(1000);
                    append(session, listState, list, text);
                    lists.computeIfAbsent(name, key -> new ArrayList<>()).add(text);
                }
                case 7 -> assertEquals(lists.getOrDefault(name, List.of()), list(session, listState, list));
                case 8 -> {
                    if (random.nextInt(4) == 0) {
                        session.delete(listState, list, list.length);
                        lists.remove(name);
                    } else {
                        session.delete(mapState, map, map.length);
                        maps.getOrDefault(name, new HashMap<>()).remove(user);
                    }
                }
                case 9 -> {
                    String text = "m" + random.nextInt();
                    put(session, mapState, map, text);
                    maps.computeIfAbsent(name, key -> new HashMap<>()).put(user, text);
                }
                case 10 -> assertEquals(maps.getOrDefault(name, Map.of()).get(user), get(session, mapState, map));
                default -> checkMap(number, name);
            }
        }

        private void checkMap(int number, String name) throws Exception {
            byte[] prefix = TestKeys.key(group(number), mapState, name, "");
            Map<String, String> found = new TreeMap<>();
            for (StoredEntry entry : session.map(prefix, prefix.length)) {
                int length = StoreKey.prefixLength(entry.key());
                found.put(TestKeys.text(new Slice(entry.key(), length, entry.key().length - length)), TestKeys.text(entry.value()));
            }
            assertEquals(new TreeMap<>(maps.getOrDefault(name, Map.of())), found, name);
        }

        void checkAll() throws Exception {
            for (int number = 0; number < KEYS; number++) {
                String name = "k" + number;
                assertEquals(values.get(name), get(session, valueState, TestKeys.key(group(number), valueState, name, "")));
                assertEquals(lists.getOrDefault(name, List.of()), list(session, listState, TestKeys.key(group(number), listState, name, "")));
                checkMap(number, name);
            }
            Map<String, String> scanned = new HashMap<>();
            for (int group = 0; group < GROUPS; group++) {
                TreeSession.Cursor cursor = session.cursor(valueState, group);
                for (StoredEntry entry = cursor.next(); entry != null; entry = cursor.next()) {
                    int size = StoreKey.partSize(entry.key(), StoreKey.HEAD_BYTES);
                    int start = StoreKey.partStart(entry.key(), StoreKey.HEAD_BYTES);
                    scanned.put(TestKeys.text(new Slice(entry.key(), start, size)), TestKeys.text(entry.value()));
                }
            }
            assertEquals(values, scanned);
        }

        @Override
        public void close() {
            session.close();
        }
    }
}
