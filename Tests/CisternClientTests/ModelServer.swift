import CisternClient
import CisternPrimitives
import Foundation
import Synchronization
import Testing

func testSeed(_ standard: UInt64 = 20_260_101) -> UInt64 {
    let seed = ProcessInfo.processInfo.environment["CISTERN_SEED"].flatMap { UInt64($0) } ?? standard
    print("CISTERN_SEED=\(seed)")
    return seed
}

/// Time that stands until it is moved. Wall and monotonic clock move together.
final class ManualTime: TimeSource {
    static let wallStart: UInt64 = 1_700_000_000_000
    private let milliseconds = Mutex<UInt64>(1)

    var monotonicNanoseconds: UInt64 { milliseconds.withLock { $0 } * 1_000_000 }
    var wallMilliseconds: UInt64 { Self.wallStart + milliseconds.withLock { $0 } }
    func advance(milliseconds step: UInt64) { milliseconds.withLock { $0 += step } }

    /// Pauses take no time, so that only the test moves it.
    var environment: ClientEnvironment { ClientEnvironment(time: self, sleep: { _ in await Task.yield() }) }
    /// Pauses move the time.
    var environmentWithPauses: ClientEnvironment {
        ClientEnvironment(time: self, sleep: { self.advance(milliseconds: $0) })
    }
}

/// What goes wrong, and how often: each is a chance in a thousand requests.
struct Faults: Sendable {
    var lostBefore = 0
    var lostAfter = 0
    var busy = 0
    var attachFails = 0

    static let none = Faults()
    static let many = Faults(lostBefore: 60, lostAfter: 60, busy: 60, attachFails: 200)
}

/// A state server in a few lines: one tree, all rules of the contract, and faults on demand.
final class ModelServer: Sendable {
    struct Stored: Equatable {
        var value: [UInt8]
        var expiry: Expiry
    }

    struct State {
        var entries: [[UInt8]: Stored] = [:]
        var epoch: UInt64 = 0
        var writer = ""
        var lastSequence: UInt64 = 0
        var watermark: UInt64 = 0
        var hasTree = false
        var states: [RemoteState] = []
        var dictionaries: [(id: UInt32, state: UInt16, bytes: [UInt8])] = []
        var snapshots: [SnapshotHandle: [[UInt8]: Stored]] = [:]
        var faults = Faults.none
        var random: SeededRandom
        /// Broken promises of the client.
        var violations: [String] = []
        var multiGets = 0
        var batches = 0
        var batchesApplied = 0
        var pageSizeMax = 7
        var previousKey: [UInt8]?
        /// Newest batch whose acknowledgement left the server.
        var acknowledged: UInt64 = 0
        /// The next batch is applied, and its connection is cut before the acknowledgement.
        var cutsAfterNextBatch = false
        /// Attaches until the server has had enough: a client that never gives up ends a test instead of hanging it.
        var attachesMax = Int.max
        /// Key index requests refused for now.
        var keyIndexRefusals = 0
        /// The page of the next key index stream that cannot be decoded, counted from 1.
        var damagedIndexPage = 0
    }

    let time: ManualTime
    let state: Mutex<State>

    init(time: ManualTime, seed: UInt64 = 1) {
        self.time = time
        state = Mutex(State(random: SeededRandom(seed: seed)))
    }

    func set(_ faults: Faults) { state.withLock { $0.faults = faults } }
    var violations: [String] { state.withLock { $0.violations } }
    var multiGets: Int { state.withLock { $0.multiGets } }
    var entryCount: Int { state.withLock { $0.entries.count } }

    /// Another worker takes over.
    func fence() { state.withLock { $0.epoch += 1000 } }
    /// The server forgets its newest batches, as one without a log does in a crash.
    func forgetBatches() { state.withLock { $0.lastSequence = 0 } }
}

extension ModelServer.State {
    enum Fault { case lostBefore, lostAfter, busy }

