// The names of things in the changelog service, beside `LedgerID` and `EntryID`.

package import CisternPrimitives

/// A log node: what BookKeeper calls a bookie. The id is bound to its directory by a cookie, so an empty directory
/// cannot take the place of a full one.
package struct LogNodeID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let rawValue: UInt64

    @inlinable package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable package static func < (left: LogNodeID, right: LogNodeID) -> Bool { left.rawValue < right.rawValue }

    package var description: String { "n\(rawValue)" }
}

/// The place of an entry in a log of ledgers. Later ledgers of a log have larger ids, so these compare as they were written.
package struct LogSequenceNumber: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let ledger: LedgerID
    package let entry: EntryID

    package init(ledger: LedgerID, entry: EntryID) {
        self.ledger = ledger
        self.entry = entry
    }

    package static func < (left: LogSequenceNumber, right: LogSequenceNumber) -> Bool {
        (left.ledger, left.entry) < (right.ledger, right.entry)
    }

    package var description: String { "\(ledger):\(entry)" }
}
