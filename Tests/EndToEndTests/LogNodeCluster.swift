// Log nodes in processes of their own, an etcd, and a client of both.

import CisternChangelog
import CisternLogProtocol
import CisternMetadata
import CisternMetadataEtcd
import CisternPrimitives
import CisternTestKit
import CisternTransport
import Foundation
import NIOCore
import NIOPosix

final class LogNodeCluster {
    static let name = "test"

    let etcd: EtcdProcess
    let ledgers: LedgerStore
    let client: LedgerClient
    private let directory = try! TemporaryDirectory()
    private var nodes: [UInt64: DaemonProcess] = [:]
    /// Of metadata, as the nodes know it.
    var metadata: any MetadataStore { ledgers.records.store }

    /// With nodes 1 to `count`, which are registered.
    /// - Parameter transport: of the client, for nodes whose ports are protected.
    static func with(
        _ count: UInt64, transport: ClientTransportOptions? = nil, _ body: (LogNodeCluster) async throws -> Void
    ) async throws {
        try await EtcdProcess.with { etcd in
            let cluster = LogNodeCluster(etcd, transport)
            do {
                for node in 0..<count { try cluster.start(node + 1) }
                try await body(cluster)
            } catch {
                await cluster.client.close()
                throw error
            }
            await cluster.client.close()
        }
    }

    private init(_ etcd: EtcdProcess, _ transport: ClientTransportOptions?) {
        self.etcd = etcd
        let group = MultiThreadedEventLoopGroup.singleton
        let store = EtcdMetadataStore(options: EtcdOptions(endpoints: [etcd.endpoint]), group: group)
        ledgers = LedgerStore(store, keys: MetadataKeys(cluster: LogNodeCluster.name)) { _ in }
        var options = LedgerClientOptions()
        options.retryInterval = .milliseconds(100)
        if let transport { options.transport = transport }
        client = LedgerClient(group: group, addresses: ledgers, metadata: ledgers, options: options)
    }

    func path(_ node: UInt64) -> String { directory.path + "/node-\(node)" }

    func arguments(_ node: UInt64, in path: String? = nil, cluster: String = name, _ flags: [String] = []) -> [String] {
        [
            "log-node", "--data", path ?? self.path(node), "--node", "\(node)", "--cluster", cluster, "--etcd",
            "\(etcd.endpoint)", "--listen", "127.0.0.1:0", "--segment-bytes", "1MiB", "--disk-reserve", "0",
            "--log-level", "error",
        ] + flags
    }

    /// Returns when it is registered.
    @discardableResult
    func start(_ node: UInt64, _ flags: [String] = []) throws -> DaemonProcess {
        let process = try DaemonProcess(
            arguments(node, flags + ["--admin", "127.0.0.1:0"]), lines: 2)
        nodes[node] = process
        return process
    }

    func process(_ node: UInt64) -> DaemonProcess { nodes[node]! }

    /// Ends a node and returns how it ended.
    func end(_ node: UInt64, by signal: Int32) -> Int32 { nodes.removeValue(forKey: node)!.end(by: signal) }

    /// A new ledger on these nodes, and its writer.
    func writer(_ sizes: QuorumSizes, on nodes: [UInt64]) async throws -> LedgerWriterHandle {
        let (ledger, made) = try await ledgers.createLedger(sizes: sizes, ensemble: nodes.map { LogNodeID($0) })
        return await client.openWriter(ledger, metadata: made, candidates: [])
    }

    /// Every entry of a ledger that is closed.
    func read(_ ledger: LedgerID) async throws -> [[UInt8]] {
        guard case .found(let found) = await ledgers.ask(.get(ledger)) else {
            throw EndToEndError("\(ledger) has no metadata")
        }
        let reader = await client.openReader(ledger, metadata: found.value)
        var bodies: [[UInt8]] = []
        while let batch = try await reader.nextBatch() { bodies += batch.bodies }
        return bodies
    }

    /// Waits for the moment in which what metadata has of a node is like this.
    func wait(for node: UInt64, until isReached: (LogNodeRegistration?) -> Bool) async throws {
        try await wait(for: ledgers.keys.node(LogNodeID(node))) {
            isReached(await ledgers.registration(of: LogNodeID(node)))
        }
    }

    /// Looks at each change of a key.
    func wait(for key: String, until isReached: () async throws -> Bool) async throws {
        let page = try await metadata.list(prefix: key, after: nil, limit: 1)
        if try await isReached() { return }
        for try await _ in metadata.watch(prefix: key, from: page.version + 1) where try await isReached() { return }
    }
}

/// A body that tells its place.
func entryBody(_ number: Int) -> [UInt8] {
    var random = SeededRandom(seed: UInt64(number))
    return (0..<1024).map { _ in UInt8.random(in: 0...255, using: &random) }
}
