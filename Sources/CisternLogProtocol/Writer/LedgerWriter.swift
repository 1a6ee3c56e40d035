// The writer of one ledger: entries in, adds to the nodes of the ensemble out, acknowledgements in order.
//
// The owner (one event loop for a ledger) calls it and carries out the actions in their order. It keeps the time: what
// does not answer in time is `nodeFailed`, and `retry` and `idle` come from its timers. Nothing here waits or looks at a clock.
//
// An add is complete when Qa nodes of its write set have it *and* the fragment that it is in is in metadata. While an
// ensemble change is on its way nothing completes: acknowledgements are counted and held back, because the node that sent
// one may be the one that is replaced.

package import CisternPrimitives

package enum WriterAction: Hashable, Sendable {
    case send(NodeRequest, to: LogNodeID)
    case metadata(LedgerMetadataRequest)
    /// All entries up to this one are durable on Qa nodes.
    case acknowledged(through: EntryID)
    /// The ledger is closed; `last` is its last entry.
    case closed(last: EntryID)
    /// The end. What is not acknowledged may be in the ledger or not: only recovery can tell.
    case failed(LedgerFailure)
}

package struct LedgerWriter: Hashable, Sendable {
    package let ledger: LedgerID
    /// Bytes of bodies that may be unacknowledged; one entry is always let in.
    package let windowBytes: Int
    /// As it was last read or written.
    package private(set) var metadata: Versioned<LedgerMetadata>
    package private(set) var lastAddConfirmed: EntryID
    package private(set) var pendingBytes = 0

    private let rules: ProtocolRules
    private var phase = Phase.open
    private var pending = PendingAdds()
    /// The highest last add confirmed that went to the nodes.
    private var sentLAC: EntryID
    /// Positions whose node does not answer; nothing is sent to them until `retry`.
    private var failed = PositionSet()
    private var change: EnsembleChange?
    /// The last request to metadata was not answered; `retry` asks again.
    private var metadataIsSilent = false
    /// Nodes that may take the place of failed ones, the best in front.
    private var candidates: [LogNodeID]
    /// Nodes that failed since the last `retry`.
    private var suspects: Set<LogNodeID> = []

    private enum Phase: Hashable { case open, draining, closing, closed, failed }

    /// An ensemble change between its proposal and its place in metadata.
    private struct EnsembleChange: Hashable {
        var first: EntryID
        var ensemble: [LogNodeID]
        var positions: PositionSet
    }

    /// - Precondition: the ledger is open and without entries, and this is its creator.
    package init(
        ledger: LedgerID, metadata: Versioned<LedgerMetadata>, candidates: [LogNodeID], windowBytes: Int,
        rules: ProtocolRules = .standard
    ) {
        precondition(metadata.value.state == .open, "\(ledger) is written and is not open")
        self.ledger = ledger
        self.metadata = metadata
        self.candidates = candidates
        self.windowBytes = windowBytes
        self.rules = rules
        lastAddConfirmed = metadata.value.lastFragment.firstEntry.previous
        sentLAC = lastAddConfirmed
    }

    private var sizes: QuorumSizes { metadata.value.sizes }
    private var ensemble: [LogNodeID] { metadata.value.lastFragment.ensemble }

    package var isOpen: Bool { phase == .open }
    /// Whether a body of `bytes` may be appended: back-pressure is the caller's to obey.
    package func hasRoom(for bytes: Int) -> Bool { pending.isEmpty || pendingBytes + bytes <= windowBytes }
    package var nextEntry: EntryID { lastAddConfirmed.advanced(by: pending.count + 1) }

    // MARK: Events

    /// A new entry. Returns its id; nil, and nothing happens, when the ledger is not open or the window is full.
    package mutating func append(_ body: [UInt8], into actions: inout [WriterAction]) -> EntryID? {
        guard phase == .open, hasRoom(for: body.count) else { return nil }
        let entry = nextEntry
        pendingBytes += body.count
        pending.append(PendingAdd(entry: entry, body: body, writeSet: sizes.writeSet(of: entry)))
        send(pending.count - 1, into: &actions)
        return entry
    }

    package mutating func receive(_ reply: AddReply, from node: LogNodeID, into actions: inout [WriterAction]) {
        guard reply.ledger == ledger, isRunning else { return }
        switch reply.refusal {
        case nil: acknowledge(reply.entry, node: node, into: &actions)
        case .fenced: fail(.fenced, into: &actions)
        case .conflict: fail(.conflict(reply.entry), into: &actions)
        case .deleted, .limbo, .readOnly, .unavailable: nodeFailed(node, into: &actions)
        }
    }

    /// The connection broke, or an add was not answered in time.
    package mutating func nodeFailed(_ node: LogNodeID, into actions: inout [WriterAction]) {
        guard isRunning, let position = ensemble.firstIndex(of: node) else { return }
        suspects.insert(node)
        failed.insert(position)
        changeEnsemble(into: &actions)
    }

    /// Which nodes are there to replace others, the best in front.
    package mutating func setCandidates(_ nodes: [LogNodeID], into actions: inout [WriterAction]) {
        candidates = nodes
        changeEnsemble(into: &actions)
    }

    /// From a timer: what is stuck is tried once more. Asks metadata again if it did not answer, replaces failed nodes, or, when
    /// none can replace them, sends to the failed ones again.
    package mutating func retry(into actions: inout [WriterAction]) {
        guard isRunning else { return }
        if phase == .closing || change != nil {
            if metadataIsSilent { ask(.get(ledger), into: &actions) }
            return
        }
        suspects = []
        changeEnsemble(into: &actions)
        guard change == nil, !failed.isEmpty else { return }
        pending.markUnsent(at: failed)
        failed = PositionSet()
        for index in 0..<pending.count { send(index, into: &actions) }
    }

    /// From a timer when no add was sent for a while: readers learn the last add confirmed.
    package mutating func idle(into actions: inout [WriterAction]) {
        guard isRunning, lastAddConfirmed > sentLAC else { return }
        sentLAC = lastAddConfirmed
        for node in ensemble { actions.append(.send(.writeLAC(ledger, lac: lastAddConfirmed), to: node)) }
    }

    /// No more entries; when all are acknowledged, the ledger is closed.
    package mutating func close(into actions: inout [WriterAction]) {
        guard phase == .open else { return }
        phase = .draining
        closeIfDrained(into: &actions)
    }

    /// The answer to this machine's last metadata request.
    package mutating func receive(_ result: LedgerMetadataResult, into actions: inout [WriterAction]) {
        guard isRunning, phase == .closing || change != nil else { return }
        switch result {
        case .written(let version):
            if phase == .closing { return finishClose(into: &actions) }
            if let proposal = proposal(into: &actions) {
                changed(to: Versioned(proposal, version: version), into: &actions)
            }
        case .conflict: ask(.get(ledger), into: &actions)
        case .found(let found): adopt(found, into: &actions)
        case .missing: fail(.deleted, into: &actions)
        case .unavailable: metadataIsSilent = true
        }
    }

    private var isRunning: Bool { phase == .open || phase == .draining || phase == .closing }
}

