// Recovery: closes the ledger of a writer that is gone, or that must be stopped, so that all agree on its last entry.
//
// 1. Metadata says IN_RECOVERY: the writer cannot change it any more.
// 2. Every node of the last fragment that answers is fenced, until no ack quorum is without a fenced node.
// 3. From the highest last add confirmed on, all nodes of the fragment are read in batches; every read fences too. An entry
//    exists when one node has it, and does not when Qw − Qa + 1 fenced nodes say so. The first one that does not ends
//    the ledger.
// 4. What exists is written back to those of its write quorum that have not shown it. A node that fails is replaced here, and
//    metadata learns of it in 5. An entry waits for the answers of an ack quorum, which the write-back needs anyway: most
//    entries turn out to be on one already.
// 5. Metadata says CLOSED. Whoever comes second finds that and takes its last entry.
//
// What two recoveries read may differ, what they close at may not: only one swap of step 5 succeeds, and it is on the
// version that the winner read. The ensembles of step 4 stay out of metadata until then, or a second recovery would
// look for entries on nodes that were never written to.
//
// For 1,000 entries: one round of fencing and one of reading, a bounded number of bytes an answer.

package import CisternPrimitives

package enum RecoveryAction: Hashable, Sendable {
    case send(NodeRequest, to: LogNodeID)
    case metadata(LedgerMetadataRequest)
    /// The ledger is closed, by this recovery or by someone else.
    case closed(Versioned<LedgerMetadata>, last: EntryID)
    /// The end; another recovery may try later.
    case failed(LedgerFailure)
}

