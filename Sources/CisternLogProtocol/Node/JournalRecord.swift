// What a log node writes to its journal, which is its only storage. The state of a node is the sum of these records in their
// order; replaying them after a restart gives what was durable.

package import CisternPrimitives

package enum JournalRecord: Hashable, Sendable {
    /// An entry, with the last add confirmed that came with it.
    case add(LedgerID, EntryID, lac: EntryID, body: [UInt8])
    /// From here on only recovery adds to the ledger; also for a ledger that the node has never seen.
    case fence(LedgerID)
    /// The last add confirmed, when no add carried it.
    case lac(LedgerID, EntryID)
    /// All of the ledger is gone, for ever.
    case delete(LedgerID)
    /// The node came back without all it had: of ledgers up to this one, "absent" is not known.
    case limbo(through: LedgerID)
    /// What the node must hold of the closed ledger was copied from its peers: limbo is over for it, and it is fenced.
    case repaired(LedgerID)
}

extension JournalRecord {
    /// The ledger that the record is a part of; nil when it says something about the node, or that a ledger is gone.
    package var contents: LedgerID? {
        switch self {
        case .add(let ledger, _, _, _), .fence(let ledger), .lac(let ledger, _), .repaired(let ledger): ledger
        case .delete, .limbo: nil
        }
    }
}

/// Place of a record in the order of a node's journal: 1 for the first record of a run of the node, then one higher each.
package struct JournalSequence: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static let zero = JournalSequence(0)

    package var next: JournalSequence { JournalSequence(rawValue + 1) }

    package static func < (left: JournalSequence, right: JournalSequence) -> Bool { left.rawValue < right.rawValue }

    package var description: String { "#\(rawValue)" }
}

/// One entry as the journal gave it back.
package enum JournalRead: Hashable, Sendable {
    case body([UInt8])
    /// Input or output error, failed checksum, a record that is not where the index says.
    case failed
}
