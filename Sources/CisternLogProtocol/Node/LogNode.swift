// The log node without its disk and its sockets: requests and journal progress in, records, reads and answers out.
//
// The owner (a thread or an event loop, the simulator) calls it and carries out the actions in their order. One journal
// record at a time is decided here; how many are written and synced together is the journal's business. An answer waits
// until the record that it depends on is durable. Journal order does the rest: when a fence is durable, so are the adds that
// were accepted before it.

package import CisternPrimitives

package enum LogNodeAction<Token: Hashable & Sendable>: Hashable, Sendable {
    /// Write to the journal, in the order of these actions; report with `synced(through:)`.
    case append(JournalRecord, JournalSequence)
    /// Read bodies of durable entries and report with `read(_:results:)`, one result for each entry of a prefix: stop before the
    /// entry with which the bodies exceed `bytesMax`, but not before the first.
    case read(Token, LedgerID, [EntryID], bytesMax: Int)
    case reply(Token, NodeReply)
    /// Ask metadata whether the ledger exists and report with `ledgerChecked(_:exists:)`.
    case checkLedger(LedgerID)
    /// The ledger is durably deleted: its bytes may go.
    case discard(LedgerID)
}

/// - Parameter Token: what the owner tells requests apart by; each is answered once at most. Fast for `Int`, for which the hot
///   calls are specialised here: their callers are in other modules, which do not see these bodies.
package struct LogNode<Token: Hashable & Sendable>: Hashable, Sendable {
    package typealias Action = LogNodeAction<Token>

    private let rules: ProtocolRules
    private var phase = Phase.starting
    private var ledgers: [LedgerID: LedgerOnNode<Token>] = [:]
    private var deleted = LedgerSet()
    private var limbo = Limbo()
    private var appended = JournalSequence.zero
    private var synced = JournalSequence.zero
    /// In journal order: what becomes true when a record is durable, and what waits for it.
    private var inFlight: [InFlight<Token>] = []
    private var inFlightHead = 0
    private var reads: [Token: PendingRead] = [:]

    /// Of this start of the node; what was copied to it before may be lost.
    package private(set) var incarnation: UInt64 = 0

    private enum Phase: Hashable { case starting, serving, readOnly, failed }

    package init(rules: ProtocolRules = .standard) { self.rules = rules }

    // MARK: Start

    /// A record that was durable when the node stopped, in journal order, before `start`.
    package mutating func replay(_ record: JournalRecord) {
        invariant(phase == .starting, "a record is replayed while the node serves")
        // What a journal still has of a ledger whose delete was told first.
        if let ledger = record.contents, deleted.contains(ledger) { return }
        accept(record)
        _ = makeDurable(record)
    }

    /// Ends the replay. `highestLedger` is the youngest ledger in metadata, read after the restart; it is needed when the journal
    /// did not verify to its sealed tail, because nothing up to it can be called absent. `incarnation` is another number at each
    /// start of the node, a random one for example.
    package mutating func start(
        journalVerified: Bool, highestLedger: LedgerID, incarnation: UInt64, into actions: inout [Action]
    ) {
        invariant(phase == .starting, "a node starts twice")
        phase = .serving
        self.incarnation = incarnation
        guard !journalVerified && rules.keep(.damageMeansLimbo) else { return }
        append(.limbo(through: highestLedger), waiting: nil, into: &actions)
    }

    /// Of this ledger the node may have lost something and not got it back yet. True of every ledger while the limbo is on its
    /// way to the disk.
    package func isInLimbo(_ ledger: LedgerID) -> Bool { limbo.isPending || limbo.contains(ledger) }

    /// The youngest ledger that is or was in limbo; nil when the node never was.
    package var limboThrough: LedgerID? { limbo.through }

    /// The ledger was in limbo, and is not since its copies are back.
    package func wasRepaired(_ ledger: LedgerID) -> Bool { limbo.hasRepaired(ledger) }

    /// What the node has of the ledger, durably; nil when it has nothing.
    package func status(of ledger: LedgerID) -> (entries: EntrySet, lac: EntryID, isFenced: Bool)? {
        ledgers[ledger].map { ($0.durable, $0.lac, $0.isDurablyFenced) }
    }

    package func hasDeleted(_ ledger: LedgerID) -> Bool { deleted.contains(ledger) }

    /// Runs of ledgers that were deleted, for ever.
    package var deletedLedgers: [ClosedRange<LedgerID>] { deleted.runs }

    package var heldLedgers: [LedgerID] { ledgers.keys.sorted() }

    // MARK: Requests

    @_specialize(where Token == Int)
    package mutating func receive(_ request: NodeRequest, token: Token, into actions: inout [Action]) {
        switch request {
        case .add(let add): receive(add, token, into: &actions)
        case .read(let read): receive(read, token, into: &actions)
        case .readLAC(let read): receive(read, token, into: &actions)
        case .writeLAC(let ledger, let lac):
            guard refusal(of: ledger) == nil, lac > (ledgers[ledger]?.acceptedLAC ?? .none) else { return }
            append(.lac(ledger, lac), waiting: nil, into: &actions)
        case .delete(let ledger):
            guard ledgers[ledger] != nil else { return }
            if rules.keep(.collectionReadsMetadata) {
                actions.append(.checkLedger(ledger))
            } else {
                append(.delete(ledger), waiting: nil, into: &actions)
            }
        }
    }

    private mutating func receive(_ add: AddRequest, _ token: Token, into actions: inout [Action]) {
        if let refusal = refusal(of: add) {
            return actions.append(.reply(token, .add(AddReply(ledger: add.ledger, entry: add.entry, refusal: refusal))))
        }
        if ledgers[add.ledger]?.accepted.contains(add.entry) == true {
            // The same add once more. Its value is compared when the first one is durable.
            return waitOrRun(.compare(token, add), ledger: add.ledger, into: &actions)
        }
        append(
            .add(add.ledger, add.entry, lac: add.lac, body: add.body), waiting: .stored(token, add.ledger, add.entry),
            into: &actions)
        if !rules.keep(.addIsDurable) {
            actions.append(.reply(token, .add(AddReply(ledger: add.ledger, entry: add.entry, refusal: nil))))
            inFlight[inFlight.count - 1].waiting = nil
        }
    }

    private mutating func receive(_ read: ReadRequest, _ token: Token, into actions: inout [Action]) {
        if let refusal = refusal(of: read.ledger) {
            let reply = ReadReply(
                ledger: read.ledger, first: read.first, answers: [], lac: .none, isFenced: false, refusal: refusal)
            return actions.append(.reply(token, .read(reply)))
        }
        if read.fence { return fence(read.ledger, then: .read(token, read), into: &actions) }
        run(.read(token, read), into: &actions)
    }

    private mutating func receive(_ read: ReadLACRequest, _ token: Token, into actions: inout [Action]) {
        if let refusal = refusal(of: read.ledger) {
            let reply = ReadLACReply(ledger: read.ledger, lac: .none, isFenced: false, refusal: refusal)
            return actions.append(.reply(token, .lac(reply)))
        }
        if read.fence { return fence(read.ledger, then: .readLAC(token, read), into: &actions) }
        run(.readLAC(token, read), into: &actions)
    }

    /// The owner gives up on a request that waits for a newer last add confirmed: answered with what there is.
    package mutating func stopWaiting(_ token: Token, ledger: LedgerID, into actions: inout [Action]) {
        guard let index = ledgers[ledger]?.waiters.firstIndex(where: { $0.token == token }) else { return }
        ledgers[ledger]?.waiters.remove(at: index)
        actions.append(.reply(token, .lac(lacReply(ledger))))
    }

    // MARK: Journal

    /// All records up to `sequence` are durable.
    @_specialize(where Token == Int)
    package mutating func synced(through sequence: JournalSequence, into actions: inout [Action]) {
        guard phase != .failed, sequence > synced else { return }
        invariant(sequence <= appended, "record \(sequence) is synced and only \(appended) were written")
        synced = sequence
        while inFlightHead < inFlight.count, inFlight[inFlightHead].sequence <= sequence {
            let item = inFlight[inFlightHead]
            inFlightHead += 1
            if let record = item.record { finish(record, into: &actions) }
            if let waiting = item.waiting { run(waiting, into: &actions) }
        }
        // Moves what is left to the front when that is no more than what was taken.
        if inFlightHead * 2 >= inFlight.count {
            inFlight.removeFirst(inFlightHead)
            inFlightHead = 0
        }
    }

    /// A write or a sync failed: what reached the disk is unknown until the journal is opened again. Entries that were durable
    /// before are still read.
    package mutating func journalFailed(into actions: inout [Action]) {
        phase = .failed
        for item in inFlight[inFlightHead...] {
            if let waiting = item.waiting { refuse(waiting, .unavailable, into: &actions) }
        }
        inFlight = []
        inFlightHead = 0
    }

    /// The disk reserve is reached, or there is room again. Recovery, fences, deletes and reads go on from the reserve.
    package mutating func setReadOnly(_ isReadOnly: Bool) {
        if phase == .serving || phase == .readOnly { phase = isReadOnly ? .readOnly : .serving }
    }

    /// Answers an action `.read`.
    @_specialize(where Token == Int)
    package mutating func read(_ token: Token, results: [JournalRead], into actions: inout [Action]) {
        guard let pending = reads.removeValue(forKey: token) else { return }
        actions.append(.reply(token, pending.reply(results, rules: rules)))
    }

    /// The disk does not give back these entries, which were durable: a checksum fails. They are unknown, and are taken anew when
    /// repair brings them.
    package mutating func entriesDamaged(_ ledger: LedgerID, _ entries: [EntryID]) {
        for entry in entries where ledgers[ledger]?.durable.remove(entry) == true {
            ledgers[ledger]?.accepted.remove(entry)
            ledgers[ledger]?.damaged.insert(entry)
        }
    }

    /// Entries of the ledger that wait for repair.
    package func damagedEntries(of ledger: LedgerID) -> EntrySet { ledgers[ledger]?.damaged ?? EntrySet() }

    /// Ledgers with entries that wait for repair.
    package var damagedLedgers: [LedgerID] { ledgers.filter { !$0.value.damaged.isEmpty }.keys.sorted() }

    // MARK: Garbage collection and repair

    /// Looks whether ledgers of this node are still in metadata.
    package func collectGarbage(into actions: inout [Action]) {
        for ledger in ledgers.keys.sorted() { actions.append(.checkLedger(ledger)) }
    }

    /// Answers an action `.checkLedger`; `exists` is nil when metadata gave no answer. A ledger that is missing once is put in
    /// quarantine: nothing is answered of it. It is deleted when it is missing again at a later look, and comes back when it is there.
    package mutating func ledgerChecked(_ ledger: LedgerID, exists: Bool?, into actions: inout [Action]) {
        guard let exists, let state = ledgers[ledger], !state.isDeleting else { return }
        if exists {
            ledgers[ledger]?.isQuarantined = false
        } else if state.isQuarantined {
            append(.delete(ledger), waiting: nil, into: &actions)
        } else {
            ledgers[ledger]?.isQuarantined = true
        }
    }

    /// All that this node must hold of the ledger is here again: copied from peers after the ledger was closed and while the node
    /// was in `incarnation`. Copies of before a restart do not count: the node may have lost them.
    package mutating func ledgerRepaired(_ ledger: LedgerID, incarnation: UInt64, into actions: inout [Action]) {
        guard limbo.contains(ledger), incarnation == self.incarnation, phase != .failed else { return }
        append(.repaired(ledger), waiting: nil, into: &actions)
    }
}

