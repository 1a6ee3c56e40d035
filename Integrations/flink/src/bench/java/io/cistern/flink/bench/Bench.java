package io.cistern.flink.bench;

import io.cistern.flink.examples.CisternServer;
import io.cistern.flink.examples.LocalFlink;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Stream;

/**
 * {@code make bench SUITE=flink}: jobs on a local cluster, on Flink's own backends and on ours in turn. Each run has a task manager of
 * its own, and ours a server of its own, whose processor time is counted with the worker's. All sides have to give the same results.
 *
 * <p>Options: {@code --quick}, {@code --filter PART OF A CASE'S NAME}, {@code --only SIDE,SIDE}, {@code --repeats N} (3; quick: 1),
 * {@code --set KEY=VALUE} for a Flink option more.
 */
public final class Bench {
    private static final long JOB_SECONDS = 1_800;
    private static final int PACED_CHECKPOINTS = 30;
    private static final int PACED_CHECKPOINTS_QUICK = 12;

    private final boolean isQuick;
    private final Path root;
    private final Path work;
    private final Path jar;
    private final LocalFlink flink;
    private final List<String> extra = new ArrayList<>();
    private final Results results = new Results();
    private final Map<String, String> sums = new HashMap<>();

    private Bench(boolean isQuick, Path root, Path work, Path jar, LocalFlink flink) {
        this.isQuick = isQuick;
        this.root = root;
        this.work = work;
        this.jar = jar;
        this.flink = flink;
    }