    mutating func draw() -> Fault? {
        let roll = Int.random(in: 0..<1000, using: &random)
        if roll < faults.lostBefore { return .lostBefore }
        if roll < faults.lostBefore + faults.lostAfter { return .lostAfter }
        return roll < faults.lostBefore + faults.lostAfter + faults.busy ? .busy : nil
    }

    mutating func begin(watermark: UInt64) {
        batchesApplied += 1
        self.watermark = max(self.watermark, watermark)
        previousKey = nil
    }

    mutating func apply(_ kind: EntryKind, key: [UInt8], value: [UInt8], expiry: Expiry) {
        if let previousKey, !previousKey.lexicographicallyPrecedes(key) {
            violations.append("batch keys are not strictly ascending")
        }
        previousKey = key
        switch kind {
        case .put: entries[key] = ModelServer.Stored(value: value, expiry: expiry)
        case .delete: entries[key] = nil
        case .append:
            entries[key] = ModelServer.Stored(value: (entries[key]?.value ?? []) + value, expiry: expiry)
        }
    }

    mutating func attach(_ request: AttachRequest, wall: UInt64) -> Result<AttachAnswer, RemoteError> {
        attachesMax -= 1
        guard attachesMax >= 0 else { return .failure(.fatal(ClientError(.refused, .fixTheCall, "enough"))) }
        let isSame = hasTree && request.epoch == epoch && request.writer == writer
        guard isSame || request.epoch > epoch else {
            return .failure(.fatal(ClientError(.fenced, .stop, "fenced by \(epoch)", currentEpoch: epoch)))
        }
        if !isSame {
            epoch = request.epoch
            writer = request.writer
            lastSequence = 0
            if let handles = request.restoring {
                entries = [:]
                for handle in handles { entries.merge(snapshots[handle]!) { $1 } }
            }
            hasTree = true
        }
        return .success(
            AttachAnswer(
                lastSequence: lastSequence, resumed: isSame, states: states,
                dictionaries: dictionaries.map { ($0.id, $0.state) }, watermark: watermark,
                restoreMicroseconds: 1, wallMilliseconds: wall))
    }

    mutating func get(_ key: [UInt8], wall: UInt64, watermark: UInt64) -> (bytes: [UInt8], expiry: Expiry)? {
        let clock = ExpiryClock(processing: wall, event: max(self.watermark, watermark))
        guard let stored = entries[key], !clock.isExpired(stored.expiry) else { return nil }
        return (stored.value, stored.expiry)
    }

    func page(_ request: ScanRequest, wall: UInt64) -> EntryPage {
        let clock = ExpiryClock(processing: wall, event: max(watermark, request.watermark))
        var page = EntryPage()
        let keys = entries.keys.filter { key in
            !key.lexicographicallyPrecedes(request.start)
                && (request.end.isEmpty || key.lexicographicallyPrecedes(request.end))
                && !clock.isExpired(entries[key]!.expiry)
        }.sorted { $0.lexicographicallyPrecedes($1) }
        let limit = min(pageSizeMax, request.entriesMax == 0 ? Int.max : Int(request.entriesMax))
        for key in keys.prefix(limit) {
            page.keys += key
            page.keyEnds.append(UInt32(page.keys.count))
            page.expiries.append(entries[key]!.expiry.rawValue)
            if !request.keysOnly {
                page.values += entries[key]!.value
                page.valueEnds.append(UInt32(page.values.count))
            }
        }
        if keys.count > limit { page.next = keys[limit] }
        return page
    }

    mutating func snapshot(_ checkpoint: UInt64, _ sequence: UInt64) -> SnapshotHandle {
        let handle = SnapshotHandle(rawValue: "store/\(checkpoint)/\(epoch)")
        if lastSequence < sequence { violations.append("a snapshot before its batches") }
        snapshots[handle] = entries
        return handle
    }

    mutating func register(_ name: String, _ kind: StateKind) -> UInt16 {
        if let known = states.first(where: { $0.name == name }) { return known.id }
        let id = UInt16(states.count + 1)
        states.append(RemoteState(id: id, name: name, kind: kind))
        return id
    }

