// One run: nodes, metadata, clients and faults from one seed. The same seed and rules play the same run, step for step.

import CisternLogProtocol
import CisternPrimitives

final class World {
    let scenario: Scenario
    let rules: ProtocolRules
    let scheduler = Scheduler()
    private(set) var faults: Scenario.Faults
    private(set) var oracle: Oracle!
    private(set) var metadata: SimulatedMetadata!
    private(set) var network: SimulatedNetwork!
    private(set) var nodes: [LogNodeID: SimulatedNode] = [:]

    private var random: SeededRandom
    private var clients: [Client] = []
    private var attempts: [AttemptRun] = []
    private var repair: RepairService!
    private let isTraced: Bool
    private(set) var lines: [String] = []
    private var isSettled = false

    init(seed: UInt64, rules: ProtocolRules, isTraced: Bool) {
        random = SeededRandom(seed: seed)
        scenario = Scenario(random: &random)
        faults = scenario.faults
        self.rules = rules
        self.isTraced = isTraced
        oracle = Oracle(world: self)
        metadata = SimulatedMetadata(world: self)
        network = SimulatedNetwork(world: self)
        for id in 1...UInt64(scenario.nodes) { nodes[LogNodeID(id)] = SimulatedNode(LogNodeID(id), world: self) }
        repair = RepairService(world: self)
    }

    func trace(_ line: @autoclosure () -> String) {
        if isTraced { lines.append("\(scheduler.now): \(line())") }
    }

    // MARK: Chance

    /// 0 ..< count.
    func pick(_ count: Int) -> Int { count <= 1 ? 0 : Int(random.next() % UInt64(count)) }
    func chance(_ inThousand: Int) -> Bool { inThousand > 0 && pick(1000) < inThousand }
    func delay() -> Int { chance(faults.slow) ? 10 + pick(90) : 1 + pick(4) }
    /// Nodes that are registered: all but the dead ones, running or not.
    func shuffledNodes() -> [LogNodeID] { shuffled(nodes.keys.filter { nodes[$0]?.isDead == false }.sorted()) }

    private func shuffled<Element>(_ items: [Element]) -> [Element] {
        var items = items
        for index in items.indices.dropLast() { items.swapAt(index, index + pick(items.count - index)) }
        return items
    }

    // MARK: Parts

    func client(_ name: String) -> Client {
        let client = Client(name, world: self)
        clients.append(client)
        return client
    }

    func createLedger() -> LedgerID {
        metadata.create(sizes: scenario.sizes, ensemble: Array(shuffledNodes().prefix(scenario.sizes.ensemble)))
    }

    // MARK: The run

    func run() {
        for attempt in 1...scenario.attempts {
            let start = attempt == 1 ? 0 : pick(scenario.duration)
            scheduler.after(start) { [self] in attempts.append(AttemptRun(UInt64(attempt), world: self)) }
        }
        strike(every: faults.crashEvery) { $0.crashSomething() }
        strike(every: faults.rotEvery) { $0.rotSomething() }
        strike(every: faults.cutEvery) { world in
            guard let client = world.clients.randomElement(using: &world.random) else { return }
            for node in world.shuffledNodes().prefix(1 + world.pick(2)) {
                world.network.cut(client, node, for: 10 + world.pick(80))
            }
        }
        strike(every: faults.stopEvery) { world in
            let client = world.attempts.randomElement(using: &world.random)?.client
            client?.stop(for: 20 + world.pick(150))
        }
        strike(every: faults.recoverEvery) { $0.recoverOrRead() }
        strike(every: faults.trimEvery) { world in world.attempts.last?.trim() }
        strike(every: faults.hintEvery) { $0.hint() }
        strike(every: 60) { $0.repair.look() }
        strike(every: 30) { world in
            for id in world.nodes.keys.sorted() where world.pick(2) == 0 { world.nodes[id]?.collectGarbage() }
        }
        while oracle.violation == nil, scheduler.step(before: scenario.duration) {}
        settle()
    }

    /// Runs `fault` again and again until faults end.
    private func strike(every ticks: Int, _ fault: @escaping (World) -> Void) {
        guard ticks > 0 else { return }
        scheduler.after(1 + pick(2 * ticks)) { [self] in
            guard scheduler.now < scenario.duration else { return }
            fault(self)
            strike(every: ticks, fault)
        }
    }

