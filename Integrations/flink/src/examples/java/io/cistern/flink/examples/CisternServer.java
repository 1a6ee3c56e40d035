package io.cistern.flink.examples;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** The state server as a process that can be killed and comes back on its directory and address. */
public final class CisternServer implements AutoCloseable {
    private static final String LISTENING = "listening on ";
    private static final long START_MILLISECONDS = 60_000;

    private final Path binary;
    private final Path work;
    private Process process;

    public CisternServer(Path binary, Path work) {
        this.binary = binary;
        this.work = work;
    }

    /** A Unix socket: it is the same after a restart, and no port has to be chosen. */
    public String address() {
        return "unix:" + work.resolve("cistern.sock");
    }

    public void start() throws IOException, InterruptedException {
        Path log = work.resolve("server.log");
        Files.deleteIfExists(log);
        process = Processes.start(log, List.of(binary.toString(), "serve", "--data", work.resolve("data").toString(), "--listen", address(),
                "--log-level", "warning"));
        long end = System.currentTimeMillis() + START_MILLISECONDS;
        while (!Files.readString(log).contains(LISTENING)) {
            if (!process.isAlive() || System.currentTimeMillis() > end) {
                throw new IOException("the server did not start: " + Processes.tail(log));
            }
            Thread.sleep(20);
        }
    }

    public void kill() throws InterruptedException {
        Processes.kill(process);
    }

    public long processId() {
        return process.pid();
    }

    @Override
    public void close() throws InterruptedException {
        if (process != null) {
            kill();
        }
    }
}
