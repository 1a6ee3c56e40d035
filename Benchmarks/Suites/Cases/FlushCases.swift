// A full memtable becomes a file. MB of keys and values for each second of CPU; filling the memtable is not counted.

import CisternBenchKit
import CisternPrimitives

struct FlushCases: CaseGroup {
    /// Below what seals a memtable of 64 MB on any side.
    static let entriesPerFlush = 350_000

    let name = "flush"
    let cases = ["flush_mbps"]

    func run(_ context: CaseContext) throws {
        var settings = StoreSettings()
        settings.compacts = false
        let store = try context.open("flush", settings)
        let flushes = context.isQuick ? 2 : 6
        var cpu = 0.0
        var wall = 0.0
        var peak = 0.0
        var written = 0.0
        for number in 0..<flushes {
            let runs = Runs(entriesPerRun: FlushCases.entriesPerFlush, seed: context.seed &+ UInt64(number))
            try runs.write(store, run: number, of: flushes)
            let meter = ProcessMeter()
            try store.flush()
            cpu += meter.cpu
            wall += meter.wall
            peak = max(peak, meter.peakBytes)
            written += meter.bytesWritten
        }
        let megabytes = Double(flushes * FlushCases.entriesPerFlush * Workload.entryBytes) / 1e6
        context.record(
            "flush_mbps",
            [
                .throughputPerCore: megabytes / (cpu / 1e9), .throughput: megabytes / (wall / 1e9),
                .cpuSeconds: cpu / 1e9,
                .peakRSS: peak, .bytesWritten: written, .diskBytes: Double(store.bytesOnDisk()),
            ])
        store.close()
    }
}
