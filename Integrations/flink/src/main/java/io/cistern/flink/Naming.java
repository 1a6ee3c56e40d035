package io.cistern.flink;

import io.cistern.client.Hash64;
import io.cistern.wire.WireLimits;

import org.apache.flink.api.common.JobID;

import java.nio.charset.StandardCharsets;

/** Names on the server: at most 200 bytes, without control characters and slashes. */
public final class Naming {
    private static final int HASH_CHARACTERS = 16;

    private Naming() {}

    /**
     * The store of an operator of a job.
     *
     * @param operatorIdentifier as Flink gives it, with "(subtask/parallelism)" at its end
     */
    static String store(JobID job, String operatorIdentifier) {
        return fit(job + "-" + clean(operatorIdentifier.replaceFirst("_\\(\\d+/\\d+\\)$", "")));
    }

    /** A state is found again by its name. */
    public static String state(String name) {
        return fit(clean(name));
    }

    /** Timers have a namespace of their own: a queue may be called as a state is. */
    public static String timers(String name) {
        return fit("timers:" + clean(name));
    }

    static String writer(String task) {
        return fit(clean(task));
    }

    private static String clean(String name) {
        StringBuilder result = new StringBuilder(name.length());
        for (int i = 0; i < name.length(); i++) {
            char c = name.charAt(i);
            boolean isPlain = c > ' ' && c < 0x7F && c != '/' && c != '%' || c == ' ';
            result.append(isPlain ? String.valueOf(c) : String.format("%%%04x", (int) c));
        }
        return result.toString();
    }

    /** A long name keeps its beginning, and what is cut off is told by a hash. */
    private static String fit(String name) {
        byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
        if (bytes.length <= WireLimits.NAME_BYTES_MAX) {
            return name;
        }
        String hash = String.format("%016x", Hash64.hash(bytes, bytes.length));
        return name.substring(0, WireLimits.NAME_BYTES_MAX - HASH_CHARACTERS - 1) + "~" + hash;
    }
}
