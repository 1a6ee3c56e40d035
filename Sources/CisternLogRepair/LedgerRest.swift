// Whether anybody writes to an open ledger. Metadata does not name the writer, but a writer that is at work moves the last add
// confirmed, and one that meets a dead node replaces it. What does neither for long enough has no writer, or one that must
// take its log over anew.

internal import CisternLogProtocol
internal import CisternPrimitives

struct LedgerRest {
    private struct Look {
        var lac: EntryID
        var sinceMilliseconds: UInt64
    }

    private var looks: [LedgerID: Look] = [:]

    /// Whether the last add confirmed has been the same for `grace`, as far as it was looked at.
    mutating func isAtRest(_ ledger: LedgerID, lac: EntryID, now: UInt64, grace: UInt64) -> Bool {
        if let look = looks[ledger], look.lac == lac { return now - look.sinceMilliseconds >= grace }
        looks[ledger] = Look(lac: lac, sinceMilliseconds: now)
        return grace == 0
    }

    mutating func forget(_ ledger: LedgerID) { looks[ledger] = nil }
}
