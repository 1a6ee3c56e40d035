// Which segments of a journal may go, and where a replay begins.
//
// The journal mark is the place from which a restart replays. It is the minimum over all stores that are filled from the
// journal (the index checkpoint is one), and it never moves back, even when checkpoints finish out of order. A segment goes
// when the mark is beyond it and no ledger that is not deleted has anything in it.

package import CisternPrimitives

package struct JournalTrim: Hashable, Sendable {
    private let rules: ProtocolRules
    /// By store: all before this segment is safe in it.
    private var safe: [UInt64]
    private var liveLedgers: [UInt64: Set<LedgerID>] = [:]
    /// Segments before this one are not replayed. Written to disk before a segment is removed.
    package private(set) var mark: UInt64

    /// - Precondition: `stores >= 1`.
    package init(stores: Int, mark: UInt64, rules: ProtocolRules = .standard) {
        precondition(stores >= 1, "a journal without stores")
        self.rules = rules
        self.mark = mark
        safe = Array(repeating: mark, count: stores)
    }

    /// A segment is full; nothing is written to it any more.
    package mutating func sealed(segment: UInt64, ledgers: Set<LedgerID>) { liveLedgers[segment] = ledgers }

    /// A store has all of the segments before `segment`. Returns the mark to write to disk, nil when it stays.
    package mutating func checkpointed(store: Int, before segment: UInt64) -> UInt64? {
        if rules.keep(.journalMarkOnlyAdvances) {
            safe[store] = max(safe[store], segment)
        } else {
            safe[store] = segment
        }
        let lowest = safe.min() ?? mark
        guard lowest > mark || (lowest < mark && !rules.keep(.journalMarkOnlyAdvances)) else { return nil }
        mark = lowest
        return lowest
    }

    /// A ledger is durably deleted.
    package mutating func deleted(_ ledger: LedgerID) {
        for segment in liveLedgers.keys { liveLedgers[segment]?.remove(ledger) }
    }

    /// Takes the segments that may be removed, oldest first; the mark on disk must be beyond them, so the caller asks after it
    /// has written it.
    package mutating func takeRemovable() -> [UInt64] {
        let removable = liveLedgers.filter { $0.key < mark && $0.value.isEmpty }.map(\.key).sorted()
        for segment in removable { liveLedgers[segment] = nil }
        return removable
    }
}
