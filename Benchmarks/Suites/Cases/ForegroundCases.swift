// What a job feels while its store merges everything: gets and puts of single entries in an open loop, at the same rate on
// all sides, until the compaction is over.

import CisternBenchKit
import CisternPrimitives

/// A full compaction with operations beside it.
struct BusyCompaction {
    static let operationsPerSecond = 20_000.0

    var gets = Latencies()
    var puts = Latencies()
    var wall = 0.0
    /// Of all threads but the one that gets and puts.
    var backgroundCPU = 0.0
    var bytesWritten = 0.0
    var peakBytes = 0.0

    /// - Parameter keys: how many keys the operations are spread over.
    init(_ store: any BenchStore, _ workload: Workload, keys: Int) throws {
        let batch = WriteBatch(entriesMax: 1)
        let order = Orders.uniform(1 << 16, below: keys, seed: workload.seed ^ 5)
        gets.reserve(1 << 18)
        puts.reserve(1 << 18)
        let meter = ProcessMeter()
        try store.startCompaction()
        var (gets, puts) = (Latencies(), Latencies())
        try withKey { key in
            try OpenLoop(operationsPerSecond: BusyCompaction.operationsPerSecond).run(
                while: { _ in store.isCompacting }, between: { store.pump() }
            ) { number, due in
                let index = UInt64(order[number & (order.count - 1)])
                if number % 2 == 0 {
                    workload.valueKey(index, into: key)
                    _ = try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes))
                    gets.add(wallNanoseconds() - due)
                } else {
                    batch.reset()
                    let (key, value) = batch.add(
                        .put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
                    workload.valueKey(index, into: key)
                    workload.value(index, UInt64(number), into: value)
                    try store.write(batch)
                    puts.add(wallNanoseconds() - due)
                }
            }
        }
        (self.gets, self.puts) = (gets, puts)
        wall = meter.wall
        backgroundCPU = meter.backgroundCPU
        bytesWritten = meter.bytesWritten
        peakBytes = meter.peakBytes
        if let failure = store.compactionFailure { throw BenchFailure("a full compaction: \(failure)") }
        guard gets.count > 0, puts.count > 0 else { throw BenchFailure("the compaction ended before it was felt") }
    }

    var metrics: [Metric: Double] {
        var both = gets
        both.add(contentsOf: puts)
        return [
            .p50: both.quantile(0.5) / 1e3, .p99: both.quantile(0.99) / 1e3, .longest: both.quantile(1) / 1e3,
            .getP99: gets.quantile(0.99) / 1e3, .putP99: puts.quantile(0.99) / 1e3,
            .cpuSeconds: backgroundCPU / 1e9, .peakRSS: peakBytes, .bytesWritten: bytesWritten,
        ]
    }
}

struct ForegroundCases: CaseGroup {
    let name = "foreground"
    let cases = ["foreground_p99_compacting"]

    func run(_ context: CaseContext) throws {
        var settings = StoreSettings()
        settings.compacts = false
        let store = try context.open("foreground", settings)
        let runs = Runs(entriesPerRun: context.isQuick ? 200_000 : 350_000, seed: context.seed)
        let count = context.isQuick ? 4 : 12
        for run in 0..<count { try runs.writeAndFlush(store, run: run, of: count) }
        let busy = try BusyCompaction(store, runs.workload, keys: runs.entriesPerRun * count)
        context.record("foreground_p99_compacting", busy.metrics)
        store.close()
    }
}
