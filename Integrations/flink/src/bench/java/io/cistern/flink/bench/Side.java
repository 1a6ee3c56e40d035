package io.cistern.flink.bench;

import java.util.LinkedHashMap;
import java.util.Map;

/** A state backend that is measured. */
enum Side {
    CISTERN("cistern", false, true),
    ROCKSDB("rocksdb", false, false),
    FORST("forst", false, false),
    HASHMAP("hashmap", false, false),
    CISTERN_ASYNC("cistern-async", true, true),
    FORST_ASYNC("forst-async", true, false);

    final String title;
    final boolean isAsync;
    final boolean isOurs;

    Side(String title, boolean isAsync, boolean isOurs) {
        this.title = title;
        this.isAsync = isAsync;
        this.isOurs = isOurs;
    }

    static Side named(String title) {
        for (Side side : values()) {
            if (side.title.equals(title)) {
                return side;
            }
        }
        throw new IllegalArgumentException("no side \"" + title + "\"");
    }

    /** Flink's options. */
    Map<String, String> options(String address) {
        Map<String, String> options = new LinkedHashMap<>();
        switch (this) {
            case CISTERN, CISTERN_ASYNC -> {
                options.put("state.backend.type", "io.cistern.flink.CisternStateBackendFactory");
                options.put("state.backend.cistern.address", address);
                // As much as the managed memory that the others have.
                options.put("state.backend.cistern.cache.size", "256 mb");
            }
            case ROCKSDB -> options.put("state.backend.type", "rocksdb");
            case FORST, FORST_ASYNC -> options.put("state.backend.type", "forst");
            default -> options.put("state.backend.type", "hashmap");
        }
        // Has a meaning for the RocksDB family only; ours are incremental anyway.
        options.put("execution.checkpointing.incremental", "true");
        return options;
    }
}
