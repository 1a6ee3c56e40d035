package io.cistern.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.client.SnapshotReleaser;
import io.cistern.flink.checkpoint.SnapshotPath;
import io.cistern.test.ServerProcess;

import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.base.IntSerializer;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.IllegalConfigurationException;
import org.apache.flink.core.fs.Path;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.BackendBuildingException;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.util.StateMigrationException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

/** What Flink's contracts say beside the answers of states: times to live, migration, fencing, release, wrong settings. */
final class ContractTest {
    private static ServerProcess server;
    private static StateBackend cistern;

    @BeforeAll
    static void start() throws Exception {
        server = ServerProcess.launch();
        cistern = Backends.cistern(server, Map.of());
    }

    @AfterAll
    static void stop() throws Exception {
        server.close();
    }

    private static AbstractKeyedStateBackend<Integer> open(JobID job, KeyedStateHandle... handles) throws Exception {
        return Backends.open(cistern, job, IntSerializer.INSTANCE, Backends.all(), Backends.handles(handles));
    }

    private static <T> ValueState<T> value(AbstractKeyedStateBackend<Integer> backend, ValueStateDescriptor<T> descriptor) throws Exception {
        return backend.getPartitionedState(VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, descriptor);
    }

    private static ValueStateDescriptor<Long> longs(String name) {
        return new ValueStateDescriptor<>(name, LongSerializer.INSTANCE);
    }

    @Test
    void valuesOfATimeToLiveAreHiddenWhenItIsOver() throws Exception {
        AtomicLong now = new AtomicLong(1_000);
        AbstractKeyedStateBackend<Integer> backend =
                Backends.open(cistern, new JobID(), IntSerializer.INSTANCE, Backends.all(), List.of(), now::get);
        StateTtlConfig ttl = StateTtlConfig.newBuilder(Duration.ofMillis(100)).build();
        ValueStateDescriptor<Long> valueDescriptor = longs("value");
        valueDescriptor.enableTimeToLive(ttl);
        ListStateDescriptor<Long> listDescriptor = new ListStateDescriptor<>("list", LongSerializer.INSTANCE);
        listDescriptor.enableTimeToLive(ttl);
        MapStateDescriptor<String, Long> mapDescriptor = new MapStateDescriptor<>("map", StringSerializer.INSTANCE, LongSerializer.INSTANCE);
        mapDescriptor.enableTimeToLive(ttl);
        ValueState<Long> value = value(backend, valueDescriptor);
        ListState<Long> list = backend.getPartitionedState(VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, listDescriptor);
        MapState<String, Long> map = backend.getPartitionedState(VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, mapDescriptor);
        backend.setCurrentKey(1);
        value.update(7L);
        list.add(1L);
        map.put("a", 1L);
        now.set(1_060);
        list.add(2L);
        map.put("b", 2L);
        assertEquals(7L, value.value());
        now.set(1_120);
        assertNull(value.value());
        List<Long> elements = new ArrayList<>();
        list.get().forEach(elements::add);
        assertEquals(List.of(2L), elements);
        assertNull(map.get("a"));
        assertEquals(2L, map.get("b"));
        Backends.close(backend);
    }

    /** A value, a list and a map, with a time to live or without. */
    private record Three(ValueState<Long> value, ListState<Long> list, MapState<String, Long> map) {
        static Three of(AbstractKeyedStateBackend<Integer> backend, boolean isMortal) throws Exception {
            ValueStateDescriptor<Long> value = longs("value");
            ListStateDescriptor<Long> list = new ListStateDescriptor<>("list", LongSerializer.INSTANCE);
            MapStateDescriptor<String, Long> map = new MapStateDescriptor<>("map", StringSerializer.INSTANCE, LongSerializer.INSTANCE);
            if (isMortal) {
                StateTtlConfig ttl = StateTtlConfig.newBuilder(Duration.ofHours(1)).build();
                value.enableTimeToLive(ttl);
                list.enableTimeToLive(ttl);
                map.enableTimeToLive(ttl);
            }
            Three three = new Three(ContractTest.value(backend, value),
                    backend.getPartitionedState(VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, list),
                    backend.getPartitionedState(VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, map));
            backend.setCurrentKey(1);
            return three;
        }

        String content() throws Exception {
            List<Long> elements = new ArrayList<>();
            list.get().forEach(elements::add);
            return value.value() + " " + elements + " " + map.get("a");
        }
    }

    @Test
    void statesMayBeGivenATimeToLiveAndLoseItAgain() throws Exception {
        JobID job = new JobID();
        AbstractKeyedStateBackend<Integer> plain = open(job);
        Three before = Three.of(plain, false);
        before.value.update(7L);
        before.list.addAll(List.of(1L, 2L));
        before.map.put("a", 3L);
        KeyedStateHandle first = Backends.checkpoint(plain, 1);
        Backends.close(plain);

        AbstractKeyedStateBackend<Integer> mortal = open(job, first);
        Three meanwhile = Three.of(mortal, true);
        assertEquals("7 [1, 2] 3", meanwhile.content());
        meanwhile.value.update(8L);
        meanwhile.list.add(3L);
        KeyedStateHandle second = Backends.checkpoint(mortal, 2);
        Backends.close(mortal);

        AbstractKeyedStateBackend<Integer> immortal = open(job, second);
        assertEquals("8 [1, 2, 3] 3", Three.of(immortal, false).content());
        Backends.close(immortal);
    }

    /** A record that gains a field: Flink's POJO serializer migrates it. */
    public static final class Visit {
        public long count;
        public String place = "";
        public Integer rating;
    }