    private func crashSomething() {
        guard let id = shuffledNodes().first(where: { nodes[$0]?.isUp == true }), let node = nodes[id] else { return }
        let damage = mayLose(node) && chance(faults.damage)
        let living = nodes.values.count { !$0.isDead }
        if damage && chance(faults.death) && living > scenario.sizes.ensemble { return node.die() }
        node.crash(damage: damage)
        scheduler.after(3 + pick(pick(3) == 0 ? 120 : 15)) { node.restart() }
    }

    private func rotSomething() {
        guard let id = shuffledNodes().first, let node = nodes[id], mayLose(node) else { return }
        node.rot()
    }

    /// The protocol promises nothing beyond Qa − 1 nodes with losses.
    private func mayLose(_ node: SimulatedNode) -> Bool {
        nodes.values.count { $0.hasLoss || $0.hasRot || $0 === node } <= scenario.sizes.ack - 1
    }

    private func recoverOrRead() {
        guard let ledger = shuffled(metadata.ledgers.keys.sorted()).first else { return }
        if pick(2) == 0 {
            _ = RecoveryRun(ledger, client: client("recoverer of \(ledger)"), world: self) { _ in }
        } else {
            let reader = client("reader of \(ledger)")
            _ = ReaderRun(ledger, client: reader, world: self) { _ in }
            readers.append(reader)
        }
    }

    private var readers: [Client] = []

    private func hint() {
        guard let ledger = shuffled(metadata.ledgers.keys.sorted()).first, let node = shuffledNodes().first else {
            return
        }
        let client = client("hint")
        for _ in 0..<2 { network.send(.delete(ledger), from: client, to: node) { _ in } }
    }

    // MARK: The end

    /// All faults end. Nodes come back, what is lost is repaired, every ledger is closed and read whole.
    private func settle() {
        guard oracle.violation == nil else { return }
        trace("faults end")
        faults = Scenario.Faults()
        network.heal()
        for client in clients { client.resume() }
        _ = runOn(for: 200)
        for reader in readers { reader.kill() }
        for attempt in attempts { attempt.client.kill() }
        // What the disks hold must be enough.
        for id in nodes.keys.sorted() { nodes[id]?.crash(damage: false) }
        let client = client("closer")
        var recovering: Set<LedgerID> = []
        for _ in 0..<40 {
            for id in nodes.keys.sorted() { nodes[id]?.restart() }
            repair.look()
            let open = metadata.ledgers.filter { $0.value.value.closedLastEntry == nil }.keys.sorted()
            for ledger in open where recovering.insert(ledger).inserted {
                _ = RecoveryRun(ledger, client: client, world: self) { _ in recovering.remove(ledger) }
            }
            guard runOn(for: 60) else { return }
            let isWhole = nodes.values.allSatisfy { !$0.hasLoss || $0.isDead }
            let isClosed = metadata.ledgers.values.allSatisfy { $0.value.closedLastEntry != nil }
            if isWhole && isClosed { return readAll() }
        }
        oracle.violate(
            "a run comes to rest",
            "open: \(metadata.ledgers.filter { $0.value.value.closedLastEntry == nil }.keys.sorted()), with losses: "
                + "\(nodes.values.filter(\.hasLoss).map(\.id).sorted())")
    }

    private func readAll() {
        let client = client("last reader")
        var left = Set(metadata.ledgers.keys)
        for ledger in metadata.ledgers.keys.sorted() {
            _ = ReaderRun(ledger, client: client, world: self) { [self] result in
                left.remove(ledger)
                if case .failure(let failure) = result {
                    oracle.violate("every entry of a closed ledger is read", "\(ledger): \(failure)")
                }
            }
        }
        _ = runOn(for: 2000) { left.isEmpty }
        if !left.isEmpty { oracle.violate("a run comes to rest", "\(left.sorted()) were not read to their ends") }
    }

    /// False when a rule does not hold.
    private func runOn(for ticks: Int, until isDone: () -> Bool = { false }) -> Bool {
        let end = scheduler.now + ticks
        while oracle.violation == nil, !isDone(), scheduler.step(before: end) {}
        return oracle.violation == nil
    }
}
