// The suites: which groups they run, and what each case must show.

import CisternBenchKit

enum Suite: String, CaseIterable, Sendable {
    case engine, compaction, codec

    var groups: [any CaseGroup] {
        switch self {
        case .engine:
            [
                PointCases(), MapCases(), ListCases(), FlushCases(), MergeCases(), CheckpointCases(), ForegroundCases(),
                MemoryCases(), RefillCases(), OpenCases(),
            ]
        case .compaction: [MergeCases()] + CompactionCases.all + CodecCompactionCases.all
        case .codec: [CodecTimeCases()] + CodecStoreCases.all
        }
    }

    /// Cases whose ours is another case's: the same operations, beside another peer.
    static let oursFrom = ["get_cached_lmdb": "get_cached"]

    static let bars: [String: CaseBar] = [
        "fill_random": .ratio(4), "rmw_zipf": .ratio(5), "rmw_uniform": .ratio(3), "get_cached": .ratio(4),
        "get_pagecache": .ratio(2), "get_absent": .ratio(5), "get_cached_lmdb": .ratio(1, against: .lmdb),
        "multiget_100": .ratio(5), "scan_10": .ratio(4), "scan_100": .ratio(4), "list_append": .ratio(4),
        "flush_mbps": .ratio(2, .throughputPerCore), "compaction_mbps": .ratio(2.5, .throughputPerCore),
        "compaction_cpu": .ratio(2.5, .cpuPerGigabyte), "checkpoint_p99": .ratio(20, .p99),
        "foreground_p99_compacting": .ratio(3, .p99), "open_5gb": .atMost(100, .openTime),
        "clip_union_5gb": .atMost(100, .openTime), "memory_ledger": .atMost(1.1, .ledgerGap),
    ]
}