// MARK: - Rules of refusal

extension LogNode {
    private func refusal(of ledger: LedgerID) -> NodeRefusal? {
        if phase == .starting { return .unavailable }
        // Until the limbo is on disk, a crash would make the node forget it.
        if limbo.isPending { return .unavailable }
        if rules.keep(.deletedLedgersRefuseAdds) && deleted.contains(ledger) { return .deleted }
        if let state = ledgers[ledger], state.isQuarantined || state.isDeleting { return .deleted }
        return nil
    }

    private func refusal(of add: AddRequest) -> NodeRefusal? {
        if let refusal = refusal(of: add.ledger) { return refusal }
        if phase == .failed { return .unavailable }
        if add.isRecovery { return nil }
        if ledgers[add.ledger]?.isFenced == true { return .fenced }
        if rules.keep(.limboFences) && limbo.contains(add.ledger) { return .limbo }
        return phase == .readOnly ? .readOnly : nil
    }

    private mutating func refuse(_ waiting: Waiting<Token>, _ refusal: NodeRefusal, into actions: inout [Action]) {
        switch waiting {
        case .stored(let token, let ledger, let entry):
            actions.append(.reply(token, .add(AddReply(ledger: ledger, entry: entry, refusal: refusal))))
        case .compare(let token, let add):
            actions.append(.reply(token, .add(AddReply(ledger: add.ledger, entry: add.entry, refusal: refusal))))
        case .read(let token, let read):
            let reply = ReadReply(
                ledger: read.ledger, first: read.first, answers: [], lac: .none, isFenced: false, refusal: refusal)
            actions.append(.reply(token, .read(reply)))
        case .readLAC(let token, let read):
            let reply = ReadLACReply(ledger: read.ledger, lac: .none, isFenced: false, refusal: refusal)
            actions.append(.reply(token, .lac(reply)))
        }
    }
}

