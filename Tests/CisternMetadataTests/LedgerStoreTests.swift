// Ledgers and logs over every metadata store, with answers that are lost.

import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Synchronization
import Testing

/// Does what it is asked and loses some answers.
private final class LosingStore: MetadataStore {
    private let store: any MetadataStore
    private let random: Mutex<SeededRandom>

    init(_ store: any MetadataStore, seed: UInt64) {
        self.store = store
        random = Mutex(SeededRandom(seed: seed))
    }

    private func lose(_ operation: MetadataError.Operation, _ key: String) throws(MetadataError) {
        let isLost = random.withLock { Int.random(in: 0..<4, using: &$0) == 0 }
        if isLost { throw MetadataError(operation, key, .unavailable("lost by the test")) }
    }

    func create(
        _ key: String, _ value: [UInt8], lease: MetadataLeaseID?
    ) async throws(MetadataError) -> MetadataVersion {
        try lose(.create, key)
        let version = try await store.create(key, value, lease: lease)
        try lose(.create, key)
        return version
    }

    func get(_ key: String) async throws(MetadataError) -> MetadataEntry? {
        try lose(.get, key)
        return try await store.get(key)
    }

    func compareAndSwap(
        _ key: String, expected: MetadataVersion, new value: [UInt8]
    ) async throws(MetadataError) -> MetadataVersion {
        try lose(.compareAndSwap, key)
        let version = try await store.compareAndSwap(key, expected: expected, new: value)
        try lose(.compareAndSwap, key)
        return version
    }

    func delete(_ key: String, expected: MetadataVersion) async throws(MetadataError) {
        try await store.delete(key, expected: expected)
    }

    func list(prefix: String, after: String?, limit: Int) async throws(MetadataError) -> MetadataPage {
        try await store.list(prefix: prefix, after: after, limit: limit)
    }

    func watch(prefix: String, from first: MetadataVersion) -> MetadataWatch {
        store.watch(prefix: prefix, from: first)
    }

    func acquireLease(milliseconds: UInt64) async throws(MetadataError) -> MetadataLease {
        try await store.acquireLease(milliseconds: milliseconds)
    }

    func keepAlive(_ lease: MetadataLeaseID) async throws(MetadataError) { try await store.keepAlive(lease) }

    func release(_ lease: MetadataLeaseID) async throws(MetadataError) { try await store.release(lease) }
}

@Suite struct LedgerStoreTests {
    private let sizes = QuorumSizes(ensemble: 3, write: 3, ack: 2)
    private let nodes = [LogNodeID(1), LogNodeID(2), LogNodeID(3)]

    private func ledgers(_ subject: StoreSubject, over store: (any MetadataStore)? = nil) -> LedgerStore {
        LedgerStore(store ?? subject.store, keys: MetadataKeys(root: subject.root), report: { _ in })
    }

