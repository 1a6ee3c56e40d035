// The machines of the client side, each driven by a client as a host drives them: sends and metadata requests out, answers,
// silences and timers in.

import CisternLogProtocol
import CisternPrimitives

/// Recovers one ledger.
final class RecoveryRun {
    private let client: Client
    private unowned let world: World
    private var machine: LedgerRecovery
    private let ended: (Result<EntryID, LedgerFailure>) -> Void

    init(
        _ ledger: LedgerID, client: Client, world: World, ended: @escaping (Result<EntryID, LedgerFailure>) -> Void
    ) {
        self.client = client
        self.world = world
        self.ended = ended
        machine = LedgerRecovery(
            ledger: ledger, candidates: world.shuffledNodes(), batch: 1 + world.pick(1 + world.pick(8)),
            bytesMax: 1 + world.pick(40),
            rules: world.rules)
        world.trace("\(client.name) recovers \(ledger)")
        drive { $0.start(into: &$1) }
        tick()
    }

    private func tick() {
        client.after(20) { [self] in
            guard !machine.isDone else { return }
            drive { $0.retry(into: &$1) }
            tick()
        }
    }

    private func drive(_ event: (inout LedgerRecovery, inout [RecoveryAction]) -> Void) {
        var actions: [RecoveryAction] = []
        event(&machine, &actions)
        for action in actions {
            switch action {
            case .send(let request, let node):
                client.send(
                    request, to: node, onReply: { [self] reply in drive { $0.receive(reply, from: node, into: &$1) } },
                    onSilence: { [self] in drive { $0.nodeFailed(node, into: &$1) } })
            case .metadata(let request):
                client.ask(request) { [self] result in drive { $0.receive(result, into: &$1) } }
            case .closed(_, let last):
                world.trace("\(client.name) has \(machine.ledger) closed at \(last)")
                ended(.success(last))
            case .failed(let failure):
                world.trace("\(client.name) fails to recover \(machine.ledger): \(failure)")
                ended(.failure(failure))
            }
        }
    }
}

/// Writes one ledger.
final class WriterRun {
    let ledger: LedgerID
    private let client: Client
    private unowned let world: World
    private(set) var machine: LedgerWriter
    private var isDone = false
    private let closed: () -> Void
    private let failed: (LedgerFailure) -> Void

    init(
        _ ledger: LedgerID, _ metadata: Versioned<LedgerMetadata>, client: Client, world: World,
        closed: @escaping () -> Void, failed: @escaping (LedgerFailure) -> Void
    ) {
        self.ledger = ledger
        self.client = client
        self.world = world
        self.closed = closed
        self.failed = failed
        machine = LedgerWriter(
            ledger: ledger, metadata: metadata, candidates: world.shuffledNodes(), windowBytes: 24, rules: world.rules)
        tick()
    }

    var lastAddConfirmed: EntryID { machine.lastAddConfirmed }

    /// False when there is no room.
    func append(_ body: [UInt8]) -> Bool {
        guard machine.isOpen, machine.hasRoom(for: body.count) else { return false }
        // Before it is sent: nodes may answer at once.
        world.oracle.append(body, at: Place(ledger: ledger, entry: machine.nextEntry))
        drive { _ = $0.append(body, into: &$1) }
        return true
    }

    func close() { drive { $0.close(into: &$1) } }

    private func tick() {
        client.after(15 + world.pick(10)) { [self] in
            guard !isDone else { return }
            if world.pick(3) == 0 { drive { [world] in $0.setCandidates(world.shuffledNodes(), into: &$1) } }
            drive { $0.idle(into: &$1) }
            drive { $0.retry(into: &$1) }
            tick()
        }
    }

    private func drive(_ event: (inout LedgerWriter, inout [WriterAction]) -> Void) {
        var actions: [WriterAction] = []
        event(&machine, &actions)
        for action in actions {
            switch action {
            case .send(let request, let node):
                client.send(
                    request, to: node,
                    onReply: { [self] reply in
                        if case .add(let add) = reply { drive { $0.receive(add, from: node, into: &$1) } }
                    },
                    onSilence: { [self] in
                        // An add that others have acknowledged, or that went to a node which was replaced, is not missed.
                        if case .add(let add) = request, add.entry > machine.lastAddConfirmed {
                            drive { $0.nodeFailed(node, into: &$1) }
                        }
                    })
            case .metadata(let request):
                client.ask(request) { [self] result in drive { $0.receive(result, into: &$1) } }
            case .acknowledged(let last):
                world.trace("\(client.name): \(ledger) acknowledged through \(last)")
                world.oracle.acknowledged(ledger, through: last, metadata: machine.metadata.value)
            case .closed(let last):
                world.trace("\(client.name) closed \(ledger) at \(last)")
                isDone = true
                closed()
            case .failed(let failure):
                world.trace("\(client.name) has lost \(ledger): \(failure)")
                isDone = true
                failed(failure)
            }
        }
    }
}