// MARK: - Records

extension LogNode {
    private mutating func append(_ record: JournalRecord, waiting: Waiting<Token>?, into actions: inout [Action]) {
        appended = appended.next
        accept(record)
        inFlight.append(InFlight(sequence: appended, record: record.withoutBody, waiting: waiting))
        actions.append(.append(record, appended))
    }

    /// What holds from the moment the record is handed to the journal: nothing that contradicts it is accepted after it.
    private mutating func accept(_ record: JournalRecord) {
        switch record {
        case .add(let ledger, let entry, let lac, _):
            ledgers[ledger, default: LedgerOnNode()].accept(entry, lac: lac, as: appended)
        case .fence(let ledger):
            ledgers[ledger, default: LedgerOnNode()].isFenced = true
            ledgers[ledger, default: LedgerOnNode()].lastRecord = appended
        case .lac(let ledger, let lac): ledgers[ledger, default: LedgerOnNode()].raiseAccepted(lac)
        case .delete(let ledger): ledgers[ledger, default: LedgerOnNode()].isDeleting = true
        case .limbo: limbo.isPending = true
        case .repaired(let ledger):
            // The ledger is closed, and the fence that closed it may be what the node lost: without it the old writer would
            // find an ack quorum here again.
            guard rules.keep(.repairFences) else { return }
            ledgers[ledger, default: LedgerOnNode()].isFenced = true
            ledgers[ledger, default: LedgerOnNode()].lastRecord = appended
        }
    }

