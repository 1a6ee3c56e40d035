package io.cistern.flink.examples;

import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.functions.source.legacy.SourceFunction;
import org.apache.flink.streaming.api.watermark.Watermark;

import java.io.BufferedReader;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * The flights in file order, delivered at least once: every 97th comes again 40 places later, as a real source would. The stream is a
 * function of the file, so the offset in the checkpoint names a place to return to. Parallelism 1. The
 * old interface of sources is the one that says the most in the fewest lines.
 */
@SuppressWarnings("deprecation")
public final class FlightSource implements SourceFunction<Delivery>, CheckpointedFunction {
    private static final long serialVersionUID = 1L;
    private static final int REDELIVERY_INTERVAL = 97;
    private static final int REDELIVERY_DISTANCE = 40;
    private static final long PACE_MILLISECONDS = 10;

    private final String path;
    private final long recordsPerSecond;
    private volatile boolean isRunning = true;
    /** Deliveries handed out so far. Guarded by the checkpoint lock. */
    private long offset;
    private transient ListState<Long> offsets;

    /** @param recordsPerSecond 0 for as many as the job takes */
    public FlightSource(String path, long recordsPerSecond) {
        this.path = path;
        this.recordsPerSecond = recordsPerSecond;
    }

    @Override
    public void initializeState(FunctionInitializationContext context) throws Exception {
        offsets = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("offset", LongSerializer.INSTANCE));
        for (long stored : offsets.get()) {
            offset = stored;
        }
    }

    @Override
    public void snapshotState(FunctionSnapshotContext context) throws Exception {
        offsets.clear();
        offsets.add(offset);
    }

    @Override
    public void run(SourceContext<Delivery> context) throws Exception {
        long skip = offset;
        long delivered = 0;
        long started = System.nanoTime();
        int flights = 0;
        int day = 0;
        int date = 0;
        Delivery again = null;
        int againAt = 0;
        try (BufferedReader file = Files.newBufferedReader(Path.of(path))) {
            file.readLine();
            for (String line = file.readLine(); line != null && isRunning; line = file.readLine()) {
                Delivery flight = Delivery.parse(line);
                flights++;
                boolean isNewDay = flight.date != date;
                if (isNewDay) {
                    date = flight.date;
                    day++;
                }
                flight.day = day;
                if (flights % REDELIVERY_INTERVAL == 0) {
                    again = Delivery.parse(line);
                    againAt = flights + REDELIVERY_DISTANCE;
                }
                delivered = deliver(context, flight, isNewDay, delivered, skip);
                if (again != null && flights == againAt) {
                    again.day = day;
                    delivered = deliver(context, again, false, delivered, skip);
                    again = null;
                }
                pace(delivered - skip, started);
            }
        }
    }

    private long deliver(SourceContext<Delivery> context, Delivery flight, boolean isNewDay, long delivered, long skip) {
        if (delivered >= skip) {
            synchronized (context.getCheckpointLock()) {
                if (isNewDay) {
                    context.emitWatermark(new Watermark(EventTime.startOf(flight.day)));
                }
                context.collectWithTimestamp(flight, EventTime.startOf(flight.day));
                offset = delivered + 1;
            }
        }
        return delivered + 1;
    }

    private void pace(long records, long started) throws InterruptedException {
        if (recordsPerSecond > 0 && records > 0) {
            long due = started + records * 1_000_000_000L / recordsPerSecond;
            if (due - System.nanoTime() > PACE_MILLISECONDS * 1_000_000) {
                Thread.sleep(PACE_MILLISECONDS);
            }
        }
    }

    @Override
    public void cancel() {
        isRunning = false;
    }
}
