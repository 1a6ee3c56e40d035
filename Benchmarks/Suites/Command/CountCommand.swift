// Hot operations of our engine on a small store, each kind inside of one call of `bench_counted`, so that a tool that counts
// instructions can tell them apart. Instructions repeat within a per cent where times do not: what `Thresholds` gates on.

import ArgumentParser
import CBenchShims
import CisternBenchKit
import CisternPrimitives
import Foundation

struct CountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "count", abstract: "Runs hot operations for Benchmarks/Thresholds/check.sh.")

    /// Files of a few blocks' partitions and a memtable that holds what is written later.
    private static let stored = 40_000
    private static let written = 10_000

    @Option(help: "Directory for the store; removed at the end.")
    var directory = "Benchmarks/out/stores/count"

    func run() throws {
        try? FileManager.default.removeItem(atPath: directory)
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var settings = StoreSettings()
        settings.memtableBytes = 16 << 20
        settings.cacheBytes = 64 << 20
        settings.compacts = false
        let store = try EngineStore(directory, settings)
        let workload = Workload(entries: CountCommand.stored, seed: 1)
        try write(store, workload, from: 0, count: CountCommand.stored, .put)
        for index in 0..<UInt64(CountCommand.stored) {
            try write(store, { workload.mapKey(index, into: $0) }, { workload.value(index, 0, into: $0) })
        }
        try store.flush()
        let keys = (0..<10_000).map { UInt64($0 * 7919 % CountCommand.stored) }
        try read(store, workload, keys, absent: false)
        try scan(store, workload, 300, limit: 100)

        try counted("get_cached", keys.count) { try read(store, workload, keys, absent: false) }
        try counted("get_absent", keys.count) { try read(store, workload, keys, absent: true) }
        try counted("multiget_100", keys.count) { try multiGet(store, workload, keys) }
        try counted("scan_10", 300) { try scan(store, workload, 300, limit: 10) }
        try counted("scan_100", 300) { try scan(store, workload, 300, limit: 100) }
        try counted("put", CountCommand.written) {
            try write(store, workload, from: CountCommand.stored, count: CountCommand.written, .put)
        }
        try counted("get_memtable", CountCommand.written) {
            try read(
                store, workload, (0..<CountCommand.written).map { UInt64(CountCommand.stored + $0) }, absent: false)
        }
        try counted("put_again", CountCommand.written) {
            try write(store, workload, from: CountCommand.stored, count: CountCommand.written, .put)
        }
        try counted("rmw", CountCommand.written) { try readModifyWrite(store, workload) }
        try counted("append", CountCommand.written) {
            try write(store, workload, from: CountCommand.stored * 2, count: CountCommand.written, .append)
        }
        store.close()
    }

    /// Runs the operations inside of `bench_counted` and prints how many they were.
    private func counted(_ name: String, _ operations: Int, _ body: @escaping () throws -> Void) throws {
        let box = CountedBody(body)
        bench_counted({ Unmanaged<CountedBody>.fromOpaque($0!).takeUnretainedValue().run() }, box.address)
        if let failure = box.failure { throw failure }
        print(name, operations)
    }

    private func write(
        _ store: EngineStore, _ key: (UnsafeMutableRawPointer) -> Void, _ value: (UnsafeMutableRawPointer) -> Void
    ) throws {
        let batch = WriteBatch(entriesMax: 1, columnBytesMax: 4096)
        let places = batch.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
        key(places.key)
        value(places.value)
        try store.write(batch)
    }

    private func write(
        _ store: EngineStore, _ workload: Workload, from first: Int, count: Int, _ kind: EntryKind
    ) throws {
        let batch = WriteBatch(entriesMax: PointCases.batchEntries)
        for index in UInt64(first)..<UInt64(first + count) {
            let (key, value) = batch.add(kind, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
            workload.valueKey(index, into: key)
            workload.value(index, 0, into: value)
            if batch.count == PointCases.batchEntries {
                try store.write(batch)
                batch.reset()
            }
        }
    }

    private func read(_ store: EngineStore, _ workload: Workload, _ keys: [UInt64], absent: Bool) throws {
        try withKey { key in
            for index in keys {
                workload.valueKey(index, absent: absent, into: key)
                let found = try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes))
                guard (found == nil) == absent else { throw BenchFailure("entry \(index): a wrong answer") }
            }
        }
    }

    private func multiGet(_ store: EngineStore, _ workload: Workload, _ keys: [UInt64]) throws {
        let list = KeyList(keySize: Workload.keyBytes, capacity: PointCases.multiGetKeys)
        for start in stride(from: 0, to: keys.count, by: PointCases.multiGetKeys) {
            list.reset()
            for index in keys[start..<start + PointCases.multiGetKeys] { workload.valueKey(index, into: list.add()) }
            guard try store.multiGet(list).found == list.count else { throw BenchFailure("a multi-get missed keys") }
        }
    }

    /// Of keys that are in the memtable, in batches of one.
    private func readModifyWrite(_ store: EngineStore, _ workload: Workload) throws {
        let batch = WriteBatch(entriesMax: 1)
        for index in UInt64(CountCommand.stored)..<UInt64(CountCommand.stored + CountCommand.written) {
            batch.reset()
            let (key, value) = batch.add(.put, keyBytes: Workload.keyBytes, valueBytes: Workload.valueBytes)
            workload.valueKey(index, into: key)
            try workload.check(try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)), index)
            workload.value(index, 1, into: value)
            try store.write(batch)
        }
    }

    private func scan(_ store: EngineStore, _ workload: Workload, _ count: Int, limit: Int) throws {
        try withKey { key in
            for number in 0..<UInt64(count) {
                workload.mapKey(number * Workload.mapEntries, into: key)
                let prefix = UnsafeRawBufferPointer(start: key, count: Workload.mapPrefixBytes)
                guard try store.scan(prefix, limit: limit).entries == limit else {
                    throw BenchFailure("a scan missed entries")
                }
            }
        }
    }
}

/// A closure that C can call.
private final class CountedBody {
    private let body: () throws -> Void
    private(set) var failure: (any Error)?

    init(_ body: @escaping () throws -> Void) { self.body = body }

    var address: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

    func run() {
        do { try body() } catch { failure = error }
    }
}
