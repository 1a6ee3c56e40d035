package io.cistern.flink.examples;

/** One flight as the source hands it out. A POJO of Flink: public fields, and a constructor without arguments. */
public final class Delivery {
    private static final int COLUMNS = 19;
    private static final String NOT_AVAILABLE = "NA";

    /** Calendar day as the number yyyymmdd. */
    public int date;
    /** Days the source has begun so far; the file's months are not in order, so this is the job's event time. */
    public int day;
    /** Minutes; null when the flight was cancelled. */
    public Integer departureDelay;
    /** Minutes; null when it was cancelled or landed somewhere else. */
    public Integer arrivalDelay;
    public String carrier = "";
    public int number;
    /** The aircraft; null for some of the cancelled flights. */
    public String tailNumber;
    public String origin = "";
    public String destination = "";

    /** Reads a line of the file. */
    public static Delivery parse(String line) {
        String[] fields = line.split(",", -1);
        if (fields.length != COLUMNS) {
            throw new IllegalArgumentException("a line has " + fields.length + " columns where " + COLUMNS + " were expected: " + line);
        }
        Delivery flight = new Delivery();
        flight.date = (Integer.parseInt(fields[0]) * 100 + Integer.parseInt(fields[1])) * 100 + Integer.parseInt(fields[2]);
        flight.departureDelay = number(fields[5]);
        flight.arrivalDelay = number(fields[8]);
        flight.carrier = fields[9];
        flight.number = Integer.parseInt(fields[10]);
        flight.tailNumber = isAbsent(fields[11]) ? null : fields[11];
        flight.origin = fields[12];
        flight.destination = fields[13];
        return flight;
    }

    private static Integer number(String field) {
        return isAbsent(field) ? null : Integer.valueOf(field);
    }

    private static boolean isAbsent(String field) {
        return field.isEmpty() || field.equals(NOT_AVAILABLE);
    }

    public boolean isCancelled() {
        return departureDelay == null;
    }

    /** What makes a flight this one and no other: the source may deliver it twice. */
    public String identity() {
        return carrier + number + " " + origin + " " + date;
    }
}
