package io.cistern.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.client.TreeSession;
import io.cistern.flink.async.CisternAsyncKeyedStateBackend;
import io.cistern.test.Seed;
import io.cistern.test.ServerProcess;

import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.v2.AggregatingStateDescriptor;
import org.apache.flink.api.common.state.v2.ListStateDescriptor;
import org.apache.flink.api.common.state.v2.MapStateDescriptor;
import org.apache.flink.api.common.state.v2.ReducingStateDescriptor;
import org.apache.flink.api.common.state.v2.StateIterator;
import org.apache.flink.api.common.state.v2.ValueStateDescriptor;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.metrics.groups.UnregisteredMetricsGroup;
import org.apache.flink.runtime.asyncprocessing.EpochManager;
import org.apache.flink.runtime.asyncprocessing.RecordContext;
import org.apache.flink.runtime.asyncprocessing.StateExecutionController;
import org.apache.flink.runtime.asyncprocessing.declare.DeclarationManager;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.v2.internal.InternalAggregatingState;
import org.apache.flink.runtime.state.v2.internal.InternalKeyedState;
import org.apache.flink.runtime.state.v2.internal.InternalListState;
import org.apache.flink.runtime.state.v2.internal.InternalMapState;
import org.apache.flink.runtime.state.v2.internal.InternalReducingState;
import org.apache.flink.runtime.state.v2.internal.InternalValueState;
import org.apache.flink.streaming.runtime.tasks.StreamTaskActionExecutor;
import org.apache.flink.streaming.runtime.tasks.mailbox.MailboxExecutorImpl;
import org.apache.flink.streaming.runtime.tasks.mailbox.TaskMailboxImpl;
import org.apache.flink.util.function.ThrowingRunnable;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.TreeMap;

/** Records through Flink's own controller of asynchronous requests: every answer is the one of doing record after record. */
final class AsyncModelTest {
    private static final int KEYS = 3_000;
    private static final int BATCH = 100;
    private static final int IN_FLIGHT = 600;

    private static ServerProcess server;

    @BeforeAll
    static void start() throws Exception {
        server = ServerProcess.launch();
    }

    @AfterAll
    static void stop() throws Exception {
        server.close();
    }

    /** What one key and namespace hold. */
    private static final class Content {
        String value;
        List<String> list = new ArrayList<>();
        Map<String, Long> map = new TreeMap<>();
        Long reduced;
        Long aggregated;
    }

    private static final class Sum implements AggregateFunction<Long, Long, String> {
        private static final long serialVersionUID = 1L;

        @Override
        public Long createAccumulator() {
            return 0L;
        }

        @Override
        public Long add(Long value, Long accumulator) {
            return value + accumulator;
        }

        @Override
        public String getResult(Long accumulator) {
            return "sum " + accumulator;
        }

        @Override
        public Long merge(Long a, Long b) {
            return a + b;
        }
    }

    /** An operator's subtask as far as its state is concerned. */
    private static final class Operator {
        final CisternAsyncKeyedStateBackend<String> backend;
        final StateExecutionController<String> controller;
        final InternalValueState<String, String, String> value;
        final InternalListState<String, String, String> list;
        final InternalMapState<String, String, String, Long> map;
        final InternalReducingState<String, String, Long> reducing;
        final InternalAggregatingState<String, String, Long, Long, String> aggregating;
        final Map<String, Content> model = new HashMap<>();
        final List<Throwable> failures = new ArrayList<>();
        int checks;
        /** Milliseconds. */
        long now = System.currentTimeMillis();

        Operator(ServerProcess server, JobID job, KeyedStateHandle... handles) throws Exception {
            backend = Backends.openAsync(Backends.cistern(server, Map.of()), job, StringSerializer.INSTANCE, Backends.all(),
                    Backends.handles(handles), () -> now);
            MailboxExecutorImpl mailbox = new MailboxExecutorImpl(new TaskMailboxImpl(Thread.currentThread()), 0, StreamTaskActionExecutor.IMMEDIATE);
            controller = new StateExecutionController<>(mailbox, (message, error) -> { error.printStackTrace(); failures.add(error); }, backend.createStateExecutor(),
                    new DeclarationManager(), EpochManager.ParallelMode.SERIAL_BETWEEN_EPOCH, Backends.KEY_GROUPS, BATCH, 1_000_000, IN_FLIGHT,
                    backend, new UnregisteredMetricsGroup());
            backend.setup(controller);
            value = backend.getOrCreateKeyedState("n0", StringSerializer.INSTANCE, new ValueStateDescriptor<>("value", StringSerializer.INSTANCE));
            list = backend.getOrCreateKeyedState("n0", StringSerializer.INSTANCE, new ListStateDescriptor<>("list", StringSerializer.INSTANCE));
            map = backend.getOrCreateKeyedState("n0", StringSerializer.INSTANCE,
                    new MapStateDescriptor<>("map", StringSerializer.INSTANCE, LongSerializer.INSTANCE));
            reducing = backend.getOrCreateKeyedState("n0", StringSerializer.INSTANCE,
                    new ReducingStateDescriptor<>("reducing", Long::sum, LongSerializer.INSTANCE));
            aggregating = backend.getOrCreateKeyedState("n0", StringSerializer.INSTANCE,
                    new AggregatingStateDescriptor<>("aggregating", new Sum(), LongSerializer.INSTANCE));
        }

