// Log nodes with journals behind real listeners on loopback, registered in a metadata store, and what repairs them.

import CisternChangelog
import CisternFileSystem
import CisternLogNetwork
import CisternLogNode
import CisternLogProtocol
import CisternLogRepair
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import CisternTransport
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

let testGroup = MultiThreadedEventLoopGroup(numberOfThreads: 2)
let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

func nodes(_ ids: UInt64...) -> [LogNodeID] { ids.map(LogNodeID.init) }

/// The entry's bytes, which tell entries apart.
func body(_ number: Int, size: Int = 100) -> [UInt8] {
    (0..<size).map { UInt8(truncatingIfNeeded: number &* 31 &+ $0 &* 7 &+ number >> 8) }
}

/// Waits for another task without a clock; the suite's time limit is the bound.
func until(_ condition: () async throws -> Bool) async rethrows {
    while try await !condition() { await Task.yield() }
}

final class ClusterAddresses: LogNodeAddresses {
    private let endpoints = Mutex<[LogNodeID: Endpoint]>([:])

    subscript(node: LogNodeID) -> Endpoint? {
        get { endpoints.withLock { $0[node] } }
        set { endpoints.withLock { $0[node] = newValue } }
    }

    func endpoint(of node: LogNodeID) async -> Endpoint? { self[node] }
}

/// Timers that fire when a test says so.
final class ManualTimers: Sendable {
    private typealias Timer = (due: UInt64, fire: @Sendable () -> Void)

    let time = ManualTime(wallMilliseconds: 1_000)
    private let timers = Mutex<[Timer]>([])

    func pace(bytesPerSecond: UInt64) -> CopyPace {
        CopyPace(bytesPerSecond: bytesPerSecond, time: time) { [self] nanoseconds, fire in
            timers.withLock { $0.append((time.monotonicNanoseconds + nanoseconds, fire)) }
        }
    }

    var isWaiting: Bool { timers.withLock { !$0.isEmpty } }

    /// Moves time to the first timer and fires it.
    func advanceToNext() {
        let next = timers.withLock { timers -> Timer? in
            guard let index = timers.indices.min(by: { timers[$0].due < timers[$1].due }) else { return nil }
            return timers.remove(at: index)
        }
        guard let next else { return }
        let now = time.monotonicNanoseconds
        if next.due > now { time.advance(milliseconds: (next.due - now + 999_999) / 1_000_000) }
        next.fire()
    }
}

/// A log node with a disk that outlives its process.
final class ClusterNode {
    let id: LogNodeID
    var disk = MemoryFileSystem()
    private(set) var host: LogNodeHost!
    private var listener: LogNodeListener?
    private var isNew = true
    private let highest: @Sendable () async -> LedgerID?

    init(_ id: LogNodeID, highest: @escaping @Sendable () async -> LedgerID?) {
        self.id = id
        self.highest = highest
    }

    func start(_ addresses: ClusterAddresses) async throws {
        var journal = JournalOptions(directory: "/node", node: id, cluster: 42)
        journal.segmentBytes = 256 << 10
        let metadata = LogNodeMetadata(
            highestLedger: { [highest] completion in Task { completion(await highest()) } }, exists: { $1(true) })
        let host = try LogNodeHost(
            LogNodeOptions(journal: journal, isNew: isNew), fileSystem: disk, lanes: .threads(),
            lane: SerialThread(name: "log-node"), metadata: metadata)
        isNew = false
        listener = try await LogNodeListener.bind(
            [.tcp(host: "127.0.0.1", port: 0)], node: host, group: testGroup)
        addresses[id] = listener!.boundEndpoints[0]
        self.host = host
    }

    func end() async {
        await listener?.close()
        listener = nil
        disk = disk.afterProcessEnd()
        host?.stop()
        host = nil
    }

    func losses(among ledgers: [LedgerID] = []) async -> LogNodeLosses {
        let host = host!
        return await withCheckedContinuation { continuation in
            host.losses(among: ledgers) { continuation.resume(returning: $0) }
        }
    }
}

final class RepairCluster {
    /// Of leases and of repair.
    let time = ManualTime(wallMilliseconds: 1_000_000)
    let metadata: EmbeddedMetadataStore
    let store: LedgerStore
    let addresses = ClusterAddresses()
    let client: LedgerClient
    private(set) var members: [LogNodeID: ClusterNode] = [:]

