// A log node at work: the machine of `CisternLogProtocol`, its journal, and one lane that both are on.
//
//   requests of clients ─► machine ─┬─► records ─► journal ─► synced ─► machine ─► answers
//                                   ├─► reads ─► journal's reader ─► machine ─► answers
//                                   └─► "does this ledger exist?" ─► metadata
//
// What one job of the lane brings about is handed over once: records as one batch, answers as one call to each client.

package import CisternFileSystem
package import CisternLogProtocol
package import CisternPrimitives

/// What a node asks of metadata; answers may come on any thread.
package struct LogNodeMetadata: Sendable {
    /// The youngest ledger that there is; nil when metadata gives no answer.
    package var highestLedger: @Sendable (@escaping @Sendable (LedgerID?) -> Void) -> Void
    /// nil when metadata gives no answer.
    package var exists: @Sendable (LedgerID, @escaping @Sendable (Bool?) -> Void) -> Void

    package init(
        highestLedger: @escaping @Sendable (@escaping @Sendable (LedgerID?) -> Void) -> Void,
        exists: @escaping @Sendable (LedgerID, @escaping @Sendable (Bool?) -> Void) -> Void
    ) {
        self.highestLedger = highestLedger
        self.exists = exists
    }
}

package struct LogNodeOptions: Sendable {
    package var journal: JournalOptions
    /// The node was never registered: only then may the directory be empty.
    package var isNew: Bool
    /// Between two looks for ledgers that metadata does not have any more.
    package var collectMilliseconds: UInt64 = 60_000

    package init(journal: JournalOptions, isNew: Bool) {
        self.journal = journal
        self.isNew = isNew
    }
}

