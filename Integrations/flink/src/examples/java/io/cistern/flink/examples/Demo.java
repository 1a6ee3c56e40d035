package io.cistern.flink.examples;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * What {@code make flink} runs: a state server, a local Flink cluster, the flights job with a kill or two in the middle, and a SQL job twice;
 * compares every row with what sqlite3 computes from the file, and prints results and Flink's checkpoint figures.
 *
 * <p>Options: {@code --kill-server} kills the server too, which is gone for 10 s; {@code --rate N} records a second (25000); {@code --keep} leaves the folder.
 */
public final class Demo {
    private static final List<String> TABLES = List.of("aircraft", "visits", "days", "carriers");
    private static final long JOB_SECONDS = 300;
    private static final long SERVER_GONE_MILLISECONDS = 10_000;

    private final Path root;
    private final Path build;
    private final Path work;
    private final LocalFlink flink;
    private final CisternServer server;

    private Demo(Path root, Path build, Path work, LocalFlink flink, CisternServer server) {
        this.root = root;
        this.build = build;
        this.work = work;
        this.flink = flink;
        this.server = server;
    }

    public static void main(String[] arguments) throws Exception {
        List<String> options = Arrays.asList(arguments);
        int rate = options.indexOf("--rate");
        Path root = Path.of(System.getenv("CISTERN_ROOT"));
        Path work = Files.createTempDirectory("cistern-flink");
        try {
            run(root, work, options.contains("--kill-server"), rate < 0 ? 25_000 : Integer.parseInt(options.get(rate + 1)), Map.of());
        } catch (Exception error) {
            System.err.println("flink: " + error.getMessage() + "\nlogs are in " + work);
            System.exit(1);
        }
        if (options.contains("--keep")) {
            say("kept", work.toString());
        } else {
            delete(work);
        }
    }

    /**
     * Runs both jobs.
     *
     * @param extra options of Flink; with any the SQL job is left out
     * @return how often the flights job went back to a checkpoint while the server was gone
     * @throws IOException when a row is not what the truth says
     */
    public static int run(Path root, Path work, boolean killsServer, int recordsPerSecond, Map<String, String> extra) throws Exception {
        Path build = Path.of(System.getenv("CISTERN_FLINK_HOME")).getParent();
        try (CisternServer server = new CisternServer(Path.of(System.getenv("CISTERN_BINARY")), work)) {
            server.start();
            say("server", server.address() + " (process " + server.processId() + ")");
            Map<String, String> options = new LinkedHashMap<>();
            options.put("state.backend.type", "io.cistern.flink.CisternStateBackendFactory");
            options.put("state.backend.cistern.address", server.address());
            options.put("execution.checkpointing.interval", "1 s");
            options.putAll(extra);
            try (LocalFlink flink = new LocalFlink(Path.of(System.getenv("CISTERN_FLINK_HOME")), Path.of(System.getenv("CISTERN_FLINK_JAR")), work,
                    options)) {
                flink.start();
                say("cluster", "Flink, a job manager and a task manager with 2 slots");
                Demo demo = new Demo(root, build, work, flink, server);
                demo.prepareTruth();
                int restores = demo.flights(killsServer, recordsPerSecond);
                if (extra.isEmpty()) {
                    demo.rotations("rotations", "SQL");
                    demo.rotations("rotations-async", "SQL async");
                }
                return restores;
            }
        }
    }

    private void prepareTruth() throws IOException, InterruptedException {
        Path file = work.resolve("flights.csv");
        Processes.run(work.resolve("zstd.log"), 60, List.of("zstd", "-q", "-d", root.resolve("Examples/flights/flights.csv.zst").toString(), "-o",
                file.toString()));
        Processes.run(work.resolve("truth.log"), 120, List.of("sh", "-c", "cd '" + work + "' && sqlite3 < '"
                + root.resolve("Examples/flights/truth.sql") + "'"));
        String rotations = ".mode csv\n.import flights.csv raw\n.mode list\n.separator \"\\t\"\nCREATE TABLE flights AS SELECT month, day, tailnum, origin, "
                + "CAST(sched_dep_time AS INTEGER) AS sched_dep_time, CASE WHEN dep_delay = 'NA' THEN NULL ELSE CAST(dep_delay AS INTEGER) END AS dep_delay "
                + "FROM raw WHERE tailnum NOT IN ('NA', '');\nCREATE INDEX by_aircraft ON flights (tailnum, month, day);\n.once rotations.tsv\n"
                + RotationsJob.QUERY + ";\n";
        Files.writeString(work.resolve("rotations.sql"), rotations);
        Processes.run(work.resolve("truth.log"), 120, List.of("sh", "-c", "cd '" + work + "' && sqlite3 < rotations.sql"));
    }

    // The flights job.

