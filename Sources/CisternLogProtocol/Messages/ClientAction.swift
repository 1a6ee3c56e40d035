// What the state machines of the client side want done. Each machine adds to this in an enum of its own.

package import CisternPrimitives

/// How a machine of the client side fails. All of them are final: the owner makes a new machine, or gives up.
package enum LedgerFailure: Error, Hashable, Sendable {
    /// The ledger is in recovery or closed by someone else: this writer has lost it.
    case fenced
    /// The ledger is not in metadata any more.
    case deleted
    /// Too few nodes answered to know whether this entry exists. Try again later; it is not absent.
    case undecided(EntryID)
    /// All nodes that hold this entry were asked and none gave it, though it exists.
    case unreadable(EntryID)
    /// Too few nodes answered to be sure that the writer is fenced.
    case notFenced
    /// Too few nodes take adds for an ack quorum, and none can replace them.
    case notEnoughNodes
    /// A node holds another value of this entry.
    case conflict(EntryID)
    /// Metadata is not what the protocol allows.
    case metadata(LedgerMetadataError)
}
