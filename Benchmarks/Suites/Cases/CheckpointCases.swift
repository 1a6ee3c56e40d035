// Checkpoints while a job writes. Ours: a snapshot of a tree with its log on and synced, writes going on. The peer: what Flink
// does, a checkpoint by hard links on the writing thread, with the log off, which flushes.

import CisternBenchKit
import CisternPrimitives
import Synchronization

struct CheckpointCases: CaseGroup {
    static let batchesPerSecond = 2000.0
    /// A checkpoint a second, of 25 MB that were written since the last.
    static let batchesPerCheckpoint = 2000

    let name = "checkpoint"
    let cases = ["checkpoint_p99"]

    func run(_ context: CaseContext) throws {
        let entries = context.scaled(1_000_000)
        let workload = Workload(entries: entries, seed: context.seed)
        var settings = StoreSettings()
        settings.logs = true
        let store = try context.open("checkpoint", settings)
        let batch = WriteBatch(entriesMax: PointCases.batchEntries)
        let order = Orders.shuffled(entries, seed: context.seed)
        var position = 0
        func writeBatch() throws {
            batch.reset()
            for _ in 0..<PointCases.batchEntries {
                let index = UInt64(order[position % entries])
                let (key, value) = batch.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
                workload.valueKey(index, into: key)
                workload.value(index, UInt64(position), into: value)
                position += 1
            }
            try store.write(batch)
        }
        for _ in 0..<(entries / PointCases.batchEntries) { try writeBatch() }
        try store.settle()

        let checkpoints = context.isQuick ? 6 : 25
        let taken = TakenCheckpoints()
        let batches = checkpoints * CheckpointCases.batchesPerCheckpoint
        let meter = ProcessMeter()
        try OpenLoop(operationsPerSecond: CheckpointCases.batchesPerSecond).run(
            while: { $0 < batches }, between: { store.nap() }
        ) { number, _ in
            try writeBatch()
            guard number % CheckpointCases.batchesPerCheckpoint == CheckpointCases.batchesPerCheckpoint / 2 else {
                return
            }
            let begun = wallNanoseconds()
            try store.checkpoint(UInt64(number)) { taken.add($0 - begun) }
        }
        while taken.count < checkpoints { store.nap() }
        let latencies = taken.all
        context.record(
            "checkpoint_p99",
            [
                .p50: latencies.quantile(0.5) / 1e3, .p99: latencies.quantile(0.99) / 1e3,
                .longest: latencies.quantile(1) / 1e3, .cpuSeconds: meter.cpu / 1e9, .peakRSS: meter.peakBytes,
                .bytesWritten: meter.bytesWritten,
            ])
        store.close()
    }
}

private final class TakenCheckpoints: Sendable {
    private let latencies = Mutex(Latencies())
    var count: Int { latencies.withLock { $0.count } }
    var all: Latencies { latencies.withLock { $0 } }
    func add(_ nanoseconds: Double) { latencies.withLock { $0.add(nanoseconds) } }
}
