// How repair is doing in this process, and what it last saw of the queue.

package import CisternLogProtocol
internal import Synchronization

package struct RepairFigures: Hashable, Sendable {
    /// This process looks for nodes that are gone.
    package var isAuditor = false
    /// Nodes that hold ledgers and are not registered; as the auditor sees it.
    package var missingNodes: [LogNodeID] = []
    /// Ledgers in the queue that wait for repair, or are repaired.
    package var waiting = 0
    /// Ledgers of which nothing is left to copy from.
    package var lost = 0
    /// Ledgers for which no node can take the place.
    package var withoutTarget = 0
    /// Ledgers of this process's own node that it may have lost something of, or has.
    package var toMend = 0
    /// Since the process began: entries that are durable on the node that they were copied to, and their bytes.
    package var entriesCopied: UInt64 = 0
    package var bytesCopied: UInt64 = 0
    /// Since the process began.
    package var ledgersRepaired: UInt64 = 0
    package var ledgersRecovered: UInt64 = 0
    package var failures: UInt64 = 0
    package var lastError: String?

    package init() {}
}

/// Where the parts of repair note their figures. Threading: any; guarded by its mutex.
final class RepairBoard: Sendable {
    private let figures = Mutex(RepairFigures())

    var current: RepairFigures { figures.withLock { $0 } }

    func note(_ change: (inout RepairFigures) -> Void) { figures.withLock { change(&$0) } }
}
