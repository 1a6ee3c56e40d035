import CisternClient
import CisternPrimitives
import Testing

/// What the state should be, in plain collections.
struct Oracle {
    struct Value: Equatable {
        var value: Int64
        var expiry: Expiry
    }

    var values: [Int: Value] = [:]
    var lists: [Int: [Value]] = [:]
    var maps: [Int: [String: Value]] = [:]
    var sums: [Int: Int64] = [:]
    var averages: [Int: (sum: Int64, count: Int64)] = [:]
    var timers: Set<String> = []
}

/// The other side of a run: a model, or a real server.
protocol ModelBackend: AnyObject {
    var time: ManualTime { get }
    var violations: [String] { get }
    func attach(
        epoch: UInt64, restoring: [SnapshotHandle]?, _ change: (inout ClientConfiguration) -> Void
    ) async throws -> KeyedStateSession
    /// From now on things go wrong, or do not.
    func setTrouble(_ isOn: Bool)
    /// Something goes wrong that a worker must not notice.
    func disturb(_ random: inout SeededRandom) async throws
}

final class ModelServerBackend: ModelBackend {
    let time = ManualTime()
    let server: ModelServer

    init(seed: UInt64) { server = ModelServer(time: time, seed: seed) }

    var violations: [String] { server.violations }

    func attach(
        epoch: UInt64, restoring: [SnapshotHandle]?, _ change: (inout ClientConfiguration) -> Void
    ) async throws -> KeyedStateSession {
        try await CisternClientTests.attach(server, epoch: epoch, restoring: restoring, change)
    }

    func setTrouble(_ isOn: Bool) { server.set(isOn ? .many : .none) }
    func disturb(_ random: inout SeededRandom) async throws {}
}

/// One run: random options, random operations, faults, checkpoints and restores, against the oracle.
final class ModelRun {
    let backend: any ModelBackend
    var time: ManualTime { backend.time }
    var random: SeededRandom
    var oracle = Oracle()
    var session: KeyedStateSession!
    var values: ValueState<Int64>!
    var lists: ListState<Int64>!
    var maps: MapState<String, Int64>!
    var sums: ReducingState<Int64>!
    var averages: AggregatingState<Int64, Int64, Double>!
    var timers: TimerQueue!
    var epoch: UInt64 = 0
    var watermark: UInt64 = 1
    var checkpoint: (handle: SnapshotHandle, oracle: Oracle)?
    let ttl: TimeToLive?
    let options: StateOptions
    let keyIndex: ClientConfiguration.KeyIndex
    let inBackground: Bool
    let cacheBytes: Int

    init(seed: UInt64, _ backend: any ModelBackend) {
        random = SeededRandom(seed: seed)
        self.backend = backend
        let refresh: TimeToLive.Refresh = Bool.random(using: &random) ? .onWrite : .onReadAndWrite
        ttl = [
            nil, .processing(milliseconds: 50, refresh: refresh), .event(milliseconds: 50, refresh: refresh),
        ].randomElement(using: &random)!
        options = StateOptions(
            ttl: ttl, codec: [.none, .lz4, .zstd(level: 1)].randomElement(using: &random)!)
        keyIndex = [.off, .keys, .verify].randomElement(using: &random)!
        inBackground = Bool.random(using: &random)
        cacheBytes = [0, 700, 4000].randomElement(using: &random)!
    }

    var now: ExpiryClock { ExpiryClock(processing: time.wallMilliseconds, event: watermark) }

    func newExpiry() -> Expiry {
        guard let ttl else { return .never }
        return ttl.clock == .processing
            ? .processingTime(milliseconds: now.processing + ttl.milliseconds)
            : .eventTime(milliseconds: watermark + ttl.milliseconds)
    }

