package io.cistern.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.cistern.test.Seed;
import io.cistern.test.ServerProcess;

import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupedInternalPriorityQueue;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.streaming.api.operators.TimerHeapInternalTimer;
import org.apache.flink.streaming.api.operators.TimerSerializer;
import org.apache.flink.util.CloseableIterator;
import org.junit.jupiter.api.Test;

import java.util.Map;
import java.util.Random;
import java.util.TreeSet;

/** Timers are part of checkpoints and savepoints, at any parallelism. */
final class TimersTest {
    private static final String NAME = "_timer_state/event_user-timers";

    private record Queue(AbstractKeyedStateBackend<String> backend, KeyGroupedInternalPriorityQueue<TimerHeapInternalTimer<String, Long>> timers) {
        static Queue open(StateBackend backend, JobID job, KeyGroupRange range, KeyedStateHandle... handles) throws Exception {
            AbstractKeyedStateBackend<String> made = Backends.open(backend, job, StringSerializer.INSTANCE, range, Backends.handles(handles));
            return new Queue(made, made.create(NAME, new TimerSerializer<>(StringSerializer.INSTANCE, LongSerializer.INSTANCE)));
        }

        TreeSet<String> all() throws Exception {
            TreeSet<String> all = new TreeSet<>();
            try (CloseableIterator<TimerHeapInternalTimer<String, Long>> timers = this.timers.iterator()) {
                timers.forEachRemaining(timer -> all.add(timer.getTimestamp() + " " + timer.getKey() + " " + timer.getNamespace()));
            }
            return all;
        }
    }

    @Test
    void timersComeBackFromCheckpointsAndSavepoints() throws Exception {
        Random random = Seed.random("TimersTest");
        JobID job = new JobID();
        try (ServerProcess server = ServerProcess.launch()) {
            StateBackend cistern = Backends.cistern(server, Map.of());
            Queue ours = Queue.open(cistern, job, Backends.all());
            Queue theirs = Queue.open(Backends.hashMap(), job, Backends.all());
            for (int step = 0; step < 20_000; step++) {
                long time = random.nextInt(5_000) - 1_000;
                String key = "key-" + random.nextInt(200);
                long namespace = random.nextInt(3);
                for (Queue queue : new Queue[] {ours, theirs}) {
                    switch (step % 5) {
                        case 0, 1, 2 -> queue.timers.add(new TimerHeapInternalTimer<>(time, key, namespace));
                        case 3 -> queue.timers.remove(new TimerHeapInternalTimer<>(time, key, namespace));
                        default -> {
                            // Whichever of several with one time comes first, the other queue has it too.
                            if (!queue.timers.isEmpty() && step % 2 == 0) {
                                long first = queue.timers.peek().getTimestamp();
                                while (!queue.timers.isEmpty() && queue.timers.peek().getTimestamp() == first) {
                                    queue.timers.poll();
                                }
                            }
                        }
                    }
                }
            }
            TreeSet<String> expected = theirs.all();
            assertEquals(expected, ours.all());
            KeyedStateHandle checkpoint = Backends.checkpoint(ours.backend, 1);
            KeyedStateHandle savepoint = Backends.savepoint(ours.backend);
            Backends.close(ours.backend);
            TreeSet<String> halves = new TreeSet<>();
            for (int half = 0; half < 2; half++) {
                KeyGroupRange range = KeyGroupRange.of(half * Backends.KEY_GROUPS / 2, (half + 1) * Backends.KEY_GROUPS / 2 - 1);
                Queue part = Queue.open(cistern, job, range, checkpoint);
                halves.addAll(part.all());
                Backends.close(part.backend);
            }
            assertEquals(expected, halves);
            assertEquals(expected, Queue.open(Backends.hashMap(), job, Backends.all(), savepoint).all());
            Queue moved = Queue.open(cistern, new JobID(), Backends.all(), Backends.savepoint(theirs.backend));
            assertEquals(expected, moved.all());
            Backends.close(moved.backend);
        }
    }
}
