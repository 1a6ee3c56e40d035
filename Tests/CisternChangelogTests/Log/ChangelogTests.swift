import CisternChangelog
import CisternLogNetwork
import CisternLogProtocol
import CisternPrimitives
import Synchronization
import Testing

/// Logs beside the ledgers of `MemoryMetadata`.
final class MemoryLogs: LogMetadataService {
    private struct State {
        var logs: [String: Versioned<LogMetadata>] = [:]
        var highest: UInt64 = 0
        var unavailable = 0
    }

    private let ledgers: MemoryMetadata
    private let nodes: [LogNodeID]
    private let state = Mutex(State())

    init(_ ledgers: MemoryMetadata, nodes: [LogNodeID]) {
        self.ledgers = ledgers
        self.nodes = nodes
    }

    func failNext(_ count: Int) { state.withLock { $0.unavailable = count } }

    func ask(_ request: LedgerMetadataRequest) async -> LedgerMetadataResult { await ledgers.ask(request) }

    func ask(_ request: LogMetadataRequest, ofLog name: String) async -> LogMetadataResult {
        state.withLock { state in
            let log = state.logs[name] ?? Versioned(LogMetadata(), version: 0)
            if state.unavailable > 0 {
                state.unavailable -= 1
                // Carried out, and the answer is lost.
                if case .compareAndSwap(let expected, let new) = request, expected == log.version {
                    state.logs[name] = Versioned(new, version: expected + 1)
                }
                return .unavailable
            }
            switch request {
            case .get: return .found(log)
            case .compareAndSwap(let expected, let new):
                guard expected == log.version else { return .conflict }
                state.logs[name] = Versioned(new, version: expected + 1)
                return .written(expected + 1)
            }
        }
    }

    func createLedger(_ sizes: QuorumSizes, on ensemble: [LogNodeID]) async -> (LedgerID, Versioned<LedgerMetadata>)? {
        let ledger = state.withLock { state in
            state.highest += 1
            return LedgerID(state.highest)
        }
        guard let new = try? LedgerMetadata(sizes: sizes, ensemble: ensemble) else { return nil }
        return (ledger, ledgers.create(ledger, new))
    }

    func deleteLedger(_ ledger: LedgerID) async -> Bool {
        ledgers.remove(ledger)
        return true
    }

    func writableNodes() async -> [LogNodeID] { nodes }

    func exists(_ ledger: LedgerID) -> Bool { ledgers[ledger] != nil }
}

@Suite struct ChangelogTests {
    private func withLog<Result>(
        _ nodes: UInt64 = 4, _ body: (LedgerCluster, MemoryLogs, ChangelogOptions) async throws -> Result
    ) async throws -> Result {
        let cluster = try await LedgerCluster(nodes, quickOptions(), LogNodeListenerOptions())
        let logs = MemoryLogs(cluster.metadata, nodes: (1...nodes).map(LogNodeID.init))
        var options = ChangelogOptions()
        options.ledgerBytesMax = 2000
        options.retryInterval = .milliseconds(5)
        let result: Result
        do {
            result = try await body(cluster, logs, options)
        } catch {
            await cluster.close()
            throw error
        }
        await cluster.close()
        return result
    }

    private func open(
        _ cluster: LedgerCluster, _ logs: MemoryLogs, _ options: ChangelogOptions, attempt: UInt64
    ) async throws -> Changelog {
        try await Changelog.takeOver(
            "job/1", attempt: attempt, client: cluster.client, metadata: logs, options: options)
    }

    private func all(_ log: Changelog, from start: LogSequenceNumber? = nil) async throws -> [[UInt8]] {
        var bodies: [[UInt8]] = []
        try await log.read(from: start) { bodies.append($0.body) }
        return bodies
    }

    @Test func entriesOfManyLedgersAreReadInOrder() async throws {
        try await withLog { cluster, logs, options in
            let log = try await open(cluster, logs, options, attempt: 1)
            var places: [LogSequenceNumber] = []
            for number in 0..<200 {
                places.append(try await log.append(body(number)))
                if number % 10 == 9 { try await log.persist(through: places[number]) }
            }
            #expect(places == places.sorted() && Set(places).count == 200)
            #expect(await log.ledgers.count > 3)
            #expect(try await all(log) == (0..<200).map { body($0) })
            #expect(try await all(log, from: places[150]) == (150..<200).map { body($0) })
        }
    }