/// Reads one ledger to its end.
final class ReaderRun {
    private let ledger: LedgerID
    private let client: Client
    private unowned let world: World
    private var machine: LedgerReader?
    private var next = EntryID.first
    private let ended: (Result<EntryID, LedgerFailure>) -> Void
    private var isDone = false

    init(
        _ ledger: LedgerID, client: Client, world: World, ended: @escaping (Result<EntryID, LedgerFailure>) -> Void
    ) {
        self.ledger = ledger
        self.client = client
        self.world = world
        self.ended = ended
        begin()
    }

    private func begin() {
        client.ask(.get(ledger)) { [self] result in
            switch result {
            case .found(let found):
                machine = LedgerReader(
                    ledger: ledger, metadata: found.value, from: .first, batch: 1 + world.pick(6))
                demand()
                tick()
            case .missing: end(.failure(.deleted))
            case .written, .conflict, .unavailable: client.after(10) { [self] in begin() }
            }
        }
    }

    private func demand() {
        drive { [next] in $0.demand(through: next.advanced(by: 8), into: &$1) }
    }

    private func tick() {
        client.after(25) { [self] in
            guard !isDone else { return }
            drive { $0.speculate(into: &$1) }
            demand()
            tick()
        }
    }

    private func end(_ result: Result<EntryID, LedgerFailure>) {
        isDone = true
        ended(result)
    }

    private func drive(_ event: (inout LedgerReader, inout [LedgerReader.Action]) -> Void) {
        guard machine != nil, !isDone else { return }
        var actions: [LedgerReader.Action] = []
        event(&machine!, &actions)
        for action in actions {
            switch action {
            case .send(let request, let node):
                client.send(
                    request, to: node, onReply: { [self] reply in drive { $0.receive(reply, from: node, into: &$1) } },
                    onSilence: { [self] in drive { $0.nodeFailed(node, into: &$1) } })
            case .metadata(let request):
                client.ask(request) { [self] result in drive { $0.receive(result, into: &$1) } }
            case .deliver(let first, let bodies):
                if first != next {
                    world.oracle.violate("a reader delivers in order", "\(ledger): \(first) after \(next)")
                }
                for (offset, body) in bodies.enumerated() {
                    world.oracle.delivered(body, at: Place(ledger: ledger, entry: first.advanced(by: offset)))
                }
                next = first.advanced(by: bodies.count)
                demand()
            case .ended(let last):
                if next != last.next {
                    world.oracle.violate("a reader delivers all", "\(ledger): up to \(next.previous) of \(last)")
                }
                end(.success(last))
            case .failed(let failure): end(.failure(failure))
            }
        }
    }
}

/// Copies one node's part of a fragment.
final class FragmentRepairRun {
    private let client: Client
    private unowned let world: World
    private var machine: FragmentRepair
    private var isDone = false
    private let ended: (Bool) -> Void

    init(
        _ ledger: LedgerID, _ metadata: Versioned<LedgerMetadata>, fragment: Int, node: LogNodeID, target: LogNodeID,
        client: Client, world: World, ended: @escaping (Bool) -> Void
    ) {
        self.client = client
        self.world = world
        self.ended = ended
        machine = FragmentRepair(
            ledger: ledger, metadata: metadata, fragment: fragment, node: node, target: target, batch: 1 + world.pick(4)
        )
        world.trace("\(client.name) copies \(ledger) fragment \(fragment) of \(node) to \(target)")
        drive { $0.start(into: &$1) }
    }

    private func drive(_ event: (inout FragmentRepair, inout [FragmentRepair.Action]) -> Void) {
        guard !isDone else { return }
        var actions: [FragmentRepair.Action] = []
        event(&machine, &actions)
        for action in actions {
            switch action {
            case .send(let request, let node):
                client.send(
                    request, to: node, onReply: { [self] reply in drive { $0.receive(reply, from: node, into: &$1) } },
                    onSilence: { [self] in drive { $0.nodeFailed(node, into: &$1) } })
            case .metadata(let request):
                client.ask(request) { [self] result in drive { $0.receive(result, into: &$1) } }
            case .repaired:
                isDone = true
                ended(true)
            case .failed(let failure):
                world.trace("\(client.name) fails to repair \(machine.ledger): \(failure)")
                isDone = true
                ended(false)
            }
        }
    }
}
