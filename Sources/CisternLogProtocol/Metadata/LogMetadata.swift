// A log: a list of ledgers, of which the last one is written, and a trim point. The list changes by compare-and-swap only.
//
// A new attempt of a job takes the log over: it recovery-opens the last two ledgers and swaps the list. After the swap an
// older attempt can neither add to a ledger of the list, because they are closed, nor put a ledger of its own into it,
// because its version of the list is old.

package import CisternPrimitives

package enum LogMetadataError: Error, Hashable, Sendable {
    /// An attempt that is not newer than the one that has the log.
    case attempt(UInt64, owner: UInt64)
    /// A ledger that is not younger than the last one of the list.
    case ledger(LedgerID, last: LedgerID)
    /// A trim point that moves back.
    case trim(LogSequenceNumber, from: LogSequenceNumber)
}

package struct LogMetadata: Hashable, Sendable {
    /// Oldest first, strictly increasing.
    package private(set) var ledgers: [LedgerID]
    /// The first place that is still needed; nil before the first trim. Never moves back.
    package private(set) var trimPoint: LogSequenceNumber?
    /// The attempt that has the log; strictly increases with each takeover.
    package private(set) var attempt: UInt64

    /// A log without ledgers and owner.
    package init() {
        ledgers = []
        attempt = 0
    }

    /// A log as it was stored.
    package init(
        ledgers: [LedgerID], trimPoint: LogSequenceNumber?, attempt: UInt64
    ) throws(LogMetadataError) {
        for (ledger, next) in zip(ledgers, ledgers.dropFirst()) where next <= ledger {
            throw LogMetadataError.ledger(next, last: ledger)
        }
        self.ledgers = ledgers
        self.trimPoint = trimPoint
        self.attempt = attempt
    }

    /// A newer attempt has the log and writes to `ledger`; the last two ledgers before it are closed.
    package func takenOver(by attempt: UInt64, writing ledger: LedgerID) throws(LogMetadataError) -> LogMetadata {
        guard attempt > self.attempt else { throw LogMetadataError.attempt(attempt, owner: self.attempt) }
        var new = try rolled(to: ledger)
        new.attempt = attempt
        return new
    }

    /// The owner goes on in `ledger`; the last one is closed.
    package func rolled(to ledger: LedgerID) throws(LogMetadataError) -> LogMetadata {
        if let last = ledgers.last, ledger <= last { throw LogMetadataError.ledger(ledger, last: last) }
        var new = self
        new.ledgers.append(ledger)
        return new
    }

    /// All before `point` is not needed any more. Returns the new list and the ledgers that it is without, which may be
    /// deleted when the list is written; the last ledger stays.
    package func trimmed(
        to point: LogSequenceNumber
    ) throws(LogMetadataError) -> (metadata: LogMetadata, removed: [LedgerID]) {
        if let trimPoint, point < trimPoint { throw LogMetadataError.trim(point, from: trimPoint) }
        var new = self
        new.trimPoint = point
        let removed = ledgers.dropLast().prefix { $0 < point.ledger }
        new.ledgers.removeFirst(removed.count)
        return (new, Array(removed))
    }
}
