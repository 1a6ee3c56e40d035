package io.cistern.flink.bench;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ArrayNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Every repeat of every side, and the lines made of their medians: the format of Benchmarks/README.md. */
final class Results {
    private static final ObjectMapper JSON = new ObjectMapper();

    private record Key(Case of, Side side) {}

    private final Map<Key, Map<Metric, List<Double>>> all = new LinkedHashMap<>();

    void add(Case of, Side side, Map<Metric, Double> run) {
        Map<Metric, List<Double>> values = all.computeIfAbsent(new Key(of, side), key -> new EnumMap<>(Metric.class));
        run.forEach((metric, value) -> values.computeIfAbsent(metric, key -> new ArrayList<>()).add(value));
    }

    private static double median(List<Double> values) {
        List<Double> sorted = values.stream().sorted().toList();
        int middle = sorted.size() / 2;
        return sorted.size() % 2 == 1 ? sorted.get(middle) : (sorted.get(middle - 1) + sorted.get(middle)) / 2;
    }

    void write(Path jsonLines, Path table) throws IOException {
        StringBuilder lines = new StringBuilder();
        StringBuilder rows = new StringBuilder("| case | metric | unit | ours | peer | | ratio | bar |\n|---|---|---|---:|---:|---|---:|---:|\n");
        double load = ProcessCpu.load();
        for (Key ours : all.keySet()) {
            if (!ours.side().isOurs) {
                continue;
            }
            for (Key peer : all.keySet()) {
                if (peer.of().equals(ours.of()) && !peer.side().isOurs) {
                    compare(ours, peer, load, lines, rows);
                }
            }
        }
        Files.createDirectories(jsonLines.getParent());
        Files.writeString(jsonLines, lines);
        Files.writeString(table, rows);
    }

    private void compare(Key ours, Key peer, double load, StringBuilder lines, StringBuilder rows) {
        for (Metric metric : Metric.values()) {
            List<Double> mine = all.get(ours).get(metric);
            List<Double> theirs = all.get(peer).get(metric);
            if (mine == null || theirs == null) {
                continue;
            }
            double our = median(mine);
            double other = median(theirs);
            double ratio = metric.isMoreBetter ? our / other : other / our;
            Double bar = peer.side() == ours.of().barPeer() ? ours.of().bar(metric) : null;
            ObjectNode line = JSON.createObjectNode();
            line.put("suite", "flink").put("case", ours.of().name()).put("metric", metric.title).put("unit", metric.unit).put("ours", our)
                    .put("peer", other).put("peer_name", peer.side().title).put("ratio", ratio).put("load", load);
            if (bar != null) {
                line.put("bar", bar);
            }
            ArrayNode oursAll = line.putArray("ours_all");
            mine.forEach(oursAll::add);
            ArrayNode peerAll = line.putArray("peer_all");
            theirs.forEach(peerAll::add);
            lines.append(line).append('\n');
            rows.append(String.format(Locale.ROOT, "| %s | %s | %s | %,.2f | %,.2f | %s | %.2f | %s |%n", ours.of().name(), metric.title, metric.unit, our,
                    other, peer.side().title, ratio, bar == null ? "" : bar));
        }
    }
}