    func start(restoring: [SnapshotHandle]?) async throws {
        epoch += 1
        session = try await backend.attach(epoch: epoch, restoring: restoring) {
            $0.keyIndex = keyIndex
            $0.keyIndexLoadsInBackground = inBackground
            $0.valueCacheBytes = cacheBytes
            $0.retryForMilliseconds = 1_000_000
        }
        session.advanceWatermark(to: watermark)
        values = try await session.valueState("values", .int64, options)
        lists = try await session.listState("lists", .int64, options)
        maps = try await session.mapState("maps", .string, .int64, options)
        sums = try await session.reducingState("sums", .int64) { $0 + $1 }
        // Sum in the high, count in the low 32 bits.
        averages = try await session.aggregatingState(
            "averages", .int64, StateOptions(),
            Aggregate(
                makeAccumulator: { 0 }, add: { $1 += $0 << 32 + 1 },
                result: { Double($0 >> 32) / Double($0 & 0xFFFF_FFFF) }))
        timers = try await session.timerQueue("timers")
    }

    func run(operations: Int) async throws {
        try await start(restoring: [])
        backend.setTrouble(Bool.random(using: &random))
        for _ in 0..<operations { try await step() }
        backend.setTrouble(false)
        try await checkEverything()
        #expect(backend.violations == [])
        #expect(session.metrics.verifyDisagreements == 0)
        session.abandon()
    }

