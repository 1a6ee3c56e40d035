// What all sessions of a server share. Immutable; each part says its own threading rule.

package import CisternDaemon
internal import CisternFileSystem
package import CisternLSM
package import CisternPrimitives
package import Logging
internal import Synchronization

package final class ServerCore: Sendable {
    package let engine: Engine
    package let catalog: Catalog
    package let registry: TreeRegistry
    package let time: any TimeSource
    package let logger: Logger
    package let lane: BlockingLane
    package let disk = DiskLane()
    /// One an event loop.
    package let requestCounters: [RequestCounters]
    package let checkpoints = CheckpointHistory()
    /// nil: snapshots stay in the data directory.
    package let remote: RemoteSnapshots?
    /// nil: trees live on this server's disk only.
    package let replication: Replication?
    /// Set once, when the server drains. Relaxed: a session that sees it late takes one more attach, which is then closed.
    private let draining = Atomic(false)

    package init(
        engine: Engine, catalog: Catalog, registry: TreeRegistry, time: any TimeSource, logger: Logger,
        lane: BlockingLane, requestCounters: [RequestCounters], remote: RemoteSnapshots? = nil,
        replication: Replication? = nil
    ) {
        self.remote = remote
        self.replication = replication
        self.engine = engine
        self.catalog = catalog
        self.registry = registry
        self.time = time
        self.logger = logger
        self.lane = lane
        self.requestCounters = requestCounters
    }

    package var isDraining: Bool { draining.load(ordering: .relaxed) }

    package func startDraining() { draining.store(true, ordering: .relaxed) }
}
