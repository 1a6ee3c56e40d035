// Gives this process's own node back what it has lost: entries that its disk does not give back, and in limbo all that it must
// hold of a ledger. The node does this itself, because it alone knows what it lost, and because what is copied counts in the
// incarnation in which it was copied: a mender ends with its node.
//
// What is to be mended is in the queue too, for everybody to see, and because the node may be gone before it is whole again.

internal import CisternChangelog
package import CisternLogNode
internal import CisternLogProtocol
package import CisternMetadata
internal import CisternPrimitives
internal import Logging

package actor NodeMender {
    private let context: RepairContext
    private let host: LogNodeHost
    private let node: LogNodeID
    private var rest = LedgerRest()
    /// Whether the queue may have entries of this node.
    private var isQueued = true

    private enum Outcome {
        case mended
        case waits
        case lost
        case failed(String)
    }

    package init(_ context: RepairContext, host: LogNodeHost) {
        self.context = context
        self.host = host
        node = host.options.journal.node
    }

    /// Mends what can be mended now.
    /// - Returns: ledgers that are left to mend.
    @discardableResult
    package func mend() async throws(MetadataError) -> Int {
        let losses = try await losses()
        context.board.note { $0.toMend = losses.count }
        guard isQueued || !losses.isEmpty else { return 0 }
        for ledger in losses.keys.sorted() { try await context.queue.put(ledger, node, .limbo) }
        isQueued = !losses.isEmpty
        var left = losses.count
        for item in try await context.queue.items() where item.entry.node == node && item.entry.loss == .limbo {
            if let loss = losses[item.entry.ledger] {
                if try await mend(item, loss) { left -= 1 }
            } else {
                try await context.queue.remove(item)
            }
        }
        context.board.note { $0.toMend = left }
        return left
    }

    // MARK: What is lost

    private enum Loss {
        case limbo(incarnation: UInt64)
        case damage(EntrySet)
    }

    /// By ledger. Ledgers that do not name the node stay in limbo: should a repair bring them here, they are mended then.
    private func losses() async throws(MetadataError) -> [LedgerID: Loss] {
        let known = await self.known(among: [])
        var losses: [LedgerID: Loss] = [:]
        for (ledger, entries) in known.damaged {
            guard let found = try await context.ledger(ledger)?.value else { continue }
            if found.fragments.indices.contains(where: { !found.entries(entries, of: node, in: $0).isEmpty }) {
                losses[ledger] = .damage(entries)
            }
        }
        guard let through = known.limboThrough else { return losses }
        let named = try await context.store.ledgers(of: node).map(\.ledger).filter { $0 <= through }
        let now = await self.known(among: named)
        for ledger in now.inLimbo { losses[ledger] = .limbo(incarnation: now.incarnation) }
        return losses
    }

    private func known(among ledgers: [LedgerID]) async -> LogNodeLosses {
        await withCheckedContinuation { continuation in
            host.losses(among: ledgers) { continuation.resume(returning: $0) }
        }
    }

    // MARK: One ledger

    /// Whether the entry left the queue.
    private func mend(_ item: RepairQueue.Item, _ loss: Loss) async throws(MetadataError) -> Bool {
        let outcome =
            switch loss {
            case .limbo(let incarnation): try await endLimbo(item, incarnation)
            case .damage(let entries): try await replace(entries, item)
            }
        switch outcome {
        case .mended:
            rest.forget(item.entry.ledger)
            try await context.queue.remove(item)
            context.board.note { $0.ledgersRepaired += 1 }
            context.note("a ledger of this log node is mended", item)
            return true
        case .waits: break
        case .lost:
            try await context.queue.set(item, to: .lost)
            if item.entry.state != .lost {
                context.failed("a ledger is lost", item, "what this node lost of it was the only copy")
            }
        case .failed(let error): context.failed("a ledger could not be mended yet", item, error)
        }
        return false
    }

    private func endLimbo(_ item: RepairQueue.Item, _ incarnation: UInt64) async throws(MetadataError) -> Outcome {
        let ledger = item.entry.ledger
        var done: Set<Int> = []
        for _ in 0..<RepairOptions.stepsMax {
            if Task.isCancelled { return .waits }
            guard let found = try await context.ledger(ledger) else { return .mended }
            let tasks = RepairPlan.tasks(
                for: ledger, found.value, node: node, loss: .limbo, closeOpen: true, done: done, targets: [])
            var end = Outcome.waits
            var isStep = false
            for task in tasks {
                switch task {
                case .copy(let ledger, let fragment, let node, let target):
                    let repair = FragmentRepair(
                        ledger: ledger, metadata: found, fragment: fragment, node: node, target: target)
                    if let failure = await copy(repair, item) { return .failed(failure) }
                    done.insert(fragment)
                    isStep = true
                case .endLimbo:
                    host.ledgerRepaired(ledger, incarnation: incarnation)
                    return .mended
                case .lost: end = .lost
                case .recover:
                    if found.value.sizes.write == 1 { end = .lost; break }
                    // A writer that is at work has its other nodes; it closes the ledger, or puts another node here.
                    guard try await isAtRest(ledger, found.value) else { break }
                    if let failure = try await recover(item) { return .failed(failure) }
                    isStep = true
                case .noTarget: break
                }
                if isStep { break }
            }
            if !isStep { return end }
        }
        return .waits
    }

    private func replace(_ damaged: EntrySet, _ item: RepairQueue.Item) async throws(MetadataError) -> Outcome {
        guard let found = try await context.ledger(item.entry.ledger) else { return .mended }
        var outcome = Outcome.mended
        for (index, fragment) in found.value.fragments.enumerated() {
            let lost = found.value.entries(damaged, of: node, in: index)
            guard !lost.isEmpty, fragment.ensemble.contains(node) else { continue }
            if found.value.sizes.write == 1 { return .lost }
            guard found.value.lastEntry(ofFragment: index) != nil else {
                outcome = .waits
                continue
            }
            let repair = FragmentRepair(
                ledger: item.entry.ledger, metadata: found, fragment: index, node: node, target: node, only: lost)
            if let failure = await copy(repair, item) { return .failed(failure) }
        }
        return outcome
    }

    private func copy(_ repair: FragmentRepair, _ item: RepairQueue.Item) async -> String? {
        do throws(LedgerError) {
            context.copied(try await context.client.repair(repair, pace: context.pace), repair, item)
            return nil
        } catch {
            return error.failure == .deleted ? nil : "\(error)"
        }
    }

    private func recover(_ item: RepairQueue.Item) async throws(MetadataError) -> String? {
        let nodes = try await context.registrations().filter { !$0.isReadOnly && $0.node != node }.map(\.node)
        do throws(LedgerError) {
            let recovered = try await context.client.recover(item.entry.ledger, candidates: nodes)
            context.board.note { $0.ledgersRecovered += 1 }
            context.note("an open ledger without a writer is closed", item, ["last": "\(recovered.last)"])
            return nil
        } catch {
            return error.failure == .deleted ? nil : "\(error)"
        }
    }

    private func isAtRest(_ ledger: LedgerID, _ metadata: LedgerMetadata) async throws(MetadataError) -> Bool {
        if metadata.state == .inRecovery { return true }
        let peers = metadata.lastFragment.ensemble.filter { $0 != node }
        let lac = await context.client.lastAddConfirmed(of: ledger, on: peers)
        return rest.isAtRest(
            ledger, lac: lac, now: context.nowMilliseconds, grace: context.options.openLedgerGraceMilliseconds)
    }
}

extension LedgerMetadata {
    /// Those of `entries` that `node` must hold in fragment `index`, as far as is known where the fragment ends.
    func entries(_ entries: EntrySet, of node: LogNodeID, in index: Int) -> EntrySet {
        var held = EntrySet()
        guard let position = fragments[index].position(of: node) else { return held }
        let first = fragments[index].firstEntry.rawValue
        let last = lastEntry(ofFragment: index)?.rawValue ?? Int64.max
        for run in entries.runs where run.upperBound >= first && run.lowerBound <= last {
            for id in run.clamped(to: first...last) {
                if sizes.writeSet(of: EntryID(id)).contains(position) { held.insert(EntryID(id)) }
            }
        }
        return held
    }
}
