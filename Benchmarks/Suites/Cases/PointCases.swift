// Value state: entries that are written and read one by one.

import CisternBenchKit
import CisternPrimitives

struct PointCases: CaseGroup {
    static let batchEntries = 100
    static let multiGetKeys = 100

    let name = "point"
    let cases = [
        "fill_random", "get_cached", "multiget_100", "get_absent", "get_pagecache", "rmw_zipf", "rmw_uniform",
        "get_cached_lmdb",
    ]
    let sides = [Side.ours, .peer, .lmdb]

    /// Every case needs the filled store, so `fill_random` always runs.
    func run(_ context: CaseContext) throws {
        let workload = Workload(entries: context.scaled(5_000_000), seed: context.seed)
        if context.side == .lmdb { return try runLMDB(context, workload) }
        let reads = workload.entries / 5
        let dataBytes = workload.entries * Workload.entryBytes
        var store = try context.open("point")
        let order = Orders.shuffled(workload.entries, seed: context.seed)
        try context.measure("fill_random", operations: workload.entries, store, settles: true) {
            try fill(store, workload, order)
        }
        let hot = hotKeys(workload, reads, context.seed)
        if context.wants("get_cached") || context.wants("multiget_100") { try warm(store, workload) }
        if context.wants("get_cached") {
            try context.measure("get_cached", operations: reads, store) { try get(store, workload, hot) }
        }
        if context.wants("multiget_100") {
            try context.measure("multiget_100", operations: reads, store) { try multiGet(store, workload, hot) }
        }
        let any = Orders.uniform(reads, below: workload.entries, seed: context.seed ^ 1)
        if context.wants("get_absent") {
            try context.measure("get_absent", operations: reads, store) { try absent(store, workload, any) }
        }
        if context.wants("get_pagecache") {
            // A cache that holds the metadata and a small part of the data.
            store = try reopen(store, context, cacheBytes: dataBytes / 16)
            try get(store, workload, any.prefix(reads / 10))
            try context.measure("get_pagecache", operations: reads, store) { try get(store, workload, any) }
        }
        if context.wants("rmw_zipf") {
            store = try reopen(store, context, cacheBytes: StoreSettings().cacheBytes)
            let ranks = Orders.zipf(reads, below: workload.entries, theta: 0.99, seed: context.seed ^ 2)
            try get(store, workload, ranks.prefix(reads / 10))
            try context.measure("rmw_zipf", operations: reads, store, settles: true) {
                try readModifyWrite(store, workload, ranks)
            }
        }
        if context.wants("rmw_uniform") {
            store = try reopen(store, context, cacheBytes: dataBytes / 4)
            let keys = Orders.uniform(reads, below: workload.entries, seed: context.seed ^ 3)
            try get(store, workload, any.prefix(reads / 10))
            try context.measure("rmw_uniform", operations: reads, store, settles: true) {
                try readModifyWrite(store, workload, keys)
            }
        }
        store.close()
    }

    private func runLMDB(_ context: CaseContext, _ workload: Workload) throws {
        guard context.wants("get_cached_lmdb") else { return }
        let store = try context.open("point")
        try fill(store, workload, Orders.shuffled(workload.entries, seed: context.seed), batchEntries: 10_000)
        let hot = hotKeys(workload, workload.entries / 5, context.seed)
        try warm(store, workload)
        try context.measure("get_cached_lmdb", operations: hot.count, store) { try get(store, workload, hot) }
        store.close()
    }

    private func reopen(_ store: any BenchStore, _ context: CaseContext, cacheBytes: Int) throws -> any BenchStore {
        store.close()
        var settings = StoreSettings()
        settings.cacheBytes = cacheBytes
        return try context.open("point", settings)
    }

    private func hotKeys(_ workload: Workload, _ count: Int, _ seed: UInt64) -> [UInt32] {
        Orders.uniform(count, below: workload.entries / 8, seed: seed ^ 4).map {
            UInt32(Workload.inFirstEighth(UInt64($0)))
        }
    }

    /// Reads all that `get_cached` may ask for.
    private func warm(_ store: any BenchStore, _ workload: Workload) throws {
        let all = (0..<workload.entries / 8).map { UInt32(Workload.inFirstEighth(UInt64($0))) }
        for _ in 0..<2 { try get(store, workload, all) }
    }

    private func fill(
        _ store: any BenchStore, _ workload: Workload, _ order: [UInt32], batchEntries: Int = PointCases.batchEntries
    ) throws {
        let batch = WriteBatch(entriesMax: batchEntries)
        for index in order {
            let (key, value) = batch.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
            workload.valueKey(UInt64(index), into: key)
            workload.value(UInt64(index), 0, into: value)
            if batch.count == batchEntries {
                try store.write(batch)
                batch.reset()
            }
        }
        if batch.count > 0 { try store.write(batch) }
    }

    private func get(_ store: any BenchStore, _ workload: Workload, _ keys: some Sequence<UInt32>) throws {
        try withKey { key in
            for index in keys {
                workload.valueKey(UInt64(index), into: key)
                try workload.check(
                    try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)), UInt64(index))
            }
        }
    }

    private func absent(_ store: any BenchStore, _ workload: Workload, _ keys: [UInt32]) throws {
        try withKey { key in
            for index in keys {
                workload.valueKey(UInt64(index), absent: true, into: key)
                guard try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)) == nil else {
                    throw BenchFailure("a key that was never written is there")
                }
            }
        }
    }

    private func multiGet(_ store: any BenchStore, _ workload: Workload, _ keys: [UInt32]) throws {
        let list = KeyList(keySize: Workload.keyBytes, capacity: PointCases.multiGetKeys)
        for start in stride(from: 0, to: keys.count, by: PointCases.multiGetKeys) {
            list.reset()
            for index in keys[start..<min(start + PointCases.multiGetKeys, keys.count)] {
                workload.valueKey(UInt64(index), into: list.add())
            }
            guard try store.multiGet(list) == (list.count, list.count * Workload.valueBytes) else {
                throw BenchFailure("a multi-get of \(list.count) keys missed some")
            }
        }
    }

    /// Batches of one: a job looks at a value before it writes the next.
    private func readModifyWrite(_ store: any BenchStore, _ workload: Workload, _ keys: [UInt32]) throws {
        let batch = WriteBatch(entriesMax: 1)
        var version: UInt64 = 0
        for index in keys {
            version += 1
            batch.reset()
            let (key, value) = batch.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
            workload.valueKey(UInt64(index), into: key)
            try workload.check(
                try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)), UInt64(index))
            workload.value(UInt64(index), version, into: value)
            try store.write(batch)
        }
    }
}

/// Memory for one key.
func withKey(_ body: (UnsafeMutableRawPointer) throws -> Void) rethrows {
    let key = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 16)
    defer { key.deallocate() }
    try body(key)
}
