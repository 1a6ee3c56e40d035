// What is to be done about ledgers of which a node lost its part: a pure function of metadata, so that any holder of the
// repair lease comes to the same plan.

package import CisternPrimitives

/// Why a node's part of a ledger is to be made again.
package enum NodeLoss: Hashable, Sendable {
    /// The node is gone: another one takes its place.
    case dead
    /// The node is there and may have lost something: it gets back what it must hold.
    case limbo
}

package enum RepairTask: Hashable, Sendable {
    /// Close the ledger first: adds may still go to its last fragment.
    case recover(LedgerID)
    /// Copy what `node` holds, or held, of the fragment to `target`, then put `target` in its place. In limbo they are the same node.
    case copy(LedgerID, fragment: Int, node: LogNodeID, target: LogNodeID)
    /// All copies were on the node: reported, not tried again.
    case lost(LedgerID, fragment: Int)
    /// No node can take the place.
    case noTarget(LedgerID, fragment: Int)
    /// Nothing of the node's part needs copying any more: limbo ends for the ledger.
    case endLimbo(LedgerID)
}

package enum RepairPlan {
    /// The next tasks for one ledger, after which it is planned again.
    ///
    /// - Parameters:
    ///   - closeOpen: whether a ledger that is open may be recovered. A writer replaces dead nodes by itself; the owner gives
    ///     it some time before it sets this. A ledger of a node in limbo cannot wait for its writer.
    ///   - done: fragments whose copies back to a node in limbo are made, in the incarnation in which it is now.
    ///   - targets: nodes that may take copies, the best in front.
    package static func tasks(
        for ledger: LedgerID, _ metadata: LedgerMetadata, node: LogNodeID, loss: NodeLoss, closeOpen: Bool,
        done: Set<Int> = [], targets: [LogNodeID]
    ) -> [RepairTask] {
        var tasks: [RepairTask] = []
        for (index, fragment) in metadata.fragments.enumerated() {
            guard fragment.ensemble.contains(node), !(loss == .limbo && done.contains(index)) else { continue }
            guard let last = metadata.lastEntry(ofFragment: index) else {
                if closeOpen || loss == .limbo { tasks.append(.recover(ledger)) }
                continue
            }
            if loss == .dead {
                if metadata.sizes.write == 1 && last >= fragment.firstEntry {
                    tasks.append(.lost(ledger, fragment: index))
                } else if let target = targets.first(where: { !fragment.ensemble.contains($0) }) {
                    tasks.append(.copy(ledger, fragment: index, node: node, target: target))
                } else {
                    tasks.append(.noTarget(ledger, fragment: index))
                }
            } else if last >= fragment.firstEntry {
                tasks.append(
                    metadata.sizes.write == 1
                        ? .lost(ledger, fragment: index)
                        : .copy(ledger, fragment: index, node: node, target: node))
            }
        }
        if loss == .limbo && tasks.isEmpty { tasks.append(.endLimbo(ledger)) }
        return tasks
    }
}
