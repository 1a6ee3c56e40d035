// A full compaction of eight runs that overlap everywhere, nothing else running. MB are keys and values that go in; MB/s a
// core is by wall time or by CPU, whichever is worse, so that neither waiting nor a second thread flatters.

import CisternBenchKit
import CisternPrimitives

struct MergeCases: CaseGroup {
    static let runs = 8

    let name = "merge"
    let cases = ["compaction_mbps", "compaction_cpu"]

    func run(_ context: CaseContext) throws {
        var settings = StoreSettings()
        settings.compacts = false
        let store = try context.open("merge", settings)
        let runs = Runs(entriesPerRun: context.isQuick ? 120_000 : 350_000, seed: context.seed)
        for run in 0..<MergeCases.runs { try runs.writeAndFlush(store, run: run, of: MergeCases.runs) }
        let meter = ProcessMeter()
        try store.compact()
        let (wall, cpu) = (meter.wall, meter.cpu)
        let (peak, written) = (meter.peakBytes, meter.bytesWritten)
        let bytes = runs.bytes(of: MergeCases.runs).written
        try runs.verify(store, of: MergeCases.runs)
        try store.settle()
        let common: [Metric: Double] = [
            .cpuSeconds: cpu / 1e9, .peakRSS: peak, .bytesWritten: written, .diskBytes: Double(store.bytesOnDisk()),
        ]
        context.record(
            "compaction_mbps",
            common.merging(
                [.throughputPerCore: bytes / 1e6 / (max(wall, cpu) / 1e9), .throughput: bytes / 1e6 / (wall / 1e9)]
            ) { $1 })
        context.record("compaction_cpu", common.merging([.cpuPerGigabyte: cpu / 1e9 / (bytes / 1e9)]) { $1 })
        store.close()
    }
}