// MARK: - Adds

extension LedgerWriter {
    /// Sends the add to each node of its write set that it was not sent to and that answers.
    private mutating func send(_ index: Int, into actions: inout [WriterAction]) {
        let add = pending[index]
        let targets = add.writeSet.subtracting(add.sent).subtracting(failed)
        guard !targets.isEmpty else { return }
        pending.markSent(index, to: targets)
        sentLAC = max(sentLAC, lastAddConfirmed)
        let request = NodeRequest.add(
            AddRequest(ledger: ledger, entry: add.entry, lac: lastAddConfirmed, body: add.body, isRecovery: false))
        for position in 0..<sizes.ensemble where targets.contains(position) {
            actions.append(.send(request, to: ensemble[position]))
        }
    }

    private mutating func acknowledge(_ entry: EntryID, node: LogNodeID, into actions: inout [WriterAction]) {
        guard let position = ensemble.firstIndex(of: node), let index = pending.index(of: entry),
            pending[index].writeSet.contains(position)
        else { return }
        pending.acknowledge(index, from: position)
        complete(into: &actions)
    }

    private mutating func complete(into actions: inout [WriterAction]) {
        if change != nil && rules.keep(.addsWaitForEnsembleChange) { return }
        let before = lastAddConfirmed
        while let first = pending.first, isComplete(first) {
            lastAddConfirmed = first.entry
            pendingBytes -= first.body.count
            pending.removeFirst()
        }
        if lastAddConfirmed > before { actions.append(.acknowledged(through: lastAddConfirmed)) }
        closeIfDrained(into: &actions)
    }

