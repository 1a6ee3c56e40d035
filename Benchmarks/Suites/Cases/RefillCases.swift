// What readers feel right after a compaction has replaced the files whose blocks they had in the cache.

import CisternBenchKit
import CisternPrimitives

struct RefillCases: CaseGroup {
    static let runs = 8

    let name = "refill"
    let cases = ["get_after_compaction"]

    func run(_ context: CaseContext) throws {
        var settings = StoreSettings()
        settings.compacts = false
        let store = try context.open("refill", settings)
        let runs = Runs(entriesPerRun: context.isQuick ? 60_000 : 350_000, seed: context.seed)
        for run in 0..<RefillCases.runs { try runs.writeAndFlush(store, run: run, of: RefillCases.runs) }
        let count = runs.entriesPerRun * RefillCases.runs / 8
        let order = Orders.shuffled(count, seed: context.seed ^ 6)
        for _ in 0..<3 { try get(store, runs.workload, order) }
        try store.compact()
        // Each block is asked for the first time by few of these.
        try context.measure("get_after_compaction", operations: count, store) { try get(store, runs.workload, order) }
        store.close()
    }

    private func get(_ store: any BenchStore, _ workload: Workload, _ order: [UInt32]) throws {
        try withKey { key in
            for position in order {
                let index = Workload.inFirstEighth(UInt64(position))
                workload.valueKey(index, into: key)
                try workload.check(try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)), index)
            }
        }
    }
}
