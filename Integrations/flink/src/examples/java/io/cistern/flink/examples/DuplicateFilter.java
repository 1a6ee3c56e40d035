package io.cistern.flink.examples;

import org.apache.flink.api.common.functions.RuntimeContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeutils.base.IntSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.streaming.api.TimerService;

import java.util.Iterator;
import java.util.Map;

/** Remembers the flights of a key for two days: flight to day. Nearly every look is for one that is not there. */
final class DuplicateFilter {
    private final MapState<String, Integer> seen;

    DuplicateFilter(RuntimeContext context) {
        seen = context.getMapState(new MapStateDescriptor<>("seen", StringSerializer.INSTANCE, IntSerializer.INSTANCE));
    }

    /** False when the source has delivered this flight before. */
    boolean isFirst(Delivery flight, TimerService timers) throws Exception {
        String identity = flight.identity();
        if (seen.contains(identity)) {
            return false;
        }
        seen.put(identity, flight.day);
        timers.registerEventTimeTimer(EventTime.startOf(flight.day + EventTime.DUPLICATE_MEMORY_DAYS));
        return true;
    }

    /** Forgets what is old. */
    void forgetBefore(long time) throws Exception {
        Iterator<Map.Entry<String, Integer>> flights = seen.iterator();
        while (flights.hasNext()) {
            if (EventTime.startOf(flights.next().getValue() + EventTime.DUPLICATE_MEMORY_DAYS) <= time) {
                flights.remove();
            }
        }
    }
}