    private func isComplete(_ add: PendingAdd) -> Bool {
        if add.acknowledged.count >= sizes.ack { return true }
        // The mutant lets an entry through when one behind it is complete.
        return !rules.keep(.acknowledgeInOrder) && pending.contains { $0.acknowledged.count >= sizes.ack }
    }

    private mutating func fail(_ failure: LedgerFailure, into actions: inout [WriterAction]) {
        phase = .failed
        change = nil
        actions.append(.failed(failure))
    }
}

// MARK: - Metadata

extension LedgerWriter {
    /// Begins to replace the failed nodes for which there is a candidate.
    private mutating func changeEnsemble(into actions: inout [WriterAction]) {
        guard phase == .open || phase == .draining, change == nil, !failed.isEmpty else { return }
        var new = ensemble
        var positions = PositionSet()
        for position in 0..<sizes.ensemble where failed.contains(position) {
            guard let node = candidates.first(where: { !new.contains($0) && !suspects.contains($0) }) else { break }
            new[position] = node
            positions.insert(position)
        }
        guard !positions.isEmpty else { return }
        change = EnsembleChange(first: lastAddConfirmed.next, ensemble: new, positions: positions)
        proposeChange(into: &actions)
    }

    private mutating func proposal(into actions: inout [WriterAction]) -> LedgerMetadata? {
        guard let change else { return nil }
        do {
            return try metadata.value.changingEnsemble(to: change.ensemble, from: change.first)
        } catch {
            fail(.metadata(error), into: &actions)
            return nil
        }
    }

    private mutating func proposeChange(into actions: inout [WriterAction]) {
        guard let proposal = proposal(into: &actions) else { return }
        ask(.compareAndSwap(ledger, expected: metadata.version, new: proposal), into: &actions)
    }

    private mutating func ask(_ request: LedgerMetadataRequest, into actions: inout [WriterAction]) {
        metadataIsSilent = false
        actions.append(.metadata(request))
    }

    /// What metadata says, read because a swap failed or was not answered: ours after all, still as before, changed by
    /// repair, or someone else's.
    private mutating func adopt(_ found: Versioned<LedgerMetadata>, into actions: inout [WriterAction]) {
        if phase == .closing {
            if found.value.closedLastEntry == lastAddConfirmed { return finishClose(into: &actions) }
        } else if let proposal = proposal(into: &actions), found.value == proposal {
            return changed(to: found, into: &actions)
        }
        guard isRunning else { return }
        // The state is the writer's to change while it is open, and so is the last fragment: a repair touches neither.
        guard found.value.state == .open, found.value.lastFragment == metadata.value.lastFragment else {
            return fail(.fenced, into: &actions)
        }
        metadata = found
        if phase == .closing { proposeClose(into: &actions) } else { proposeChange(into: &actions) }
    }

    /// The new fragment is in metadata: what the replaced nodes had counts no more, and the new ones get all that is pending.
    private mutating func changed(to new: Versioned<LedgerMetadata>, into actions: inout [WriterAction]) {
        guard let done = change else { return }
        metadata = new
        change = nil
        pending.forget(done.positions)
        failed = failed.subtracting(done.positions)
        for index in 0..<pending.count { send(index, into: &actions) }
        changeEnsemble(into: &actions)
        complete(into: &actions)
    }

    private mutating func closeIfDrained(into actions: inout [WriterAction]) {
        guard phase == .draining, pending.isEmpty, change == nil else { return }
        phase = .closing
        proposeClose(into: &actions)
    }

    private mutating func proposeClose(into actions: inout [WriterAction]) {
        do {
            let closed = try metadata.value.closing(at: lastAddConfirmed)
            ask(.compareAndSwap(ledger, expected: metadata.version, new: closed), into: &actions)
        } catch {
            fail(.metadata(error), into: &actions)
        }
    }

    private mutating func finishClose(into actions: inout [WriterAction]) {
        phase = .closed
        actions.append(.closed(last: lastAddConfirmed))
    }
}
