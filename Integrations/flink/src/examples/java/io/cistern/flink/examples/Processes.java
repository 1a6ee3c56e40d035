package io.cistern.flink.examples;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Child processes that end with this one, each with a log of its own. */
final class Processes {
    private static final List<Process> STARTED = new ArrayList<>();

    static {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            synchronized (STARTED) {
                STARTED.forEach(Process::destroyForcibly);
            }
        }));
    }

    private Processes() {}

    static Process start(Path log, List<String> command) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(
                ProcessBuilder.Redirect.appendTo(log.toFile()));
        // The server takes every such name as a setting.
        builder.environment().keySet().removeIf(name -> name.startsWith("CISTERN_"));
        Process process = builder.start();
        synchronized (STARTED) {
            STARTED.add(process);
        }
        return process;
    }

    /** As a crash does. */
    static void kill(Process process) throws InterruptedException {
        process.destroyForcibly().waitFor();
    }

    /**
     * Runs a command to its end.
     *
     * @throws IOException with the end of its output when it fails or takes longer
     */
    static String run(Path log, long seconds, List<String> command) throws IOException, InterruptedException {
        Files.deleteIfExists(log);
        Process process = start(log, command);
        if (!process.waitFor(seconds, TimeUnit.SECONDS)) {
            kill(process);
            throw new IOException(command.get(0) + " did not end in " + seconds + " s: " + tail(log));
        }
        if (process.exitValue() != 0) {
            throw new IOException(command.get(0) + " failed with " + process.exitValue() + ": " + tail(log));
        }
        return Files.readString(log);
    }

    static String tail(Path log) throws IOException {
        List<String> lines = Files.exists(log) ? Files.readAllLines(log) : List.of();
        return String.join("\n", lines.subList(Math.max(0, lines.size() - 40), lines.size()));
    }
}
