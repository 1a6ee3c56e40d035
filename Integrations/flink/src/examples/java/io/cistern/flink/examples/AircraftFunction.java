package io.cistern.flink.examples;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ReducingState;
import org.apache.flink.api.common.state.ReducingStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

import java.util.Map;

/**
 * Keyed by tail number: last departure, broken rotations, visits, worst delay, and the delays of each day, which a timer makes a figure
 * of. At the end every key writes its rows, a table's name in front.
 */
public final class AircraftFunction extends KeyedProcessFunction<String, Delivery, String> {
    private static final long serialVersionUID = 1L;

    /** Where an aircraft left last. */
    public static final class Departure {
        public String airport = "";
        public String flight = "";
        public int date;
    }

    /** Arrivals of a day. */
    public static final class Figure {
        public long flights;
        public long delaySum;
        public long worst = Long.MIN_VALUE;
    }

    private transient DuplicateFilter seen;
    private transient ValueState<Departure> lastDeparture;
    private transient ValueState<Long> brokenRotations;
    private transient MapState<String, Long> visits;
    private transient ReducingState<Long> worstDelay;
    private transient ListState<Long> delaysOfDay;
    private transient ValueState<Integer> openDate;
    private transient MapState<Integer, Figure> daily;

    @Override
    public void open(OpenContext open) {
        var context = getRuntimeContext();
        seen = new DuplicateFilter(context);
        lastDeparture = context.getState(new ValueStateDescriptor<>("last-departure", Types.POJO(Departure.class)));
        brokenRotations = context.getState(new ValueStateDescriptor<>("broken-rotations", LongSerializer.INSTANCE));
        visits = context.getMapState(new MapStateDescriptor<>("visits", StringSerializer.INSTANCE, LongSerializer.INSTANCE));
        worstDelay = context.getReducingState(new ReducingStateDescriptor<>("worst-delay", Math::max, LongSerializer.INSTANCE));
        delaysOfDay = context.getListState(new ListStateDescriptor<>("delays-of-day", LongSerializer.INSTANCE));
        openDate = context.getState(new ValueStateDescriptor<>("open-date", Types.INT));
        daily = context.getMapState(new MapStateDescriptor<>("daily", Types.INT, Types.POJO(Figure.class)));
    }

    @Override
    public void processElement(Delivery flight, Context context, Collector<String> output) throws Exception {
        if (!seen.isFirst(flight, context.timerService())) {
            return;
        }
        context.timerService().registerEventTimeTimer(EventTime.END);
        if (!flight.isCancelled()) {
            departed(flight);
        }
        if (flight.arrivalDelay != null) {
            worstDelay.add((long) flight.arrivalDelay);
            delaysOfDay.add((long) flight.arrivalDelay);
            openDate.update(flight.date);
            context.timerService().registerEventTimeTimer(EventTime.startOf(flight.day + 1));
        }
    }

    private void departed(Delivery flight) throws Exception {
        Departure last = lastDeparture.value();
        if (last != null && !last.airport.equals(flight.origin)) {
            Long broken = brokenRotations.value();
            brokenRotations.update(broken == null ? 1 : broken + 1);
        }
        Departure departure = new Departure();
        departure.airport = flight.origin;
        departure.flight = flight.carrier + flight.number;
        departure.date = flight.date;
        lastDeparture.update(departure);
        Long count = visits.get(flight.destination);
        visits.put(flight.destination, count == null ? 1 : count + 1);
    }

    @Override
    public void onTimer(long time, OnTimerContext context, Collector<String> output) throws Exception {
        closeDay();
        seen.forgetBefore(time);
        if (time == EventTime.END) {
            writeRows(context.getCurrentKey(), output);
        }
    }

    /** The list becomes a figure and goes. */
    private void closeDay() throws Exception {
        Iterable<Long> delays = delaysOfDay.get();
        Integer date = openDate.value();
        if (delays == null || date == null) {
            return;
        }
        Figure figure = daily.get(date);
        if (figure == null) {
            figure = new Figure();
        }
        for (long delay : delays) {
            figure.flights++;
            figure.delaySum += delay;
            figure.worst = Math.max(figure.worst, delay);
        }
        if (figure.flights > 0) {
            daily.put(date, figure);
        }
        delaysOfDay.clear();
        openDate.clear();
    }

    private void writeRows(String aircraft, Collector<String> output) throws Exception {
        long departures = 0;
        int destinations = 0;
        for (Map.Entry<String, Long> visit : visits.entries()) {
            output.collect(String.join("\t", "visits", aircraft, visit.getKey(), visit.getValue().toString()));
            departures += visit.getValue();
            destinations++;
        }
        for (Map.Entry<Integer, Figure> day : daily.entries()) {
            Figure figure = day.getValue();
            output.collect(String.join("\t", "days", aircraft, day.getKey().toString(), Long.toString(figure.flights),
                    Long.toString(figure.delaySum), Long.toString(figure.worst)));
        }
        Departure last = lastDeparture.value();
        if (last != null) {
            Long broken = brokenRotations.value();
            Long worst = worstDelay.get();
            output.collect(String.join("\t", "aircraft", aircraft, Long.toString(departures), Integer.toString(destinations),
                    broken == null ? "0" : broken.toString(), worst == null ? "" : worst.toString(), last.airport, last.flight,
                    Integer.toString(last.date)));
        }
    }
}