    mutating func putDictionary(_ state: UInt16, _ bytes: [UInt8]) -> UInt32 {
        if let known = dictionaries.first(where: { $0.bytes == bytes }) { return known.id }
        let id = UInt32(dictionaries.count + 1)
        dictionaries.append((id, state, bytes))
        return id
    }
}

/// One connection after the other to a `ModelServer`.
final class ModelTree: RemoteTree {
    private struct Link {
        var isUp = false
        var epoch: UInt64 = 0
        /// Acknowledgements on their way.
        var pending: [Int: (completion: @Sendable (RemoteError?) -> Void, error: RemoteError?)] = [:]
        var nextPending = 0
        var traffic: (sent: UInt64, received: UInt64) = (0, 0)
    }

    let server: ModelServer
    private let link = Mutex(Link())

    init(_ server: ModelServer) { self.server = server }

    var traffic: (sent: UInt64, received: UInt64) { link.withLock { $0.traffic } }

    func attach(_ request: AttachRequest) async throws(RemoteError) -> AttachAnswer {
        close()
        let result = server.state.withLock { state -> Result<AttachAnswer, RemoteError> in
            if Int.random(in: 0..<1000, using: &state.random) < state.faults.attachFails {
                return .failure(.disconnected(reason: "connection refused"))
            }
            let answer = state.attach(request, wall: server.time.wallMilliseconds)
            if state.draw() == .lostAfter { return .failure(.disconnected(reason: "attach reply lost")) }
            return answer
        }
        let answer = try result.get()
        link.withLock {
            $0.isUp = true
            $0.epoch = request.epoch
        }
        return answer
    }

    func write(
        _ batch: SealedBatch, sequence: UInt64, watermark: UInt64,
        completion: @escaping @Sendable (RemoteError?) -> Void
    ) {
        guard let epoch = link.withLock({ $0.isUp ? $0.epoch : nil }) else {
            return completion(.disconnected(reason: "not connected"))
        }
        let (error, drops) = server.state.withLock { state -> (RemoteError?, Bool) in
            state.batches += 1
            guard epoch == state.epoch else {
                return (.fatal(ClientError(.fenced, .stop, "fenced", currentEpoch: state.epoch)), false)
            }
            let fault = state.draw()
            if fault == .lostBefore { return (nil, true) }
            if fault == .busy { return (.retryLater(milliseconds: 1, reason: "busy"), false) }
            if sequence > state.lastSequence + 1 {
                return (.sequenceGap(expected: state.lastSequence + 1), false)
            }
            if sequence == state.lastSequence + 1 {
                state.begin(watermark: watermark)
                for index in 0..<batch.count {
                    state.apply(
                        batch.kind(index), key: Array(batch.key(index)), value: Array(batch.value(index)),
                        expiry: batch.expiry(index))
                }
                state.lastSequence = sequence
            }
            let cuts = fault == .lostAfter || state.cutsAfterNextBatch
            state.cutsAfterNextBatch = false
            if !cuts { state.acknowledged = max(state.acknowledged, sequence) }
            return (nil, cuts)
        }
        let id = link.withLock { link -> Int in
            link.traffic.sent += UInt64(batch.byteCount)
            link.nextPending += 1
            link.pending[link.nextPending] = (completion, error)
            return link.nextPending
        }
        if drops { return close() }
        Task {
            await Task.yield()
            let pending = self.link.withLock { $0.pending.removeValue(forKey: id) }
            if let pending { pending.completion(pending.error) }
        }
    }

    func close() {
        let lost = link.withLock { link -> [@Sendable (RemoteError?) -> Void] in
            link.isUp = false
            let lost = link.pending.keys.sorted().map { link.pending[$0]!.completion }
            link.pending = [:]
            return lost
        }
        for completion in lost { completion(.disconnected(reason: "connection lost")) }
    }

