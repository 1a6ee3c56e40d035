// The operations of one side, one case after the other on one store. What a case measures includes its background work:
// CPU is counted over all threads of the process until the store is quiet again.

import Glibc

/// One measured case of one side.
struct Measured {
    let name: String
    let operations: Int
    let wallNanoseconds: Double
    let cpuNanoseconds: Double
    /// Bytes the store's files took when the case was over.
    let diskBytes: UInt64
}

struct EngineCases {
    static let batchEntries = 100
    let workload: Workload
    let filter: String

    /// Every case needs the filled store, so `fill_random` always runs.
    func run(_ store: any BenchStore) throws -> [Measured] {
        var results: [Measured] = []
        results.append(try measure("fill_random", workload.entries, store, settles: true) { try fill(store) })
        let reads = workload.entries / 5
        let cases: [(String, Int, Bool, () throws -> Void)] = [
            ("get_cached", reads, false, { try get(store, reads, hot: workload.entries / 8) }),
            ("get_pagecache", reads, false, { try get(store, reads, hot: workload.entries) }),
            ("get_absent", reads, false, { try absent(store, reads) }),
            ("scan_10", reads / 10, false, { try scan(store, reads / 10, limit: 10) }),
            ("rmw_zipf", reads, true, { try readModifyWrite(store, reads) }),
        ]
        for (name, operations, settles, body) in cases where name.hasPrefix(filter) {
            // What `get_cached` reads is in the cache before it is measured, on both sides.
            if name == "get_cached" { try get(store, workload.entries / 8, hot: workload.entries / 8) }
            results.append(try measure(name, operations, store, settles: settles, body))
        }
        return results
    }

    private func measure(
        _ name: String, _ operations: Int, _ store: any BenchStore, settles: Bool, _ body: () throws -> Void
    ) throws -> Measured {
        let cpu = cpuNanoseconds()
        let wall = wallNanoseconds()
        try body()
        let wallEnd = wallNanoseconds()
        if settles { try store.settle() }
        return Measured(
            name: name, operations: operations, wallNanoseconds: (wallEnd - wall) / Double(operations),
            cpuNanoseconds: (cpuNanoseconds() - cpu) / Double(operations), diskBytes: store.bytesOnDisk())
    }

    private func fill(_ store: any BenchStore) throws {
        var batch = PutBatch()
        var key = Workload.emptyKey
        var value = Workload.emptyValue
        for position in 0..<UInt64(workload.entries) {
            let index = workload.shuffled(position)
            workload.key(index, into: &key)
            workload.value(index, 0, into: &value)
            batch.add(key, value)
            if batch.count == EngineCases.batchEntries {
                try store.put(batch)
                batch.reset()
            }
        }
        if batch.count > 0 { try store.put(batch) }
    }

    /// Keys in random order out of the first `hot`. Neighbours share blocks, so a part of the keys is a part of the blocks.
    private func get(_ store: any BenchStore, _ count: Int, hot: Int) throws {
        var key = Workload.emptyKey
        for position in 0..<count {
            workload.key(workload.shuffled(UInt64(position)) % UInt64(hot), into: &key)
            guard try store.get(key) == Workload.valueBytes else {
                throw BenchFailure(description: "key \(position) is missing")
            }
        }
    }

    private func absent(_ store: any BenchStore, _ count: Int) throws {
        var key = Workload.emptyKey
        for position in 0..<count {
            workload.key(workload.shuffled(UInt64(position)), odd: true, into: &key)
            guard try store.get(key) == -1 else {
                throw BenchFailure(description: "a key that was never written is there")
            }
        }
    }

    private func scan(_ store: any BenchStore, _ count: Int, limit: Int) throws {
        var key = Workload.emptyKey
        for position in 0..<count {
            workload.key(workload.shuffled(UInt64(position)), into: &key)
            guard try store.scan(key, prefix: Workload.prefixBytes, limit: limit) == limit else {
                throw BenchFailure(description: "a map of \(Workload.mapEntries) entries showed fewer than \(limit)")
            }
        }
    }

    private func readModifyWrite(_ store: any BenchStore, _ count: Int) throws {
        var zipf = Zipf(count: workload.entries, theta: 0.99, seed: workload.seed)
        var batch = PutBatch()
        var key = Workload.emptyKey
        var value = Workload.emptyValue
        for version in 0..<UInt64(count) {
            let index = workload.shuffled(zipf.next())
            workload.key(index, into: &key)
            guard try store.get(key) == Workload.valueBytes else {
                throw BenchFailure(description: "a key that was written is missing")
            }
            workload.value(index, version, into: &value)
            batch.reset()
            batch.add(key, value)
            try store.put(batch)
        }
    }

    private func wallNanoseconds() -> Double {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Double(now.tv_sec) * 1e9 + Double(now.tv_nsec)
    }

    private func cpuNanoseconds() -> Double {
        var now = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)
        return Double(now.tv_sec) * 1e9 + Double(now.tv_nsec)
    }
}
