// How a new attempt of a job takes a log over from an older one that may still run.
//
// It recovery-opens the last two ledgers of the list, makes a ledger of its own and swaps the list. When the swap fails the
// list had changed meanwhile, and all begins again: the older attempt may have put a ledger into it that is not closed.
// The last *two*, because the older attempt closes a ledger only when the next one is in the list.

package import CisternPrimitives

package enum LogMetadataRequest: Hashable, Sendable {
    case get
    case compareAndSwap(expected: MetadataVersion, new: LogMetadata)
}

package enum LogMetadataResult: Hashable, Sendable {
    /// The list; version 0 and an empty list when there is none yet.
    case found(Versioned<LogMetadata>)
    case written(MetadataVersion)
    case conflict
    /// No answer; the swap may have taken place.
    case unavailable
}

package struct LogTakeover: Hashable, Sendable {
    package let attempt: UInt64

    private var phase = Phase.reading
    private var list: Versioned<LogMetadata>?
    private var open: [LedgerID] = []
    private var ends: [LedgerID: EntryID] = [:]
    private var ledger: LedgerID?

    private enum Phase: Hashable { case reading, recovering, creating, swapping, done }

    package enum Action: Hashable, Sendable {
        case metadata(LogMetadataRequest)
        /// Recovery-open this ledger and report with `recovered(_:last:)`.
        case recover(LedgerID)
        /// Create a ledger with the next id and report with `created(_:)`.
        case createLedger
        /// The log is this attempt's: it writes to `ledger`. `ends` has the last entries of the ledgers that were closed.
        case owned(Versioned<LogMetadata>, ledger: LedgerID, ends: [LedgerID: EntryID])
        /// A newer attempt has the log. `unused` is a ledger that was created and is in no list.
        case lost(to: UInt64, unused: LedgerID?)
        case failed(LedgerFailure, unused: LedgerID?)
    }

    package init(attempt: UInt64) { self.attempt = attempt }

    package func start(into actions: inout [Action]) { actions.append(.metadata(.get)) }

    package mutating func receive(_ result: LogMetadataResult, into actions: inout [Action]) {
        switch (phase, result) {
        case (.reading, .found(let found)), (.swapping, .found(let found)): adopt(found, into: &actions)
        case (.swapping, .written(let version)):
            guard let list, let ledger, let new = try? list.value.takenOver(by: attempt, writing: ledger) else {
                return
            }
            own(Versioned(new, version: version), ledger, into: &actions)
        case (.swapping, .conflict), (.swapping, .unavailable), (.reading, .unavailable):
            actions.append(.metadata(.get))
        default: break
        }
    }

    package mutating func recovered(_ ledger: LedgerID, last: EntryID, into actions: inout [Action]) {
        guard phase == .recovering else { return }
        ends[ledger] = last
        open.removeAll { $0 == ledger }
        if open.isEmpty { create(into: &actions) }
    }

    /// A ledger that is in no list yet.
    package mutating func created(_ ledger: LedgerID, into actions: inout [Action]) {
        guard phase == .creating else { return }
        self.ledger = ledger
        swap(into: &actions)
    }

    /// A recovery or a creation did not succeed.
    package mutating func failed(_ failure: LedgerFailure, into actions: inout [Action]) {
        guard phase != .done else { return }
        phase = .done
        actions.append(.failed(failure, unused: ledger))
    }

    private mutating func adopt(_ found: Versioned<LogMetadata>, into actions: inout [Action]) {
        list = found
        // A swap that was not answered and took place.
        if let ledger, found.value.attempt == attempt, found.value.ledgers.last == ledger {
            return own(found, ledger, into: &actions)
        }
        guard found.value.attempt < attempt else {
            phase = .done
            return actions.append(.lost(to: found.value.attempt, unused: ledger))
        }
        phase = .recovering
        open = found.value.ledgers.suffix(2).filter { ends[$0] == nil }
        for ledger in open { actions.append(.recover(ledger)) }
        if open.isEmpty { create(into: &actions) }
    }

    private mutating func create(into actions: inout [Action]) {
        // One that was made for an earlier try will do while it is younger than all of the list.
        if let ledger, ledger > (list?.value.ledgers.last ?? LedgerID(0)) { return swap(into: &actions) }
        phase = .creating
        actions.append(.createLedger)
    }

    private mutating func swap(into actions: inout [Action]) {
        guard let list, let ledger else { return }
        guard let new = try? list.value.takenOver(by: attempt, writing: ledger) else {
            phase = .creating
            return actions.append(.createLedger)
        }
        phase = .swapping
        actions.append(.metadata(.compareAndSwap(expected: list.version, new: new)))
    }

    private mutating func own(_ list: Versioned<LogMetadata>, _ ledger: LedgerID, into actions: inout [Action]) {
        phase = .done
        actions.append(.owned(list, ledger: ledger, ends: ends))
    }
}
