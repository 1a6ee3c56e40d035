// Names in the replicated log. Two integers of different meaning never share a type.

/// A ledger. Ids come from one counter in metadata, so a younger ledger has the larger id.
package struct LedgerID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let rawValue: UInt64

    @inlinable package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable package static func < (left: LedgerID, right: LedgerID) -> Bool { left.rawValue < right.rawValue }

    package var description: String { "L\(rawValue)" }
}

/// The place of an entry in its ledger: dense, from 0. `none` (−1) stands before the first one, so that a last entry or a
/// last add confirmed of nothing is a value like any other.
package struct EntryID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let rawValue: Int64

    /// - Precondition: `rawValue >= -1`.
    @inlinable package init(_ rawValue: Int64) {
        precondition(rawValue >= -1, "entry \(rawValue)")
        self.rawValue = rawValue
    }

    package static let none = EntryID(-1)
    package static let first = EntryID(0)

    @inlinable package var next: EntryID { EntryID(rawValue + 1) }
    /// - Precondition: not `none`.
    @inlinable package var previous: EntryID { EntryID(rawValue - 1) }

    @inlinable package func advanced(by count: Int) -> EntryID { EntryID(rawValue + Int64(count)) }

    @inlinable package static func < (left: EntryID, right: EntryID) -> Bool { left.rawValue < right.rawValue }

    package var description: String { "e\(rawValue)" }
}