/// `@unchecked Sendable`: its variables are the owner lane's.
@safe package final class LogNodeHost: LogNodeService, JournalOwner, @unchecked Sendable {
    private typealias Action = LogNodeAction<Int>

    package let options: LogNodeOptions
    /// What did not verify when the directory was opened: then the node began in limbo.
    package let damage: [CorruptionError]
    private let lane: any BackgroundLane
    private let metadata: LogNodeMetadata
    private let lock: any DirectoryLock
    private let fileSystem: any FileSystem
    private var journal: Journal!
    private var machine = LogNode<Int>()
    private var calls: [Int: Call] = [:]
    private var counts = LogNodeRequestCounts()
    private var nextToken = 0
    private var answers: [ObjectIdentifier: (client: any LogNodeServiceClient, answers: [LogNodeAnswer])] = [:]
    private var isServing = false
    private var isReadOnly = false
    private var failure: JournalError?
    /// Nobody waits for news here any more.
    private var isReleasing = false

    private struct Call {
        let client: any LogNodeServiceClient
        let id: UInt64
        let ledger: LedgerID
    }

    /// Opens the directory, replays the journal and begins to serve. Blocks for the replay.
    /// - Parameters:
    ///   - lane: this node's alone; ended by `stop`.
    package init(
        _ options: LogNodeOptions, fileSystem: any FileSystem, lanes: JournalLanes, lane: any BackgroundLane,
        metadata: LogNodeMetadata
    ) throws(JournalError) {
        self.options = options
        self.lane = lane
        self.metadata = metadata
        self.fileSystem = fileSystem
        let directory = options.journal.directory
        do throws(FileError) {
            try fileSystem.createDirectory(directory)
            lock = try fileSystem.lock(directory + "/" + JournalFiles.lock)
        } catch {
            throw .file(error)
        }
        try LogNodeCookie.claim(
            directory, of: options.journal.node, cluster: options.journal.cluster, isNew: options.isNew,
            fileSystem: fileSystem)
        var replayed = LogNode<Int>()
        let opened = try Journal.open(options.journal, fileSystem: fileSystem, lanes: lanes, ownerLane: lane) {
            replayed.replay($0)
        }
        machine = replayed
        damage = opened.damage
        journal = opened.journal
        journal.owner = self
        lane.submit { [self] in
            journal.adopt()
            start()
        }
    }

    /// Ends the node; what was asked and not answered never is. Not from the node's own lane.
    package func stop() {
        lane.drain()
        lane.stop()
        journal.close()
        lock.release()
    }

    private func start() {
        if damage.isEmpty { return serve(highestLedger: LedgerID(0)) }
        // Nothing up to the youngest ledger can be called absent.
        metadata.highestLedger { [self] highest in
            lane.submit { [self] in
                if let highest { return serve(highestLedger: highest) }
                lane.submit(afterMilliseconds: options.journal.retryMilliseconds) { [self] in start() }
            }
        }
    }

    private func serve(highestLedger: LedgerID) {
        isServing = true
        var random = SystemRandomNumberGenerator()
        let incarnation = random.next()
        drive { [damage] in
            $0.start(
                journalVerified: damage.isEmpty, highestLedger: highestLedger, incarnation: incarnation, into: &$1)
        }
        machine.setReadOnly(isReadOnly)
        collectLater()
    }

    // MARK: LogNodeService

    package func submit(_ requests: [LogNodeCall], from client: any LogNodeServiceClient) {
        lane.submit { [self] in
            drive { machine, actions in
                for call in requests {
                    nextToken += 1
                    counts.note(call.request)
                    switch call.request {
                    case .add, .read, .readLAC:
                        calls[nextToken] = Call(client: client, id: call.id, ledger: call.request.ledger)
                    case .writeLAC, .delete: break
                    }
                    if case .add(let add) = call.request, add.body.count > options.journal.bodyBytesMax {
                        let reply = AddReply(ledger: add.ledger, entry: add.entry, refusal: .unavailable)
                        actions.append(.reply(nextToken, .add(reply)))
                        continue
                    }
                    machine.receive(call.request, token: nextToken, into: &actions)
                    if isReleasing { machine.stopWaiting(nextToken, ledger: call.request.ledger, into: &actions) }
                }
            }
        }
    }

    package func disconnected(_ client: any LogNodeServiceClient) {
        lane.submit { [self] in
            let gone = calls.filter { $0.value.client === client }
            drive { machine, actions in
                for (token, call) in gone {
                    calls[token] = nil
                    machine.stopWaiting(token, ledger: call.ledger, into: &actions)
                }
            }
        }
    }

    /// Answers those who wait for a newer last add confirmed with what there is, from now on at once: the node is about to stop.
    package func releaseWaiters() {
        lane.submit { [self] in
            isReleasing = true
            drive { machine, actions in
                for (token, call) in calls { machine.stopWaiting(token, ledger: call.ledger, into: &actions) }
            }
        }
    }

    // MARK: JournalOwner

    package func synced(through sequence: JournalSequence) { drive { $0.synced(through: sequence, into: &$1) } }

    package func journalFailed(_ error: JournalError) {
        failure = error
        drive { $0.journalFailed(into: &$1) }
    }

    package func roomChanged(_ hasRoom: Bool) {
        guard hasRoom == isReadOnly else { return }
        isReadOnly = !hasRoom
        machine.setReadOnly(isReadOnly)
    }

    package func entriesDamaged(_ ledger: LedgerID, _ entries: [EntryID]) { machine.entriesDamaged(ledger, entries) }

    package func facts(of ledger: LedgerID) -> [JournalRecord] {
        guard let status = machine.status(of: ledger) else { return [] }
        var facts: [JournalRecord] = []
        if status.lac >= .first { facts.append(.lac(ledger, status.lac)) }
        if status.isFenced { facts.append(.fence(ledger)) }
        if machine.wasRepaired(ledger) { facts.append(.repaired(ledger)) }
        return facts
    }

    package var deletedLedgers: [ClosedRange<LedgerID>] { machine.deletedLedgers }

    // MARK: Repair and inspection

    /// What this node has to get back from its peers.
    /// - Parameter ledgers: those of which to say whether they are in limbo.
    package func losses(
        among ledgers: [LedgerID] = [], completion: @escaping @Sendable (LogNodeLosses) -> Void
    ) {
        lane.submit { [self] in
            let damaged = machine.damagedLedgers.map { ($0, machine.damagedEntries(of: $0)) }
            completion(
                LogNodeLosses(
                    incarnation: machine.incarnation, limboThrough: machine.limboThrough,
                    inLimbo: ledgers.filter(machine.isInLimbo),
                    damaged: Dictionary(uniqueKeysWithValues: damaged)))
        }
    }

    package func ledgerRepaired(_ ledger: LedgerID, incarnation: UInt64) {
        lane.submit { [self] in drive { $0.ledgerRepaired(ledger, incarnation: incarnation, into: &$1) } }
    }

    /// Reads all sealed segments and reports what is damaged to the machine.
    /// - Parameter bytesPerSecond: how fast at most; 0: as fast as the disk is.
    package func scrub(bytesPerSecond: UInt64 = 0, completion: @escaping @Sendable (Int) -> Void) {
        lane.submit { [self] in journal.scrub(bytesPerSecond: bytesPerSecond, completion: completion) }
    }

    package func status(_ completion: @escaping @Sendable (LogNodeStatus) -> Void) {
        lane.submit { [self] in
            var status = LogNodeStatus()
            let held = machine.heldLedgers
            status.isServing = isServing
            status.ledgers = held.count
            status.limboLedgers = held.count { machine.isInLimbo($0) }
            status.deletedRuns = machine.deletedLedgers.count
            status.sealedBytes = journal.sealedBytes
            status.unanswered = calls.count
            status.availableBytes = fileSystem.availableBytes(options.journal.directory)
            status.requests = counts
            status.segments = journal.segmentCount
            status.preparedSegments = journal.preparedSegmentCount
            status.isReadOnly = isReadOnly
            status.failure = failure
            status.journal = journal.metrics
            completion(status)
        }
    }

    /// Not after `stop`: then no answer comes.
    package func status() async -> LogNodeStatus {
        await withCheckedContinuation { continuation in status { continuation.resume(returning: $0) } }
    }

    package func collectGarbage() {
        lane.submit { [self] in drive { $0.collectGarbage(into: &$1) } }
    }

    private func collectLater() {
        lane.submit(afterMilliseconds: options.collectMilliseconds) { [self] in
            drive { $0.collectGarbage(into: &$1) }
            collectLater()
        }
    }

    // MARK: The machine

    private func drive(_ event: (inout LogNode<Int>, inout [LogNodeAction<Int>]) -> Void) {
        var actions: [Action] = []
        event(&machine, &actions)
        for action in actions { carryOut(action) }
        journal.commit()
        guard !answers.isEmpty else { return }
        let ready = answers
        answers = [:]
        for (client, answers) in ready.values { client.deliver(answers) }
    }

    private func carryOut(_ action: Action) {
        switch action {
        case .append(let record, let sequence): journal.append(record, sequence)
        case .read(let token, let ledger, let entries, let bytesMax):
            journal.read(ledger, entries, bytesMax: bytesMax) { [self] results in
                drive { $0.read(token, results: results, into: &$1) }
            }
        case .reply(let token, let reply):
            guard let call = calls.removeValue(forKey: token) else { return }
            counts.note(reply)
            let answer = LogNodeAnswer(id: call.id, reply: reply)
            answers[ObjectIdentifier(call.client), default: (call.client, [])].answers.append(answer)
        case .checkLedger(let ledger):
            counts.ledgerChecks += 1
            metadata.exists(ledger) { [self] exists in
                lane.submit { [self] in
                    if exists == nil { counts.ledgerChecksUnanswered += 1 }
                    drive { $0.ledgerChecked(ledger, exists: exists, into: &$1) }
                }
            }
        case .discard(let ledger):
            counts.ledgersDiscarded += 1
            journal.discard(ledger)
        }
    }
}