    private mutating func finish(_ record: JournalRecord, into actions: inout [Action]) {
        if case .delete(let ledger) = record { refuseWaiters(ledger, into: &actions) }
        guard let ledger = makeDurable(record) else { return }
        switch record {
        case .delete: actions.append(.discard(ledger))
        case .add, .lac, .fence, .repaired: answerWaiters(ledger, into: &actions)
        case .limbo: break
        }
    }

    /// What holds when the record is durable. Returns the ledger that it is about.
    private mutating func makeDurable(_ record: JournalRecord) -> LedgerID? {
        switch record {
        case .add(let ledger, let entry, let lac, _):
            ledgers[ledger]?.store(entry, lac: lac)
            return ledger
        case .fence(let ledger):
            ledgers[ledger]?.isDurablyFenced = true
            return ledger
        case .lac(let ledger, let lac):
            ledgers[ledger]?.raise(lac)
            return ledger
        case .delete(let ledger):
            ledgers[ledger] = nil
            deleted.insert(ledger)
            return ledger
        case .limbo(let through):
            limbo.begin(through: through)
            return nil
        case .repaired(let ledger):
            limbo.end(ledger)
            if rules.keep(.repairFences) { ledgers[ledger]?.isDurablyFenced = true }
            return ledger
        }
    }

