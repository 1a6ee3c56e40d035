// Jobs as workers run them, with the server's log synced, beside RocksDB embedded in the worker with its log off. Ours has a
// core for the server and one for the worker; RocksDB's worker has both, for its flushes and compactions.

import CisternBenchKit
import CisternClient
import CisternPrimitives

/// A counter a key, keys by Zipf's law: a read and a write a record. All keys exist before.
struct CounterCase {
    private static let theta = 0.99
    private static let recordsAtOnce = 1000

    let context: RemoteContext
    let name: String
    let keys: Int
    let records: Int
    let data: RemoteData

    init(_ context: RemoteContext, name: String, keys: Int) {
        self.context = context
        self.name = name
        self.keys = context.scaled(keys)
        records = context.scaled(2_000_000)
        data = RemoteData(seed: context.seed)
    }

    private func order() -> [UInt64] {
        var zipf = Zipf(count: keys, theta: CounterCase.theta, seed: context.seed)
        // The frequent keys lie anywhere among the others.
        return (0..<records).map { _ in scatter(zipf.next()) % UInt64(keys) }
    }

    func ours() async throws {
        let served = try Served.cistern(data: try context.makeDirectory("cistern"), log: "synced")
        var configuration = ClientConfiguration(endpoint: served.endpoint)
        // Memory for a tenth of the keys: key, value and what a node takes.
        configuration.valueCacheBytes = keys / 10 * (RemoteData.storeKeyBytes + 8 + 160)
        let client = try await StateClient.connect(configuration)
        let session = try await client.attach(
            store: name, keyGroupCount: 128, keyGroups: KeyGroupRange(first: 0, last: 127), epoch: 1, writer: name,
            restoring: [])
        let state = try await session.valueState("count", StateSerializer<UInt64>.uint64)
        for number in 0..<UInt64(keys) {
            try session.setCurrentKey(data.userKey(number))
            try await state.update(0)
        }
        try await session.flush()
        served.settle()
        let order = order()
        let before = session.metrics
        let meter = RemoteMeter(served)
        for first in stride(from: 0, to: order.count, by: CounterCase.recordsAtOnce) {
            // As an engine does that hands records over in buffers: what the next ones need is read ahead, all at once.
            let keys = order[first..<min(first + CounterCase.recordsAtOnce, order.count)].map(data.userKey)
            try await state.prefetch(keys)
            for key in keys {
                try session.setCurrentKey(key)
                guard let count = try await state.value() else { throw BenchFailure("a counter is missing") }
                try await state.update(count + 1)
            }
        }
        try await session.flush()
        let values = meter.values(operations: records)
        let after = session.metrics
        context.record(name, values)
        if name == "counter_1m" {
            let requests = Double(after.writeRPCs - before.writeRPCs)
            context.record(
                "write_rpcs",
                [.operationsPerRequest: Double(after.writeOperations - before.writeOperations) / max(requests, 1)])
        }
        try await check(session, state, order)
        try await session.detach()
        await client.close()
    }

    private func check(_ session: KeyedStateSession, _ state: ValueState<UInt64>, _ order: [UInt64]) async throws {
        let probe = order[order.count / 2]
        try session.setCurrentKey(data.userKey(probe))
        try expect(probe, try await state.value(), order)
    }

    private func expect(_ probe: UInt64, _ found: UInt64?, _ order: [UInt64]) throws {
        let expected = UInt64(order.count { $0 == probe })
        guard found == expected else { throw BenchFailure("counter \(probe) is \(found ?? 0), not \(expected)") }
    }

    func rocks() throws {
        let store = try EmbeddedRocks(try context.makeDirectory("rocks"))
        for number in 0..<UInt64(keys) { try data.withStoreKey(number) { try store.put($0, 0) } }
        sleepMilliseconds(2000)
        let order = order()
        let meter = RemoteMeter(nil)
        for number in order {
            try data.withStoreKey(number) { key in
                guard let count = try store.get(key) else { throw BenchFailure("counter \(number) is missing") }
                try store.put(key, count + 1)
            }
        }
        context.record(name, meter.values(operations: records))
        let probe = order[order.count / 2]
        try expect(probe, try data.withStoreKey(probe) { try store.get($0) }, order)
    }
}

/// Duplicates are suppressed for as long as a key lives: 19 of 20 records have a key that nobody has seen, and write it; event
/// time moves in steps, and with each a wave of keys expires.
struct DedupCase {
    private static let lifeMilliseconds: UInt64 = 10_000
    private static let steps = 100
    private static let stepMilliseconds: UInt64 = 1000

    let context: RemoteContext
    let records: Int
    let data: RemoteData

    init(_ context: RemoteContext) {
        self.context = context
        records = context.scaled(2_000_000)
        data = RemoteData(seed: context.seed)
    }

    /// The key of a record: new, or that of one of the thousand records before it.
    private func number(_ record: Int) -> UInt64 {
        guard record % 20 == 19 else { return UInt64(record) }
        let back = Int(scatter(UInt64(record) ^ context.seed) % 1000)
        let earlier = max(record - back - 1, 0)
        return UInt64(earlier % 20 == 19 ? earlier - 1 : earlier)
    }