        /** A record, of which the answers may come later. */
        void record(Random random, int number) throws Exception {
            String key = "key-" + random.nextInt(KEYS);
            String namespace = "n" + random.nextInt(2);
            long seed = random.nextLong();
            run(key, () -> {
                for (InternalKeyedState<String, String, ?> state : List.of(value, list, map, reducing, aggregating)) {
                    state.setCurrentNamespace(namespace);
                }
                act(new Random(seed), number, model.computeIfAbsent(key + " " + namespace, name -> new Content()));
            });
        }

        /** As operators do that keep records in order: what a record does begins when those of its key before it have ended. */
        void run(String key, ThrowingRunnable<Exception> action) {
            RecordContext<String> context = controller.buildContext(new Object(), key);
            context.retain();
            controller.setCurrentContext(context);
            controller.syncPointRequestWithCallback(action, false);
            context.release();
        }

        private void act(Random random, int number, Content content) {
            String text = number + "x".repeat(random.nextInt(700));
            String user = "u" + random.nextInt(4);
            switch (random.nextInt(16)) {
                case 0 -> {
                    // Not chained: the order of one record's requests is that of its calls.
                    value.asyncUpdate(text);
                    value.asyncValue().thenAccept(found -> check(text, found));
                    content.value = text;
                }
                case 1, 2 -> {
                    String before = content.value;
                    value.asyncValue().thenCompose(found -> {
                        check(before, found);
                        return value.asyncUpdate(text);
                    }).thenCompose(done -> value.asyncValue()).thenAccept(found -> check(text, found));
                    content.value = text;
                }
                case 3 -> {
                    String before = content.value;
                    value.asyncValue().thenAccept(found -> check(before, found));
                    value.asyncUpdate(text);
                    content.value = text;
                }
                case 4 -> {
                    value.asyncClear();
                    list.asyncClear();
                    content.value = null;
                    content.list = new ArrayList<>();
                }
                case 5 -> {
                    list.asyncAdd(text);
                    content.list.add(text);
                }
                case 6 -> {
                    list.asyncUpdate(List.of("a", text));
                    content.list = new ArrayList<>(List.of("a", text));
                }
                case 7 -> {
                    List<String> expected = List.copyOf(content.list);
                    list.asyncGet().thenAccept(found -> collect(found, all -> check(expected, all)));
                }
                case 8 -> {
                    map.asyncPut(user, (long) number);
                    content.map.put(user, (long) number);
                }
                case 9 -> {
                    Long expected = content.map.get(user);
                    boolean isThere = content.map.containsKey(user);
                    boolean isEmpty = content.map.isEmpty();
                    map.asyncGet(user).thenAccept(found -> check(expected, found));
                    map.asyncContains(user).thenAccept(found -> check(isThere, found));
                    map.asyncIsEmpty().thenAccept(found -> check(isEmpty, found));
                }
                case 10 -> {
                    map.asyncRemove(user);
                    content.map.remove(user);
                }
                case 11 -> {
                    Map<String, Long> expected = new TreeMap<>(content.map);
                    map.asyncEntries().thenAccept(found -> collect(found, all -> {
                        Map<String, Long> entries = new TreeMap<>();
                        all.forEach(entry -> entries.put(entry.getKey(), entry.getValue()));
                        check(expected, entries);
                    }));
                    if (random.nextInt(3) == 0) {
                        map.asyncClear();
                        content.map = new TreeMap<>();
                    }
                }
                case 12 -> {
                    content.reduced = content.reduced == null ? number : content.reduced + number;
                    Long expected = content.reduced;
                    reducing.asyncAdd((long) number).thenCompose(done -> reducing.asyncGet()).thenAccept(found -> check(expected, found));
                }
                case 13 -> {
                    content.aggregated = content.aggregated == null ? number : content.aggregated + number;
                    String expected = "sum " + content.aggregated;
                    aggregating.asyncAdd((long) number).thenCompose(done -> aggregating.asyncGet()).thenAccept(found -> check(expected, found));
                }
                case 14 -> {
                    // The synchronous calls of the same states.
                    check(content.value, value.value());
                    value.update(text);
                    content.value = text;
                    check(content.map.get(user), map.get(user));
                }
                default -> {
                    map.asyncPutAll(Map.of("p", 1L, "q", 2L));
                    content.map.putAll(Map.of("p", 1L, "q", 2L));
                }
            }
        }

