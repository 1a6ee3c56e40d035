package io.cistern.flink.bench;

import java.util.List;

/**
 * A job and its size.
 *
 * @param judge the metric that {@code bar} is about
 * @param barPeer whom the bar is about
 * @param checkpointSeconds between two checkpoints; 0 for none
 * @param rate records a second once every key has been written, in the case that measures checkpoints, restore and rescaling
 */
record Case(String name, String job, long records, long keys, int checkpointSeconds, long rate, int valueBytes, Metric judge, double bar,
        Side barPeer, List<Side> sides) {
    private static final List<Side> SYNCHRONOUS = List.of(Side.CISTERN, Side.ROCKSDB, Side.FORST, Side.HASHMAP);
    /** With values of a KB that are all live: more than hashmap's heap has room for. */
    private static final List<Side> ON_DISK = List.of(Side.CISTERN, Side.ROCKSDB, Side.FORST);
    private static final List<Side> ASYNCHRONOUS = List.of(Side.CISTERN_ASYNC, Side.FORST_ASYNC);

    /** What the ratio to the bar's peer must be; null when the metric has no bar. */
    Double bar(Metric metric) {
        boolean isSame = metric == judge || isStateCase() && (metric == Metric.RESTORE || metric == Metric.RESCALE);
        return isSame ? bar : null;
    }

    boolean isStateCase() {
        return job.equals("state");
    }

    static List<Case> all(boolean isQuick) {
        long part = isQuick ? 4 : 1;
        long stateKeys = isQuick ? 100_000 : 1_000_000;
        return List.of(
                new Case("counter", "counter", 4_000_000 / part, 1_000_000 / part, 0, 0, 0, Metric.RECORDS, 1.3, Side.ROCKSDB, SYNCHRONOUS),
                new Case("counter_checkpoints", "counter", 4_000_000 / part, 1_000_000 / part, 2, 0, 0, Metric.RECORDS, 2, Side.ROCKSDB, SYNCHRONOUS),
                new Case("counter_v2", "counter_async", 4_000_000 / part, 1_000_000 / part, 0, 0, 0, Metric.RECORDS, 1.3, Side.FORST_ASYNC, ASYNCHRONOUS),
                new Case("dedup_sparse", "dedup", 4_000_000 / part, 1, 0, 0, 0, Metric.RECORDS, 2, Side.ROCKSDB, SYNCHRONOUS),
                new Case("window_join", "join", 2_000_000 / part, 10_000, 0, 0, 0, Metric.RECORDS, 1, Side.ROCKSDB, SYNCHRONOUS),
                new Case("window_v2", "window_async", 2_000_000 / part, 10_000, 0, 0, 0, Metric.RECORDS, 1, Side.FORST_ASYNC, ASYNCHRONOUS),
                new Case("state_1gb", "state", Long.MAX_VALUE, stateKeys, 2, 5_000, 1_000, Metric.CHECKPOINT_P99, 5, Side.ROCKSDB, ON_DISK));
    }
}
