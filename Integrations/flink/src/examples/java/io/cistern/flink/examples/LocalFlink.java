package io.cistern.flink.examples;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * A Flink cluster on loopback as Flink's own main classes make it: a job manager and one task manager, processes that can be killed.
 */
public final class LocalFlink implements AutoCloseable {
    private static final Pattern JOB_ID = Pattern.compile("JobID ([0-9a-f]{32})");
    private static final long POLL_MILLISECONDS = 200;
    private static final ObjectMapper JSON = new ObjectMapper();
    /** What Flink opens of the JDK for itself, on Java 17. */
    private static final List<String> OPENED = List.of("java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect",
            "java.text", "java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks");

    private final Path home;
    private final Path work;
    private final String classPath;
    private final int restPort;
    /** Megabytes. */
    private final int taskManagerHeap;
    private final HttpClient http = HttpClient.newHttpClient();
    private Process jobManager;
    private Process taskManager;
    private boolean isTaskManagerKilled;

    /**
     * @param home Flink as PyPI has it
     * @param jar of the state backend: beside Flink's own, as in the lib folder of a real cluster
     * @param work for the configuration and logs
     */
    public LocalFlink(Path home, Path jar, Path work, Map<String, String> options) throws IOException {
        this.home = home;
        this.work = work;
        try (Stream<Path> jars = Files.list(home.resolve("lib"))) {
            classPath = Stream.concat(Stream.of(jar), jars.sorted()).map(Path::toString).collect(Collectors.joining(":"));
        }
        int[] ports = freePorts();
        restPort = ports[1];
        Map<String, String> all = new LinkedHashMap<>();
        all.put("jobmanager.rpc.address", "127.0.0.1");
        all.put("jobmanager.rpc.port", Integer.toString(ports[0]));
        all.put("jobmanager.bind-host", "127.0.0.1");
        all.put("rest.address", "127.0.0.1");
        all.put("rest.bind-address", "127.0.0.1");
        all.put("rest.port", Integer.toString(restPort));
        all.put("taskmanager.host", "127.0.0.1");
        all.put("taskmanager.bind-host", "127.0.0.1");
        all.put("taskmanager.numberOfTaskSlots", "2");
        all.put("taskmanager.cpu.cores", "2");
        all.put("taskmanager.memory.task.heap.size", "512m");
        all.put("taskmanager.memory.task.off-heap.size", "0");
        all.put("taskmanager.memory.network.min", "32m");
        all.put("taskmanager.memory.network.max", "32m");
        all.put("taskmanager.memory.managed.size", "64m");
        all.put("taskmanager.memory.framework.heap.size", "128m");
        all.put("taskmanager.memory.framework.off-heap.size", "128m");
        all.put("taskmanager.memory.jvm-metaspace.size", "256m");
        all.put("taskmanager.memory.jvm-overhead.min", "192m");
        all.put("taskmanager.memory.jvm-overhead.max", "192m");
        all.put("parallelism.default", "2");
        all.put("pekko.startup-timeout", "90 s");
        // A task manager that was killed is missed at once: calls to it fail.
        all.put("heartbeat.rpc-failure-threshold", "1");
        all.put("heartbeat.interval", "1000");
        all.put("restart-strategy.type", "fixed-delay");
        all.put("restart-strategy.fixed-delay.attempts", "100");
        all.put("restart-strategy.fixed-delay.delay", "1 s");
        all.put("execution.checkpointing.dir", work.resolve("checkpoints").toUri().toString());
        all.putAll(options);
        taskManagerHeap = megabytes(all.get("taskmanager.memory.task.heap.size")) + megabytes(all.get("taskmanager.memory.framework.heap.size"));
        Files.createDirectories(work.resolve("conf"));
        Files.writeString(work.resolve("conf/config.yaml"), all.entrySet().stream()
                .map(option -> option.getKey() + ": \"" + option.getValue() + "\"").collect(Collectors.joining("\n", "", "\n")));
    }

    private static int megabytes(String size) {
        return Integer.parseInt(size.substring(0, size.length() - 1));
    }

    /** Ports that are free at this moment: Flink's processes have to know each other's before they start. */
    private static int[] freePorts() throws IOException {
        try (ServerSocket first = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
                ServerSocket second = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return new int[] {first.getLocalPort(), second.getLocalPort()};
        }
    }

    public void start() throws IOException, InterruptedException {
        jobManager = java("jobmanager", "256m", "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
                List.of("--configDir", work.resolve("conf").toString(), "--executionMode", "cluster"));
        startTaskManager();
        awaitTaskManagers(1);
    }

    /** Waits until the job manager knows so many. */
    public void awaitTaskManagers(int count) throws IOException, InterruptedException {
        await(count + " task managers", 120, () -> get("/taskmanagers").path("taskmanagers").size() == count);
    }

    public void startTaskManager() throws IOException {
        isTaskManagerKilled = false;
        taskManager = java("taskmanager", taskManagerHeap + "m", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
                List.of("--configDir", work.resolve("conf").toString()));
    }

