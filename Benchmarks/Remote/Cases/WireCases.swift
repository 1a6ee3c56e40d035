// Single requests and batches against a server on the other core, beside Redis: what a frame, a hop and a client cost. No
// cache answers anything. Both servers keep a log that is written before a batch is acknowledged and synced in the
// background.

import CisternBenchKit
import CisternClient
import CisternPrimitives

struct WireCases {
    /// Batches on their way at once.
    static let window = 4
    private static let getsAtOnce = 100

    let context: RemoteContext
    let data: RemoteData
    let entries: Int
    let batches: Int
    let singleGets: Int
    let manyGets: Int

    init(_ context: RemoteContext) {
        self.context = context
        data = RemoteData(seed: context.seed)
        entries = context.scaled(1_000_000)
        batches = context.scaled(5_000)
        singleGets = context.scaled(100_000)
        manyGets = context.scaled(20_000)
    }

    private func order(_ count: Int, _ salt: UInt64) -> [UInt64] {
        (0..<count).map { scatter(UInt64($0) ^ data.seed ^ salt) % UInt64(entries) }
    }

    // MARK: Ours

    func ours() async throws {
        let served = try Served.cistern(data: try context.makeDirectory("cistern"), log: "buffered")
        try await put("put_batch_1000", served, entries: entries, batch: 1000, epoch: 1) { UInt64($0) }
        let order = order(batches * 100, 1)
        try await put("put_batch_100", served, entries: order.count, batch: 100, epoch: 2) { order[$0] }
        if context.wants("get_p50", "get_cpu", "get_pipelined_100", "multiget_100") {
            served.settle()
            try await get(served)
        }
        served.stop()
    }

    private func client(_ served: Served, batch: Int) -> ClientConfiguration {
        var configuration = ClientConfiguration(endpoint: served.endpoint)
        configuration.writeBufferEntries = batch
        configuration.batchesInFlight = WireCases.window
        configuration.valueCacheBytes = 0
        configuration.keyIndex = .off
        return configuration
    }

    private func session(_ served: Served, batch: Int, epoch: UInt64) async throws -> KeyedStateSession {
        let client = try await StateClient.connect(client(served, batch: batch))
        return try await client.attach(
            store: "bench", keyGroupCount: 128, keyGroups: KeyGroupRange(first: 0, last: 127), epoch: epoch,
            writer: "bench-\(epoch)", restoring: epoch == 1 ? [] : nil)
    }

    private func put(
        _ name: String, _ served: Served, entries: Int, batch: Int, epoch: UInt64, number: (Int) -> UInt64
    ) async throws {
        let session = try await session(served, batch: batch, epoch: epoch)
        let state = try await session.valueState("value", StateSerializer<[UInt8]>.bytes)
        var value = [UInt8](repeating: 0, count: RemoteData.valueBytes)
        let meter = RemoteMeter(served)
        for index in 0..<entries {
            let number = number(index)
            value.withUnsafeMutableBytes { data.writeValue(number, into: $0) }
            try session.setCurrentKey(data.userKey(number))
            try await state.update(value)
        }
        try await session.flush()
        context.record(name, meter.values(operations: entries))
        try await session.detach()
    }

    private func get(_ served: Served) async throws {
        let session = try await session(served, batch: 1000, epoch: 3)
        let state = try await session.valueState("value", StateSerializer<[UInt8]>.bytes)
        // The first round warms the caches of machine and server.
        for isWarm in context.wants("get_p50", "get_cpu") ? [false, true] : [] {
            var latencies = Latencies()
            latencies.reserve(singleGets)
            let meter = RemoteMeter(served)
            for number in order(singleGets, 2) {
                let begin = wallNanoseconds()
                try session.setCurrentKey(data.userKey(number))
                let value = try await state.value()
                latencies.add(wallNanoseconds() - begin)
                try value.map { try $0.withUnsafeBytes { try RemoteData.check($0, number) } }
                    ?? RemoteData.check(nil, number)
            }
            if isWarm { recordGets(meter, latencies) }
        }
        try await getMany(served, session, state)
        try await session.detach()
    }

    private func recordGets(_ meter: RemoteMeter, _ latencies: Latencies) {
        let values = meter.values(operations: singleGets)
        context.record("get_p50", [.p50: latencies.quantile(0.5) / 1000, .p99: latencies.quantile(0.99) / 1000])
        context.record("get_cpu", values)
    }

