package io.cistern.flink.bench;

import org.apache.flink.api.common.accumulators.LongCounter;
import org.apache.flink.api.common.accumulators.LongMaximum;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;

/** What a job gave out: how much, the sum, which is the same whatever the backend, and when the last of it came. */
final class Meter extends RichMapFunction<Long, Long> {
    static final String COUNT = "results";
    static final String SUM = "sum";
    static final String LAST = "last";

    private static final long serialVersionUID = 1L;
    private static final int RESULTS_BETWEEN_LOOKS = 256;

    private final LongCounter count = new LongCounter();
    private final LongCounter sum = new LongCounter();
    private final LongMaximum last = new LongMaximum();
    private int sinceLook;

    @Override
    public void open(OpenContext context) {
        getRuntimeContext().addAccumulator(COUNT, count);
        getRuntimeContext().addAccumulator(SUM, sum);
        getRuntimeContext().addAccumulator(LAST, last);
    }

    @Override
    public Long map(Long value) {
        count.add(1L);
        sum.add((long) value);
        if (++sinceLook == RESULTS_BETWEEN_LOOKS) {
            sinceLook = 0;
            last.add(System.currentTimeMillis());
        }
        return value;
    }
}
