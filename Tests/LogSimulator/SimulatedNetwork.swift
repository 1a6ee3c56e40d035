// Messages between clients and nodes: lost, doubled, late and out of order, and cut off for a while.

import CisternLogProtocol
import CisternPrimitives

final class SimulatedNetwork {
    private unowned let world: World
    private var cuts: [Cut: Int] = [:]

    private struct Cut: Hashable {
        let client: ObjectIdentifier
        let node: LogNodeID
    }

    init(world: World) { self.world = world }

    func cut(_ client: Client, _ node: LogNodeID, for ticks: Int) {
        world.trace("network: \(client.name) and \(node) are cut off for \(ticks)")
        cuts[Cut(client: ObjectIdentifier(client), node: node)] = world.scheduler.now + ticks
    }

    func heal() { cuts = [:] }

    private func isCut(_ client: Client, _ node: LogNodeID) -> Bool {
        (cuts[Cut(client: ObjectIdentifier(client), node: node)] ?? 0) > world.scheduler.now
    }

    func send(
        _ request: NodeRequest, from client: Client, to node: LogNodeID, reply: @escaping (NodeReply) -> Void
    ) {
        world.trace("\(client.name) -> \(node) \(request.short)")
        for _ in 0..<copies() {
            world.scheduler.after(world.delay()) { [self] in
                guard !isCut(client, node) else { return }
                world.nodes[node]?.receive(request, from: client) { [self] answer in
                    for _ in 0..<copies() {
                        world.scheduler.after(world.delay()) { [self] in
                            guard !isCut(client, node) else { return }
                            client.deliver { [world] in
                                world.trace("\(node) -> \(client.name) \(answer.short)")
                                reply(answer)
                            }
                        }
                    }
                }
            }
        }
    }

    private func copies() -> Int {
        if world.chance(world.faults.drop) { return 0 }
        return world.chance(world.faults.duplicate) ? 2 : 1
    }
}

extension NodeRequest {
    var short: String {
        switch self {
        case .add(let add):
            "add \(add.ledger):\(add.entry) lac \(add.lac)\(add.isRecovery ? " recovery" : "")"
        case .read(let read): "read \(read.ledger):\(read.first)+\(read.count)\(read.fence ? " fence" : "")"
        case .readLAC(let read): "lac? \(read.ledger)\(read.fence ? " fence" : "")"
        case .writeLAC(let ledger, let lac): "lac \(ledger) \(lac)"
        case .delete(let ledger): "delete \(ledger)"
        }
    }
}

extension NodeReply {
    var short: String {
        switch self {
        case .add(let add): "add \(add.ledger):\(add.entry) \(add.refusal.map { "\($0)" } ?? "ok")"
        case .read(let read):
            "read \(read.ledger):\(read.first) "
                + read.answers.prefix(8).map {
                    switch $0 {
                    case .present: "p"
                    case .absent: "a"
                    case .unknown: "u"
                    }
                }.joined() + " lac \(read.lac)\(read.isFenced ? " fenced" : "")\(read.refusal.map { " \($0)" } ?? "")"
        case .lac(let lac):
            "lac \(lac.ledger) \(lac.lac)\(lac.isFenced ? " fenced" : "")\(lac.refusal.map { " \($0)" } ?? "")"
        }
    }
}