    /** As a crash of its machine does. */
    public void killTaskManager() throws InterruptedException {
        isTaskManagerKilled = true;
        Processes.kill(taskManager);
    }

    public long taskManagerProcessId() {
        return taskManager.pid();
    }

    private Process java(String name, String heap, String main, List<String> arguments) throws IOException {
        return Processes.start(work.resolve(name + ".log"), command(name, heap, main, arguments));
    }

    private List<String> command(String name, String heap, String main, List<String> arguments) {
        List<String> command = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElse("java"), "-Xmx" + heap,
                "-XX:+UseSerialGC", "-Dlog4j.configurationFile=" + home.resolve("conf/log4j-console.properties").toUri(),
                "-Dlog.file=" + work.resolve(name + ".flink.log")));
        for (String opened : OPENED) {
            command.add("--add-opens=java.base/" + opened + "=ALL-UNNAMED");
        }
        command.addAll(List.of("-cp", classPath, main));
        command.addAll(arguments);
        return command;
    }

    /** Submits a job with Flink's command line; returns its id. */
    public String submit(Path jar, String main, List<String> arguments) throws IOException, InterruptedException {
        return submit(jar, main, arguments, List.of());
    }

    /** @param flags of {@code flink run}, for example {@code -Dkey=value} */
    public String submit(Path jar, String main, List<String> arguments, List<String> flags) throws IOException, InterruptedException {
        List<String> all = new ArrayList<>(List.of("run", "-d", "-t", "remote"));
        all.addAll(flags);
        all.addAll(List.of("-c", main, jar.toString()));
        all.addAll(arguments);
        String output = client("submit", 120, all);
        Matcher matcher = JOB_ID.matcher(output);
        if (!matcher.find()) {
            throw new IOException("flink run printed no job id: " + output);
        }
        return matcher.group(1);
    }

    /** Runs a job whose results come to the client; returns what it printed. */
    public String run(Path jar, String main, List<String> arguments) throws IOException, InterruptedException {
        List<String> all = new ArrayList<>(List.of("run", "-m", "127.0.0.1:" + restPort, "-c", main, jar.toString()));
        all.addAll(arguments);
        return client("run", 600, all);
    }

    /** Flink's command line. */
    public String client(String name, long seconds, List<String> arguments) throws IOException, InterruptedException {
        List<String> command = command(name, "256m", "org.apache.flink.client.cli.CliFrontend", arguments);
        List<String> all = new ArrayList<>(List.of("env", "FLINK_CONF_DIR=" + work.resolve("conf")));
        all.addAll(command);
        return Processes.run(work.resolve(name + ".log"), seconds, all);
    }

    // The REST interface.

    public JsonNode get(String path) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + restPort + path)).build();
        HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() / 100 != 2) {
            throw new IOException(path + " was answered " + response.statusCode() + ": " + response.body());
        }
        return JSON.readTree(response.body());
    }

    public String state(String job) throws IOException, InterruptedException {
        return get("/jobs/" + job).path("state").asText();
    }

    public void cancel(String job) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + restPort + "/jobs/" + job))
                .method("PATCH", HttpRequest.BodyPublishers.noBody()).build();
        http.send(request, HttpResponse.BodyHandlers.ofString());
        await("job " + job + " to end", 120, () -> List.of("CANCELED", "FINISHED", "FAILED").contains(state(job)));
    }

    public int completedCheckpoints(String job) throws IOException, InterruptedException {
        return get("/jobs/" + job + "/checkpoints").path("counts").path("completed").asInt();
    }

    /** @throws IOException when the job ends in another way, or not in time */
    public void awaitFinished(String job, long seconds) throws IOException, InterruptedException {
        await("job " + job + " to finish", seconds, () -> {
            String state = state(job);
            if (state.equals("FAILED") || state.equals("CANCELED")) {
                throw new IllegalStateException("the job is " + state + ": "
                        + get("/jobs/" + job + "/exceptions").path("exceptionHistory").path("entries").path(0).path("stacktrace").asText());
            }
            return state.equals("FINISHED");
        });
    }

    /** A condition that may fail to be asked. */
    public interface Condition {
        boolean holds() throws IOException, InterruptedException;
    }

    public void await(String what, long seconds, Condition condition) throws IOException, InterruptedException {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        IOException last = null;
        while (System.nanoTime() < end) {
            try {
                if (condition.holds()) {
                    return;
                }
            } catch (IOException error) {
                // Not up yet.
                last = error;
            }
            ensureAlive("jobmanager", jobManager);
            if (!isTaskManagerKilled) {
                ensureAlive("taskmanager", taskManager);
            }
            Thread.sleep(POLL_MILLISECONDS);
        }
        throw new IOException("waited " + seconds + " s for " + what, last);
    }

    private void ensureAlive(String name, Process process) throws IOException {
        if (!process.isAlive()) {
            throw new IOException("the " + name + " ended: " + Processes.tail(work.resolve(name + ".log")));
        }
    }

    @Override
    public void close() throws InterruptedException {
        for (Process process : new Process[] {taskManager, jobManager}) {
            if (process != null) {
                Processes.kill(process);
            }
        }
    }
}
