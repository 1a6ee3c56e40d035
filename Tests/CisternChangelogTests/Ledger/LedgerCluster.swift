// Log nodes in memory behind real listeners on loopback, metadata in memory, and a client of them.

import CisternChangelog
import CisternLogNetwork
import CisternLogProtocol
import CisternPrimitives
import CisternTransport
import NIOCore
import NIOPosix
import Synchronization
import Testing

enum TestGroup {
    static let shared = MultiThreadedEventLoopGroup(numberOfThreads: 2)
}

let ledger = LedgerID(7)

func nodes(_ ids: UInt64...) -> [LogNodeID] { ids.map(LogNodeID.init) }

/// The entry's bytes, which tell entries apart.
func body(_ number: Int, size: Int = 100) -> [UInt8] {
    (0..<size).map { UInt8(truncatingIfNeeded: number &* 31 &+ $0 &* 7 &+ number >> 8) }
}

final class MemoryMetadata: LedgerMetadataService {
    private struct State {
        var ledgers: [LedgerID: Versioned<LedgerMetadata>] = [:]
        var unavailable = 0
        var asked = 0
    }

    private let state = Mutex(State())

    func create(_ ledger: LedgerID, _ metadata: LedgerMetadata) -> Versioned<LedgerMetadata> {
        state.withLock { state in
            let created = Versioned(metadata, version: 1)
            state.ledgers[ledger] = created
            return created
        }
    }

    subscript(ledger: LedgerID) -> LedgerMetadata? { state.withLock { $0.ledgers[ledger]?.value } }

    /// The next requests get no answer.
    func failNext(_ count: Int) { state.withLock { $0.unavailable = count } }

    func remove(_ ledger: LedgerID) { state.withLock { $0.ledgers[ledger] = nil } }

    func ask(_ request: LedgerMetadataRequest) async -> LedgerMetadataResult {
        state.withLock { state in
            state.asked += 1
            if state.unavailable > 0 {
                state.unavailable -= 1
                return .unavailable
            }
            switch request {
            case .get(let ledger): return state.ledgers[ledger].map { .found($0) } ?? .missing
            case .compareAndSwap(let ledger, let expected, let new):
                guard let old = state.ledgers[ledger] else { return .missing }
                guard old.version == expected else { return .conflict }
                state.ledgers[ledger] = Versioned(new, version: expected + 1)
                return .written(expected + 1)
            }
        }
    }
}

final class MemoryAddresses: LogNodeAddresses {
    private let endpoints = Mutex<[LogNodeID: Endpoint]>([:])

    subscript(node: LogNodeID) -> Endpoint? {
        get { endpoints.withLock { $0[node] } }
        set { endpoints.withLock { $0[node] = newValue } }
    }

    func endpoint(of node: LogNodeID) async -> Endpoint? { self[node] }
}

final class LedgerCluster: Sendable {
    let members: [LogNodeID: MemoryLogNode]
    let metadata = MemoryMetadata()
    let addresses = MemoryAddresses()
    let client: LedgerClient
    private let listeners = Mutex<[LogNodeID: LogNodeListener]>([:])
    private let listenerOptions: LogNodeListenerOptions

    init(_ count: UInt64, _ client: LedgerClientOptions, _ listener: LogNodeListenerOptions) async throws {
        members = Dictionary(uniqueKeysWithValues: (1...count).map { (LogNodeID($0), MemoryLogNode()) })
        listenerOptions = listener
        self.client = LedgerClient(
            group: TestGroup.shared, addresses: addresses, metadata: metadata, options: client)
        for node in members.keys { try await start(node) }
    }

    func start(_ node: LogNodeID) async throws {
        let listener = try await LogNodeListener.bind(
            [.tcp(host: "127.0.0.1", port: 0)], node: members[node]!, group: TestGroup.shared, options: listenerOptions)
        listeners.withLock { $0[node] = listener }
        addresses[node] = listener.boundEndpoints[0]
    }

    /// Closes the node's sockets.
    func stop(_ node: LogNodeID) async {
        let listener = listeners.withLock { $0.removeValue(forKey: node) }
        await listener?.close()
    }

    func listener(_ node: LogNodeID) -> LogNodeListener { listeners.withLock { $0[node]! } }

    func close() async {
        await client.close()
        for node in members.keys { await stop(node) }
    }

    subscript(_ id: UInt64) -> MemoryLogNode { members[LogNodeID(id)]! }

    func create(_ sizes: (Int, Int, Int) = (3, 3, 2), on ensemble: [LogNodeID] = nodes(1, 2, 3)) throws -> Versioned<
        LedgerMetadata
    > {
        metadata.create(
            ledger,
            try LedgerMetadata(
                sizes: QuorumSizes(ensemble: sizes.0, write: sizes.1, ack: sizes.2), ensemble: ensemble))
    }

    func writer(_ found: Versioned<LedgerMetadata>, candidates: [LogNodeID] = []) async -> LedgerWriterHandle {
        await client.openWriter(ledger, metadata: found, candidates: candidates)
    }

    /// All entries of a ledger, or of a part of it.
    func read(from first: EntryID = .first, through last: EntryID? = nil) async throws -> [LedgerEntry] {
        let reader = await client.openReader(ledger, metadata: metadata[ledger]!, from: first, through: last)
        var entries: [LedgerEntry] = []
        for try await entry in reader { entries.append(entry) }
        return entries
    }
}

/// Short intervals, so that a test does not wait for timers.
func quickOptions() -> LedgerClientOptions {
    var options = LedgerClientOptions()
    options.retryInterval = .milliseconds(20)
    options.idleInterval = .milliseconds(5)
    options.readerInterval = .milliseconds(20)
    options.patience = .milliseconds(500)
    options.reconnectDelayMin = .milliseconds(5)
    options.reconnectDelayMax = .milliseconds(50)
    return options
}

func withCluster(
    _ count: UInt64 = 3, options: LedgerClientOptions = quickOptions(),
    listener: LogNodeListenerOptions = LogNodeListenerOptions(), _ test: (LedgerCluster) async throws -> Void
) async throws {
    let cluster = try await LedgerCluster(count, options, listener)
    do {
        try await test(cluster)
    } catch {
        await cluster.close()
        throw error
    }
    await cluster.close()
}
