// A log node in memory behind the border to its network: the production machine, a journal that is an array, and syncs that a test
// can hold back.

import CisternLogProtocol
import CisternPrimitives
import Synchronization

final class MemoryLogNode: LogNodeService {
    /// The client's number, then the id that it gave.
    typealias Token = Int

    static let idBits = 40

    struct State: Sendable {
        var machine = LogNode<Token>()
        var bodies: [LedgerID: [EntryID: [UInt8]]] = [:]
        var journal = 0
        var durable = 0
        var holdsSyncs = false
        var holdsReads = false
        var failsReads = false
        var heldReads: [(Token, LedgerID, [EntryID], Int)] = []
        var clients: [Int: any LogNodeServiceClient] = [:]
        var numbers: [ObjectIdentifier: Int] = [:]
        var nextNumber = 0
        // What a test looks at.
        var submits = 0
        var requests: [NodeRequest] = []
        var addBytes = 0
        var disconnects = 0
        /// Not delivered yet; by client.
        var answers: [Int: [LogNodeAnswer]] = [:]
    }

    private struct Guarded {
        var state = State()
        var waiters: [(predicate: @Sendable (State) -> Bool, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let guarded = Mutex(Guarded())

    init() {
        change { $0.run { $0.start(journalVerified: true, highestLedger: LedgerID(0), incarnation: 1, into: &$1) } }
    }

    var state: State { guarded.withLock { $0.state } }

    /// Changes the node, then delivers what became ready and wakes who waits for it.
    func change(_ body: (inout State) -> Void) {
        let (deliveries, ready) = guarded.withLock { guarded in
            body(&guarded.state)
            if !guarded.state.holdsSyncs { guarded.state.sync() }
            if !guarded.state.holdsReads { guarded.state.finishReads() }
            let deliveries = guarded.state.answers.compactMap { key, answers in
                guarded.state.clients[key].map { ($0, answers) }
            }
            guarded.state.answers = [:]
            let state = guarded.state
            let ready = guarded.waiters.filter { $0.predicate(state) }.map(\.continuation)
            guarded.waiters.removeAll { $0.predicate(state) }
            return (deliveries, ready)
        }
        for (client, answers) in deliveries { client.deliver(answers) }
        for continuation in ready { continuation.resume() }
    }

    func wait(_ predicate: @escaping @Sendable (State) -> Bool) async {
        await withCheckedContinuation { continuation in
            let now = guarded.withLock { guarded -> Bool in
                if predicate(guarded.state) { return true }
                guarded.waiters.append((predicate, continuation))
                return false
            }
            if now { continuation.resume() }
        }
    }

    // MARK: LogNodeService

    func submit(_ requests: [LogNodeCall], from client: any LogNodeServiceClient) {
        change { state in
            let number = state.number(of: client)
            state.submits += 1
            for call in requests {
                state.requests.append(call.request)
                if case .add(let add) = call.request { state.addBytes += add.body.count }
                state.run { $0.receive(call.request, token: number << MemoryLogNode.idBits | Int(call.id), into: &$1) }
            }
        }
    }

    func disconnected(_ client: any LogNodeServiceClient) {
        change { state in
            if let number = state.numbers.removeValue(forKey: ObjectIdentifier(client)) { state.clients[number] = nil }
            state.disconnects += 1
        }
    }
}

extension MemoryLogNode.State {
    fileprivate mutating func number(of client: any LogNodeServiceClient) -> Int {
        if let known = numbers[ObjectIdentifier(client)] { return known }
        nextNumber += 1
        numbers[ObjectIdentifier(client)] = nextNumber
        clients[nextNumber] = client
        return nextNumber
    }

    mutating func run(_ event: (inout LogNode<MemoryLogNode.Token>, inout [LogNodeAction<MemoryLogNode.Token>]) -> Void)
    {
        var actions: [LogNodeAction<MemoryLogNode.Token>] = []
        event(&machine, &actions)
        for action in actions {
            switch action {
            case .append(let record, _):
                journal += 1
                if case .add(let ledger, let entry, _, let body) = record { bodies[ledger, default: [:]][entry] = body }
            case .read(let token, let ledger, let entries, let bytesMax):
                heldReads.append((token, ledger, entries, bytesMax))
            case .reply(let token, let reply):
                let id = UInt64(token & (1 << MemoryLogNode.idBits - 1))
                answers[token >> MemoryLogNode.idBits, default: []].append(LogNodeAnswer(id: id, reply: reply))
            case .checkLedger, .discard: break
            }
        }
    }

    mutating func sync() {
        guard durable < journal else { return }
        durable = journal
        run { [durable] in $0.synced(through: JournalSequence(UInt64(durable)), into: &$1) }
    }

    mutating func finishReads() {
        while !heldReads.isEmpty {
            let (token, ledger, entries, bytesMax) = heldReads.removeFirst()
            var results: [JournalRead] = []
            var bytes = 0
            for entry in entries {
                let body = bodies[ledger]?[entry]
                bytes += body?.count ?? 0
                if !results.isEmpty && bytes > bytesMax { break }
                results.append(failsReads ? .failed : body.map { .body($0) } ?? .failed)
            }
            run { [results] in $0.read(token, results: results, into: &$1) }
        }
    }
}