    private func time(_ record: Int) -> UInt64 {
        1_000_000 + UInt64(record / (records / DedupCase.steps)) * DedupCase.stepMilliseconds
    }

    private func check(_ duplicates: Int) throws {
        // A repeated key is always one that lives.
        guard duplicates == records / 20 else { throw BenchFailure("\(duplicates) duplicates, not \(records / 20)") }
    }

    func ours() async throws {
        let served = try Served.cistern(data: try context.makeDirectory("cistern"), log: "synced")
        let client = try await StateClient.connect(ClientConfiguration(endpoint: served.endpoint))
        let session = try await client.attach(
            store: "dedup", keyGroupCount: 128, keyGroups: KeyGroupRange(first: 0, last: 127), epoch: 1,
            writer: "dedup", restoring: [])
        session.advanceWatermark(to: time(0))
        let state = try await session.valueState(
            "seen", StateSerializer<UInt64>.uint64,
            StateOptions(ttl: .event(milliseconds: DedupCase.lifeMilliseconds)))
        var duplicates = 0
        let meter = RemoteMeter(served)
        for record in 0..<records {
            if record % (records / DedupCase.steps) == 0 { session.advanceWatermark(to: time(record)) }
            try session.setCurrentKey(data.userKey(number(record)))
            if try await state.value() == nil {
                try await state.update(UInt64(record))
            } else {
                duplicates += 1
            }
        }
        try await session.flush()
        context.record("dedup_sparse", meter.values(operations: records))
        context.record("dedup_rpcs", [.absentRequests: Double(session.metrics.absentReadRPCs)])
        try check(duplicates)
        try await session.detach()
        await client.close()
    }

    func rocks() throws {
        let store = try EmbeddedRocks(
            try context.makeDirectory("rocks"), timeToLiveMilliseconds: DedupCase.lifeMilliseconds)
        var duplicates = 0
        var now = time(0)
        let meter = RemoteMeter(nil)
        for record in 0..<records {
            if record % (records / DedupCase.steps) == 0 {
                now = time(record)
                store.setClock(milliseconds: now)
            }
            try data.withStoreKey(number(record)) { key in
                // The time of the write in front, highest byte first, as Flink stores it.
                if let written = try store.get(key), UInt64(bigEndian: written) + DedupCase.lifeMilliseconds > now {
                    duplicates += 1
                } else {
                    try store.put(key, now.bigEndian)
                }
            }
        }
        context.record("dedup_sparse", meter.values(operations: records))
        try check(duplicates)
    }
}

/// JSON records through a state, with a trained dictionary or as they are: bytes of requests, and of the server's files.
struct CodecCase {
    private static let warmRecords = 20_000
    private static let warmRecordsMax = 1_000_000

    let context: RemoteContext
    let records: Int

    init(_ context: RemoteContext) {
        self.context = context
        records = context.scaled(500_000)
    }

    func run() async throws {
        let json = try Records(.json, seed: context.seed)
        let data = RemoteData(seed: context.seed)
        let directory = try context.makeDirectory("cistern")
        let served = try Served.cistern(data: directory, log: "off")
        let client = try await StateClient.connect(ClientConfiguration(endpoint: served.endpoint))
        let session = try await client.attach(
            store: "codec", keyGroupCount: 128, keyGroups: KeyGroupRange(first: 0, last: 127), epoch: 1,
            writer: "codec", restoring: [])
        let options =
            context.side == .ours
            ? StateOptions(codec: .zstd(level: 1), dictionary: .trained(bytes: 8192)) : StateOptions()
        let state = try await session.valueState("record", StateSerializer<[UInt8]>.bytes, options)
        func write(_ number: Int) async throws {
            try session.setCurrentKey(data.userKey(UInt64(number)))
            try await state.update(json.withRecord(number) { Array($0) })
        }
        // A state lives for months, its first records train the dictionary: what counts is what comes behind.
        var written = 0
        while written < CodecCase.warmRecords || (context.side == .ours && session.metrics.dictionariesTrained == 0) {
            guard written < CodecCase.warmRecordsMax else { throw BenchFailure("no dictionary was trained") }
            try await write(written)
            written += 1
            if written % 1000 == 0 { try await session.flush() }
        }
        try await session.flush()
        let before = session.metrics
        let meter = RemoteMeter(served)
        for number in written..<written + records { try await write(number) }
        try await session.flush()
        var values = meter.values(operations: records)
        let after = session.metrics
        values[.wireBytes] = Double(after.bytesSent - before.bytesSent) / Double(records)
        values[.valueShare] =
            Double(after.bytesAfterCompression - before.bytesAfterCompression)
            / Double(after.bytesBeforeCompression - before.bytesBeforeCompression)
        context.record("codec_bytes", values)
        // Without a log a snapshot writes everything to files.
        _ = try await session.snapshot(checkpoint: 1)
        served.settle()
        context.record("codec_disk", [.diskBytes: Double(settledDiskBytes(directory)) / Double(records + written)])
        try await session.detach()
        await client.close()
    }
}