package struct LedgerRecovery: Hashable, Sendable {
    package let ledger: LedgerID
    /// Entries asked for at a time.
    package let batch: Int
    /// Bytes of bodies in one answer of a node.
    package let bytesMax: Int

    private let rules: ProtocolRules
    private var phase = Phase.reading
    private var metadata: Versioned<LedgerMetadata>?
    private var candidates: [LogNodeID]
    /// The last request to metadata was not answered; `retry` asks again.
    private var metadataIsSilent = false

    /// The last fragment of metadata when fencing began, whose nodes are fenced and read. Positions of fencing and reading are
    /// its; what this recovery replaces is not looked for on new nodes.
    private var original: Fragment?

    private var fenced = PositionSet()
    private var failedReads = PositionSet()
    /// The highest last add confirmed, no lower than the entry before the last fragment.
    private var lac = EntryID.none

    // Reading.
    private var batchEnd = EntryID.none
    /// What is known of entries after `decided`, by offset.
    private var evidence: [Evidence] = []
    private var decided = EntryID.none
    /// By position: the entry that comes after the last answer of this batch.
    private var readUpTo: [EntryID] = []
    private var end: EntryID?

    // Writing back.
    private var pending = PendingAdds()
    private var ensemble: [LogNodeID] = []
    private var failedWrites = PositionSet()
    private var suspects: Set<LogNodeID> = []
    private var changes: [Fragment] = []
    /// Only in the mutant that writes its ensembles to metadata before the close.
    private var earlyWriteIsOut = false

    private enum Phase: Hashable { case reading, marking, fencing, recovering, closing, done }

    private struct Evidence: Hashable {
        var body: [UInt8]?
        /// Nodes that have `body`, durably: what they gave comes out of their journals.
        var holders = PositionSet()
        var negatives = PositionSet()
        var unknowns = PositionSet()
        /// Nodes that have another body.
        var others = PositionSet()

        var answered: PositionSet { holders.union(negatives).union(unknowns).union(others) }
    }

    package init(
        ledger: LedgerID, candidates: [LogNodeID], batch: Int = 1024, bytesMax: Int = 4 << 20,
        rules: ProtocolRules = .standard
    ) {
        precondition(batch >= 1 && batch <= ReadRequest.countMax, "batch of \(batch)")
        self.ledger = ledger
        self.candidates = candidates
        self.batch = batch
        self.bytesMax = bytesMax
        self.rules = rules
    }

    package var isDone: Bool { phase == .done }

    // MARK: Events

    package mutating func start(into actions: inout [RecoveryAction]) { ask(.get(ledger), into: &actions) }

    package mutating func receive(_ result: LedgerMetadataResult, into actions: inout [RecoveryAction]) {
        guard phase != .done else { return }
        switch result {
        case .found(let found): adopt(found, into: &actions)
        case .written(let version): written(version, into: &actions)
        case .conflict: ask(.get(ledger), into: &actions)
        case .missing: fail(.deleted, into: &actions)
        case .unavailable: metadataIsSilent = true
        }
    }

    package mutating func receive(_ reply: NodeReply, from node: LogNodeID, into actions: inout [RecoveryAction]) {
        guard phase == .fencing || phase == .recovering, reply.ledger == ledger else { return }
        switch reply {
        case .lac(let reply):
            if reply.refusal != nil { return nodeFailed(node, into: &actions) }
            heard(reply.lac, isFenced: reply.isFenced, from: node)
            startReadingIfFenced(into: &actions)
        case .read(let reply):
            if reply.refusal != nil { return nodeFailed(node, into: &actions) }
            receive(reply, from: node, into: &actions)
        case .add(let reply):
            switch reply.refusal {
            case nil: acknowledge(reply.entry, node: node, into: &actions)
            case .conflict: fail(.conflict(reply.entry), into: &actions)
            default: nodeFailed(node, into: &actions)
            }
        }
    }

    /// The connection broke, or something was not answered in time.
    package mutating func nodeFailed(_ node: LogNodeID, into actions: inout [RecoveryAction]) {
        guard phase == .fencing || phase == .recovering else { return }
        suspects.insert(node)
        if let position = source.position(of: node), failedReads.contains(position) == false {
            failedReads.insert(position)
            if phase == .fencing { failIfNotFenceable(into: &actions) }
        }
        guard phase == .recovering else { return }
        if let position = ensemble.firstIndex(of: node) {
            failedWrites.insert(position)
            replaceFailed(into: &actions)
        }
        advance(into: &actions)
    }

    /// From a timer: asks metadata again if it did not answer.
    package mutating func retry(into actions: inout [RecoveryAction]) {
        guard phase != .done, metadataIsSilent else { return }
        ask(.get(ledger), into: &actions)
    }

    // MARK: Metadata

    private mutating func ask(_ request: LedgerMetadataRequest, into actions: inout [RecoveryAction]) {
        metadataIsSilent = false
        actions.append(.metadata(request))
    }

    private mutating func adopt(_ found: Versioned<LedgerMetadata>, into actions: inout [RecoveryAction]) {
        if let last = found.value.closedLastEntry {
            phase = .done
            return actions.append(.closed(found, last: last))
        }
        switch phase {
        case .reading, .marking:
            metadata = found
            found.value.state == .open ? mark(into: &actions) : startFencing(into: &actions)
        case .closing, .recovering:
            // A swap failed or was not answered. What this recovery did stands on the last fragment that it read.
            guard found.value.lastFragment == metadata?.value.lastFragment, found.value.state == .inRecovery else {
                return restart(found, into: &actions)
            }
            metadata = found
            if phase == .closing { proposeClose(into: &actions) }
        case .fencing, .done: break
        }
    }

    private mutating func written(_ version: MetadataVersion, into actions: inout [RecoveryAction]) {
        guard let old = metadata else { return }
        do {
            switch phase {
            case .marking:
                metadata = Versioned(try old.value.startingRecovery(), version: version)
                startFencing(into: &actions)
            case .closing:
                guard let end else { return }
                let closed = try old.value.closingRecovery(at: end, changes: changes, rules: rules)
                phase = .done
                actions.append(.closed(Versioned(closed, version: version), last: end))
            case .recovering:
                metadata = Versioned(try old.value.changingEnsembleInRecovery(changes), version: version)
                changes = []
                earlyWriteIsOut = false
                advance(into: &actions)
            case .reading, .fencing, .done: break
            }
        } catch {
            fail(.metadata(error), into: &actions)
        }
    }

    private mutating func mark(into actions: inout [RecoveryAction]) {
        guard let old = metadata else { return }
        phase = .marking
        do {
            ask(.compareAndSwap(ledger, expected: old.version, new: try old.value.startingRecovery()), into: &actions)
        } catch {
            fail(.metadata(error), into: &actions)
        }
    }

    private mutating func proposeClose(into actions: inout [RecoveryAction]) {
        guard let old = metadata, let end else { return }
        phase = .closing
        do {
            let closed = try old.value.closingRecovery(at: end, changes: changes, rules: rules)
            ask(.compareAndSwap(ledger, expected: old.version, new: closed), into: &actions)
        } catch {
            fail(.metadata(error), into: &actions)
        }
    }

    /// Metadata is not what this recovery stands on: all that it learned is forgotten.
    private mutating func restart(_ found: Versioned<LedgerMetadata>, into actions: inout [RecoveryAction]) {
        self = LedgerRecovery(ledger: ledger, candidates: candidates, batch: batch, bytesMax: bytesMax, rules: rules)
        adopt(found, into: &actions)
    }

    private mutating func fail(_ failure: LedgerFailure, into actions: inout [RecoveryAction]) {
        phase = .done
        actions.append(.failed(failure))
    }
}

// MARK: - Fencing

extension LedgerRecovery {
    private var sizes: QuorumSizes {
        guard let metadata else { preconditionFailure("recovery of \(ledger) has no metadata") }
        return metadata.value.sizes
    }

