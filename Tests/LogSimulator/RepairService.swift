// The holder of the repair lease: looks at nodes that are gone or in limbo and carries out the plan for each of their ledgers.

import CisternLogProtocol
import CisternPrimitives

final class RepairService {
    private let client: Client
    private unowned let world: World
    private var atWork: Set<Job> = []
    /// Fragments that were copied back to a node in limbo.
    private var done: [Job: Set<Int>] = [:]

    private struct Job: Hashable {
        let ledger: LedgerID
        let node: LogNodeID
        /// Copies to a node count in the incarnation in which they were made.
        var incarnation: UInt64 = 0
        var fragment: Int?
    }

    init(world: World) {
        self.world = world
        client = world.client("repair")
    }

    func look() {
        for node in world.nodes.values.sorted(by: { $0.id < $1.id }) where node.hasLoss {
            if node.isDead {
                lookAtDead(node)
            } else if node.isServing {
                lookAtLimbo(node)
                lookAtRot(node)
            }
        }
    }

    private func lookAtDead(_ node: SimulatedNode) {
        let named = world.metadata.ledgers.filter { $0.value.value.allNodes.contains(node.id) }.map(\.key).sorted()
        for ledger in named { start(Job(ledger: ledger, node: node.id), .dead) }
    }

    private func lookAtLimbo(_ node: SimulatedNode) {
        guard let through = node.limboThrough else { return }
        let left = world.metadata.ledgers.keys.filter { $0 <= through && node.machine.isInLimbo($0) }.sorted()
        if left.isEmpty {
            world.trace("\(node.id) is whole again")
            done = done.filter { $0.key.node != node.id }
            return node.endDamage()
        }
        for ledger in left {
            start(Job(ledger: ledger, node: node.id, incarnation: node.machine.incarnation), .limbo)
        }
    }

    /// Rotten entries come back one fragment at a time, once no more adds can come to it.
    private func lookAtRot(_ node: SimulatedNode) {
        node.scrub()
        for ledger in Set(node.disk.rotten.map(\.ledger)).sorted() where !node.machine.isInLimbo(ledger) {
            guard let found = world.metadata.ledgers[ledger] else { continue }
            for (index, fragment) in found.value.fragments.enumerated()
            where fragment.ensemble.contains(node.id) && found.value.lastEntry(ofFragment: index) != nil {
                let job = Job(ledger: ledger, node: node.id, incarnation: node.machine.incarnation, fragment: index)
                guard atWork.insert(job).inserted else { continue }
                _ = FragmentRepairRun(
                    ledger, found, fragment: index, node: node.id, target: node.id, client: client, world: world
                ) { [self] _ in end(job) }
            }
        }
    }

    private func start(_ job: Job, _ loss: NodeLoss) {
        guard atWork.insert(job).inserted else { return }
        step(job, loss, tries: 3)
    }

    private func step(_ job: Job, _ loss: NodeLoss, tries: Int) {
        guard tries > 0 else { return end(job) }
        client.ask(.get(job.ledger)) { [self] result in
            guard case .found(let found) = result else { return end(job) }
            let targets = world.shuffledNodes().filter { world.nodes[$0]?.isUp == true }
            let tasks = RepairPlan.tasks(
                for: job.ledger, found.value, node: job.node, loss: loss, closeOpen: true, done: done[job] ?? [],
                targets: targets)
            guard let task = tasks.first else { return end(job) }
            switch task {
            case .recover(let ledger):
                _ = RecoveryRun(ledger, client: client, world: world) { [self] result in
                    if case .success = result {
                        step(job, loss, tries: tries)
                    } else {
                        step(job, loss, tries: tries - 1)
                    }
                }
            case .copy(let ledger, let fragment, let node, let target):
                _ = FragmentRepairRun(
                    ledger, found, fragment: fragment, node: node, target: target, client: client, world: world
                ) { [self] isRepaired in
                    if isRepaired && loss == .limbo { done[job, default: []].insert(fragment) }
                    step(job, loss, tries: isRepaired ? tries : tries - 1)
                }
            case .endLimbo(let ledger):
                world.nodes[job.node]?.repaired(ledger, incarnation: job.incarnation)
                end(job)
            case .lost, .noTarget: end(job)
            }
        }
    }

    private func end(_ job: Job) { atWork.remove(job) }
}
