// Works off the queue of ledgers whose node is gone. Every process may; a ledger is claimed by one of them, with its lease, so that
// what a process that ends leaves behind is another one's soon. Two that work on one ledger all the same do no harm: copies are the
// same bytes, and ensembles change by compare-and-swap.

internal import CisternChangelog
internal import CisternLogProtocol
package import CisternMetadata
internal import CisternPrimitives
internal import Logging

package actor RepairWorker {
    private let context: RepairContext
    private var rest = LedgerRest()
    /// Entries that are not looked at before a time.
    private var resting: [String: UInt64] = [:]
    /// Of each node, as counted at the begin of a round.
    private var fragments: [LogNodeID: Int] = [:]

    /// How the work on an entry ended for now.
    private enum Outcome {
        /// Nothing names the node any more.
        case repaired
        /// Nothing but time, nodes that come back, or a writer helps.
        case waits
        case lost
        case noTarget
        case failed(String)
    }

    package init(_ context: RepairContext) { self.context = context }

    /// Works once on every entry that is nobody's and not at rest.
    /// - Returns: entries that left the queue.
    @discardableResult
    package func round(lease: MetadataLeaseID) async throws(MetadataError) -> Int {
        let items = try await context.queue.items()
        note(items)
        let now = context.nowMilliseconds
        resting = resting.filter { $0.value > now }
        let ready = items.filter {
            $0.entry.loss == .dead && $0.entry.state != .lost && resting[$0.key] == nil
        }
        guard !ready.isEmpty else { return 0 }
        try await countFragments()
        let result = await work(on: ready, lease)
        note(try await context.queue.items())
        return try result.get()
    }

    private func note(_ items: [RepairQueue.Item]) {
        context.board.note { figures in
            figures.waiting = items.count { $0.entry.state == .waiting }
            figures.lost = items.count { $0.entry.state == .lost }
            figures.withoutTarget = items.count { $0.entry.state == .noTarget }
        }
    }

    private func countFragments() async throws(MetadataError) {
        var counts: [LogNodeID: Int] = [:]
        try await context.store.forEachLedger { _, metadata in
            for fragment in metadata.value.fragments {
                for node in fragment.ensemble { counts[node, default: 0] += 1 }
            }
        }
        fragments = counts
    }

    /// So many ledgers at a time as the options allow.
    private func work(on ready: [RepairQueue.Item], _ lease: MetadataLeaseID) async -> Result<Int, MetadataError> {
        await withTaskGroup(of: Result<Bool, MetadataError>.self) { group in
            var left = ready[...]
            for _ in 0..<context.options.ledgersAtATime {
                guard let item = left.popFirst() else { break }
                group.addTask { await self.claimed(item, lease) }
            }
            var repaired = 0
            var failure: MetadataError?
            for await result in group {
                switch result {
                case .success(let isDone): repaired += isDone ? 1 : 0
                case .failure(let error): failure = failure ?? error
                }
                if failure == nil, !Task.isCancelled, let item = left.popFirst() {
                    group.addTask { await self.claimed(item, lease) }
                }
            }
            return failure.map { .failure($0) } ?? .success(repaired)
        }
    }

    // MARK: One entry

    /// Whether the entry left the queue.
    private func claimed(_ item: RepairQueue.Item, _ lease: MetadataLeaseID) async -> Result<Bool, MetadataError> {
        let (store, claim) = (context.store.records.store, context.store.keys.repairClaim(item.entry.ledger))
        do throws(MetadataError) {
            let version: MetadataVersion
            do throws(MetadataError) {
                version = try await store.create(claim, [], lease: lease)
            } catch {
                // Somebody works on this ledger.
                if case .exists = error.reason { return .success(false) }
                throw error
            }
            let isDone = try await process(item)
            do throws(MetadataError) {
                try await store.delete(claim, expected: version)
            } catch {
                // It went with the lease.
                if !error.isOvertaken { throw error }
            }
            return .success(isDone)
        } catch {
            return .failure(error)
        }
    }

    private func process(_ listed: RepairQueue.Item) async throws(MetadataError) -> Bool {
        // Others may have dealt with it since it was listed.
        guard let item = try await context.queue.item(listed.key), item.entry.loss == .dead else { return false }
        switch try await repair(item) {
        case .repaired:
            rest.forget(item.entry.ledger)
            try await context.queue.remove(item)
            context.board.note { $0.ledgersRepaired += 1 }
            context.note("a ledger is repaired", item)
            return true
        case .waits: break
        case .lost:
            try await context.queue.set(item, to: .lost)
            context.failed("a ledger is lost", item, "all copies of a part of it were on this node")
        case .noTarget:
            try await context.queue.set(item, to: .noTarget)
            if item.entry.state != .noTarget {
                context.failed("a ledger waits for a log node", item, "no log node can take the place")
            }
        case .failed(let error): context.failed("a ledger could not be repaired yet", item, error)
        }
        resting[item.key] = context.nowMilliseconds + context.options.retryMilliseconds
        return false
    }

    private func repair(_ item: RepairQueue.Item) async throws(MetadataError) -> Outcome {
        let (ledger, node) = (item.entry.ledger, item.entry.node)
        var refused: Set<LogNodeID> = []
        for _ in 0..<RepairOptions.stepsMax {
            if Task.isCancelled { return .waits }
            let nodes = try await context.registrations()
            // It is back: the auditor calls the repair off.
            if nodes.contains(where: { $0.node == node }) { return .waits }
            guard let found = try await context.ledger(ledger), found.value.allNodes.contains(node) else {
                return .repaired
            }
            let targets = RepairPlacement.targets(
                for: found.value, replacing: node, among: nodes, fragments: fragments, refused: refused)
            let isAtRest = await isAtRest(ledger, found.value, node)
            let tasks = RepairPlan.tasks(
                for: ledger, found.value, node: node, loss: .dead, closeOpen: isAtRest, targets: targets)
            switch await carryOut(tasks, item, found, targets) {
            case .step: break
            case .refused(let target): refused.insert(target)
            case .end(let outcome): return outcome
            }
        }
        return .waits
    }

    private enum Step {
        case step
        case refused(LogNodeID)
        case end(Outcome)
    }

    /// The first task that can be done; else what the others say.
    private func carryOut(
        _ tasks: [RepairTask], _ item: RepairQueue.Item, _ found: Versioned<LedgerMetadata>, _ targets: [LogNodeID]
    ) async -> Step {
        var end = Outcome.waits
        for task in tasks {
            switch task {
            case .copy(let ledger, let fragment, let node, let target):
                let repair = FragmentRepair(
                    ledger: ledger, metadata: found, fragment: fragment, node: node, target: target)
                return await copy(repair, item)
            case .recover(let ledger):
                // Without a second copy no recovery learns what the node had.
                if found.value.sizes.write == 1 { end = .lost; break }
                let ensemble = found.value.lastFragment.ensemble
                let isOpen = found.value.state == .open
                // To stop a writer is of use only when a node can take the place.
                if isOpen && !targets.contains(where: { !ensemble.contains($0) }) { end = .noTarget; break }
                return await recover(ledger, item, targets)
            case .noTarget: end = .noTarget
            case .lost: if case .waits = end { end = .lost }
            case .endLimbo: break
            }
        }
        return .end(end)
    }

    private func copy(_ repair: FragmentRepair, _ item: RepairQueue.Item) async -> Step {
        do throws(LedgerError) {
            let copied = try await context.client.repair(repair, pace: context.pace)
            fragments[repair.target, default: 0] += 1
            context.copied(copied, repair, item)
            return .step
        } catch {
            switch error.failure {
            case .notEnoughNodes:
                context.failed("a log node does not take copies", item, "\(repair.target): \(error)")
                return .refused(repair.target)
            case .deleted: return .step
            default: return .end(.failed("\(error)"))
            }
        }
    }

    private func recover(_ ledger: LedgerID, _ item: RepairQueue.Item, _ targets: [LogNodeID]) async -> Step {
        do throws(LedgerError) {
            let recovered = try await context.client.recover(ledger, candidates: targets)
            context.board.note { $0.ledgersRecovered += 1 }
            context.note("an open ledger without a writer is closed", item, ["last": "\(recovered.last)"])
            return .step
        } catch {
            return error.failure == .deleted ? .step : .end(.failed("\(error)"))
        }
    }

    private func isAtRest(_ ledger: LedgerID, _ metadata: LedgerMetadata, _ node: LogNodeID) async -> Bool {
        guard metadata.closedLastEntry == nil, metadata.lastFragment.ensemble.contains(node) else { return false }
        // Somebody has stopped its writer already.
        if metadata.state == .inRecovery { return true }
        let peers = metadata.lastFragment.ensemble.filter { $0 != node }
        let lac = await context.client.lastAddConfirmed(of: ledger, on: peers)
        return rest.isAtRest(
            ledger, lac: lac, now: context.nowMilliseconds, grace: context.options.openLedgerGraceMilliseconds)
    }
}

extension RepairContext {
    func copied(_ copied: CopiedEntries, _ repair: FragmentRepair, _ item: RepairQueue.Item) {
        board.note {
            $0.entriesCopied += copied.entries
            $0.bytesCopied += copied.bytes
        }
        note(
            "a fragment is copied", item,
            [
                "fragment": "\(repair.fragment)", "target": "\(repair.target)", "entries": "\(copied.entries)",
                "bytes": "\(copied.bytes)",
            ])
    }
}
