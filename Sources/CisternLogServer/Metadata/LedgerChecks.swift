// A node's questions to metadata whether ledgers still exist. What is asked while an answer is on its way is asked together, as a few pages
// of a listing when it is much: a node asks about all it holds at a time.
//
// "It does not exist" has bytes deleted, so it is only said by the metadata of this cluster, and only of ledgers that it gave a number.

internal import CisternLogNode
internal import CisternLogProtocol
package import CisternMetadata
package import CisternPrimitives
internal import Synchronization

package final class LedgerChecks: Sendable {
    package typealias Answer = @Sendable (Bool?) -> Void

    /// Up to so many are looked up one by one.
    private static let singleMax = 16

    private struct State {
        var waiting: [(ledger: LedgerID, answer: Answer)] = []
        var isAsking = false
    }

    private let ledgers: LedgerStore
    private let cluster: UInt64
    private let report: @Sendable (MetadataError) -> Void
    private let state = Mutex(State())

    /// - Parameter cluster: the number that metadata must have.
    package init(
        store: any MetadataStore, keys: MetadataKeys, cluster: UInt64,
        report: @escaping @Sendable (MetadataError) -> Void
    ) {
        ledgers = LedgerStore(store, keys: keys, report: report)
        self.cluster = cluster
        self.report = report
    }

    /// `answer` is called once, on any thread; with nil when metadata gives none.
    package func exists(_ ledger: LedgerID, answer: @escaping Answer) {
        let mustAsk = state.withLock { state in
            state.waiting.append((ledger, answer))
            defer { state.isAsking = true }
            return !state.isAsking
        }
        if mustAsk { Task { await askAll() } }
    }

    /// The youngest ledger, nil when metadata gives no answer or is not this cluster's.
    package func highestLedger() async -> LedgerID? {
        do throws(MetadataError) {
            guard try await isOurs() else { return nil }
            return try await ledgers.highestLedger()
        } catch {
            report(error)
            return nil
        }
    }

    private func askAll() async {
        while true {
            let batch = state.withLock { state in
                defer { state.waiting = [] }
                if state.waiting.isEmpty { state.isAsking = false }
                return state.waiting
            }
            if batch.isEmpty { return }
            let missing = await missing(of: Set(batch.map(\.ledger)))
            for (ledger, answer) in batch { answer(missing.map { !$0.contains(ledger) }) }
        }
    }

    /// nil when metadata gives no answer.
    private func missing(of wanted: Set<LedgerID>) async -> Set<LedgerID>? {
        do throws(MetadataError) {
            let missing = wanted.count <= LedgerChecks.singleMax ? try await lookUp(wanted) : try await list(wanted)
            if missing.isEmpty { return missing }
            // Read after the ledgers: what was lost before then is seen here.
            guard try await isOurs(), let oldest = missing.max(), try await ledgers.highestLedger() >= oldest else {
                report(
                    MetadataError(
                        .get, ledgers.keys.cluster,
                        .damaged("it is not the metadata of cluster number \(cluster): nothing is deleted by it")))
                return nil
            }
            return missing
        } catch {
            report(error)
            return nil
        }
    }

    private func isOurs() async throws(MetadataError) -> Bool {
        try await ledgers.records.get(ClusterRecord.self, ledgers.keys.cluster)?.value.number == cluster
    }

    private func lookUp(_ wanted: Set<LedgerID>) async throws(MetadataError) -> Set<LedgerID> {
        var missing: Set<LedgerID> = []
        for ledger in wanted where try await ledgers.records.store.get(ledgers.keys.ledger(ledger)) == nil {
            missing.insert(ledger)
        }
        return missing
    }

    private func list(_ wanted: Set<LedgerID>) async throws(MetadataError) -> Set<LedgerID> {
        guard let first = wanted.min(), let last = wanted.max() else { return [] }
        var missing = wanted
        // Before the first one, which is listed by that.
        var after: String? = first.rawValue == 0 ? nil : ledgers.keys.ledger(LedgerID(first.rawValue - 1))
        let end = ledgers.keys.ledger(last)
        repeat {
            let page = try await ledgers.records.store.list(
                prefix: ledgers.keys.ledgers, after: after, limit: MetadataLimits.pageEntriesMax)
            for entry in page.entries {
                if let ledger = ledgers.keys.ledger(ofKey: entry.key) { missing.remove(ledger) }
            }
            after = page.next
        } while after.map { $0 < end } ?? false
        return missing
    }
}
