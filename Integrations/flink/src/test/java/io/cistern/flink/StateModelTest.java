package io.cistern.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.test.Seed;
import io.cistern.test.ServerProcess;

import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.StateBackend;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;

/** Every answer is the one of Flink's own heap backend, step by step; also after checkpoints, rescaling and savepoints. */
final class StateModelTest {
    private static ServerProcess server;

    @BeforeAll
    static void start() throws Exception {
        server = ServerProcess.launch();
    }

    @AfterAll
    static void stop() throws Exception {
        server.close();
    }

    private static StateSet open(StateBackend backend, JobID job, KeyGroupRange range, KeyedStateHandle... handles) throws Exception {
        return new StateSet(Backends.open(backend, job, StringSerializer.INSTANCE, range, Backends.handles(handles)));
    }

    private static StateBackend cistern() {
        return Backends.cistern(server, Map.of());
    }

    private static List<String> keysOf(KeyGroupRange range) {
        return IntStream.range(0, StateSet.KEYS).mapToObj(StateSet::key).filter(key -> Backends.isIn(range, key)).toList();
    }

    /** Runs both on the same random numbers. */
    private static void run(StateSet ours, StateSet theirs, Random seeds, int steps) throws Exception {
        for (int step = 0; step < steps; step++) {
            long seed = seeds.nextLong();
            assertEquals(theirs.step(new Random(seed)), ours.step(new Random(seed)), "step " + step);
        }
    }

    @Test
    void everyAnswerIsThatOfTheHeapBackend() throws Exception {
        Random random = Seed.random("StateModelTest.answers");
        StateSet ours = open(cistern(), new JobID(), Backends.all());
        StateSet theirs = open(Backends.hashMap(), new JobID(), Backends.all());
        ours.hasNulls = true;
        theirs.hasNulls = true;
        run(ours, theirs, random, 40_000);
        assertEquals(theirs.content(keysOf(Backends.all())), ours.content(keysOf(Backends.all())));
        assertEquals(theirs.enumerated(), ours.enumerated());
        assertTrue(ours.backend.numKeyValueStateEntries() > 0);
        Backends.close(ours.backend);
    }

    @Test
    void aCheckpointHoldsTheMomentItWasTakenAtAndRescalesBothWays() throws Exception {
        Random random = Seed.random("StateModelTest.checkpoint");
        JobID job = new JobID();
        StateSet ours = open(cistern(), job, Backends.all());
        StateSet theirs = open(Backends.hashMap(), job, Backends.all());
        run(ours, theirs, random, 10_000);
        Map<String, String> content = theirs.content(keysOf(Backends.all()));
        Backends.Started checkpoint = Backends.start(ours.backend, 1);
        run(ours, theirs, random, 3_000);
        KeyedStateHandle whole = checkpoint.get();
        Backends.close(ours.backend);

        // 1 to 2.
        List<KeyedStateHandle> halves = new ArrayList<>();
        for (int half = 0; half < 2; half++) {
            KeyGroupRange range = KeyGroupRange.of(half * Backends.KEY_GROUPS / 2, (half + 1) * Backends.KEY_GROUPS / 2 - 1);
            StateSet part = open(cistern(), job, range, whole.getIntersection(range));
            part.content(keysOf(range)).forEach((key, value) -> assertEquals(content.get(key), value, key));
            halves.add(Backends.checkpoint(part.backend, 2));
            Backends.close(part.backend);
        }
        // 2 to 1, as another job that takes the checkpoint over.
        StateSet again = open(cistern(), new JobID(), Backends.all(), halves.get(0), halves.get(1));
        assertEquals(content, again.content(keysOf(Backends.all())));
        Backends.close(again.backend);
        halves.get(0).discardState();
    }

    @Test
    void canonicalSavepointsGoFromTheHeapBackendToCisternAndBack() throws Exception {
        Random random = Seed.random("StateModelTest.savepoint");
        StateSet theirs = open(Backends.hashMap(), new JobID(), Backends.all());
        for (int step = 0; step < 10_000; step++) {
            theirs.step(random);
        }
        Map<String, String> content = theirs.content(keysOf(Backends.all()));
        JobID job = new JobID();
        StateSet ours = open(cistern(), job, Backends.all(), Backends.savepoint(theirs.backend));
        assertEquals(content, ours.content(keysOf(Backends.all())));
        run(ours, theirs, random, 5_000);
        KeyedStateHandle checkpoint = Backends.checkpoint(ours.backend, 7);
        KeyedStateHandle savepoint = Backends.savepoint(ours.backend);
        Map<String, String> later = theirs.content(keysOf(Backends.all()));
        Backends.close(ours.backend);

        StateSet back = open(Backends.hashMap(), new JobID(), Backends.all(), savepoint);
        assertEquals(later, back.content(keysOf(Backends.all())));
        StateSet restored = open(cistern(), job, Backends.all(), checkpoint);
        assertEquals(later, restored.content(keysOf(Backends.all())));
        Backends.close(restored.backend);
    }

    @Test
    void statesThatTheJobDoesNotAskForStayInCheckpointsAndSavepoints() throws Exception {
        Random random = Seed.random("StateModelTest.unasked");
        JobID job = new JobID();
        StateSet ours = open(cistern(), job, Backends.all());
        for (int step = 0; step < 2_000; step++) {
            ours.step(random);
        }
        Map<String, String> content = ours.content(keysOf(Backends.all()));
        KeyedStateHandle first = Backends.checkpoint(ours.backend, 1);
        Backends.close(ours.backend);
        Collection<KeyedStateHandle> handles = Backends.handles(first);
        AbstractKeyedStateBackend<String> idle = Backends.open(cistern(), job, StringSerializer.INSTANCE, Backends.all(), handles);
        KeyedStateHandle second = Backends.checkpoint(idle, 2);
        KeyedStateHandle savepoint = Backends.savepoint(idle);
        Backends.close(idle);
        StateSet restored = open(cistern(), job, Backends.all(), second);
        assertEquals(content, restored.content(keysOf(Backends.all())));
        Backends.close(restored.backend);
        assertEquals(content, open(Backends.hashMap(), job, Backends.all(), savepoint).content(keysOf(Backends.all())));
    }
}
