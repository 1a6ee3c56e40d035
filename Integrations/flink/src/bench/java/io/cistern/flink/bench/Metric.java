package io.cistern.flink.bench;

/** What is measured, and which direction is better. */
enum Metric {
    RECORDS("throughput", "records/s", true),
    CPU("cpu", "us/record, worker and server", false),
    WORKER_CPU("worker_cpu", "us/record", false),
    SERVER_CPU("server_cpu", "us/record", false),
    CHECKPOINT_P50("checkpoint_p50", "ms", false),
    CHECKPOINT_P99("checkpoint_p99", "ms", false),
    CHECKPOINT_BYTES("checkpoint_size", "MB", false),
    STATE_BYTES("state_size", "MB", false),
    RESTORE("restore", "ms", false),
    RESCALE("rescale", "ms", false);

    final String title;
    final String unit;
    final boolean isMoreBetter;

    Metric(String title, String unit, boolean isMoreBetter) {
        this.title = title;
        this.unit = unit;
        this.isMoreBetter = isMoreBetter;
    }
}
