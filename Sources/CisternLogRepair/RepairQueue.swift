// The queue of ledgers that are to be repaired, in metadata: one entry for a ledger and a node that lost its part of it.

package import CisternLogProtocol
package import CisternMetadata
package import CisternPrimitives

/// What became of an operator's order.
package enum RepairOrder: Hashable, Sendable {
    /// The node is there: it is stopped first.
    case registered(address: String)
    /// `new` of `ledgers` were not in the queue.
    case queued(new: Int, ledgers: Int)
}

package struct RepairQueue: Sendable {
    package struct Item: Hashable, Sendable {
        package let key: String
        package let entry: RepairEntry
        package let version: MetadataVersion
    }

    private let store: LedgerStore
    private let time: any TimeSource

    package init(_ store: LedgerStore, time: any TimeSource) {
        self.store = store
        self.time = time
    }

    private var records: RecordStore { store.records }
    private var keys: MetadataKeys { store.keys }

    /// In the order of ledgers.
    package func items() async throws(MetadataError) -> [Item] {
        var items: [Item] = []
        var after: String?
        repeat {
            let page = try await records.list(RepairEntry.self, prefix: keys.repairs, after: after)
            items += page.records.map { Item(key: $0.key, entry: $0.found.value, version: $0.found.version) }
            after = page.next
        } while after != nil
        return items
    }

    /// The entry as it is; nil when it is gone.
    func item(_ key: String) async throws(MetadataError) -> Item? {
        try await records.get(RepairEntry.self, key).map { Item(key: key, entry: $0.value, version: $0.version) }
    }

    /// Puts a ledger into the queue. One that is there already stays as it is, unless the node lost it in another way.
    /// - Returns: whether the queue changed.
    @discardableResult
    package func put(_ ledger: LedgerID, _ node: LogNodeID, _ loss: NodeLoss) async throws(MetadataError) -> Bool {
        let key = keys.repair(ledger, node)
        let entry = RepairEntry(
            ledger: ledger, node: node, loss: loss, noticedWallMilliseconds: time.wallMilliseconds)
        do throws(MetadataError) {
            if let found = try await item(key) {
                if found.entry.loss == loss { return false }
                _ = try await records.compareAndSwap(key, expected: found.version, new: entry)
            } else {
                _ = try await records.create(key, entry)
            }
            return true
        } catch {
            switch error.reason {
            // Another one was faster with it: what it wrote is looked at in the next round.
            case .exists, .conflict, .missing: return false
            default: throw error
            }
        }
    }

    /// Every ledger that has the node in a fragment.
    /// - Returns: how many were not in the queue.
    package func put(
        _ ledgers: some Sequence<LedgerID>, of node: LogNodeID, _ loss: NodeLoss
    ) async throws(MetadataError) -> Int {
        var new = 0
        for ledger in ledgers where try await put(ledger, node, loss) { new += 1 }
        return new
    }

    /// An operator says that a node does not come back: no grace is waited for.
    package func order(_ node: LogNodeID) async throws(MetadataError) -> RepairOrder {
        if let found = try await records.get(LogNodeRegistration.self, keys.node(node)) {
            return .registered(address: found.value.address)
        }
        let ledgers = try await store.ledgers(of: node).map(\.ledger)
        return .queued(new: try await put(ledgers, of: node, .dead), ledgers: ledgers.count)
    }

    /// Nothing happens when somebody changed the entry since it was read.
    func set(_ item: Item, to state: RepairEntry.State) async throws(MetadataError) {
        guard item.entry.state != state else { return }
        var entry = item.entry
        entry.state = state
        do throws(MetadataError) {
            _ = try await records.compareAndSwap(item.key, expected: item.version, new: entry)
        } catch {
            if !error.isOvertaken { throw error }
        }
    }

    /// Nothing happens when somebody changed the entry since it was read.
    func remove(_ item: Item) async throws(MetadataError) {
        do throws(MetadataError) {
            try await records.store.delete(item.key, expected: item.version)
        } catch {
            if !error.isOvertaken { throw error }
        }
    }
}

extension MetadataError {
    /// Somebody else changed the key first.
    var isOvertaken: Bool {
        switch reason {
        case .conflict, .missing: true
        default: false
        }
    }
}