    func step() async throws {
        let number = Int.random(in: 0..<14, using: &random)
        try session.setCurrentKey(user(number))
        session.namespace = number % 2 == 0 ? [] : [1]
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<25: try await stepValue(number)
        case 25..<50: try await stepList(number)
        case 50..<75: try await stepMap(number)
        case 75..<81:
            let value = Int64.random(in: 0...9, using: &random)
            try await sums.add(value)
            oracle.sums[number, default: 0] += value
            #expect(try await sums.get() == oracle.sums[number])
        case 81..<85:
            let value = Int64.random(in: 0...9, using: &random)
            try await averages.add(value)
            let old = oracle.averages[number] ?? (0, 0)
            oracle.averages[number] = (old.sum + value, old.count + 1)
            #expect(try await averages.get() == Double(old.sum + value) / Double(old.count + 1))
        case 85..<91: try await stepTimer(number)
        case 91..<95:
            time.advance(milliseconds: UInt64.random(in: 1...20, using: &random))
        case 95, 96:
            watermark += UInt64.random(in: 1...20, using: &random)
            session.advanceWatermark(to: watermark)
        case 97: try await backend.disturb(&random)
        case 98: try await stepCheckpoint()
        default: try await checkEverything()
        }
    }

    func live(_ value: Oracle.Value?) -> Int64? {
        guard let value, !now.isExpired(value.expiry) else { return nil }
        return value.value
    }

    var refreshes: Bool { ttl?.refresh == .onReadAndWrite }

    func stepValue(_ number: Int) async throws {
        switch Int.random(in: 0..<5, using: &random) {
        case 0, 1:
            let value = Int64.random(in: 0...1000, using: &random)
            try await values.update(value)
            oracle.values[number] = .init(value: value, expiry: newExpiry())
        case 2:
            try await values.clear()
            oracle.values[number] = nil
        default:
            let expected = live(oracle.values[number])
            #expect(try await values.value() == expected)
            if expected != nil, refreshes { oracle.values[number]!.expiry = newExpiry() }
        }
    }

    func stepList(_ number: Int) async throws {
        let expiry = newExpiry()
        switch Int.random(in: 0..<6, using: &random) {
        case 0, 1:
            let value = Int64.random(in: 0...1000, using: &random)
            try await lists.add(value)
            oracle.lists[number, default: []].append(.init(value: value, expiry: expiry))
        case 2:
            try await lists.addAll([1, 2, 3])
            oracle.lists[number, default: []] += [1, 2, 3].map { .init(value: $0, expiry: expiry) }
        case 3:
            let kept = Bool.random(using: &random) ? [Int64(7), 8] : []
            try await lists.update(kept)
            oracle.lists[number] = kept.map { .init(value: $0, expiry: expiry) }
        default:
            let expected = (oracle.lists[number] ?? []).compactMap { live($0) }
            #expect(try await lists.get() == expected)
            if refreshes { oracle.lists[number] = expected.map { .init(value: $0, expiry: expiry) } }
        }
    }

    func stepMap(_ number: Int) async throws {
        let field = "f\(Int.random(in: 0..<6, using: &random))"
        switch Int.random(in: 0..<10, using: &random) {
        case 0...3:
            let value = Int64.random(in: 0...1000, using: &random)
            try await maps.put(field, value)
            oracle.maps[number, default: [:]][field] = .init(value: value, expiry: newExpiry())
        case 4:
            try await maps.remove(field)
            oracle.maps[number]?[field] = nil
        case 5, 6, 7:
            let expected = live(oracle.maps[number]?[field])
            if Bool.random(using: &random) {
                #expect(try await maps.get(field) == expected)
            } else {
                #expect(try await maps.contains(field) == (expected != nil))
            }
            if expected != nil, refreshes { oracle.maps[number]![field]!.expiry = newExpiry() }
        case 8:
            let pages = try maps.entries(pageSize: Int.random(in: 1...5, using: &random))
            var found: [String: Int64] = [:]
            while let page = try await pages.next() {
                for entry in page { #expect(found.updateValue(entry.value, forKey: entry.key) == nil) }
            }
            #expect(found == (oracle.maps[number] ?? [:]).compactMapValues { live($0) })
        default:
            if Int.random(in: 0..<3, using: &random) == 0 {
                try await maps.clear()
                oracle.maps[number] = nil
            }
        }
    }

    func stepTimer(_ number: Int) async throws {
        let at = Int64.random(in: -5...200, using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0..<3:
            try await timers.register(at: at)
            oracle.timers.insert("\(at) \(number)")
        case 3:
            try await timers.delete(at: at)
            oracle.timers.remove("\(at) \(number)")
        default:
            var fired: Set<String> = []
            try await timers.advance(to: at / 4) { timer in
                let number = String(decoding: timer.key, as: UTF8.self).dropFirst(5)
                #expect(fired.insert("\(timer.time) \(number)").inserted)
            }
            let expected = oracle.timers.filter { Int64($0.split(separator: " ")[0])! <= at / 4 }
            #expect(fired == expected)
            oracle.timers.subtract(expected)
        }
        #expect(timers.count == oracle.timers.count)
    }

    func stepCheckpoint() async throws {
        if let checkpoint, Bool.random(using: &random) {
            session.abandon()
            oracle = checkpoint.oracle
            try await start(restoring: [checkpoint.handle])
        } else {
            let handle = try await session.snapshot(checkpoint: UInt64.random(in: 1...1 << 40, using: &random))
            checkpoint = (handle, oracle)
        }
    }

    func checkEverything() async throws {
        var found: [Int: Int64] = [:]
        func number(_ key: [UInt8]) -> Int { Int(String(decoding: key, as: UTF8.self).dropFirst(5))! }
        try await session.forEach(values) { key, _, value in found[number(key)] = value }
        #expect(found == oracle.values.compactMapValues { live($0) })
        var lists: [Int: [Int64]] = [:]
        try await session.forEach(self.lists) { key, _, elements in
            if !elements.isEmpty { lists[number(key)] = elements }
        }
        #expect(lists == oracle.lists.mapValues { $0.compactMap { live($0) } }.filter { !$0.value.isEmpty })
        var maps: [String: Int64] = [:]
        try await session.forEach(self.maps) { key, _, field, value in maps["\(number(key)) \(field)"] = value }
        var expected: [String: Int64] = [:]
        for (key, map) in oracle.maps {
            for (field, value) in map { expected["\(key) \(field)"] = live(value) }
        }
        #expect(maps == expected)
        found = [:]
        try await session.forEach(sums) { key, _, value in found[number(key)] = value }
        #expect(found == oracle.sums)
        var results = 0
        try await session.forEach(averages) { _, _, _ in results += 1 }
        #expect(results == oracle.averages.count)
    }
}

@Suite struct ClientModelTests {
    @Test(arguments: 0..<24)
    func everyStateEqualsTheModelUnderRandomOperationsAndFaults(run: Int) async throws {
        let seed = testSeed() &+ UInt64(run) &* 7919
        let model = ModelRun(seed: seed, ModelServerBackend(seed: seed &+ 1))
        do {
            try await model.run(operations: 500)
        } catch {
            Issue.record("seed \(seed), run \(run): \(error)")
        }
    }
}
