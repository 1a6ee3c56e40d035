// What an operator asks of the repair queue, from a process that is no log node.

internal import CisternDaemon
internal import CisternLogProtocol
internal import CisternLogRepair
internal import CisternMetadata
internal import CisternMetadataEtcd
package import CisternPrimitives
internal import NIOPosix

/// Where the metadata of the log nodes is.
package struct RepairToolSettings: MetadataSettings {
    package var etcd: [String] = []
    package var etcdAuthorities = ""
    package var etcdCertificate = ""
    package var etcdKey = ""
    package var cluster = MetadataKeys.clusterNameDefault

    package init() {}
}

package struct RepairTool: Sendable {
    private let store: EtcdMetadataStore
    private let queue: RepairQueue
    private let time: any TimeSource

    /// Throws when the settings cannot work; asks nothing yet.
    package init(_ settings: RepairToolSettings, time: any TimeSource = SystemTime()) throws {
        if settings.etcd.isEmpty {
            throw ServerStartError(
                description:
                    "no metadata is given: name the members of the log nodes' etcd cluster with --etcd HOST:PORT")
        }
        if let problem = settings.metadataProblem() { throw ServerStartError(description: problem) }
        guard MetadataKeys.isClusterName(settings.cluster) else {
            throw ServerStartError(
                description: "cluster \"\(settings.cluster)\" is no name of 1 to 64 letters, digits, -, _ and .")
        }
        store = EtcdMetadataStore(
            options: try settings.etcdOptions(), group: .singletonMultiThreadedEventLoopGroup)
        let ledgers = LedgerStore(store, keys: MetadataKeys(cluster: settings.cluster)) { _ in }
        queue = RepairQueue(ledgers, time: time)
        self.time = time
    }

    package func close() { store.close() }

    /// Has every ledger of a node repaired that does not come back. Returns what was done, for people.
    package func order(node: UInt64) async throws -> String {
        switch try await queue.order(LogNodeID(node)) {
        case .registered(let address):
            throw ServerStartError(
                description:
                    "log node \(node) is registered and serves at \(address): stop it first; a node that serves is not "
                    + "repaired by others")
        case .queued(_, let ledgers) where ledgers == 0:
            return "no ledger names log node \(node): there is nothing to repair"
        case .queued(let new, let ledgers):
            return "\(ledgers) ledgers of log node \(node) are in the repair queue, \(new) of them since this order"
        }
    }

    /// One line for each entry of the queue.
    package func lines() async throws -> [String] {
        let now = time.wallMilliseconds
        return try await queue.items().map { item in
            let entry = item.entry
            let seconds = now > entry.noticedWallMilliseconds ? (now - entry.noticedWallMilliseconds) / 1000 : 0
            let loss =
                switch entry.loss {
                case .dead: "the node is gone"
                case .limbo: "the node mends itself"
                }
            let state =
                switch entry.state {
                case .waiting: "waiting"
                case .lost: "lost: no copy is left"
                case .noTarget: "waits for a log node to copy to"
                }
            return "ledger \(entry.ledger.rawValue)  node \(entry.node.rawValue)  \(loss)  \(state)  since \(seconds) s"
        }
    }
}
