// Compaction by what it is fed: writing over, expiring, deleting, large values. First the store keeps up by itself with a
// stream of runs, which gives write and space amplification; then the same runs, unmerged, are compacted at once with gets
// and puts beside it. Large values once in the sorted files, and once in value files, which the peer calls blob files.

import CisternBenchKit
import CisternPrimitives

struct CompactionCases: CaseGroup {
    static let runs = 8
    static let rounds = 2

    static let all: [any CaseGroup] = [
        CompactionCases(name: "overwrite_heavy", shape: .overwriting),
        CompactionCases(name: "ttl_heavy", shape: .expiring), CompactionCases(name: "delete_heavy", shape: .deleting),
        CompactionCases(name: "large_values", shape: .large),
        CompactionCases(name: "large_values_apart", shape: .large, valueFileThresholdBytes: 512),
    ]

    let name: String
    let shape: Runs.Shape
    var valueFileThresholdBytes = 0
    var cases: [String] { [name] }

    func run(_ context: CaseContext) throws {
        let entries = context.isQuick ? 60_000 : 350_000
        let runs = Runs(
            shape, entriesPerRun: shape == .large ? entries / 30 : entries, seed: context.seed,
            stampsValues: context.side == .peer)
        let bytes = runs.bytes(of: CompactionCases.runs)
        var metrics = try compactAtOnce(context, runs)
        for (metric, value) in try keepUp(context, runs, bytes) { metrics[metric] = value }
        context.record(name, metrics)
    }

    private func compactAtOnce(_ context: CaseContext, _ runs: Runs) throws -> [Metric: Double] {
        let store = try context.open("at-once", settings(compacts: false))
        for run in 0..<CompactionCases.runs { try runs.writeAndFlush(store, run: run, of: CompactionCases.runs) }
        store.advanceClock(milliseconds: Runs.timeToLiveMilliseconds * 2)
        let busy = try BusyCompaction(store, runs.workload, keys: runs.entriesPerRun)
        let bytes = runs.bytes(of: CompactionCases.runs).written
        store.close()
        try context.remove("at-once")
        var metrics = busy.metrics
        metrics[.throughputPerCore] = bytes / 1e6 / (max(busy.wall, busy.backgroundCPU) / 1e9)
        metrics[.cpuPerGigabyte] = busy.backgroundCPU / bytes
        return metrics
    }

    /// The runs twice through a small memtable, so that levels form. What expires has expired when the second round begins.
    private func keepUp(
        _ context: CaseContext, _ runs: Runs, _ bytes: (written: Double, live: Double)
    ) throws -> [Metric: Double] {
        var keepingUp = settings(compacts: true)
        keepingUp.memtableBytes = 16 << 20
        let store = try context.open("keep-up", keepingUp)
        let meter = ProcessMeter()
        for _ in 0..<CompactionCases.rounds {
            for run in 0..<CompactionCases.runs { try runs.write(store, run: run, of: CompactionCases.runs) }
            store.advanceClock(milliseconds: Runs.timeToLiveMilliseconds * 2)
        }
        try store.settle()
        let written = meter.bytesWritten
        // The peer's filter works in compactions alone; its users look at the time of an entry that they read.
        if context.side == .ours || shape != .expiring { try runs.verify(store, of: CompactionCases.runs) }
        let onDisk = Double(store.bytesOnDisk())
        let getCPU = shape == .large ? try hotGets(store, runs) : nil
        store.close()
        try context.remove("keep-up")
        var metrics: [Metric: Double] = [
            .writeAmplification: written / (bytes.written * Double(CompactionCases.rounds)),
            .spaceAmplification: onDisk / bytes.live, .diskBytes: onDisk,
        ]
        if let getCPU { metrics[.getCPU] = getCPU }
        return metrics
    }

    /// CPU of a get of keys that were read before, few enough for the block cache.
    private func hotGets(_ store: any BenchStore, _ runs: Runs) throws -> Double {
        let entries = runs.entriesPerRun / 4
        for _ in 0..<2 { try runs.get(store, 0..<entries, of: CompactionCases.runs) }
        let meter = ProcessMeter()
        let rounds = 4
        for _ in 0..<rounds { try runs.get(store, 0..<entries, of: CompactionCases.runs) }
        return meter.cpu / Double(entries * rounds)
    }

    private func settings(compacts: Bool) -> StoreSettings {
        var settings = StoreSettings()
        settings.compacts = compacts
        settings.valueFileThresholdBytes = valueFileThresholdBytes
        if shape == .expiring { settings.timeToLiveMilliseconds = Runs.timeToLiveMilliseconds }
        return settings
    }
}
