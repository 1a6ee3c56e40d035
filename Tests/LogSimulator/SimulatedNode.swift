// A log node of a simulation: the production machine with a disk, crashes and damage around it.

import CisternLogProtocol
import CisternPrimitives

final class SimulatedNode {
    typealias Action = LogNodeAction<Int>

    let id: LogNodeID
    private unowned let world: World
    private(set) var machine: LogNode<Int>
    private(set) var disk: SimulatedDisk
    private(set) var isUp = true
    /// Gone for ever, with its disk.
    private(set) var isDead = false
    /// Set by damage: ledgers up to this one may have lost something here, until repair is through.
    private(set) var limboThrough: LedgerID?

    /// Things that come for an earlier run of the process are dropped.
    private var run = 0
    private var isSyncing = false
    private var isStarting = false
    private var calls: [Int: Call] = [:]
    private var nextToken = 0

    /// A request that is not answered.
    private struct Call {
        let request: NodeRequest
        /// What the node was bound to when it took the request.
        let promise: Oracle.Promise
        let reply: (NodeReply) -> Void
    }

    init(_ id: LogNodeID, world: World) {
        self.id = id
        self.world = world
        machine = LogNode(rules: world.rules)
        disk = SimulatedDisk(rules: world.rules)
        drive { $0.start(journalVerified: true, highestLedger: LedgerID(0), incarnation: 0, into: &$1) }
    }

    // MARK: Requests

    func receive(_ request: NodeRequest, from client: Client, reply: @escaping (NodeReply) -> Void) {
        guard isUp, !isStarting else { return }
        nextToken += 1
        let token = nextToken
        calls[token] = Call(request: request, promise: world.oracle.promise(of: self, for: request), reply: reply)
        drive { $0.receive(request, token: token, into: &$1) }
    }

    private func drive(_ event: (inout LogNode<Int>, inout [Action]) -> Void) {
        var actions: [Action] = []
        event(&machine, &actions)
        for action in actions { carryOut(action) }
    }

    private func carryOut(_ action: Action) {
        switch action {
        case .append(let record, _):
            world.oracle.accepted(record, on: self)
            disk.append(record)
            startSync()
        case .read(let token, let ledger, let entries, _):
            let results = entries.map { entry -> JournalRead in
                if world.chance(world.faults.readError) { return .failed }
                guard let body = disk.bodies[Place(ledger: ledger, entry: entry)] else { return .failed }
                return .body(body)
            }
            // A checksum that fails again when it is read once more is damage.
            let damaged = entries.filter { disk.rotten.contains(Place(ledger: ledger, entry: $0)) }
            later(world.pick(3)) { node in
                node.machine.entriesDamaged(
                    ledger, damaged.filter { node.disk.rotten.contains(Place(ledger: ledger, entry: $0)) })
                node.drive { $0.read(token, results: results, into: &$1) }
            }
        case .reply(let token, let reply):
            guard let call = calls.removeValue(forKey: token) else { return }
            world.oracle.answered(reply, to: call.request, by: self, promise: call.promise)
            call.reply(reply)
        case .checkLedger(let ledger):
            later(1 + world.pick(6)) { node in
                let world = node.world
                let exists: Bool? = world.chance(world.faults.metadataLoss) ? nil : world.metadata.exists(ledger)
                node.later(1 + world.pick(6)) { $0.drive { $0.ledgerChecked(ledger, exists: exists, into: &$1) } }
            }
        case .discard(let ledger):
            world.oracle.discarded(ledger, on: self)
            disk.deleted(ledger)
        }
    }

    /// Runs `work` on this run of the process.
    private func later(_ delay: Int, _ work: @escaping (SimulatedNode) -> Void) {
        let run = run
        world.scheduler.after(delay) { [self] in if isUp && self.run == run { work(self) } }
    }

    // MARK: Disk

    private func startSync() {
        guard !isSyncing, disk.durable < disk.records.count else { return }
        isSyncing = true
        let target = disk.records.count
        later(1 + world.pick(world.pick(8) == 0 ? 30 : 4)) { node in
            node.isSyncing = false
            node.becameDurable(node.disk.synced(target))
            node.drive { $0.synced(through: node.disk.sequence, into: &$1) }
            node.seal()
            node.startSync()
        }
    }

    private func becameDurable(_ records: ArraySlice<JournalRecord>) {
        for record in records {
            world.oracle.durable(record, on: self)
            // From here on a restart finds the limbo in the journal.
            if case .limbo = record { isDamaged = false }
        }
    }

    private func seal() {
        for segment in disk.seal() {
            for store in 0..<SimulatedDisk.stores {
                // Some finish long after later ones.
                let delay = world.pick(4) == 0 ? 400 : 40
                later(1 + world.pick(delay)) { $0.disk.checkpointed(store: store, before: segment + 1) }
            }
        }
    }

    // MARK: Crashes

