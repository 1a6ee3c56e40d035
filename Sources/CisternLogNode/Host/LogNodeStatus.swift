// One look at a log node, as values.

package import CisternLogProtocol
package import CisternPrimitives

/// Since the start.
package struct LogNodeRequestCounts: Sendable, Equatable {
    package var adds: UInt64 = 0
    /// Of their bodies.
    package var addBytes: UInt64 = 0
    package var reads: UInt64 = 0
    package var lacReads: UInt64 = 0
    package var deletes: UInt64 = 0
    /// Answers that refused, by reason.
    package var refusals: [NodeRefusal: UInt64] = [:]
    /// Questions to metadata whether a ledger still exists, and those without an answer.
    package var ledgerChecks: UInt64 = 0
    package var ledgerChecksUnanswered: UInt64 = 0
    /// Ledgers whose bytes may go.
    package var ledgersDiscarded: UInt64 = 0

    package init() {}

    mutating func note(_ request: NodeRequest) {
        switch request {
        case .add(let add):
            adds += 1
            addBytes += UInt64(add.body.count)
        case .read: reads += 1
        case .readLAC: lacReads += 1
        case .delete: deletes += 1
        case .writeLAC: break
        }
    }

    mutating func note(_ reply: NodeReply) {
        let refusal: NodeRefusal? =
            switch reply {
            case .add(let reply): reply.refusal
            case .read(let reply): reply.refusal
            case .lac(let reply): reply.refusal
            }
        if let refusal { refusals[refusal, default: 0] += 1 }
    }
}

package struct LogNodeStatus: Sendable {
    /// The journal was replayed and requests are answered.
    package var isServing = false
    package var ledgers = 0
    /// Held ledgers of which something may be missing until it is repaired.
    package var limboLedgers = 0
    /// Runs of ledgers that were deleted, which are remembered for ever.
    package var deletedRuns = 0
    package var segments = 0
    /// Of records in segments that are full.
    package var sealedBytes: UInt64 = 0
    /// Files that are ready for segments to come.
    package var preparedSegments = 0
    package var isReadOnly = false
    /// Why the journal takes nothing any more; nil while it does.
    package var failure: JournalError?
    /// Requests without an answer.
    package var unanswered = 0
    /// Of the file system of the directory; nil when it is not known.
    package var availableBytes: UInt64?
    package var requests = LogNodeRequestCounts()
    package var journal = JournalMetrics()

    package init() {}

    /// Writers may send it adds.
    package var takesAdds: Bool { isServing && !isReadOnly && failure == nil }
}

/// What a node knows to have lost, or may have lost.
package struct LogNodeLosses: Sendable {
    /// Goes back to the node with `ledgerRepaired`.
    package let incarnation: UInt64
    /// The youngest ledger that is or was in limbo; nil when the node never was.
    package let limboThrough: LedgerID?
    package let inLimbo: [LedgerID]
    /// Entries that the disk does not give back.
    package let damaged: [LedgerID: EntrySet]
}
