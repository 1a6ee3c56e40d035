// Map state: prefix scans over the entries of one map.

import CisternBenchKit
import CisternPrimitives

struct MapCases: CaseGroup {
    let name = "map"
    let cases = ["scan_10", "scan_100"]

    func run(_ context: CaseContext) throws {
        let entries = context.scaled(2_560_000)
        let workload = Workload(entries: entries, seed: context.seed)
        var settings = StoreSettings()
        settings.mapPrefixBytes = Workload.mapPrefixBytes
        let store = try context.open("map", settings)
        let batch = WriteBatch(entriesMax: PointCases.batchEntries)
        for index in Orders.shuffled(entries, seed: context.seed) {
            let (key, value) = batch.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
            workload.mapKey(UInt64(index), into: key)
            workload.value(UInt64(index), 0, into: value)
            if batch.count == PointCases.batchEntries {
                try store.write(batch)
                batch.reset()
            }
        }
        if batch.count > 0 { try store.write(batch) }
        try store.settle()
        let maps = entries / Int(Workload.mapEntries)
        for (name, limit, full) in [("scan_10", 10, 300_000), ("scan_100", 100, 100_000)] where context.wants(name) {
            let count = context.scaled(full)
            let order = Orders.uniform(count, below: maps, seed: context.seed ^ UInt64(limit))
            try scan(store, workload, order.prefix(count / 10), limit)
            try context.measure(name, operations: count, store) { try scan(store, workload, order, limit) }
        }
        store.close()
    }

    private func scan(_ store: any BenchStore, _ workload: Workload, _ maps: some Sequence<UInt32>, _ limit: Int) throws
    {
        try withKey { key in
            let prefix = UnsafeRawBufferPointer(start: key, count: Workload.mapPrefixBytes)
            for map in maps {
                workload.mapKey(UInt64(map) * Workload.mapEntries, into: key)
                guard try store.scan(prefix, limit: limit) == (limit, limit * Workload.valueBytes) else {
                    throw BenchFailure("a map of \(Workload.mapEntries) entries showed fewer than \(limit)")
                }
            }
        }
    }
}
