package io.cistern.flink.bench;

import org.apache.flink.api.common.accumulators.LongMinimum;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.functions.source.legacy.RichSourceFunction;
import org.apache.flink.streaming.api.watermark.Watermark;

/**
 * The numbers from 0 on, from which jobs make keys and values, so that every backend is given the same records in the same order. Its
 * offset is in the checkpoint. Event time goes on by a second every {@link #NUMBERS_EACH_SECOND} numbers. Parallelism 1.
 */
@SuppressWarnings("deprecation")
final class Numbers extends RichSourceFunction<Long> implements CheckpointedFunction {
    static final String STARTED = "started";
    static final String FILLED = "filled";
    static final int NUMBERS_EACH_SECOND = 50_000;

    private static final long serialVersionUID = 1L;
    /** Records between two looks at the clock, and between two watermarks. */
    private static final int BLOCK = 500;

    private final long count;
    private final long unpaced;
    private final long recordsPerSecond;
    private volatile boolean isRunning = true;
    /** Guarded by the checkpoint lock. */
    private long next;
    private transient ListState<Long> offsets;
    private final LongMinimum started = new LongMinimum();
    private final LongMinimum filled = new LongMinimum();

    /**
     * @param unpaced numbers handed out as fast as they are taken
     * @param recordsPerSecond of the others; 0 for as fast as they are taken
     */
    Numbers(long count, long unpaced, long recordsPerSecond) {
        this.count = count;
        this.unpaced = unpaced;
        this.recordsPerSecond = recordsPerSecond;
    }

    @Override
    public void initializeState(FunctionInitializationContext context) throws Exception {
        offsets = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("offset", LongSerializer.INSTANCE));
        for (long stored : offsets.get()) {
            next = stored;
        }
    }

    @Override
    public void snapshotState(FunctionSnapshotContext context) throws Exception {
        offsets.clear();
        offsets.add(next);
    }

    @Override
    public void open(OpenContext context) {
        getRuntimeContext().addAccumulator(STARTED, started);
        getRuntimeContext().addAccumulator(FILLED, filled);
    }

    @Override
    public void run(SourceContext<Long> context) throws Exception {
        started.add(System.currentTimeMillis());
        long paceStarted = 0;
        long paceFrom = 0;
        while (isRunning && next < count) {
            synchronized (context.getCheckpointLock()) {
                for (long end = Math.min(next + BLOCK, count); next < end; next++) {
                    context.collectWithTimestamp(next, eventTime(next));
                }
                context.emitWatermark(new Watermark(eventTime(next) - 1));
            }
            if (recordsPerSecond > 0 && next >= unpaced) {
                if (paceStarted == 0) {
                    filled.add(System.currentTimeMillis());
                    paceStarted = System.nanoTime();
                    paceFrom = next;
                }
                long ahead = paceStarted + (next - paceFrom) * 1_000_000_000L / recordsPerSecond - System.nanoTime();
                if (ahead > 1_000_000) {
                    Thread.sleep(ahead / 1_000_000);
                }
            }
        }
    }

    private static long eventTime(long number) {
        return number * 1_000 / NUMBERS_EACH_SECOND;
    }

    @Override
    public void cancel() {
        isRunning = false;
    }

    /** Scatters numbers; a bijection. */
    static long mix(long number) {
        long z = number + 0x9e3779b97f4a7c15L;
        z = (z ^ z >>> 30) * 0xbf58476d1ce4e5b9L;
        z = (z ^ z >>> 27) * 0x94d049bb133111ebL;
        return z ^ z >>> 31;
    }
}