    private var source: Fragment {
        guard let original else { preconditionFailure("recovery of \(ledger) reads before it has metadata") }
        if rules.keep(.recoveryReadsOriginalEnsemble) { return original }
        return Fragment(firstEntry: original.firstEntry, ensemble: ensemble)
    }

    private mutating func startFencing(into actions: inout [RecoveryAction]) {
        guard let fragment = metadata?.value.lastFragment else { return }
        phase = .fencing
        original = fragment
        if rules.keep(.recoveryHasFloor) { lac = fragment.firstEntry.previous }
        ensemble = fragment.ensemble
        let request = NodeRequest.readLAC(ReadLACRequest(ledger: ledger, fence: true))
        for node in fragment.ensemble { actions.append(.send(request, to: node)) }
    }

    private mutating func heard(_ lac: EntryID, isFenced: Bool, from node: LogNodeID) {
        guard let position = source.position(of: node) else { return }
        if phase == .fencing { self.lac = max(self.lac, lac) }
        if isFenced { fenced.insert(position) }
    }

    private var isFenced: Bool {
        if rules.keep(.fenceCoversEveryQuorum) { return sizes.covers(fenced) }
        return !fenced.isEmpty
    }

    private mutating func failIfNotFenceable(into actions: inout [RecoveryAction]) {
        let all = PositionSet(bits: UInt32(truncatingIfNeeded: UInt64(1) << UInt64(sizes.ensemble) - 1))
        let left = all.subtracting(failedReads).union(fenced)
        if !sizes.covers(left) { fail(.notFenced, into: &actions) }
    }

    private mutating func startReadingIfFenced(into actions: inout [RecoveryAction]) {
        guard phase == .fencing, isFenced else { return }
        phase = .recovering
        decided = lac
        batchEnd = lac
        readBatch(into: &actions)
    }
}

// MARK: - Reading

extension LedgerRecovery {
    private mutating func readBatch(into actions: inout [RecoveryAction]) {
        let first = batchEnd.next
        batchEnd = batchEnd.advanced(by: batch)
        evidence = Array(repeating: Evidence(), count: batch)
        readUpTo = Array(repeating: first, count: sizes.ensemble)
        for position in 0..<sizes.ensemble where !failedReads.contains(position) {
            read(position, into: &actions)
        }
        // Without a node left to ask, the batch is undecided at once.
        advance(into: &actions)
    }

    private func read(_ position: Int, into actions: inout [RecoveryAction]) {
        let first = readUpTo[position]
        let request = ReadRequest(
            ledger: ledger, first: first, count: Int(batchEnd.rawValue - first.rawValue) + 1, bytesMax: bytesMax,
            fence: rules.keep(.recoveryReadsFence))
        actions.append(.send(.read(request), to: source.ensemble[position]))
    }

    private mutating func receive(_ reply: ReadReply, from node: LogNodeID, into actions: inout [RecoveryAction]) {
        heard(reply.lac, isFenced: reply.isFenced, from: node)
        startReadingIfFenced(into: &actions)
        guard phase == .recovering, end == nil, let position = source.position(of: node) else { return }
        for (offset, answer) in reply.answers.enumerated() {
            note(answer, of: reply.first.advanced(by: offset), at: position, isFenced: reply.isFenced)
        }
        // The answer was cut: the same node is asked for the rest.
        let next = reply.first.advanced(by: reply.answers.count)
        if reply.first <= readUpTo[position], next > readUpTo[position] {
            readUpTo[position] = next
            if next <= batchEnd { read(position, into: &actions) }
        }
        advance(into: &actions)
    }

    private mutating func note(_ answer: EntryAnswer, of entry: EntryID, at position: Int, isFenced: Bool) {
        guard entry > decided, entry <= batchEnd, sizes.writeSet(of: entry).contains(position) else { return }
        let index = evidence.count - 1 - Int(batchEnd.rawValue - entry.rawValue)
        switch answer {
        case .present(let body):
            if evidence[index].body == nil { evidence[index].body = body }
            if evidence[index].body == body {
                evidence[index].holders.insert(position)
            } else {
                // It refuses the write-back.
                evidence[index].others.insert(position)
            }
        case .absent:
            if isFenced || !rules.keep(.recoveryReadsFence) {
                evidence[index].negatives.insert(position)
            } else {
                evidence[index].unknowns.insert(position)
            }
        case .unknown:
            if rules.keep(.unknownIsNotAbsent) {
                evidence[index].unknowns.insert(position)
            } else {
                evidence[index].negatives.insert(position)
            }
        }
    }

