package io.cistern.flink.bench;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.util.Collector;
import org.apache.flink.util.ParameterTool;

import java.time.Duration;

/**
 * The jobs that are measured: {@code --job counter|counter_async|window_async|dedup|join|state --records N --keys N [--rate N] [--value BYTES]}.
 * Nothing in them knows where their state is.
 */
public final class BenchJob {
    private static final int DUPLICATE_EVERY = 20;
    private static final int DUPLICATE_WITHIN = 100_000;

    private BenchJob() {}

    public static void main(String[] arguments) throws Exception {
        ParameterTool options = ParameterTool.fromArgs(arguments);
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment.getConfig().enableObjectReuse();
        long keys = options.getLong("keys", 1);
        String job = options.getRequired("job");
        Numbers source = new Numbers(options.getLong("records"), job.equals("state") ? keys : 0, options.getLong("rate", 0));
        @SuppressWarnings("deprecation")
        DataStream<Long> numbers = environment.addSource(source, Types.LONG).name("numbers").uid("numbers").setParallelism(1);
        DataStream<Long> results = switch (job) {
            case "counter" -> byKey(numbers, keys).process(new Counter());
            case "counter_async" -> byKey(numbers, keys).enableAsyncState().process(new AsyncCounter());
            case "window_async" -> byKey(numbers, keys).enableAsyncState().window(TumblingEventTimeWindows.of(Duration.ofSeconds(1))).reduce(Long::sum);
            case "dedup" -> numbers.keyBy(BenchJob::event, Types.STRING).process(new Duplicates());
            case "state" -> numbers.keyBy(number -> number < keys ? number : Math.floorMod(Numbers.mix(number), keys), Types.LONG)
                    .process(new Rewriter(options.getInt("value")));
            case "join" -> numbers.filter(number -> number % 2 == 0).join(numbers.filter(number -> number % 2 == 1))
                    .where(number -> Math.floorMod(Numbers.mix(number), keys), Types.LONG)
                    .equalTo(number -> Math.floorMod(Numbers.mix(number), keys), Types.LONG)
                    .window(TumblingEventTimeWindows.of(Duration.ofSeconds(1))).apply(Long::sum, Types.LONG);
            default -> throw new IllegalArgumentException("no job \"" + job + "\"");
        };
        results.map(new Meter()).returns(Types.LONG).name("meter").sinkTo(new DiscardingSink<>());
        environment.execute(job);
    }

    private static KeyedStream<Long, Long> byKey(DataStream<Long> numbers, long keys) {
        return numbers.keyBy(number -> Math.floorMod(Numbers.mix(number), keys), Types.LONG);
    }

    /** The name of an event: mostly a new one, sometimes one that came a while ago. */
    private static String event(long number) {
        boolean isDuplicate = number % DUPLICATE_EVERY == DUPLICATE_EVERY - 1;
        long of = isDuplicate ? number - 1 - Math.floorMod(Numbers.mix(number), Math.min(number, DUPLICATE_WITHIN)) : number;
        return "event-" + Long.toHexString(Numbers.mix(of));
    }

    /** Counts the records of a key: a read and a write for each. */
    private static final class Counter extends KeyedProcessFunction<Long, Long, Long> {
        private static final long serialVersionUID = 1L;
        private transient ValueState<Long> count;

        @Override
        public void open(OpenContext context) {
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override
        public void processElement(Long value, Context context, Collector<Long> out) throws Exception {
            Long before = count.value();
            long now = before == null ? 1 : before + 1;
            count.update(now);
            out.collect(now);
        }
    }

    /** The same through the asynchronous state API. */
    private static final class AsyncCounter extends KeyedProcessFunction<Long, Long, Long> {
        private static final long serialVersionUID = 1L;
        private transient org.apache.flink.api.common.state.v2.ValueState<Long> count;

        @Override
        public void open(OpenContext context) {
            count = getRuntimeContext().getState(new org.apache.flink.api.common.state.v2.ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override
        public void processElement(Long value, Context context, Collector<Long> out) {
            count.asyncValue().thenAccept(before -> {
                long now = before == null ? 1 : before + 1;
                count.asyncUpdate(now).thenAccept(done -> out.collect(now));
            });
        }
    }

    /** 1 for the first record of a key within an hour, 0 for others. Nearly every look is for a key that is not there. */
    private static final class Duplicates extends KeyedProcessFunction<String, Long, Long> {
        private static final long serialVersionUID = 1L;
        private transient ValueState<Boolean> seen;

        @Override
        public void open(OpenContext context) {
            ValueStateDescriptor<Boolean> descriptor = new ValueStateDescriptor<>("seen", Types.BOOLEAN);
            descriptor.enableTimeToLive(StateTtlConfig.newBuilder(Duration.ofHours(1)).build());
            seen = getRuntimeContext().getState(descriptor);
        }

        @Override
        public void processElement(Long value, Context context, Collector<Long> out) throws Exception {
            boolean isFirst = seen.value() == null;
            if (isFirst) {
                seen.update(true);
            }
            out.collect(isFirst ? 1L : 0L);
        }
    }

    /** Reads a value of some size and writes another one. */
    private static final class Rewriter extends KeyedProcessFunction<Long, Long, Long> {
        private static final long serialVersionUID = 1L;
        private final int bytes;
        private transient ValueState<byte[]> state;

        Rewriter(int bytes) {
            this.bytes = bytes;
        }

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("value", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
        }

        @Override
        public void processElement(Long number, Context context, Collector<Long> out) throws Exception {
            byte[] before = state.value();
            byte[] value = new byte[bytes];
            long random = number;
            for (int i = 0; i + 8 <= bytes; i += 8) {
                random = Numbers.mix(random);
                for (int j = 0; j < 8; j++) {
                    value[i + j] = (byte) (random >> 8 * j);
                }
            }
            state.update(value);
            out.collect(before == null ? 0L : 1L);
        }
    }
}