    public static void main(String[] arguments) throws Exception {
        List<String> options = Arrays.asList(arguments);
        boolean isQuick = options.contains("--quick");
        Path root = Path.of(System.getenv("CISTERN_ROOT"));
        Path home = Path.of(System.getenv("CISTERN_FLINK_HOME"));
        Path work = Files.createTempDirectory("cistern-flink-bench");
        Map<String, String> cluster = new LinkedHashMap<>();
        cluster.put("taskmanager.memory.task.heap.size", "896m");
        cluster.put("taskmanager.memory.managed.size", "256m");
        cluster.put("parallelism.default", "1");
        cluster.put("io.tmp.dirs", work.resolve("tmp").toString());
        cluster.put("web.checkpoints.history", "1000");
        cluster.put("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
        Files.createDirectories(work.resolve("tmp"));
        boolean isDone = false;
        try (LocalFlink flink = new LocalFlink(home, Path.of(System.getenv("CISTERN_FLINK_JAR")), work, cluster)) {
            flink.start();
            Bench bench = new Bench(isQuick, root, work, home.getParent().resolve("bench.jar"), flink);
            bench.run(option(options, "--filter", ""), option(options, "--only", ""),
                    Integer.parseInt(option(options, "--repeats", isQuick ? "1" : "3")), option(options, "--set", ""));
            isDone = true;
        } finally {
            if (isDone) {
                delete(work);
            } else {
                System.err.println("logs are in " + work);
            }
        }
    }

    private static String option(List<String> options, String name, String otherwise) {
        int index = options.indexOf(name);
        return index < 0 ? otherwise : options.get(index + 1);
    }

    private void run(String filter, String only, int repeats, String set) throws Exception {
        if (!set.isEmpty()) {
            extra.add("-D" + set);
        }
        List<Side> wanted = only.isEmpty() ? List.of(Side.values()) : Stream.of(only.split(",")).map(Side::named).toList();
        for (Case next : Case.all(isQuick)) {
            if (!next.name().contains(filter)) {
                continue;
            }
            for (int repeat = 0; repeat < repeats; repeat++) {
                List<Side> sides = new ArrayList<>(next.sides());
                if (repeat % 2 == 1) {
                    java.util.Collections.reverse(sides);
                }
                for (Side side : sides) {
                    if (wanted.contains(side)) {
                        measure(next, side);
                        results.write(root.resolve("Benchmarks/out/flink.jsonl"), root.resolve("Benchmarks/out/flink.md"));
                    }
                }
            }
        }
        System.out.print("\n" + Files.readString(root.resolve("Benchmarks/out/flink.md")));
    }

    private void measure(Case of, Side side) throws Exception {
        Path folder = Files.createDirectories(work.resolve("run"));
        freshTaskManager();
        try (CisternServer server = new CisternServer(Path.of(System.getenv("CISTERN_BINARY")), folder)) {
            if (side.isOurs) {
                server.start();
            }
            Map<Metric, Double> run = of.isStateCase() ? state(of, side, server) : throughput(of, side, server);
            results.add(of, side, run);
            StringBuilder line = new StringBuilder(String.format("%-20s %-14s", of.name(), side.title));
            run.forEach((metric, value) -> line.append(String.format(Locale.ROOT, " %s %,.2f %s;", metric.title, value, metric.unit)));
            System.out.println(line);
        } finally {
            delete(folder);
            delete(work.resolve("checkpoints"));
        }
    }

    private void freshTaskManager() throws IOException, InterruptedException {
        flink.killTaskManager();
        flink.awaitTaskManagers(0);
        flink.startTaskManager();
        flink.awaitTaskManagers(1);
    }

    private List<String> flags(Case of, Side side, CisternServer server) {
        List<String> flags = new ArrayList<>();
        side.options(server.address()).forEach((key, value) -> flags.add("-D" + key + "=" + value));
        if (of.checkpointSeconds() > 0) {
            flags.add("-Dexecution.checkpointing.interval=" + of.checkpointSeconds() + " s");
        }
        // The last one counts.
        flags.addAll(extra);
        return flags;
    }

    private static List<String> arguments(Case of) {
        return List.of("--job", of.job(), "--records", Long.toString(of.records()), "--keys", Long.toString(of.keys()), "--rate",
                Long.toString(of.rate()), "--value", Integer.toString(of.valueBytes()));
    }

    // Throughput.

    private Map<Metric, Double> throughput(Case of, Side side, CisternServer server) throws Exception {
        double workerBefore = ProcessCpu.seconds(flink.taskManagerProcessId());
        double serverBefore = side.isOurs ? ProcessCpu.seconds(server.processId()) : 0;
        String job = flink.submit(jar, BenchJob.class.getName(), arguments(of), flags(of, side, server));
        flink.awaitFinished(job, JOB_SECONDS);
        double worker = ProcessCpu.seconds(flink.taskManagerProcessId()) - workerBefore;
        double onServer = side.isOurs ? ProcessCpu.seconds(server.processId()) - serverBefore : 0;
        Map<String, Long> counts = accumulators(job);
        String result = counts.get(Meter.COUNT) + " results, sum " + counts.get(Meter.SUM);
        String expected = sums.putIfAbsent(of.job() + of.records(), result);
        if (expected != null && !expected.equals(result)) {
            throw new IOException(of.name() + " on " + side.title + " gave " + result + ", others gave " + expected);
        }
        Map<Metric, Double> run = new EnumMap<>(Metric.class);
        run.put(Metric.RECORDS, of.records() * 1_000.0 / (counts.get(Meter.LAST) - counts.get(Numbers.STARTED)));
        run.put(Metric.CPU, (worker + onServer) * 1e6 / of.records());
        run.put(Metric.WORKER_CPU, worker * 1e6 / of.records());
        if (side.isOurs) {
            run.put(Metric.SERVER_CPU, onServer * 1e6 / of.records());
        }
        if (of.checkpointSeconds() > 0) {
            checkpoints(job, 0, run);
        }
        return run;
    }

    private Map<String, Long> accumulators(String job) throws IOException, InterruptedException {
        Map<String, Long> values = new HashMap<>();
        for (JsonNode one : flink.get("/jobs/" + job + "/accumulators").path("user-task-accumulators")) {
            values.put(one.path("name").asText(), one.path("value").asLong());
        }
        return values;
    }

    /** Figures of completed checkpoints that began after a time. */
    private int checkpoints(String job, long after, Map<Metric, Double> into) throws IOException, InterruptedException {
        List<Long> durations = new ArrayList<>();
        List<Long> sizes = new ArrayList<>();
        List<Long> states = new ArrayList<>();
        for (JsonNode one : flink.get("/jobs/" + job + "/checkpoints").path("history")) {
            if (one.path("status").asText().equals("COMPLETED") && one.path("trigger_timestamp").asLong() > after) {
                durations.add(one.path("end_to_end_duration").asLong());
                sizes.add(one.path("checkpointed_size").asLong());
                states.add(one.path("state_size").asLong());
            }
        }
        if (!durations.isEmpty()) {
            into.put(Metric.CHECKPOINT_P50, quantile(durations, 0.5));
            into.put(Metric.CHECKPOINT_P99, quantile(durations, 0.99));
            into.put(Metric.CHECKPOINT_BYTES, quantile(sizes, 0.5) / 1e6);
            into.put(Metric.STATE_BYTES, quantile(states, 1) / 1e6);
        }
        return durations.size();
    }

    private static double quantile(List<Long> values, double q) {
        List<Long> sorted = values.stream().sorted().toList();
        return sorted.get((int) Math.min(sorted.size() - 1, Math.ceil(q * sorted.size()) - 1 + (q == 0 ? 1 : 0)));
    }

    // Checkpoints, restore, rescaling.

    private Map<Metric, Double> state(Case of, Side side, CisternServer server) throws Exception {
        Map<Metric, Double> run = new EnumMap<>(Metric.class);
        List<String> flags = flags(of, side, server);
        String job = flink.submit(jar, BenchJob.class.getName(), arguments(of), flags);
        long[] filled = new long[1];
        flink.await("the state to be filled", JOB_SECONDS, () -> {
            Long at = accumulators(job).get(Numbers.FILLED);
            filled[0] = at == null || at == Long.MAX_VALUE ? 0 : at;
            return filled[0] > 0;
        });
        int wanted = isQuick ? PACED_CHECKPOINTS_QUICK : PACED_CHECKPOINTS;
        flink.await(wanted + " checkpoints", JOB_SECONDS, () -> checkpoints(job, filled[0], run) >= wanted);

        flink.killTaskManager();
        flink.awaitTaskManagers(0);
        int before = flink.completedCheckpoints(job);
        flink.startTaskManager();
        flink.await("a checkpoint after the kill", JOB_SECONDS, () -> flink.completedCheckpoints(job) > before);
        run.put(Metric.RESTORE, initializing(job));
        String path = flink.get("/jobs/" + job + "/checkpoints").path("latest").path("completed").path("external_path").asText();
        flink.cancel(job);

        List<String> again = new ArrayList<>(flags);
        again.addAll(List.of("-s", latest(job, path), "-p", "2"));
        String rescaled = flink.submit(jar, BenchJob.class.getName(), arguments(of), again);
        flink.await("a checkpoint after rescaling", JOB_SECONDS, () -> flink.completedCheckpoints(rescaled) > 0);
        run.put(Metric.RESCALE, initializing(rescaled));
        flink.cancel(rescaled);
        return run;
    }

    /** The newest checkpoint may have been taken after it was asked for. */
    private String latest(String job, String otherwise) throws IOException, InterruptedException {
        String path = flink.get("/jobs/" + job + "/checkpoints").path("latest").path("completed").path("external_path").asText();
        return path.isEmpty() ? otherwise : path;
    }

    /** Milliseconds that the slowest subtask with keyed state spent in restoring it. */
    private double initializing(String job) throws IOException, InterruptedException {
        double most = 0;
        for (JsonNode vertex : flink.get("/jobs/" + job).path("vertices")) {
            if (vertex.path("name").asText().contains("numbers")) {
                continue;
            }
            for (JsonNode subtask : flink.get("/jobs/" + job + "/vertices/" + vertex.path("id").asText()).path("subtasks")) {
                most = Math.max(most, subtask.path("status-duration").path("INITIALIZING").asDouble());
            }
        }
        return most;
    }

    private static void delete(Path directory) throws IOException {
        if (!Files.exists(directory)) {
            return;
        }
        try (Stream<Path> files = Files.walk(directory)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(file);
            }
        }
    }
}
