// State servers whose trees are on three log nodes, all in this process, over loopback; metadata and disks in memory.

import CisternFileSystem
import CisternLogNetwork
import CisternLogNode
import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import NIOCore
import NIOPosix
import Synchronization
import Testing

/// A metadata store whose swaps fail on demand.
final class FaultyMetadata: MetadataStore {
    private let base: EmbeddedMetadataStore
    private let failing = Mutex<(@Sendable (String) -> Bool)?>(nil)

    init(_ base: EmbeddedMetadataStore) { self.base = base }

    /// The next swap of such a key fails, and is not carried out.
    func failNextSwap(_ matches: @escaping @Sendable (String) -> Bool) { failing.withLock { $0 = matches } }

    func compareAndSwap(
        _ key: String, expected: MetadataVersion, new value: [UInt8]
    ) async throws(MetadataError) -> MetadataVersion {
        let fails = failing.withLock { failing in
            guard failing?(key) == true else { return false }
            failing = nil
            return true
        }
        if fails { throw MetadataError(.compareAndSwap, key, .damaged("a test wants it so")) }
        return try await base.compareAndSwap(key, expected: expected, new: value)
    }

    func create(
        _ key: String, _ value: [UInt8], lease: MetadataLeaseID?
    ) async throws(MetadataError) -> MetadataVersion { try await base.create(key, value, lease: lease) }
    func get(_ key: String) async throws(MetadataError) -> MetadataEntry? { try await base.get(key) }
    func delete(_ key: String, expected: MetadataVersion) async throws(MetadataError) {
        try await base.delete(key, expected: expected)
    }
    func list(prefix: String, after: String?, limit: Int) async throws(MetadataError) -> MetadataPage {
        try await base.list(prefix: prefix, after: after, limit: limit)
    }
    func watch(prefix: String, from first: MetadataVersion) -> MetadataWatch { base.watch(prefix: prefix, from: first) }
    func acquireLease(milliseconds: UInt64) async throws(MetadataError) -> MetadataLease {
        try await base.acquireLease(milliseconds: milliseconds)
    }
    func keepAlive(_ lease: MetadataLeaseID) async throws(MetadataError) { try await base.keepAlive(lease) }
    func release(_ lease: MetadataLeaseID) async throws(MetadataError) { try await base.release(lease) }
}

final class ReplicationHarness {
    /// Disks of the servers by directory, and the snapshot store at /backup.
    private(set) var files: MemoryFileSystem
    let metadata: EmbeddedMetadataStore
    /// What servers see of it.
    let faults: FaultyMetadata
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private var hosts: [LogNodeHost] = []
    private var listeners: [LogNodeListener] = []
    private var servers: [StateServer] = []

    private init(seed: UInt64) throws {
        files = MemoryFileSystem(seed: seed)
        metadata = try EmbeddedMetadataStore(directory: "/metadata", fileSystem: MemoryFileSystem())
        faults = FaultyMetadata(metadata)
    }

    private func startNode(_ id: LogNodeID) async throws {
        var journal = JournalOptions(directory: "/node", node: id, cluster: 42)
        journal.segmentBytes = 1 << 20
        let ledgers = LedgerStore(metadata, keys: MetadataKeys(cluster: MetadataKeys.clusterNameDefault)) { _ in }
        let answers = LogNodeMetadata(
            highestLedger: { answer in
                Task { answer(try? await ledgers.highestLedger()) }
            },
            exists: { ledger, answer in
                Task {
                    switch await ledgers.ask(.get(ledger)) {
                    case .found: answer(true)
                    case .missing: answer(false)
                    default: answer(nil)
                    }
                }
            })
        let host = try LogNodeHost(
            LogNodeOptions(journal: journal, isNew: true), fileSystem: MemoryFileSystem(), lanes: .threads(),
            lane: SerialThread(name: "log-node"), metadata: answers)
        let listener = try await LogNodeListener.bind([.tcp(host: "127.0.0.1", port: 0)], node: host, group: group)
        hosts.append(host)
        listeners.append(listener)
        let registration = LogNodeRegistration(
            node: id, cookie: [UInt8](repeating: UInt8(id.rawValue), count: LogNodeRegistration.cookieBytes),
            address: "\(listener.boundEndpoints[0])")
        _ = try await RecordStore(metadata).create(
            MetadataKeys(cluster: MetadataKeys.clusterNameDefault).node(id), registration)
    }

    func start(_ directory: String, _ change: (inout ServerConfiguration) -> Void = { _ in }) async throws
        -> ServerHarness
    {
        let harness = try await ServerHarness.start(files, directory: directory, metadata: faults) { settings in
            settings.snapshotStore = "file:///backup"
            settings.durability = .replicated
            settings.eventLoops = 1
            change(&settings)
        }
        servers.append(harness.server)
        return harness
    }

    /// The power of all servers goes: what they had not synced is lost. The old ones run on, on disks that nobody sees any more.
    func cutPower(seed: UInt64) { files = files.afterPowerCut(seed: seed) }

    /// The record of a store's only tree, or of the one that begins at `first`.
    func record(_ store: String = "orders", first: UInt16 = 0) async throws -> TreeRecord? {
        let prefix = MetadataKeys(cluster: MetadataKeys.clusterNameDefault).trees(ofStore: store)
        let page = try await RecordStore(metadata).list(TreeRecord.self, prefix: prefix)
        return page.records.map(\.found.value).first { $0.keyGroups.first == first }
    }

    /// Waits until the record is as it is wanted: what happens in the background has no other sign.
    func record(
        _ store: String = "orders", first: UInt16 = 0, where isWanted: (TreeRecord) -> Bool
    ) async throws -> TreeRecord {
        while true {
            if let record = try await record(store, first: first), isWanted(record) { return record }
            await Task.yield()
        }
    }

    private func close() async {
        for server in servers { await server.shutdown() }
        for listener in listeners { await listener.close() }
        for host in hosts { host.stop() }
        await metadata.close()
        try? await group.shutdownGracefully()
    }

    static func run(seed: UInt64 = 1, _ test: (ReplicationHarness) async throws -> Void) async throws {
        let harness = try ReplicationHarness(seed: seed)
        do {
            for id in 1...3 { try await harness.startNode(LogNodeID(UInt64(id))) }
            try await test(harness)
        } catch {
            await harness.close()
            throw error
        }
        await harness.close()
    }
}
