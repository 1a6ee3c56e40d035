package io.cistern.flink.examples;

import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.AggregatingState;
import org.apache.flink.api.common.state.AggregatingStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** Keyed by carrier: statistics of its flights. */
public final class CarrierFunction extends KeyedProcessFunction<String, Delivery, String> {
    private static final long serialVersionUID = 1L;

    /** Sums over a carrier's flights. */
    public static final class Sums {
        public long flights;
        public long cancelled;
        public long withoutTailNumber;
        public long duplicates;
        public long arrivals;
        public long delaySum;
        public long delaySquareSum;
        public long worst = Long.MIN_VALUE;
    }

    private transient DuplicateFilter seen;
    private transient AggregatingState<Delivery, Sums> statistics;

    @Override
    public void open(OpenContext open) {
        seen = new DuplicateFilter(getRuntimeContext());
        statistics = getRuntimeContext().getAggregatingState(
                new AggregatingStateDescriptor<>("delays", new Statistics(), Types.POJO(Sums.class)));
    }

    @Override
    public void processElement(Delivery flight, Context context, Collector<String> output) throws Exception {
        context.timerService().registerEventTimeTimer(EventTime.END);
        if (!seen.isFirst(flight, context.timerService())) {
            flight.day = Statistics.DUPLICATE;
        }
        statistics.add(flight);
    }

    @Override
    public void onTimer(long time, OnTimerContext context, Collector<String> output) throws Exception {
        seen.forgetBefore(time);
        if (time == EventTime.END) {
            Sums sums = statistics.get();
            output.collect(String.join("\t", "carriers", context.getCurrentKey(), Long.toString(sums.flights), Long.toString(sums.cancelled),
                    Long.toString(sums.withoutTailNumber), Long.toString(sums.duplicates), Long.toString(sums.arrivals),
                    Long.toString(sums.delaySum), Long.toString(sums.delaySquareSum), sums.arrivals == 0 ? "" : Long.toString(sums.worst)));
        }
    }

    private static final class Statistics implements AggregateFunction<Delivery, Sums, Sums> {
        private static final long serialVersionUID = 1L;
        /** Stands for the day of a flight that was delivered before. */
        static final int DUPLICATE = -1;

        @Override
        public Sums createAccumulator() {
            return new Sums();
        }

        @Override
        public Sums add(Delivery flight, Sums sums) {
            if (flight.day == DUPLICATE) {
                sums.duplicates++;
                return sums;
            }
            sums.flights++;
            sums.cancelled += flight.isCancelled() ? 1 : 0;
            sums.withoutTailNumber += flight.tailNumber == null ? 1 : 0;
            if (flight.arrivalDelay != null) {
                long delay = flight.arrivalDelay;
                sums.arrivals++;
                sums.delaySum += delay;
                sums.delaySquareSum += delay * delay;
                sums.worst = Math.max(sums.worst, delay);
            }
            return sums;
        }

        @Override
        public Sums getResult(Sums sums) {
            return sums;
        }

        @Override
        public Sums merge(Sums a, Sums b) {
            Sums sums = new Sums();
            sums.flights = a.flights + b.flights;
            sums.cancelled = a.cancelled + b.cancelled;
            sums.withoutTailNumber = a.withoutTailNumber + b.withoutTailNumber;
            sums.duplicates = a.duplicates + b.duplicates;
            sums.arrivals = a.arrivals + b.arrivals;
            sums.delaySum = a.delaySum + b.delaySum;
            sums.delaySquareSum = a.delaySquareSum + b.delaySquareSum;
            sums.worst = Math.max(a.worst, b.worst);
            return sums;
        }
    }
}