    private func getMany(
        _ served: Served, _ session: KeyedStateSession, _ state: ValueState<[UInt8]>
    ) async throws {
        let order = order(manyGets * WireCases.getsAtOnce, 3)
        // The client makes one request of reads that are known at once, so both cases are the same for it.
        for name in ["get_pipelined_100", "multiget_100"] {
            let meter = RemoteMeter(served)
            for begin in stride(from: 0, to: order.count, by: WireCases.getsAtOnce) {
                let numbers = order[begin..<begin + WireCases.getsAtOnce]
                let values = try await state.values(of: numbers.map(data.userKey))
                for (value, number) in zip(values, numbers) {
                    guard let value else { throw BenchFailure("entry \(number) is missing") }
                    try value.withUnsafeBytes { try RemoteData.check($0, number) }
                }
            }
            context.record(name, meter.values(operations: order.count))
        }
    }

    // MARK: Redis

    func redis() throws {
        let served = try Served.redis(data: try context.makeDirectory("redis"), log: true)
        let client = try RespClient(port: served.port)
        try put("put_batch_1000", served, client, entries: entries, batch: 1000) { UInt64($0) }
        let order = order(batches * 100, 1)
        try put("put_batch_100", served, client, entries: order.count, batch: 100) { order[$0] }
        if context.wants("get_p50", "get_cpu", "get_pipelined_100", "multiget_100") {
            served.settle()
            try get(served, client)
        }
        served.stop()
    }

    private func put(
        _ name: String, _ served: Served, _ client: RespClient, entries: Int, batch: Int, number: (Int) -> UInt64
    ) throws {
        var value = [UInt8](repeating: 0, count: RemoteData.valueBytes)
        var outstanding = 0
        let meter = RemoteMeter(served)
        for first in stride(from: 0, to: entries, by: batch) {
            client.begin(count: 2 * batch + 1)
            client.part("MSET")
            for index in first..<first + batch {
                let number = number(index)
                value.withUnsafeMutableBytes { data.writeValue(number, into: $0) }
                data.withStoreKey(number) { client.part($0) }
                value.withUnsafeBytes { client.part($0) }
            }
            if outstanding == WireCases.window {
                _ = try client.reply()
                outstanding -= 1
            }
            try client.send()
            outstanding += 1
        }
        for _ in 0..<outstanding { _ = try client.reply() }
        context.record(name, meter.values(operations: entries))
    }

    private func get(_ served: Served, _ client: RespClient) throws {
        var latencies = Latencies()
        for isWarm in context.wants("get_p50", "get_cpu") ? [false, true] : [] {
            latencies = Latencies()
            latencies.reserve(singleGets)
            let meter = RemoteMeter(served)
            for number in order(singleGets, 2) {
                let begin = wallNanoseconds()
                client.begin(count: 2)
                client.part("GET")
                data.withStoreKey(number) { client.part($0) }
                var end = 0.0
                try client.finish(replies: 1) {
                    end = wallNanoseconds()
                    try RemoteData.check($0, number)
                }
                latencies.add(end - begin)
            }
            if isWarm { recordGets(meter, latencies) }
        }
        let order = order(manyGets * WireCases.getsAtOnce, 3)
        try getMany("get_pipelined_100", served, client, order) { numbers in
            for number in numbers {
                client.begin(count: 2)
                client.part("GET")
                data.withStoreKey(number) { client.part($0) }
            }
            return numbers.count
        }
        try getMany("multiget_100", served, client, order) { numbers in
            client.begin(count: numbers.count + 1)
            client.part("MGET")
            for number in numbers { data.withStoreKey(number) { client.part($0) } }
            return 1
        }
    }

    /// `ask` says how many replies there will be.
    private func getMany(
        _ name: String, _ served: Served, _ client: RespClient, _ order: [UInt64], ask: (ArraySlice<UInt64>) -> Int
    ) throws {
        let meter = RemoteMeter(served)
        for begin in stride(from: 0, to: order.count, by: WireCases.getsAtOnce) {
            let numbers = order[begin..<begin + WireCases.getsAtOnce]
            let replies = ask(numbers)
            var index = begin
            try client.finish(replies: replies) {
                try RemoteData.check($0, order[index])
                index += 1
            }
        }
        context.record(name, meter.values(operations: order.count))
    }
}
