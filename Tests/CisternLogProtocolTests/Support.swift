// A handful of log nodes in memory, whose disks are synced at once unless a test holds them back.

import CisternLogProtocol
import CisternPrimitives

let ledger = LedgerID(7)

func node(_ id: UInt64) -> LogNodeID { LogNodeID(id) }
func nodes(_ ids: UInt64...) -> [LogNodeID] { ids.map(LogNodeID.init) }
func entry(_ id: Int64) -> EntryID { EntryID(id) }

func metadata(_ sizes: (Int, Int, Int), _ ensemble: [LogNodeID]) -> LedgerMetadata {
    try! LedgerMetadata(
        sizes: QuorumSizes(ensemble: sizes.0, write: sizes.1, ack: sizes.2), ensemble: ensemble)
}

/// One log node with its disk.
struct TestNode {
    typealias Action = LogNodeAction<Int>

    var machine = LogNode<Int>()
    var bodies: [EntryID: [UInt8]] = [:]
    var journal: [JournalRecord] = []
    var durable = 0
    var holdsSyncs = false
    var failsReads = false
    var replies: [Int: NodeReply] = [:]
    var checks: [LedgerID] = []
    var discarded: [LedgerID] = []

    init(started: Bool = true) {
        if started { run { $0.start(journalVerified: true, highestLedger: LedgerID(0), incarnation: 1, into: &$1) } }
    }

    mutating func run(_ event: (inout LogNode<Int>, inout [Action]) -> Void) {
        var actions: [Action] = []
        event(&machine, &actions)
        var next = 0
        while next < actions.count {
            switch actions[next] {
            case .append(let record, _):
                journal.append(record)
                if case .add(_, let entry, _, let body) = record { bodies[entry] = body }
            case .read(let token, _, let entries, _):
                let results = entries.map { id -> JournalRead in
                    guard !failsReads, let body = bodies[id] else { return .failed }
                    return .body(body)
                }
                machine.read(token, results: results, into: &actions)
            case .reply(let token, let reply): replies[token] = reply
            case .checkLedger(let ledger): checks.append(ledger)
            case .discard(let ledger): discarded.append(ledger)
            }
            next += 1
        }
        if !holdsSyncs && durable < journal.count { sync() }
    }

    mutating func sync() {
        durable = journal.count
        let sequence = JournalSequence(UInt64(durable - replayed))
        run { $0.synced(through: sequence, into: &$1) }
    }

    var replayed = 0
    var incarnation: UInt64 = 1

    /// Stops and comes back with what was durable.
    mutating func restart(verified: Bool = true, highestLedger: LedgerID = LedgerID(0)) {
        journal.removeLast(journal.count - durable)
        machine = LogNode<Int>()
        for record in journal { machine.replay(record) }
        replayed = journal.count
        replies = [:]
        incarnation += 1
        run { [incarnation] in
            $0.start(
                journalVerified: verified, highestLedger: highestLedger, incarnation: incarnation, into: &$1)
        }
    }

    mutating func ask(_ request: NodeRequest) -> NodeReply? {
        let token = Int.random(in: 0..<Int.max)
        run { $0.receive(request, token: token, into: &$1) }
        return replies[token]
    }

    mutating func add(_ id: Int64, _ body: [UInt8] = [1], lac: Int64 = -1, recovery: Bool = false) -> NodeRefusal?? {
        let request = AddRequest(ledger: ledger, entry: entry(id), lac: entry(lac), body: body, isRecovery: recovery)
        guard case .add(let reply)? = ask(.add(request)) else { return .none }
        return .some(reply.refusal)
    }

    mutating func read(_ id: Int64, count: Int = 1, fence: Bool = false) -> ReadReply? {
        let request = ReadRequest(ledger: ledger, first: entry(id), count: count, bytesMax: 1 << 20, fence: fence)
        guard case .read(let reply)? = ask(.read(request)) else { return nil }
        return reply
    }

    mutating func lac(fence: Bool = false) -> ReadLACReply? {
        guard case .lac(let reply)? = ask(.readLAC(ReadLACRequest(ledger: ledger, fence: fence))) else { return nil }
        return reply
    }
}

/// Nodes and metadata that answer at once, for machines of the client side.
struct TestCluster {
    var members: [LogNodeID: TestNode] = [:]
    var stored: Versioned<LedgerMetadata>
    var down: Set<LogNodeID> = []
    var requests = 0

    init(_ metadata: LedgerMetadata, spare: [LogNodeID] = []) {
        stored = Versioned(metadata, version: 1)
        for id in metadata.allNodes.union(spare) { members[id] = TestNode() }
    }

    /// nil: the node does not answer.
    mutating func ask(_ request: NodeRequest, _ id: LogNodeID) -> NodeReply? {
        requests += 1
        return down.contains(id) ? nil : members[id]!.ask(request)
    }

    mutating func ask(_ request: LedgerMetadataRequest) -> LedgerMetadataResult {
        switch request {
        case .get: return .found(stored)
        case .compareAndSwap(_, let expected, let new):
            guard expected == stored.version else { return .conflict }
            stored = Versioned(new, version: expected + 1)
            return .written(stored.version)
        }
    }

    /// Runs a recovery to its end.
    mutating func recover(candidates: [LogNodeID] = [], batch: Int = 1024, bytesMax: Int = 4 << 20) -> RecoveryAction? {
        var recovery = LedgerRecovery(ledger: ledger, candidates: candidates, batch: batch, bytesMax: bytesMax)
        var actions: [RecoveryAction] = []
        recovery.start(into: &actions)
        var index = 0
        while index < actions.count {
            switch actions[index] {
            case .send(let request, let id):
                if let reply = ask(request, id) {
                    recovery.receive(reply, from: id, into: &actions)
                } else {
                    recovery.nodeFailed(id, into: &actions)
                }
            case .metadata(let request): recovery.receive(ask(request), into: &actions)
            case .closed, .failed: return actions[index]
            }
            index += 1
        }
        return nil
    }

    /// A writer of this ledger that has the cluster answer each of its actions.
    mutating func run(_ writer: inout LedgerWriter, _ actions: inout [WriterAction]) -> [WriterAction] {
        var events: [WriterAction] = []
        var index = 0
        while index < actions.count {
            switch actions[index] {
            case .send(let request, let id):
                if case .add(let reply)? = ask(request, id) {
                    writer.receive(reply, from: id, into: &actions)
                } else if case .add = request {
                    writer.nodeFailed(id, into: &actions)
                }
            case .metadata(let request): writer.receive(ask(request), into: &actions)
            case .acknowledged, .closed, .failed: events.append(actions[index])
            }
            index += 1
        }
        actions = []
        return events
    }

    func writer(candidates: [LogNodeID] = []) -> LedgerWriter {
        LedgerWriter(ledger: ledger, metadata: stored, candidates: candidates, windowBytes: 1 << 20)
    }

    mutating func append(_ writer: inout LedgerWriter, _ bodies: [[UInt8]]) -> [WriterAction] {
        var actions: [WriterAction] = []
        for body in bodies { _ = writer.append(body, into: &actions) }
        return run(&writer, &actions)
    }
}