    @Test
    void aSerializerThatCannotReadWhatIsStoredIsRefused() throws Exception {
        JobID job = new JobID();
        AbstractKeyedStateBackend<Integer> before = open(job);
        before.setCurrentKey(1);
        value(before, longs("value")).update(1L);
        KeyedStateHandle handle = Backends.checkpoint(before, 1);
        Backends.close(before);
        AbstractKeyedStateBackend<Integer> after = open(job, handle);
        assertThrows(StateMigrationException.class,
                () -> value(after, new ValueStateDescriptor<>("value", StringSerializer.INSTANCE)));
        Backends.close(after);
        BackendBuildingException wrongKey = assertThrows(BackendBuildingException.class,
                () -> Backends.open(cistern, job, StringSerializer.INSTANCE, Backends.all(), Backends.handles(handle)));
        assertTrue(wrongKey.getMessage().contains("key serializer"), wrongKey.getMessage());
    }

    @Test
    void pojosAreKeptAsTheyAre() throws Exception {
        JobID job = new JobID();
        TypeInformation<Visit> type = Types.POJO(Visit.class);
        AbstractKeyedStateBackend<Integer> backend = open(job);
        ValueState<Visit> visits = value(backend, new ValueStateDescriptor<>("visits", type));
        backend.setCurrentKey(1);
        Visit visit = new Visit();
        visit.count = 3;
        visit.place = "JFK";
        visits.update(visit);
        visit.count = 99;
        assertEquals(3, visits.value().count);
        KeyedStateHandle handle = Backends.checkpoint(backend, 1);
        Backends.close(backend);
        AbstractKeyedStateBackend<Integer> restored = open(job, handle);
        ValueState<Visit> again = value(restored, new ValueStateDescriptor<>("visits", type));
        restored.setCurrentKey(1);
        assertEquals("JFK", again.value().place);
        assertNull(again.value().rating);
        Backends.close(restored);
    }

    @Test
    void anAttemptThatWasReplacedCannotCheckpoint() throws Exception {
        JobID job = new JobID();
        AbstractKeyedStateBackend<Integer> zombie = open(job);
        ValueState<Long> value = value(zombie, longs("value"));
        AbstractKeyedStateBackend<Integer> successor = open(job);
        zombie.setCurrentKey(1);
        value.update(1L);
        Exception error = assertThrows(Exception.class, () -> Backends.checkpoint(zombie, 1));
        assertTrue(error.toString().contains("epoch"), error.toString());
        Backends.close(zombie);
        // The zombie's end does not disturb it.
        value(successor, longs("value"));
        assertNotNull(Backends.checkpoint(successor, 1));
        Backends.close(successor);
    }

    @Test
    void discardingACheckpointReleasesItsSnapshot() throws Exception {
        JobID job = new JobID();
        AbstractKeyedStateBackend<Integer> backend = open(job);
        value(backend, longs("value"));
        KeyedStateHandle handle = Backends.checkpoint(backend, 1);
        Backends.close(backend);
        handle.discardState();
        BackendBuildingException gone = assertThrows(BackendBuildingException.class, () -> open(job, handle));
        assertTrue(gone.getMessage().contains("no snapshot"), gone.getMessage());
    }

    @Test
    void pathsOfSnapshotsNameServerAndHandle() throws Exception {
        for (String address : List.of("10.0.0.5:7070", "[::1]:7070", "unix:/run/a b/cistern.sock")) {
            Path path = new Path(SnapshotPath.of(address, "store-1/7/0-127/ab12").toString());
            assertEquals(address, SnapshotPath.address(path));
            assertEquals("store-1/7/0-127/ab12", SnapshotPath.handle(path));
        }
        assertEquals(false, SnapshotReleaser.release(server.endpoint().toString(), "nothing", "nothing/1/0-1/a"));
    }

    @Test
    void settingsThatCannotWorkSayWhatToDo() {
        CisternStateBackendFactory factory = new CisternStateBackendFactory();
        ClassLoader loader = getClass().getClassLoader();
        Exception missing = assertThrows(IllegalConfigurationException.class, () -> factory.createFromConfig(new Configuration(), loader));
        assertTrue(missing.getMessage().contains("state.backend.cistern.address is not set"), missing.getMessage());
        Configuration wrong = Configuration.fromMap(Map.of("state.backend.cistern.address", "localhost"));
        Exception address = assertThrows(IllegalConfigurationException.class, () -> factory.createFromConfig(wrong, loader));
        assertTrue(address.getMessage().contains("HOST:PORT"), address.getMessage());
        Configuration small = Configuration.fromMap(
                Map.of("state.backend.cistern.address", "localhost:1", "state.backend.cistern.write-buffer.size", "1kb"));
        Exception buffer = assertThrows(IllegalConfigurationException.class, () -> factory.createFromConfig(small, loader));
        assertTrue(buffer.getMessage().contains("write buffer bytes is 1024"), buffer.getMessage());
    }

    @Test
    void namesThatTheServerDoesNotTakeAreWrittenInCharactersItTakes() {
        assertEquals("a%002fb c", Naming.state("a/b c"));
        assertEquals("timers:_timer_state%002fx", Naming.timers("_timer_state/x"));
        String longName = "x".repeat(300);
        assertEquals(200, Naming.state(longName).length());
        assertEquals(false, Naming.state(longName).equals(Naming.state(longName + "y")));
        JobID job = new JobID(1, 2);
        assertEquals(Naming.store(job, "Op_cbc_(1/4)"), Naming.store(job, "Op_cbc_(3/8)"));
    }
}
