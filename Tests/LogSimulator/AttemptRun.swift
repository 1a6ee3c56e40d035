// An attempt of a job: takes the log over, writes entries, rolls to new ledgers, trims, until it is done or has lost the log.

import CisternLogProtocol
import CisternPrimitives

final class AttemptRun {
    private let attempt: UInt64
    let client: Client
    private unowned let world: World
    private var takeover: LogTakeover
    private var list: Versioned<LogMetadata>?
    private var writer: WriterRun?
    /// The ledger before, until it is closed. A takeover closes the last two of the list, so no third one is open.
    private var closing: WriterRun?
    /// Of ledgers that this attempt created: they are written from there on, whatever became of them meanwhile.
    private var created: [LedgerID: Versioned<LedgerMetadata>] = [:]
    private var toWrite: Int
    private var written = 0
    private var inLedger = 0
    private var recoveries = 0
    private var isDone = false
    private var isRolling = false

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
                self.list = list
                write(to: ledger)
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
        writer = WriterRun(ledger, metadata, client: client, world: world) { [self] _ in isDone = true }
        appendNext()
    }

    private func appendNext() {
        client.after(world.pick(world.pick(6) == 0 ? 40 : 5)) { [self] in
            guard !isDone, let writer else { return }
            guard written < toWrite else { return finish(writer) }
            if inLedger >= world.scenario.entriesPerLedger {
                if closing?.isDone == false { return appendNext() }
                if !isRolling { roll() }
                return
            }
            let body = [UInt8(truncatingIfNeeded: attempt), UInt8(truncatingIfNeeded: written), 7, 7]
            if writer.append(body) {
                written += 1
                inLedger += 1
            }
            appendNext()
        }
    }

    private func finish(_ writer: WriterRun) {
        // Some close their ledger, some just stop.
        if world.pick(2) == 0 { writer.close() }
    }

    /// The next ledger is put into the list, then the old one is closed.
    private func roll() {
        isRolling = true
        client.after(1 + world.pick(4)) { [self] in swapIn(createLedger()) }
    }

    private func swapIn(_ ledger: LedgerID) {
        guard let list, let new = try? list.value.rolled(to: ledger) else {
            isDone = true
            return
        }
        client.ask(.compareAndSwap(expected: list.version, new: new)) { [self] result in
            switch result {
            case .written(let version): rolled(to: ledger, Versioned(new, version: version))
            case .conflict, .unavailable, .found: readList(after: ledger)
            }
        }
    }

    private func readList(after ledger: LedgerID) {
        client.ask(.get) { [self] result in
            guard case .found(let found) = result else { return client.after(5) { [self] in readList(after: ledger) } }
            guard found.value.attempt == attempt else {
                isDone = true
                return
            }
            if found.value.ledgers.last == ledger { return rolled(to: ledger, found) }
            list = found
            swapIn(ledger)
        }
    }

    private func rolled(to ledger: LedgerID, _ list: Versioned<LogMetadata>) {
        self.list = list
        isRolling = false
        guard !isDone else { return }
        closing = writer
        writer?.close()
        write(to: ledger)
    }

    // MARK: Trimming

    /// All before an acknowledged place is not needed any more.
    func trim() {
        guard !isDone, !isRolling, let list, let writer, writer.lastAddConfirmed >= .first,
            let (new, removed) = try? list.value.trimmed(
                to: LogSequenceNumber(ledger: writer.ledger, entry: writer.lastAddConfirmed))
        else { return }
        isRolling = true
        client.ask(.compareAndSwap(expected: list.version, new: new)) { [self] result in
            isRolling = false
            guard case .written(let version) = result else { return resync() }
            self.list = Versioned(new, version: version)
            appendNext()
            for ledger in removed {
                let nodes = world.metadata.ledgers[ledger]?.value.allNodes ?? []
                world.metadata.delete(ledger)
                for node in nodes.sorted() {
                    client.send(.delete(ledger), to: node, onReply: { _ in }, onSilence: {})
                }
            }
        }
    }

    private func resync() {
        client.ask(.get) { [self] result in
            guard case .found(let found) = result else { return client.after(5) { [self] in resync() } }
            if found.value.attempt != attempt || found.value.ledgers.last != writer?.ledger {
                isDone = true
            } else {
                list = found
                appendNext()
            }
        }
    }
}