    private int flights(boolean killsServer, int recordsPerSecond) throws Exception {
        long started = System.nanoTime();
        String job = flink.submit(build.resolve("examples.jar"), FlightsJob.class.getName(), List.of("--input",
                work.resolve("flights.csv").toString(), "--output", work.resolve("rows").toUri().toString(), "--rate",
                Integer.toString(recordsPerSecond)));
        say("submitted", "the flights job, " + job);
        awaitCheckpoints(job, 3);
        flink.killTaskManager();
        say("kill -9", "task manager, after " + flink.completedCheckpoints(job) + " checkpoints");
        flink.startTaskManager();
        awaitCheckpoints(job, flink.completedCheckpoints(job) + 2);
        say("restored", "from the last checkpoint, on another task manager");
        int restoresBefore = restores(job);
        if (killsServer) {
            server.kill();
            say("kill -9", "server");
            Thread.sleep(SERVER_GONE_MILLISECONDS);
            server.start();
            say("restarted", "server, on its directory, after " + SERVER_GONE_MILLISECONDS / 1_000 + " s");
        }
        flink.awaitFinished(job, JOB_SECONDS);
        int restores = restores(job) - restoresBefore;
        if (killsServer) {
            say("meanwhile", restores == 0 ? "the job waited" : "the job went back to a checkpoint");
        }
        say("finished", String.format("%.1f s after the submission", (System.nanoTime() - started) / 1e9));
        Map<String, Set<String>> rows = readRows();
        for (String table : TABLES) {
            compare(table, new TreeSet<>(Files.readAllLines(work.resolve(table + ".tsv"))), rows.getOrDefault(table, Set.of()));
        }
        System.out.println("\nCarriers: flights, cancelled, without tail number, duplicates, arrivals, sum of delays, of squares, worst");
        rows.get("carriers").stream().limit(5).forEach(row -> System.out.println("  " + row.replace('\t', ' ')));
        System.out.println("  ...");
        printCheckpoints(job);
        return restores;
    }

    private int restores(String job) throws IOException, InterruptedException {
        return flink.get("/jobs/" + job + "/checkpoints").path("counts").path("restored").asInt();
    }

    private void awaitCheckpoints(String job, int count) throws IOException, InterruptedException {
        flink.await(count + " checkpoints", JOB_SECONDS, () -> {
            if (flink.state(job).equals("FINISHED")) {
                throw new IllegalStateException("the job finished before " + count + " checkpoints: give a lower --rate");
            }
            return flink.completedCheckpoints(job) >= count;
        });
    }

    /** Rows of all files that were committed, by table. */
    private Map<String, Set<String>> readRows() throws IOException {
        Map<String, Set<String>> rows = new LinkedHashMap<>();
        try (Stream<Path> files = Files.walk(work.resolve("rows"))) {
            for (Path file : files.filter(file -> file.getFileName().toString().startsWith("part-")).toList()) {
                for (String line : Files.readAllLines(file)) {
                    int tab = line.indexOf('\t');
                    Set<String> table = rows.computeIfAbsent(line.substring(0, tab), name -> new TreeSet<>());
                    if (!table.add(line.substring(tab + 1))) {
                        throw new IOException("a row came twice: " + line);
                    }
                }
            }
        }
        return rows;
    }

    private static void compare(String table, Set<String> expected, Set<String> found) throws IOException {
        if (!expected.equals(found)) {
            String missing = expected.stream().filter(row -> !found.contains(row)).limit(3).collect(Collectors.joining(" | "));
            String wrong = found.stream().filter(row -> !expected.contains(row)).limit(3).collect(Collectors.joining(" | "));
            throw new IOException("table " + table + ": " + found.size() + " rows where " + expected.size() + " were expected; missing: "
                    + missing + "; wrong: " + wrong);
        }
        say("equal", String.format("%,d rows of %s are those that sqlite3 computes", found.size(), table));
    }

    private void printCheckpoints(String job) throws IOException, InterruptedException {
        JsonNode checkpoints = flink.get("/jobs/" + job + "/checkpoints");
        JsonNode counts = checkpoints.path("counts");
        JsonNode duration = checkpoints.path("summary").path("end_to_end_duration");
        JsonNode written = checkpoints.path("summary").path("checkpointed_size");
        System.out.println("\nCheckpoints, as Flink counts them");
        System.out.printf("  completed       %d, failed %d, restored %d%n", counts.path("completed").asInt(), counts.path("failed").asInt(),
                counts.path("restored").asInt());
        System.out.printf("  duration        p50 %.0f ms, p99 %.0f ms, max %d ms%n", duration.path("p50").asDouble(), duration.path("p99").asDouble(),
                duration.path("max").asLong());
        System.out.printf("  checkpointed    p50 %,.0f bytes, max %,d bytes%n", written.path("p50").asDouble(), written.path("max").asLong());
    }

    // The SQL job.

    /** @param name of the job; with "async" in it, its operators use the asynchronous state API */
    private void rotations(String name, String title) throws Exception {
        long started = System.nanoTime();
        String output = flink.run(build.resolve("examples.jar"), RotationsJob.class.getName(), List.of("--input", work.resolve("flights.csv").toString(),
                "--name", name, "--async", Boolean.toString(name.contains("async"))));
        Set<String> found = output.lines().filter(line -> line.chars().filter(c -> c == '\t').count() == 4)
                .collect(Collectors.toCollection(TreeSet::new));
        System.out.println();
        say(title, String.format("a join with a group aggregation, %.1f s with its submission", (System.nanoTime() - started) / 1e9));
        compare("rotations", new TreeSet<>(Files.readAllLines(work.resolve("rotations.tsv"))), found);
        if (title.equals("SQL")) {
            System.out.println("\nPairs of departures of one aircraft on one day: from, later from, pairs, delay of the later one in all, worst");
            found.forEach(row -> System.out.println("  " + row.replace('\t', ' ')));
        }
        JsonNode jobs = flink.get("/jobs/overview").path("jobs");
        for (JsonNode job : jobs) {
            if (job.path("name").asText().equals(name)) {
                printCheckpoints(job.path("jid").asText());
            }
        }
    }

    private static void say(String what, String detail) {
        System.out.printf("%-10s%s%n", what, detail);
    }

    static void delete(Path directory) throws IOException {
        try (Stream<Path> files = Files.walk(directory)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(file);
            }
        }
    }
}