    private func request<Answer: Sendable>(
        _ body: (inout ModelServer.State) -> Answer
    ) async throws(RemoteError) -> Answer {
        guard let epoch = link.withLock({ $0.isUp ? $0.epoch : nil }) else {
            throw .disconnected(reason: "not connected")
        }
        let result = server.state.withLock { state -> Result<Answer, RemoteError> in
            guard epoch == state.epoch else {
                return .failure(.fatal(ClientError(.fenced, .stop, "fenced", currentEpoch: state.epoch)))
            }
            switch state.draw() {
            case .lostBefore: return .failure(.disconnected(reason: "request lost"))
            case .busy: return .failure(.retryLater(milliseconds: 1, reason: "busy"))
            case .lostAfter:
                _ = body(&state)
                return .failure(.disconnected(reason: "reply lost"))
            case nil: return .success(body(&state))
            }
        }
        if case .failure(.disconnected) = result { close() }
        return try result.get()
    }

    func multiGet(_ keys: KeyColumns, watermark: UInt64) async throws(RemoteError) -> ValueColumns {
        let wall = server.time.wallMilliseconds
        return try await request { state in
            state.multiGets += 1
            var values = ValueColumns()
            for index in 0..<keys.count {
                if let value = state.get(keys.key(index), wall: wall, watermark: watermark) {
                    values.append(value.bytes, value.expiry)
                } else {
                    values.appendAbsent()
                }
            }
            return values
        }
    }

    func scan(_ request: ScanRequest) async throws(RemoteError) -> EntryPage {
        let wall = server.time.wallMilliseconds
        return try await self.request { $0.page(request, wall: wall) }
    }

    func keyIndex(
        from start: [UInt8], watermark: UInt64, onPage: @escaping @Sendable (EntryPage) -> Void
    ) async throws(RemoteError) {
        let isRefused = server.state.withLock { state -> Bool in
            state.keyIndexRefusals -= 1
            return state.keyIndexRefusals >= 0
        }
        if isRefused { throw .retryLater(milliseconds: 1, reason: "busy") }
        var next = start
        repeat {
            let page = try await scan(
                ScanRequest(start: next, end: [], entriesMax: 0, keysOnly: true, watermark: watermark))
            onPage(page)
            next = page.next
            await Task.yield()
        } while !next.isEmpty
    }

    func snapshot(checkpoint: UInt64, sequence: UInt64) async throws(RemoteError) -> SnapshotHandle {
        try await request { $0.snapshot(checkpoint, sequence) }
    }

    func register(
        name: String, kind: StateKind, ttl: StateTimeToLive
    ) async throws(RemoteError) -> RegisterAnswer {
        try await request { RegisterAnswer(id: $0.register(name, kind)) }
    }

    func putDictionary(state: UInt16, bytes: [UInt8]) async throws(RemoteError) -> UInt32 {
        try await request { $0.putDictionary(state, bytes) }
    }

    func dictionary(id: UInt32) async throws(RemoteError) -> [UInt8] {
        try await request { state in state.dictionaries.first { $0.id == id }!.bytes }
    }

    func detach() async throws(RemoteError) { try await request { _ in } }
}

/// Attaches with small everything, so that every path is walked.
func attach(
    _ server: ModelServer, epoch: UInt64 = 1, restoring: [SnapshotHandle]? = nil,
    keyGroups: KeyGroupRange = KeyGroupRange(first: 0, last: 7), environment: ClientEnvironment? = nil,
    _ change: (inout ClientConfiguration) -> Void = { _ in }
) async throws -> KeyedStateSession {
    var configuration = ClientConfiguration(endpoint: "model")
    configuration.writeBufferBytes = 600
    configuration.writeBufferEntries = 9
    configuration.batchesInFlight = 2
    configuration.valueCacheBytes = 4000
    change(&configuration)
    return try await KeyedStateSession.attach(
        over: ModelTree(server),
        request: AttachRequest(
            store: "store", keyGroupCount: 8, keyGroups: keyGroups, epoch: epoch, writer: "w",
            restoring: restoring),
        configuration: configuration, environment: environment ?? server.time.environment)
}
