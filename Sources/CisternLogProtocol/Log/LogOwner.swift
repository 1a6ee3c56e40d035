// The owner of a log, after it has taken it over: puts new ledgers into the list and takes old ones out.
//
//   roll ─► create a ledger ─► (the ledger before the present one is closed) ─► swap the list ─► write to the new one, close the old one
//   trim ─► (no ledger that is being closed goes) ─► swap the list ─► delete what is in it no more
//
// No third ledger is put into the list while the last but one is open: a takeover closes the last two and no other, so an open one
// before them would let its writer go on.

package import CisternPrimitives

package struct LogOwner: Hashable, Sendable {
    package let attempt: UInt64
    /// As it was last read or written.
    package private(set) var list: Versioned<LogMetadata>
    /// The ledger that is written.
    package private(set) var ledger: LedgerID

    private let rules: ProtocolRules
    /// The ledger before it, until it is closed.
    private var closing: LedgerID?
    private var wantsRoll = false
    private var isCreating = false
    /// Created, and not in the list yet.
    private var next: LedgerID?
    private var trimWanted: LogSequenceNumber?
    private var request: Request?
    private var isSilent = false
    private var isLost = false
    private var isAbandoned = false

    private enum Request: Hashable { case roll, trim }

    package enum Action: Hashable, Sendable {
        /// Create a ledger with the next id and report with `created(_:)`.
        case createLedger
        case metadata(LogMetadataRequest)
        /// Append to `to` from now on; close `from` behind what was appended to it and report with `closed(_:)`.
        case rolled(from: LedgerID, to: LedgerID)
        /// All before the point may go; the ledgers are in no list any more: their metadata is deleted, then their nodes are told.
        case trimmed(to: LogSequenceNumber, delete: [LedgerID])
        /// A newer attempt has the log. `unused` is a ledger that was created and is in no list.
        case lost(to: UInt64, unused: LedgerID?)
        /// A ledger that was created and will be in no list.
        case discard(LedgerID)
    }

    /// - Parameter list: as the takeover wrote it; its last ledger is this attempt's.
    package init(
        attempt: UInt64, list: Versioned<LogMetadata>, ledger: LedgerID, rules: ProtocolRules = .standard
    ) {
        precondition(list.value.ledgers.last == ledger, "\(ledger) is not the last of \(list.value.ledgers)")
        self.attempt = attempt
        self.list = list
        self.ledger = ledger
        self.rules = rules
    }

    /// A roll is on its way; another one is not begun.
    package var isRolling: Bool { wantsRoll }

    // MARK: Events

    /// The present ledger is large enough.
    package mutating func roll(into actions: inout [Action]) {
        guard !isLost, !isAbandoned, !wantsRoll else { return }
        wantsRoll = true
        advance(into: &actions)
    }

    package mutating func created(_ ledger: LedgerID, into actions: inout [Action]) {
        guard isCreating, !isLost, !isAbandoned else { return actions.append(.discard(ledger)) }
        isCreating = false
        next = ledger
        advance(into: &actions)
    }

    /// The ledger could not be created; `retry` asks again.
    package mutating func creationFailed() { isCreating = false }

    /// The writer of the ledger before has closed it.
    package mutating func closed(_ ledger: LedgerID, into actions: inout [Action]) {
        guard closing == ledger else { return }
        closing = nil
        advance(into: &actions)
    }

    /// All before `point` is not needed any more. A point before an earlier one is ignored.
    package mutating func trim(to point: LogSequenceNumber, into actions: inout [Action]) {
        if let known = trimWanted ?? list.value.trimPoint, point <= known { return }
        guard !isLost else { return }
        trimWanted = point
        advance(into: &actions)
    }

    /// The attempt ends: no new ledger goes into the list any more. A swap that is on its way ends as it would have, and so does a trim.
    package mutating func abandon(into actions: inout [Action]) {
        guard !isLost, !isAbandoned else { return }
        isAbandoned = true
        guard request != .roll else { return }
        wantsRoll = false
        if let next { actions.append(.discard(next)) }
        next = nil
    }

    /// The answer to this machine's last request.
    package mutating func receive(_ result: LogMetadataResult, into actions: inout [Action]) {
        guard !isLost, request != nil else { return }
        switch result {
        case .written(let version):
            if let proposal = proposal { adopted(Versioned(proposal, version: version), into: &actions) }
        case .conflict: ask(.get, into: &actions)
        case .unavailable: isSilent = true
        case .found(let found): adopt(found, into: &actions)
        }
    }

    /// From a timer: what was not answered is asked again.
    package mutating func retry(into actions: inout [Action]) {
        guard !isLost else { return }
        if isSilent { ask(.get, into: &actions) } else { advance(into: &actions) }
    }

    // MARK: Steps

    private mutating func advance(into actions: inout [Action]) {
        guard !isLost, request == nil else { return }
        if wantsRoll && next == nil && !isCreating && !isAbandoned {
            isCreating = true
            actions.append(.createLedger)
        }
        if next != nil && (closing == nil || !rules.keep(.rollsWaitForClose)) {
            propose(.roll, into: &actions)
        } else if trimWanted != nil && mayTrim {
            propose(.trim, into: &actions)
        }
    }

    /// Whether the ledger that is being closed stays.
    private var mayTrim: Bool {
        guard let closing, let trimWanted else { return true }
        return closing >= trimWanted.ledger
    }

    private func isTrimmed(_ list: LogMetadata) -> Bool {
        guard let trimWanted, let point = list.trimPoint else { return false }
        return point >= trimWanted
    }

    private var proposal: LogMetadata? {
        switch request {
        case .roll: next.flatMap { try? list.value.rolled(to: $0) }
        case .trim: trimWanted.flatMap { try? list.value.trimmed(to: $0).metadata }
        case nil: nil
        }
    }

    private mutating func propose(_ request: Request, into actions: inout [Action]) {
        self.request = request
        if let proposal {
            return ask(.compareAndSwap(expected: list.version, new: proposal), into: &actions)
        }
        // Not possible on this list: a ledger that is too old, a point that was passed.
        self.request = nil
        switch request {
        case .roll:
            next = nil
            // A list that has a younger ledger is no longer this attempt's, so this one is in none.
            isCreating = !isAbandoned
            if isCreating { actions.append(.createLedger) }
        case .trim: trimWanted = nil
        }
    }

    private mutating func ask(_ request: LogMetadataRequest, into actions: inout [Action]) {
        isSilent = false
        actions.append(.metadata(request))
    }

    /// What the list is, read because a swap failed or was not answered.
    private mutating func adopt(_ found: Versioned<LogMetadata>, into actions: inout [Action]) {
        let last = found.value.ledgers.last
        guard found.value.attempt == attempt, last == ledger || (last == next && next != nil) else {
            isLost = true
            return actions.append(.lost(to: found.value.attempt, unused: next))
        }
        let isDone =
            switch request {
            case .roll: last == next
            case .trim: isTrimmed(found.value)
            case nil: false
            }
        if isDone { return adopted(found, into: &actions) }
        list = found
        let again = request
        request = nil
        if let again { propose(again, into: &actions) }
        advance(into: &actions)
    }

    /// The proposal is in metadata.
    private mutating func adopted(_ new: Versioned<LogMetadata>, into actions: inout [Action]) {
        let before = list.value.ledgers
        list = new
        switch request {
        case .roll:
            if let next {
                closing = ledger
                actions.append(.rolled(from: ledger, to: next))
                ledger = next
            }
            next = nil
            wantsRoll = false
        case .trim:
            if let trimWanted {
                let removed = before.filter { !new.value.ledgers.contains($0) }
                actions.append(.trimmed(to: trimWanted, delete: removed))
                if isTrimmed(new.value) { self.trimWanted = nil }
            }
        case nil: break
        }
        request = nil
        advance(into: &actions)
    }
}
