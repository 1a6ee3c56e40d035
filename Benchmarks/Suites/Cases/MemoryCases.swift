// Whether the engine knows what memory it takes: resident memory of the process against the ledger's sum, all the time while a
// store of a few hundred megabytes is filled, read, written over and compacted.

import CisternBenchKit
import CisternPrimitives

struct MemoryCases: CaseGroup {
    /// Operations between two looks.
    private static let sampleInterval = 20_000
    /// The ledger is not compared before the engine takes so much: what any process takes would decide.
    private static let sampleBytesMin = 200e6

    let name = "memory"
    let cases = ["memory_ledger"]
    let sides: [Side] = [.ours]

    func run(_ context: CaseContext) throws {
        // The program's own, and what the workload takes, is not the engine's.
        let workload = Workload(entries: context.isQuick ? 1_000_000 : 4_000_000, seed: context.seed)
        let order = Orders.shuffled(workload.entries, seed: context.seed)
        let batch = WriteBatch(entriesMax: PointCases.batchEntries)
        let before = residentBytes()
        let store = try context.open("memory")
        var worst = 1.0
        var samples = 0
        func sample() {
            let used = store.ledgerBytes
            guard used >= MemoryCases.sampleBytesMin else { return }
            let ratio = (residentBytes() - before) / used
            worst = max(worst, ratio, 1 / ratio)
            samples += 1
        }
        for (position, index) in order.enumerated() {
            let (key, value) = batch.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
            workload.valueKey(UInt64(index), into: key)
            workload.value(UInt64(index), 0, into: value)
            if batch.count == PointCases.batchEntries || position + 1 == order.count {
                try store.write(batch)
                batch.reset()
            }
            if position % MemoryCases.sampleInterval == 0 { sample() }
        }
        try store.startCompaction()
        let single = WriteBatch(entriesMax: 1)
        var number = 0
        // Reads until the cache is full, with writes between them, and until the compaction is over.
        while number < workload.entries || store.isCompacting {
            let index = UInt64(order[(number * 7919) % order.count])
            try withKey { key in
                workload.valueKey(index, into: key)
                try workload.check(try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)), index)
            }
            if number % 4 == 0 {
                single.reset()
                let (key, value) = single.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
                workload.valueKey(index, into: key)
                workload.value(index, 0, into: value)
                try store.write(single)
            }
            store.pump()
            if number % MemoryCases.sampleInterval == 0 { sample() }
            number += 1
        }
        try store.settle()
        sample()
        guard samples > 0 else { throw BenchFailure("the engine never took enough memory to be compared") }
        context.record("memory_ledger", [.ledgerGap: worst, .peakRSS: ProcessMeter().peakBytes])
        store.close()
    }
}
