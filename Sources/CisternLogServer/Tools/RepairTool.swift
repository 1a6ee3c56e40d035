// What an operator asks of the repair queue, from a process that is no log node.

internal import CisternDaemon
internal import CisternLogProtocol
internal import CisternLogRepair
internal import CisternMetadata
internal import CisternMetadataEtcd
package import CisternPrimitives

package struct RepairTool: Sendable {
    private let store: EtcdMetadataStore
    private let queue: RepairQueue
    private let time: any TimeSource

    /// Throws when the settings cannot work; asks nothing yet.
    package init(_ settings: LedgerToolSettings, time: any TimeSource = SystemTime()) throws {
        store = try settings.openMetadata()
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
