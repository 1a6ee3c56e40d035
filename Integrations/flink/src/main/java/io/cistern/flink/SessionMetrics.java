package io.cistern.flink;

import io.cistern.client.SessionFigures;
import io.cistern.client.TreeSession;

import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.MetricGroup;

/** A session's counts as metrics of its operator, in the group "cistern". */
final class SessionMetrics {
    private SessionMetrics() {}

    static void register(TreeSession session, MetricGroup operator) {
        SessionFigures figures = session.figures();
        MetricGroup group = operator.addGroup("cistern");
        gauge(group, "reads", () -> figures.reads);
        gauge(group, "readsOfMaps", () -> figures.mapReads);
        gauge(group, "readsOfAbsentKeysAnsweredHere", () -> figures.absentKnown);
        gauge(group, "readRequests", () -> figures.readRequests);
        gauge(group, "scanRequests", () -> figures.scanRequests);
        gauge(group, "writes", () -> figures.writes);
        gauge(group, "writesAbsorbed", () -> figures.writesAbsorbed);
        gauge(group, "batches", () -> figures.batches);
        gauge(group, "entriesSent", () -> figures.entriesSent);
        gauge(group, "bytesSent", () -> figures.bytesSent);
        gauge(group, "evictions", () -> figures.evictions);
        gauge(group, "keyLoads", () -> figures.keyLoads);
        gauge(group, "keyIndexBytes", session::keyIndexBytes);
    }

    private static void gauge(MetricGroup group, String name, Gauge<Long> gauge) {
        group.gauge(name, gauge);
    }
}
