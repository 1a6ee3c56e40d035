// Looks for nodes that are gone and puts their ledgers into the queue; takes them out again when a node comes back, because then
// its copies are there again. One process does this at a time; it holds the lease of `repairer`.
//
// A node counts as there while it is registered. A directory is bound to its node by a cookie, so one that registers has what it had.

internal import CisternLogProtocol
package import CisternMetadata
internal import CisternPrimitives
internal import Logging

package actor RepairAuditor {
    private let context: RepairContext
    /// When each node was first seen to be missing.
    private var missing: [LogNodeID: UInt64] = [:]

    package init(_ context: RepairContext) { self.context = context }

    /// One look at everything.
    /// - Returns: milliseconds until the next node's grace is over; nil when none is missing within its grace.
    @discardableResult
    package func audit() async throws(MetadataError) -> UInt64? {
        // In this order: what registers meanwhile is looked at as missing once, and no grace ends by that; an entry is older than
        // the ledgers that it is compared with.
        let registered = Set(try await context.registrations().map(\.node))
        let queued = try await context.queue.items()
        let absent = try await ledgersOfAbsentNodes(registered)
        try await clear(queued, registered, absent)
        let now = context.nowMilliseconds
        for node in missing.keys where absent[node] == nil {
            missing[node] = nil
            context.logger.info("a missing log node is back, or holds nothing more", metadata: ["node": "\(node)"])
        }
        var next: UInt64?
        for (node, ledgers) in absent.sorted(by: { $0.key < $1.key }) {
            let since = firstMissed(node, now, ledgers.count)
            let end = since + context.options.graceMilliseconds
            guard end <= now else {
                next = min(next ?? .max, end - now)
                continue
            }
            let new = try await context.queue.put(ledgers, of: node, .dead)
            guard new > 0 else { continue }
            context.logger.warning(
                "a log node is gone: its ledgers are repaired",
                metadata: ["node": "\(node)", "ledgers": "\(new)", "missing_ms": "\(now - since)"])
        }
        context.board.note { $0.missingNodes = absent.keys.sorted() }
        return next
    }

    private func firstMissed(_ node: LogNodeID, _ now: UInt64, _ ledgers: Int) -> UInt64 {
        if let since = missing[node] { return since }
        missing[node] = now
        context.logger.warning(
            "a log node with ledgers is not registered",
            metadata: [
                "node": "\(node)", "ledgers": "\(ledgers)", "grace_ms": "\(context.options.graceMilliseconds)",
            ])
        return now
    }

    /// Takes out what is queued of dead nodes that are there, and of ledgers that do not name the node any more. What a node that
    /// is there has lost is its own to take out.
    private func clear(
        _ queued: [RepairQueue.Item], _ registered: Set<LogNodeID>, _ absent: [LogNodeID: [LedgerID]]
    ) async throws(MetadataError) {
        let named = absent.mapValues(Set.init)
        var cancelled: [LogNodeID: Int] = [:]
        for item in queued {
            let (node, ledger) = (item.entry.node, item.entry.ledger)
            if registered.contains(node) {
                guard item.entry.loss == .dead else { continue }
                cancelled[node, default: 0] += 1
            } else if named[node]?.contains(ledger) == true {
                continue
            }
            try await context.queue.remove(item)
        }
        for (node, ledgers) in cancelled {
            context.logger.info(
                "a log node is back: what is left of its repair is called off",
                metadata: ["node": "\(node)", "ledgers": "\(ledgers)"])
        }
    }

    private func ledgersOfAbsentNodes(
        _ registered: Set<LogNodeID>
    ) async throws(MetadataError) -> [LogNodeID: [LedgerID]] {
        var absent: [LogNodeID: [LedgerID]] = [:]
        try await context.store.forEachLedger { ledger, metadata in
            for node in metadata.value.allNodes where !registered.contains(node) {
                absent[node, default: []].append(ledger)
            }
        }
        return absent
    }
}