    /// Decides entries in their order as far as the evidence goes, then reads on or closes.
    private mutating func advance(into actions: inout [RecoveryAction]) {
        guard phase == .recovering else { return }
        while end == nil && decided < batchEnd {
            let entry = decided.next
            let known = evidence[evidence.count - 1 - Int(batchEnd.rawValue - entry.rawValue)]
            if let body = known.body {
                let silent = sizes.writeSet(of: entry).subtracting(failedReads).subtracting(known.answered)
                guard known.answered.count >= sizes.ack || silent.isEmpty else { return }
                decided = entry
                writeBack(entry, body, heldBy: known.holders, into: &actions)
                guard phase == .recovering else { return }
            } else if rulesOut(entry, known.negatives) {
                end = decided
            } else {
                let silent = sizes.writeSet(of: entry).subtracting(failedReads).subtracting(known.negatives)
                if silent.subtracting(known.unknowns).isEmpty { return fail(.undecided(entry), into: &actions) }
                return
            }
        }
        if end == nil { return readBatch(into: &actions) }
        if pending.isEmpty && !earlyWriteIsOut { proposeClose(into: &actions) }
    }

    private func rulesOut(_ entry: EntryID, _ negatives: PositionSet) -> Bool {
        if rules.keep(.absenceNeedsCoverage) { return sizes.rulesOut(entry, negatives: negatives) }
        return !negatives.isEmpty
    }
}

// MARK: - Writing back

extension LedgerRecovery {
    private mutating func writeBack(
        _ entry: EntryID, _ body: [UInt8], heldBy holders: PositionSet, into actions: inout [RecoveryAction]
    ) {
        guard rules.keep(.recoveryWritesBack) else { return }
        var add = PendingAdd(entry: entry, body: body, writeSet: sizes.writeSet(of: entry))
        // Where another node has taken a holder's place, that one has nothing.
        for position in 0..<sizes.ensemble
        where holders.contains(position) && ensemble[position] == source.ensemble[position] {
            add.sent.insert(position)
            add.acknowledged.insert(position)
        }
        pending.append(add)
        replaceFailed(into: &actions)
        guard phase == .recovering, let index = pending.index(of: entry) else { return }
        send(index, into: &actions)
        takeStable()
    }

    /// Forgets the first entries that an ack quorum has.
    private mutating func takeStable() {
        while let first = pending.first, first.acknowledged.count >= sizes.ack { pending.removeFirst() }
    }

    private mutating func send(_ index: Int, into actions: inout [RecoveryAction]) {
        let add = pending[index]
        let targets = add.writeSet.subtracting(add.sent).subtracting(failedWrites)
        guard !targets.isEmpty else { return }
        pending.markSent(index, to: targets)
        // Not the last entry written back: it is stable only when the ledger is closed.
        let confirmed = rules.keep(.recoveryKeepsLAC) ? lac : add.entry
        let request = NodeRequest.add(
            AddRequest(ledger: ledger, entry: add.entry, lac: confirmed, body: add.body, isRecovery: true))
        for position in 0..<sizes.ensemble where targets.contains(position) {
            actions.append(.send(request, to: ensemble[position]))
        }
    }

    private mutating func acknowledge(_ entry: EntryID, node: LogNodeID, into actions: inout [RecoveryAction]) {
        guard let position = ensemble.firstIndex(of: node), let index = pending.index(of: entry) else { return }
        pending.acknowledge(index, from: position)
        takeStable()
        advance(into: &actions)
    }

    /// Replaces failed nodes while there is something to write; without candidates an ack quorum of the others will do.
    private mutating func replaceFailed(into actions: inout [RecoveryAction]) {
        guard let first = pending.first, !failedWrites.isEmpty else { return }
        var replaced = PositionSet()
        for position in 0..<sizes.ensemble where failedWrites.contains(position) {
            guard let node = candidates.first(where: { !ensemble.contains($0) && !suspects.contains($0) }) else {
                break
            }
            ensemble[position] = node
            replaced.insert(position)
        }
        if !replaced.isEmpty {
            failedWrites = failedWrites.subtracting(replaced)
            // The mutant asks the new nodes, which have never been written to.
            if !rules.keep(.recoveryReadsOriginalEnsemble) { failedReads = failedReads.subtracting(replaced) }
            note(Fragment(firstEntry: first.entry, ensemble: ensemble), into: &actions)
            pending.forget(replaced)
            for index in 0..<pending.count { send(index, into: &actions) }
        }
        for index in 0..<pending.count {
            let left = pending[index].writeSet.subtracting(failedWrites).union(pending[index].acknowledged)
            if left.count < sizes.ack { return fail(.notEnoughNodes, into: &actions) }
        }
    }

    private mutating func note(_ change: Fragment, into actions: inout [RecoveryAction]) {
        if changes.last?.firstEntry == change.firstEntry { changes.removeLast() }
        changes.append(change)
        guard !rules.keep(.recoveryEnsemblesWaitForClose), let old = metadata,
            let early = try? old.value.changingEnsembleInRecovery(changes)
        else { return }
        earlyWriteIsOut = true
        ask(.compareAndSwap(ledger, expected: old.version, new: early), into: &actions)
    }
}
