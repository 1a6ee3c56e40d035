// What the parts of repair share.

package import CisternChangelog
internal import CisternLogProtocol
package import CisternMetadata
package import CisternPrimitives
package import Logging

package struct RepairContext: Sendable {
    package let store: LedgerStore
    package let client: LedgerClient
    package let queue: RepairQueue
    package let pace: CopyPace
    package let options: RepairOptions
    package let time: any TimeSource
    package let logger: Logger
    let board = RepairBoard()

    package init(
        store: LedgerStore, client: LedgerClient, pace: CopyPace, options: RepairOptions, time: any TimeSource,
        logger: Logger
    ) {
        self.store = store
        self.client = client
        self.pace = pace
        self.options = options
        self.time = time
        self.logger = logger
        queue = RepairQueue(store, time: time)
    }

    package var figures: RepairFigures { board.current }

    var nowMilliseconds: UInt64 { time.monotonicNanoseconds / 1_000_000 }

    func ledger(_ ledger: LedgerID) async throws(MetadataError) -> Versioned<LedgerMetadata>? {
        try await store.records.get(LedgerMetadata.self, store.keys.ledger(ledger))
    }

    /// Nodes that are up.
    func registrations() async throws(MetadataError) -> [LogNodeRegistration] {
        var nodes: [LogNodeRegistration] = []
        var after: String?
        repeat {
            let page = try await store.records.list(
                LogNodeRegistration.self, prefix: store.keys.nodes, after: after)
            nodes += page.records.map(\.found.value)
            after = page.next
        } while after != nil
        return nodes
    }

    func failed(_ what: String, _ item: RepairQueue.Item, _ error: String) {
        board.note {
            $0.failures += 1
            $0.lastError = "\(item.entry.ledger) of \(item.entry.node): \(error)"
        }
        logger.warning("\(what)", metadata: metadata(item, ["error": "\(error)"]))
    }

    func note(_ what: String, _ item: RepairQueue.Item, _ more: Logger.Metadata = [:]) {
        logger.info("\(what)", metadata: metadata(item, more))
    }

    private func metadata(_ item: RepairQueue.Item, _ more: Logger.Metadata) -> Logger.Metadata {
        more.merging(["ledger": "\(item.entry.ledger)", "node": "\(item.entry.node)"]) { old, _ in old }
    }
}