        private <T> void collect(StateIterator<T> iterator, java.util.function.Consumer<List<T>> check) {
            List<T> all = new ArrayList<>();
            iterator.onNext(element -> {
                all.add(element);
            }).thenAccept(done -> check.accept(all));
        }

        /** An exception of a callback would leave its record in flight, and whoever waits for it waiting. */
        private void check(Object expected, Object found) {
            checks++;
            if (!Objects.equals(expected, found)) {
                failures.add(new AssertionError("expected " + expected + ", found " + found));
            }
        }

        void drain() {
            controller.drainInflightRecords(0);
            assertEquals(List.of(), failures);
        }

        void close() throws Exception {
            backend.close();
            backend.dispose();
        }
    }

    @Test
    void valuesOfATimeToLiveAreHiddenWhenItIsOver() throws Exception {
        Operator operator = new Operator(server, new JobID());
        ValueStateDescriptor<String> descriptor = new ValueStateDescriptor<>("short", StringSerializer.INSTANCE);
        descriptor.enableTimeToLive(StateTtlConfig.newBuilder(Duration.ofMinutes(1)).build());
        InternalValueState<String, String, String> state = operator.backend.getOrCreateKeyedState("n0", StringSerializer.INSTANCE, descriptor);
        operator.run("a", () -> state.asyncUpdate("seen"));
        operator.run("a", () -> state.asyncValue().thenAccept(found -> operator.check("seen", found)));
        operator.now += Duration.ofMinutes(2).toMillis();
        operator.run("a", () -> state.asyncValue().thenAccept(found -> operator.check(null, found)));
        operator.drain();
        assertEquals(2, operator.checks);
        operator.close();
    }

    @Test
    void aServerThatIsKilledAndComesBackChangesNoAnswer() throws Exception {
        Random random = Seed.random("AsyncModelTest.kill");
        try (ServerProcess own = ServerProcess.launch()) {
            Operator operator = new Operator(own, new JobID());
            for (int round = 0; round < 4; round++) {
                for (int number = 0; number < 6_000; number++) {
                    operator.record(random, round * 6_000 + number);
                }
                // Records are in flight, reads are under way.
                own.kill();
                own.start();
            }
            operator.drain();
            operator.close();
        }
    }

    @Test
    void everyAnswerIsThatOfRecordAfterRecord() throws Exception {
        Random random = Seed.random("AsyncModelTest.answers");
        JobID job = new JobID();
        Operator operator = new Operator(server, job);
        for (int number = 0; number < 40_000; number++) {
            operator.record(random, number);
            if (random.nextInt(5_000) == 0) {
                operator.drain();
            }
        }
        operator.drain();
        TreeSession session = operator.backend.session();
        assertTrue(operator.checks > 15_000, operator.checks + " checks");
        assertTrue(session.figures().evictions > 0, "the cache held everything: nothing was read in batches");
        assertTrue(session.figures().readRequests * 3 < session.figures().reads, session.figures().readRequests + " requests for "
                + session.figures().reads + " reads");

        // What it left is read by the synchronous backend, and by another asynchronous one.
        KeyedStateHandle checkpoint = Backends.checkpoint(operator.backend, 1);
        operator.close();
        AbstractKeyedStateBackend<String> synchronous = Backends.open(Backends.cistern(server, Map.of()), job, StringSerializer.INSTANCE,
                Backends.all(), Backends.handles(checkpoint));
        org.apache.flink.runtime.state.internal.InternalValueState<String, String, String> values = synchronous.createOrUpdateInternalState(
                StringSerializer.INSTANCE, new org.apache.flink.api.common.state.ValueStateDescriptor<>("value", StringSerializer.INSTANCE));
        org.apache.flink.runtime.state.internal.InternalListState<String, String, String> lists = synchronous.createOrUpdateInternalState(
                StringSerializer.INSTANCE, new org.apache.flink.api.common.state.ListStateDescriptor<>("list", StringSerializer.INSTANCE));
        for (Map.Entry<String, Content> entry : operator.model.entrySet()) {
            String[] parts = entry.getKey().split(" ");
            synchronous.setCurrentKey(parts[0]);
            values.setCurrentNamespace(parts[1]);
            lists.setCurrentNamespace(parts[1]);
            assertEquals(entry.getValue().value, values.value(), entry.getKey());
            assertEquals(entry.getValue().list, lists.get() == null ? List.of() : lists.get(), entry.getKey());
        }
        KeyedStateHandle second = Backends.checkpoint(synchronous, 2);
        Backends.close(synchronous);
        Operator again = new Operator(server, job, second);
        again.model.putAll(operator.model);
        for (int number = 100_000; number < 110_000; number++) {
            again.record(random, number);
        }
        again.drain();
        again.close();
    }
}
