// One look at the whole server, as values: what the metrics, the JSON and the page are made from.
//
// Trees belong to event loops, so each is asked through its owner; the parts are not of one moment.

internal import CisternDaemon
package import CisternLSM
internal import CisternPrimitives
package import CisternSnapshotStore

package struct ServerStatus: Sendable {
    package enum Phase: String, Sendable {
        /// The data directory is being read.
        case starting
        case serving
        case draining
    }

    package struct TreeStatus: Sendable {
        package let id: UInt64
        package let store: String
        package let keyGroupFirst: Int
        package let keyGroupLast: Int
        package let epoch: UInt64
        package let writer: String
        /// A session uses it.
        package let isAttached: Bool
        /// nil while the tree is closed.
        package let statistics: TreeStatistics?
    }

    package var phase = Phase.starting
    package var version = ServerVersion.name
    package var uptimeMilliseconds: UInt64 = 0
    package var nowMilliseconds: UInt64 = 0
    package var connections = 0
    /// By store, then by key groups.
    package var trees: [TreeStatus] = []
    package var cache = BlockCacheStatistics()
    package var memory = MemoryUse()
    package var memoryLimitBytes = 0
    package var snapshotCount = 0
    package var damagedFiles: [String] = []
    package var requests = RequestSums()
    /// Times that a file of certificate or tokens could not be read again.
    package var securityReloadsFailed: UInt64 = 0
    package var checkpoints: [CheckpointPart] = []
    package var checkpointSums = CheckpointHistory.Sums()
    /// nil without a snapshot store.
    package var uploads: UploadStatus?
    package var hydration: HydrationStatus?
    /// nil where logs are local.
    package var replication: ReplicationStatus?

    package init() {}
}

extension ServerCore {
    /// - Parameter startedNanoseconds: when the server began, by the monotonic clock.
    package func status(startedNanoseconds: UInt64) async -> ServerStatus {
        var status = ServerStatus()
        status.phase = isDraining ? .draining : .serving
        status.nowMilliseconds = time.wallMilliseconds
        status.uptimeMilliseconds = (time.monotonicNanoseconds - startedNanoseconds) / 1_000_000
        status.trees = await registry.treeStatuses()
        status.cache = engine.cacheStatistics
        status.memory = engine.memoryUse
        status.memoryLimitBytes = engine.options.memoryBytesLimit
        status.snapshotCount = engine.snapshotCount
        status.damagedFiles = engine.damagedParts.map(\.path)
        for counters in requestCounters { counters.add(to: &status.requests) }
        status.checkpoints = checkpoints.parts
        status.checkpointSums = checkpoints.sums
        status.uploads = remote?.uploads.status
        status.hydration = remote?.hydration.status
        status.replication = registry.replicationStatus
        return status
    }
}
