package io.cistern.test;

import io.cistern.client.Endpoint;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/** The built server in a process of its own, on a directory of its own and a Unix socket, so that it comes back where it was. */
public final class ServerProcess implements AutoCloseable {
    private static final String LISTENING = "listening on ";

    private final Path directory;
    private final List<String> options;
    private Process process;
    private Endpoint endpoint;

    private ServerProcess(Path directory, List<String> options) {
        this.directory = directory;
        this.options = options;
    }

    public static ServerProcess launch(String... options) throws IOException {
        ServerProcess server = new ServerProcess(Files.createTempDirectory("cistern-flink"), List.of(options));
        server.start();
        return server;
    }

    public void start() throws IOException {
        String binary = System.getenv("CISTERN_BINARY");
        if (binary == null || !Files.isExecutable(Path.of(binary))) {
            throw new IOException("CISTERN_BINARY (" + binary + ") is not the built server: make build");
        }
        List<String> command = new ArrayList<>(List.of(binary, "serve", "--data", directory.resolve("data").toString(), "--listen",
                "unix:" + directory.resolve("socket"), "--log-level", "error"));
        command.addAll(options);
        ProcessBuilder builder = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
        // The server takes every such name as a setting; these are the tests'.
        builder.environment().keySet().removeIf(name -> name.startsWith("CISTERN_"));
        process = builder.start();
        Runtime.getRuntime().addShutdownHook(new Thread(process::destroyForcibly));
        BufferedReader output = new BufferedReader(new InputStreamReader(process.getInputStream()));
        String line = output.readLine();
        if (line == null || !line.startsWith(LISTENING)) {
            throw new IOException("the server said: " + line);
        }
        endpoint = Endpoint.parse(line.substring(LISTENING.length()));
    }

    public Endpoint endpoint() {
        return endpoint;
    }

    /** As a crash does. */
    public void kill() throws IOException {
        process.destroyForcibly();
        try {
            process.waitFor();
        } catch (InterruptedException error) {
            throw new IOException(error);
        }
    }

    @Override
    public void close() throws IOException {
        kill();
        try (Stream<Path> files = Files.walk(directory)) {
            files.sorted(Comparator.reverseOrder()).forEach(file -> {
                try {
                    Files.delete(file);
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            });
        }
    }
}