    @Test func aNewAttemptHasAllThatWasPersistedAndTheOldOneIsStopped() async throws {
        try await withLog { cluster, logs, options in
            let old = try await open(cluster, logs, options, attempt: 1)
            var last: LogSequenceNumber?
            for number in 0..<90 { last = try await old.append(body(number)) }
            try await old.persist(through: last!)
            let new = try await open(cluster, logs, options, attempt: 2)
            let error = await #expect(throws: ChangelogError.self) {
                for number in 90..<200 { try await old.persist(through: try await old.append(body(number))) }
            }
            guard case .lost? = error else { throw error! }
            #expect(try await all(new).starts(with: (0..<90).map { body($0) }))
            let place = try await new.append([7])
            try await new.persist(through: place)
            #expect(try await all(new).last == [7])
            // And an attempt that is not newer is told so.
            let late = await #expect(throws: ChangelogError.self) {
                _ = try await open(cluster, logs, options, attempt: 2)
            }
            #expect(late == .lost(log: "job/1", attempt: 2, to: 2))
        }
    }

    @Test func truncationDeletesLedgersAndKeepsWhatComesAfter() async throws {
        try await withLog { cluster, logs, options in
            let log = try await open(cluster, logs, options, attempt: 1)
            var places: [LogSequenceNumber] = []
            for number in 0..<120 {
                places.append(try await log.append(body(number)))
                if number % 10 == 9 { try await log.persist(through: places[number]) }
            }
            let before = await log.ledgers
            try await log.truncate(to: places[100])
            while await log.trimPoint != places[100] { await Task.yield() }
            while logs.exists(before[0]) { await Task.yield() }
            #expect(await log.ledgers.first == places[100].ledger)
            #expect(try await all(log, from: places[100]) == (100..<120).map { body($0) })
            let error = await #expect(throws: ChangelogError.self) { _ = try await all(log, from: places[0]) }
            #expect(error == .unknownPlace(log: "job/1", places[0]))
            // Another attempt finds the same.
            let next = try await open(cluster, logs, options, attempt: 2)
            #expect(try await all(next, from: places[100]) == (100..<120).map { body($0) })
        }
    }

    @Test func answersThatAreLostChangeNothing() async throws {
        try await withLog { cluster, logs, options in
            logs.failNext(3)
            let log = try await open(cluster, logs, options, attempt: 1)
            var count = 0
            // Rolls whose answers are lost are looked up later; entries go on meanwhile.
            while await log.ledgers.count < 4 {
                if count % 20 == 0 { logs.failNext(1) }
                try await log.persist(through: try await log.append(body(count)))
                count += 1
            }
            let next = try await open(cluster, logs, options, attempt: 2)
            #expect(try await all(next) == (0..<count).map { body($0) })
        }
    }

    @Test func aNodeThatGoesLosesNothingThatWasPersisted() async throws {
        try await withLog { cluster, logs, options in
            let log = try await open(cluster, logs, options, attempt: 1)
            for number in 0..<60 {
                if number == 20 { await cluster.stop(LogNodeID(2)) }
                try await log.persist(through: try await log.append(body(number)))
            }
            let next = try await open(cluster, logs, options, attempt: 2)
            #expect(try await all(next) == (0..<60).map { body($0) })
        }
    }

    @Test func aClosedLogIsTakenOverWithoutARecovery() async throws {
        try await withLog { cluster, logs, options in
            let log = try await open(cluster, logs, options, attempt: 1)
            for number in 0..<10 { try await log.append(body(number)) }
            try await log.close()
            await #expect(throws: ChangelogError.closed(log: "job/1")) { try await log.append([1]) }
            let next = try await open(cluster, logs, options, attempt: 2)
            #expect(try await all(next) == (0..<10).map { body($0) })
        }
    }

    @Test func tooFewNodesAreSaid() async throws {
        try await withLog(2) { cluster, logs, options in
            let error = await #expect(throws: ChangelogError.self) {
                _ = try await open(cluster, logs, options, attempt: 1)
            }
            #expect(error == .tooFewNodes(log: "job/1", found: 2, wanted: 3))
        }
    }
}
