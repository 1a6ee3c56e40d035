// What replicated trees have come to, for metrics and the status page.

internal import Synchronization

package struct ReplicationStatus: Equatable, Sendable {
    /// Trees whose log this server writes.
    package var trees = 0
    /// Written to log nodes, and not known to be durable there.
    package var unacknowledgedBytes: UInt64 = 0
    /// In the logs: what a takeover would have to read.
    package var logBytes: UInt64 = 0
    /// Since the start: trees that were taken over, by where they were, and the time of all of them together.
    package var takeoversHere: UInt64 = 0
    package var takeoversElsewhere: UInt64 = 0
    package var takeoverMicroseconds: UInt64 = 0
    /// Since the start: trees whose log took nothing more, because another server has them or too few log nodes answered.
    package var lostLogs: UInt64 = 0

    package init() {}
}

/// Counts of a server.
final class ReplicationCounters: Sendable {
    private let state = Mutex(ReplicationStatus())

    var status: ReplicationStatus { state.withLock { $0 } }

    func tookOver(fromElsewhere: Bool, microseconds: UInt64) {
        state.withLock { status in
            if fromElsewhere { status.takeoversElsewhere += 1 } else { status.takeoversHere += 1 }
            status.takeoverMicroseconds += microseconds
        }
    }

    func lost() { state.withLock { $0.lostLogs += 1 } }
}
