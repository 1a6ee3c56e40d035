package io.cistern.flink.bench;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Time on the processors of a process with all its threads, as Linux counts it. */
final class ProcessCpu {
    /** User and system time are the 14th and 15th field; the second one is a name in parentheses. */
    private static final int USER_TIME_BEHIND_NAME = 11;
    private static final double TICKS_EACH_SECOND = 100;

    private ProcessCpu() {}

    static double seconds(long process) throws IOException {
        String stat = Files.readString(Path.of("/proc/" + process + "/stat"));
        String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
        return (Long.parseLong(fields[USER_TIME_BEHIND_NAME]) + Long.parseLong(fields[USER_TIME_BEHIND_NAME + 1])) / TICKS_EACH_SECOND;
    }

    static double load() throws IOException {
        return Double.parseDouble(Files.readString(Path.of("/proc/loadavg")).split(" ")[0]);
    }
}
