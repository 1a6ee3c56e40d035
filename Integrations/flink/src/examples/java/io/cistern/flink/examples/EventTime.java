package io.cistern.flink.examples;

/** Event time is the count of days the source has begun. */
final class EventTime {
    private static final long DAY_MILLISECONDS = 86_400_000L;

    /** Fires when the source has ended and every day with it. */
    static final long END = Long.MAX_VALUE - 1;

    private EventTime() {}

    static long startOf(int day) {
        return day * DAY_MILLISECONDS;
    }

    /** How long a flight is remembered. The source repeats a record 40 places later, at most one day on; two days leave room. */
    static final int DUPLICATE_MEMORY_DAYS = 2;
}
