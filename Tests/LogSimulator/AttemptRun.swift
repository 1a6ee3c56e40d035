// An attempt of a job: takes the log over, writes entries, rolls to new ledgers, trims, until it is done or has lost the log.

import CisternLogProtocol
import CisternPrimitives

final class AttemptRun {
    private let attempt: UInt64
    let client: Client
    private unowned let world: World
    private var takeover: LogTakeover
    private var owner: LogOwner?
    private var writer: WriterRun?
    /// Of ledgers that this attempt created: they are written from there on, whatever became of them meanwhile.
    private var created: [LedgerID: Versioned<LedgerMetadata>] = [:]
    private var toWrite: Int
    private var written = 0
    private var inLedger = 0
    private var recoveries = 0
    private var isDone = false

    init(_ attempt: UInt64, world: World) {
        self.attempt = attempt
        self.world = world
        client = world.client("attempt \(attempt)")
        toWrite = world.scenario.entriesPerAttempt
        takeover = LogTakeover(attempt: attempt)
        drive { $0.start(into: &$1) }
    }

    // MARK: Takeover

    private func drive(_ event: (inout LogTakeover, inout [LogTakeover.Action]) -> Void) {
        var actions: [LogTakeover.Action] = []
        event(&takeover, &actions)
        for action in actions {
            switch action {
            case .metadata(let request):
                // A refused answer is asked again at once; the host waits a little.
                client.after(world.pick(4)) { [self] in
                    client.ask(request) { [self] result in drive { $0.receive(result, into: &$1) } }
                }
            case .recover(let ledger): recover(ledger)
            case .createLedger:
                client.after(1 + world.pick(5)) { [self] in
                    let ledger = createLedger()
                    drive { $0.created(ledger, into: &$1) }
                }
            case .owned(let list, let ledger, _):
                world.trace("\(client.name) has the log: \(list.value.ledgers)")
                world.oracle.tookOver(list.value, attempt: attempt)
                self.owner = LogOwner(attempt: attempt, list: list, ledger: ledger, rules: world.rules)
                write(to: ledger)
                appendNext()
                tick()
            case .lost(let owner, _):
                world.trace("\(client.name) has lost the log to attempt \(owner)")
                isDone = true
            case .failed(let failure, _):
                world.trace("\(client.name) cannot take the log over: \(failure)")
                isDone = true
            }
        }
    }

    private func createLedger() -> LedgerID {
        let ledger = world.createLedger()
        created[ledger] = world.metadata.ledgers[ledger]
        return ledger
    }

    private func recover(_ ledger: LedgerID) {
        _ = RecoveryRun(ledger, client: client, world: world) { [self] result in
            recoveries += 1
            switch result {
            case .success(let last): drive { $0.recovered(ledger, last: last, into: &$1) }
            case .failure(.deleted):
                // Trimmed meanwhile: the list is read again.
                takeover = LogTakeover(attempt: attempt)
                client.after(5) { [self] in drive { $0.start(into: &$1) } }
            case .failure(let failure):
                guard recoveries < 12 else { return drive { $0.failed(failure, into: &$1) } }
                client.after(20 + world.pick(20)) { [self] in recover(ledger) }
            }
        }
    }

    // MARK: Writing

    private func write(to ledger: LedgerID) {
        guard let metadata = created[ledger] else {
            isDone = true
            return
        }
        inLedger = 0
        writer = WriterRun(
            ledger, metadata, client: client, world: world,
            closed: { [self] in own { $0.closed(ledger, into: &$1) } }, failed: { [self] _ in isDone = true })
    }

    private func appendNext() {
        client.after(world.pick(world.pick(6) == 0 ? 40 : 5)) { [self] in
            guard !isDone, let writer else { return }
            guard written < toWrite else { return finish(writer) }
            if inLedger >= world.scenario.entriesPerLedger { own { $0.roll(into: &$1) } }
            // What comes while a roll is on its way goes to the present ledger.
            let body = [UInt8(truncatingIfNeeded: attempt), UInt8(truncatingIfNeeded: written), 7, 7]
            if self.writer?.append(body) == true {
                written += 1
                inLedger += 1
            }
            appendNext()
        }
    }

    private func finish(_ writer: WriterRun) {
        // Some close their ledger, some just stop.
        guard world.pick(2) == 0 else { return }
        own { $0.abandon(into: &$1) }
        writer.close()
    }

    // MARK: The list

    private func own(_ event: (inout LogOwner, inout [LogOwner.Action]) -> Void) {
        guard owner != nil, !isDone else { return }
        var actions: [LogOwner.Action] = []
        event(&owner!, &actions)
        for action in actions {
            switch action {
            case .createLedger:
                client.after(1 + world.pick(5)) { [self] in
                    if world.chance(world.faults.metadataLoss) { return own { machine, _ in machine.creationFailed() } }
                    let ledger = createLedger()
                    own { $0.created(ledger, into: &$1) }
                }
            case .metadata(let request):
                client.ask(request) { [self] result in own { $0.receive(result, into: &$1) } }
            case .rolled(_, let next):
                world.trace("\(client.name) rolls to \(next)")
                let old = writer
                write(to: next)
                old?.close()
            case .trimmed(_, let ledgers): delete(ledgers)
            case .discard(let ledger): delete([ledger])
            case .lost(let owner, _):
                world.trace("\(client.name) has lost the log to attempt \(owner)")
                isDone = true
            }
        }
    }

    private func tick() {
        client.after(20) { [self] in
            guard !isDone else { return }
            own { $0.retry(into: &$1) }
            tick()
        }
    }

    private func delete(_ ledgers: [LedgerID]) {
        for ledger in ledgers {
            let nodes = world.metadata.ledgers[ledger]?.value.allNodes ?? []
            world.metadata.delete(ledger)
            for node in nodes.sorted() {
                client.send(.delete(ledger), to: node, onReply: { _ in }, onSilence: {})
            }
        }
    }

    /// All before an acknowledged place is not needed any more.
    func trim() {
        guard let writer, writer.lastAddConfirmed >= .first else { return }
        let point = LogSequenceNumber(ledger: writer.ledger, entry: writer.lastAddConfirmed)
        own { $0.trim(to: point, into: &$1) }
    }
}