    @Test(arguments: StoreKind.available)
    func aLedgerIsCreatedReadSwappedAndDeleted(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = ledgers(subject)
            #expect(await store.ask(.get(LedgerID(1))) == .missing)
            let (ledger, created) = try await store.createLedger(sizes: sizes, ensemble: nodes)
            #expect(await store.ask(.get(ledger)) == .found(created))
            let recovering = try created.value.startingRecovery()
            let result = await store.ask(.compareAndSwap(ledger, expected: created.version, new: recovering))
            guard case .written(let version) = result else {
                Issue.record("the swap ended with \(result)")
                return
            }
            #expect(
                await store.ask(.compareAndSwap(ledger, expected: created.version, new: created.value)) == .conflict)
            #expect(await store.ask(.get(ledger)) == .found(Versioned(recovering, version: version)))
            try await store.deleteLedger(ledger, expected: version)
            try await store.deleteLedger(ledger, expected: version)
            #expect(await store.ask(.compareAndSwap(ledger, expected: version, new: recovering)) == .missing)
            await #expect(throws: MetadataError.self) {
                _ = try await store.createLedger(sizes: sizes, ensemble: [LogNodeID(1)])
            }
        }
    }

    @Test(arguments: StoreKind.available)
    func idsAreGivenOnceAndInOrderWhateverAnswersAreLost(kind: StoreKind) async throws {
        for seed in Seeds.seeds(count: 2) {
            Seeds.announce("idsAreGivenOnceAndInOrderWhateverAnswersAreLost", seed)
            try await StoreSubject.with(kind) { subject in
                let given = try await withThrowingTaskGroup(of: [LedgerID].self) { group in
                    for task in UInt64(0)..<4 {
                        let store = ledgers(subject, over: LosingStore(subject.store, seed: seed &* 10 &+ task))
                        group.addTask {
                            var mine: [LedgerID] = []
                            while mine.count < 10 {
                                do throws(MetadataError) {
                                    mine.append(try await store.createLedger(sizes: sizes, ensemble: nodes).ledger)
                                } catch {
                                    guard error.isUnavailable else { throw error }
                                }
                            }
                            return mine
                        }
                    }
                    return try await group.reduce(into: [[LedgerID]]()) { $0.append($1) }
                }
                for mine in given { #expect(mine == mine.sorted()) }
                let all = given.flatMap { $0 }
                #expect(Set(all).count == all.count)
                let store = ledgers(subject)
                #expect(try await store.highestLedger() >= all.max()!)
                for ledger in all {
                    guard case .found = await store.ask(.get(ledger)) else {
                        Issue.record("\(ledger) was reported as created")
                        return
                    }
                }
            }
        }
    }

    @Test(arguments: StoreKind.available)
    func theLedgersOfANodeAreThoseWithItInAnyFragment(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = ledgers(subject)
            #expect(try await store.highestLedger() == LedgerID(0))
            let (first, found) = try await store.createLedger(sizes: sizes, ensemble: nodes)
            let (second, _) = try await store.createLedger(sizes: sizes, ensemble: nodes.dropFirst() + [LogNodeID(4)])
            let changed = try found.value.changingEnsemble(
                to: nodes.dropFirst() + [LogNodeID(5)], from: EntryID(10))
            _ = await store.ask(.compareAndSwap(first, expected: found.version, new: changed))
            func of(_ node: UInt64) async throws -> [LedgerID] {
                try await store.ledgers(of: LogNodeID(node)).map(\.ledger)
            }
            #expect(try await of(1) == [first])
            #expect(try await of(2) == [first, second])
            #expect(try await of(4) == [second])
            #expect(try await of(5) == [first])
            #expect(try await of(6) == [])
            #expect(try await store.highestLedger() == second)
        }
    }

    @Test(arguments: StoreKind.available)
    func attemptsTakeALogOverOneAfterTheOtherWhateverAnswersAreLost(kind: StoreKind) async throws {
        for seed in Seeds.seeds(count: 2) {
            Seeds.announce("attemptsTakeALogOverOneAfterTheOtherWhateverAnswersAreLost", seed)
            try await StoreSubject.with(kind) { subject in
                var owned: [LedgerID] = []
                for attempt in UInt64(1)...5 {
                    let store = ledgers(subject, over: LosingStore(subject.store, seed: seed &* 100 &+ attempt))
                    owned.append(try await takeOver(store, attempt: attempt))
                }
                #expect(owned == owned.sorted() && Set(owned).count == owned.count)
                guard case .found(let list) = await ledgers(subject).ask(.get, ofLog: "orders") else {
                    Issue.record("the list is not there")
                    return
                }
                #expect(list.value.ledgers == owned && list.value.attempt == 5)
                let stale = LogMetadataRequest.compareAndSwap(expected: list.version - 1, new: list.value)
                #expect(await ledgers(subject).ask(stale, ofLog: "orders") == .conflict)
                #expect(
                    await ledgers(subject).ask(.compareAndSwap(expected: 0, new: list.value), ofLog: "orders")
                        == .conflict)
            }
        }
    }

    /// Runs the machine of a takeover with `store` for its host.
    private func takeOver(_ store: LedgerStore, attempt: UInt64) async throws -> LedgerID {
        var machine = LogTakeover(attempt: attempt)
        var actions: [LogTakeover.Action] = []
        machine.start(into: &actions)
        while !actions.isEmpty {
            switch actions.removeFirst() {
            case .metadata(let request):
                machine.receive(await store.ask(request, ofLog: "orders"), into: &actions)
            case .recover(let ledger): machine.recovered(ledger, last: .none, into: &actions)
            case .createLedger:
                var made: LedgerID?
                while made == nil { made = try? await store.createLedger(sizes: sizes, ensemble: nodes).ledger }
                machine.created(try #require(made), into: &actions)
            case .owned(_, let ledger, _): return ledger
            case .lost(let other, _): throw TakeoverFailed(detail: "lost to \(other)")
            case .failed(let failure, _): throw TakeoverFailed(detail: "\(failure)")
            }
        }
        throw TakeoverFailed(detail: "the machine stopped")
    }

    @Test(arguments: StoreKind.available)
    func nodesAreListedWhileTheirLeaseLastsAndTheRepairQueueInTheOrderOfLedgers(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let records = RecordStore(subject.store)
            let keys = MetadataKeys(root: subject.root)
            let lease = try await records.store.acquireLease(milliseconds: 60_000)
            let registered = [UInt64(2), 16, 1].map { node in
                LogNodeRegistration(
                    node: LogNodeID(node), cookie: [UInt8](repeating: UInt8(node), count: 16),
                    address: "127.0.0.1:\(7000 + node)", isReadOnly: node == 2)
            }
            for node in registered { _ = try await records.create(keys.node(node.node), node, lease: lease.id) }
            func nodes() async throws -> [LogNodeRegistration] {
                try await records.list(LogNodeRegistration.self, prefix: keys.nodes).records.map(\.found.value)
            }
            let listed = try await nodes()
            #expect(listed == registered.sorted { $0.node < $1.node })

            for ledger in [UInt64(300), 4] {
                let entry = RepairEntry(
                    ledger: LedgerID(ledger), node: LogNodeID(16), loss: .dead, noticedWallMilliseconds: 1)
                _ = try await records.create(keys.repair(entry.ledger, entry.node), entry)
            }
            var queue = try await records.list(RepairEntry.self, prefix: keys.repairs).records
            #expect(queue.map(\.found.value.ledger) == [LedgerID(4), LedgerID(300)])
            var lost = queue[0].found
            lost.value.state = .lost
            _ = try await records.compareAndSwap(queue[0].key, expected: lost.version, new: lost.value)
            queue = try await records.list(RepairEntry.self, prefix: keys.repairs).records
            #expect(queue.map(\.found.value.state) == [.lost, .waiting])

            // One repairs, until it lets go.
            _ = try await records.store.create(keys.repairer, [1], lease: lease.id)
            let second = await reason { _ = try await records.store.create(keys.repairer, [2]) }
            guard case .exists = second else {
                Issue.record("found \(String(describing: second))")
                return
            }
            try await records.store.release(lease.id)
            let left = try await nodes()
            #expect(left.isEmpty)
            _ = try await records.store.create(keys.repairer, [2])
        }
    }

    @Test(arguments: StoreKind.available)
    func damageIsReportedAndNeverTakenForAMissingLedger(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let reported = Mutex<[MetadataError]>([])
            let keys = MetadataKeys(root: subject.root)
            let store = LedgerStore(
                subject.store, keys: keys, report: { error in reported.withLock { $0.append(error) } })
            _ = try await subject.store.create(keys.ledger(LedgerID(3)), [1, 2, 3])
            #expect(await store.ask(.get(LedgerID(3))) == .unavailable)
            let found = reported.withLock { $0 }
            #expect(found.count == 1 && found[0].key == keys.ledger(LedgerID(3)))
            await #expect(throws: MetadataError.self) { _ = try await store.ledgers(of: LogNodeID(1)) }
        }
    }
}

private struct TakeoverFailed: Error { let detail: String }