    /// Who waits for a newer last add confirmed is told of it, or of the fence: its writer has lost the ledger, and nobody knows
    /// whether there will be a newer one.
    private mutating func answerWaiters(_ ledger: LedgerID, into actions: inout [Action]) {
        if ledgers[ledger]?.waiters.isEmpty != false { return }
        guard let state = ledgers[ledger] else { return }
        let ready = state.waiters.filter { $0.newerThan < state.lac || state.isDurablyFenced }
        guard !ready.isEmpty else { return }
        ledgers[ledger]?.waiters.removeAll { $0.newerThan < state.lac || state.isDurablyFenced }
        for waiter in ready { actions.append(.reply(waiter.token, .lac(lacReply(ledger)))) }
    }

    private func refuseWaiters(_ ledger: LedgerID, into actions: inout [Action]) {
        let reply = ReadLACReply(ledger: ledger, lac: .none, isFenced: false, refusal: .deleted)
        for waiter in ledgers[ledger]?.waiters ?? [] { actions.append(.reply(waiter.token, .lac(reply))) }
    }
}

// MARK: - Answers

extension LogNode {
    /// Fences the ledger if it is not, then runs `waiting` when the fence and all that was accepted before it are durable.
    private mutating func fence(_ ledger: LedgerID, then waiting: Waiting<Token>, into actions: inout [Action]) {
        if ledgers[ledger]?.isFenced == true { return waitOrRun(waiting, ledger: ledger, into: &actions) }
        guard phase != .failed else { return refuse(waiting, .unavailable, into: &actions) }
        if rules.keep(.fenceIsDurable) { return append(.fence(ledger), waiting: waiting, into: &actions) }
        append(.fence(ledger), waiting: nil, into: &actions)
        ledgers[ledger]?.isDurablyFenced = true
        run(waiting, into: &actions)
    }

    /// Runs `waiting` when the last record of the ledger is durable.
    private mutating func waitOrRun(_ waiting: Waiting<Token>, ledger: LedgerID, into actions: inout [Action]) {
        let last = ledgers[ledger]?.lastRecord ?? .zero
        if last <= synced { return run(waiting, into: &actions) }
        if phase == .failed { return refuse(waiting, .unavailable, into: &actions) }
        // Behind all that is in flight, which is no earlier than the ledger's last record.
        inFlight.append(InFlight(sequence: appended, record: nil, waiting: waiting))
    }

    private mutating func run(_ waiting: Waiting<Token>, into actions: inout [Action]) {
        switch waiting {
        case .stored(let token, let ledger, let entry):
            actions.append(.reply(token, .add(AddReply(ledger: ledger, entry: entry, refusal: nil))))
        case .compare(let token, let add):
            reads[token] = .compare(add)
            actions.append(.read(token, add.ledger, [add.entry], bytesMax: Int.max))
        case .read(let token, let read): answer(read, token, into: &actions)
        case .readLAC(let token, let read):
            if let newerThan = read.newerThan, let state = ledgers[read.ledger], state.lac <= newerThan,
                !state.isDurablyFenced
            {
                ledgers[read.ledger]?.waiters.append(LACWaiter(token: token, newerThan: newerThan))
            } else {
                actions.append(.reply(token, .lac(lacReply(read.ledger))))
            }
        }
    }

    private func lacReply(_ ledger: LedgerID) -> ReadLACReply {
        let state = ledgers[ledger]
        return ReadLACReply(ledger: ledger, lac: state?.lac ?? .none, isFenced: state?.isDurablyFenced ?? false)
    }

    private mutating func answer(_ read: ReadRequest, _ token: Token, into actions: inout [Action]) {
        let state = ledgers[read.ledger]
        let missing: EntryAnswer = limbo.contains(read.ledger) ? .unknown : .absent
        var answers: [EntryAnswer] = []
        var present: [EntryID] = []
        for offset in 0..<max(0, min(read.count, ReadRequest.countMax)) {
            let entry = read.first.advanced(by: offset)
            if state?.durable.contains(entry) == true { present.append(entry) }
            answers.append(state?.damaged.contains(entry) == true ? .unknown : missing)
        }
        let pending = PendingRead.range(
            read, answers: answers, present: present, lac: state?.lac ?? .none,
            isFenced: state?.isDurablyFenced ?? false)
        if present.isEmpty { return actions.append(.reply(token, pending.reply([], rules: rules))) }
        reads[token] = pending
        actions.append(.read(token, read.ledger, present, bytesMax: read.bytesMax))
    }
}