    /// The process ends. With `damage`, so does something that was durable.
    func crash(damage: Bool) {
        guard isUp else { return }
        let unsynced = disk.records.count - disk.durable
        let kept = unsynced == 0 ? 0 : world.pick(unsynced + 1)
        becameDurable(disk.records[disk.durable..<disk.durable + kept])
        var loss: SimulatedDisk.Damage?
        if damage && disk.durable + kept > 0 {
            let there = disk.durable + kept
            loss =
                world.pick(2) == 0
                ? .tail(1 + world.pick(min(4, there))) : .rot(Set((0...world.pick(3)).map { _ in world.pick(there) }))
        }
        // A replay finds what is rotten and cannot tell what it was.
        if !disk.rotten.isEmpty { isDamaged = true }
        let lost = disk.crash(keeping: kept, damage: loss)
        world.trace("\(id) crashes\(lost.isEmpty ? "" : ", loses \(lost.map(\.short))")")
        world.oracle.lost(lost, on: self)
        isUp = false
        isSyncing = false
        isStarting = false
        run += 1
        calls = [:]
        if loss != nil { isDamaged = true }
    }

    /// Something durable was lost, and the journal does not say so yet.
    private var isDamaged = false

    /// Something may be missing here that is not repaired yet.
    var hasLoss: Bool {
        isDamaged || limboThrough != nil || disk.rotten.contains(where: isNeeded) || (isDead && !isReplaced)
    }

    /// A restart would find damage, though nothing that is needed is missing.
    var hasRot: Bool { !disk.rotten.isEmpty }

    /// Metadata says that this node holds the entry.
    private func isNeeded(_ place: Place) -> Bool {
        guard let metadata = world.metadata.ledgers[place.ledger]?.value else { return false }
        return metadata.nodes(of: place.entry).contains(id) && place.entry <= metadata.closedLastEntry ?? place.entry
    }
    /// No ledger names this dead node any more, and nobody who knew it alive puts it into one.
    private var isReplaced: Bool {
        world.scheduler.now > died + 150 && !world.metadata.ledgers.values.contains { $0.value.allNodes.contains(id) }
    }
    private var died = 0

    func die() {
        crash(damage: false)
        world.trace("\(id) is gone for ever")
        isDead = true
        died = world.scheduler.now
    }

    func restart() {
        guard !isUp, !isDead else { return }
        isUp = true
        isStarting = true
        machine = LogNode(rules: world.rules)
        if let missing = disk.replay({ machine.replay($0) }) {
            world.oracle.violate(
                "a replay needs only segments that are there", "\(id) needs segment \(missing), which is removed")
        }
        let isDamaged = isDamaged
        later(1 + world.pick(6)) { node in
            let highest = node.world.metadata.highestLedger
            node.later(1 + node.world.pick(6)) { node in
                node.world.trace("\(node.id) is back\(isDamaged ? ", in limbo through \(highest)" : "")")
                node.isStarting = false
                if isDamaged { node.limboThrough = highest }
                node.drive {
                    $0.start(
                        journalVerified: !isDamaged, highestLedger: highest, incarnation: UInt64(node.run), into: &$1)
                }
            }
        }
    }

    // MARK: Bit rot

    /// Some durable entries are not what was written any more. Who reads them, or the scrubber, finds it.
    func rot() {
        let places = disk.bodies.keys.filter { machine.status(of: $0.ledger)?.entries.contains($0.entry) == true }
            .sorted()
        guard isServing, !places.isEmpty else { return }
        for _ in 0...world.pick(2) {
            let place = places[world.pick(places.count)]
            guard let record = disk.rot(place) else { continue }
            world.trace("\(id) rots: \(place)")
            world.oracle.lost([record], on: self)
        }
    }

    func scrub() {
        guard isServing else { return }
        for place in disk.rotten.sorted() { machine.entriesDamaged(place.ledger, [place.entry]) }
    }

    // MARK: Garbage collection and repair

    func collectGarbage() {
        guard isUp, !isStarting else { return }
        drive { machine, actions in machine.collectGarbage(into: &actions) }
    }

    var isServing: Bool { isUp && !isStarting }

    func repaired(_ ledger: LedgerID, incarnation: UInt64) {
        guard isServing else { return }
        drive { $0.ledgerRepaired(ledger, incarnation: incarnation, into: &$1) }
    }

    /// Nothing that exists needs repair here any more.
    func endDamage() {
        isDamaged = false
        limboThrough = nil
    }
}

extension JournalRecord {
    var short: String {
        switch self {
        case .add(let ledger, let entry, _, _): "add \(ledger):\(entry)"
        case .fence(let ledger): "fence \(ledger)"
        case .lac(let ledger, let entry): "lac \(ledger) \(entry)"
        case .delete(let ledger): "delete \(ledger)"
        case .limbo(let ledger): "limbo \(ledger)"
        case .repaired(let ledger): "repaired \(ledger)"
        }
    }
}