    init(_ count: UInt64, time clock: (any TimeSource)? = nil) async throws {
        var metadataOptions = EmbeddedMetadataOptions()
        if clock == nil { metadataOptions.leaseCheckMilliseconds = nil }
        metadata = try EmbeddedMetadataStore(
            directory: "/metadata", fileSystem: MemoryFileSystem(), time: clock ?? time, options: metadataOptions)
        store = LedgerStore(metadata) { Issue.record("\($0)") }
        var options = LedgerClientOptions()
        options.retryInterval = .milliseconds(20)
        options.idleInterval = .milliseconds(5)
        options.readerInterval = .milliseconds(20)
        options.patience = .milliseconds(500)
        options.candidatesInterval = .zero
        options.reconnectDelayMin = .milliseconds(5)
        options.reconnectDelayMax = .milliseconds(50)
        client = LedgerClient(group: testGroup, addresses: addresses, metadata: store, options: options)
        for id in 1...count { try await add(id) }
    }

    static func with(
        _ count: UInt64, time: (any TimeSource)? = nil, _ body: (RepairCluster) async throws -> Void
    ) async throws {
        let cluster = try await RepairCluster(count, time: time)
        do {
            try await body(cluster)
        } catch {
            await cluster.close()
            throw error
        }
        await cluster.close()
    }

    private func close() async {
        await client.close()
        for member in members.values { await member.end() }
        await metadata.close()
    }

    subscript(id: UInt64) -> ClusterNode { members[LogNodeID(id)]! }

    // MARK: Nodes

    func add(_ id: UInt64) async throws {
        let store = store
        members[LogNodeID(id)] = ClusterNode(LogNodeID(id)) { try? await store.highestLedger() }
        try await start(id)
    }

    func start(_ id: UInt64) async throws {
        try await self[id].start(addresses)
        let registration = LogNodeRegistration(
            node: LogNodeID(id), cookie: [UInt8](repeating: 1, count: 16), address: "\(addresses[LogNodeID(id)]!)")
        _ = try await store.records.create(store.keys.node(LogNodeID(id)), registration)
    }

    /// The process ends, and its registration with it.
    func lose(_ ids: UInt64...) async throws {
        for id in ids {
            await self[id].end()
            let key = store.keys.node(LogNodeID(id))
            let found = try #require(try await metadata.get(key))
            try await metadata.delete(key, expected: found.version)
        }
    }

    // MARK: Ledgers

    func create(
        _ sizes: (Int, Int, Int) = (3, 3, 2), on ensemble: [LogNodeID] = nodes(1, 2, 3), candidates: [LogNodeID] = [],
        moreCandidates: LedgerWriterCandidates? = nil
    ) async throws -> LedgerWriterHandle {
        let sizes = QuorumSizes(ensemble: sizes.0, write: sizes.1, ack: sizes.2)
        let made = try await store.createLedger(sizes: sizes, ensemble: ensemble)
        return await client.openWriter(
            made.ledger, metadata: made.metadata, candidates: candidates, moreCandidates: moreCandidates)
    }

    /// A closed ledger of so many entries.
    func write(
        _ count: Int, _ sizes: (Int, Int, Int) = (3, 3, 2), on ensemble: [LogNodeID] = nodes(1, 2, 3),
        size: Int = 100
    ) async throws -> LedgerID {
        let writer = try await create(sizes, on: ensemble)
        for number in 0..<count { try await writer.append(body(number, size: size)) }
        try await writer.close()
        return writer.ledger
    }

    func ledger(_ ledger: LedgerID) async throws -> LedgerMetadata {
        try #require(try await store.records.get(LedgerMetadata.self, store.keys.ledger(ledger))).value
    }

    func check(_ ledger: LedgerID, has count: Int, size: Int = 100) async throws {
        let reader = await client.openReader(ledger, metadata: try await self.ledger(ledger))
        var next = 0
        for try await entry in reader {
            if entry.id != EntryID(Int64(next)) || entry.body != body(next, size: size) {
                Issue.record("entry \(next) of \(ledger) is another one")
                return
            }
            next += 1
        }
        #expect(next == count)
    }

    // MARK: Repair

    func context(_ options: RepairOptions = RepairOptions(), pace: CopyPace? = nil) -> RepairContext {
        let pace =
            pace
            ?? CopyPace(bytesPerSecond: 1 << 40, time: SystemTime()) { nanoseconds, fire in
                testGroup.next().scheduleTask(in: .nanoseconds(Int64(nanoseconds)), fire)
            }
        return RepairContext(
            store: store, client: client, pace: pace, options: options, time: time, logger: silent)
    }

    func lease() async throws -> MetadataLeaseID { try await metadata.acquireLease(milliseconds: 15_000).id }

    func queue(_ context: RepairContext) async throws -> [RepairEntry] {
        try await context.queue.items().map(\.entry)
    }

    /// The grace of what is missing passes, and all that can be repaired is.
    func repairAll(_ context: RepairContext) async throws {
        let auditor = RepairAuditor(context)
        try await auditor.audit()
        time.advance(milliseconds: context.options.graceMilliseconds)
        try await auditor.audit()
        try await RepairWorker(context).round(lease: try await lease())
    }
}
