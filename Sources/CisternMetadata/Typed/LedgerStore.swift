// Ledgers and logs in a metadata store: what the protocol's machines ask, and what their hosts need beside that.

package import CisternLogProtocol
package import CisternPrimitives

package struct LedgerStore: LedgerMetadataService {
    /// How often a counter is tried against others, and a lost answer is looked up.
    package static let attemptsMax = 1_000

    package let records: RecordStore
    package let keys: MetadataKeys
    /// Told of what the machines' answers have no case for: damage, a limit, why there was no answer.
    let report: @Sendable (MetadataError) -> Void

    package init(
        _ store: any MetadataStore, keys: MetadataKeys = MetadataKeys(),
        report: @escaping @Sendable (MetadataError) -> Void
    ) {
        records = RecordStore(store)
        self.keys = keys
        self.report = report
    }

    // MARK: What the machines ask

    package func ask(_ request: LedgerMetadataRequest) async -> LedgerMetadataResult {
        do throws(MetadataError) {
            switch request {
            case .get(let ledger):
                return try await records.get(LedgerMetadata.self, keys.ledger(ledger)).map { .found($0) } ?? .missing
            case .compareAndSwap(let ledger, let expected, let new):
                return .written(
                    try await records.compareAndSwap(keys.ledger(ledger), expected: expected, new: new))
            }
        } catch {
            switch error.reason {
            case .conflict: return .conflict
            case .missing: return .missing
            default:
                report(error)
                return .unavailable
            }
        }
    }

    /// A log that is not there has version 0, and a swap that expects version 0 creates it.
    package func ask(_ request: LogMetadataRequest, ofLog name: String) async -> LogMetadataResult {
        let key = keys.log(name)
        do throws(MetadataError) {
            switch request {
            case .get:
                let found = try await records.get(LogMetadata.self, key)
                return .found(found ?? Versioned(LogMetadata(), version: 0))
            case .compareAndSwap(0, let new): return .written(try await records.create(key, new))
            case .compareAndSwap(let expected, let new):
                return .written(try await records.compareAndSwap(key, expected: expected, new: new))
            }
        } catch {
            switch error.reason {
            case .conflict, .missing, .exists: return .conflict
            default:
                report(error)
                return .unavailable
            }
        }
    }

    // MARK: Ledgers

    /// The highest id that was given; 0 before the first.
    package func highestLedger() async throws(MetadataError) -> LedgerID {
        try await records.get(LedgerIDCounter.self, keys.ledgerIDs)?.value.highest ?? LedgerID(0)
    }

    /// An id larger than every one that was given before this call began, and given to nobody else. Answers that are lost cost
    /// ids, never uniqueness.
    package func allocateLedgerID() async throws(MetadataError) -> LedgerID {
        var last = MetadataError(.compareAndSwap, keys.ledgerIDs, .unavailable("it was not tried"))
        for _ in 0..<LedgerStore.attemptsMax {
            do throws(MetadataError) {
                guard let found = try await records.get(LedgerIDCounter.self, keys.ledgerIDs) else {
                    _ = try await records.create(keys.ledgerIDs, LedgerIDCounter(highest: LedgerID(1)))
                    return LedgerID(1)
                }
                let (next, isOver) = found.value.highest.rawValue.addingReportingOverflow(1)
                guard !isOver else {
                    throw MetadataError(.compareAndSwap, keys.ledgerIDs, .limit("every ledger id was given"))
                }
                _ = try await records.compareAndSwap(
                    keys.ledgerIDs, expected: found.version, new: LedgerIDCounter(highest: LedgerID(next)))
                return LedgerID(next)
            } catch {
                switch error.reason {
                // Another one was faster; each of these means that somebody got an id.
                case .conflict, .exists: last = error
                default: throw error
                }
            }
        }
        throw last
    }

    /// A new ledger of an id of its own. When the answer to its creation is lost it is looked up, because nobody else writes
    /// to a new id.
    package func createLedger(
        sizes: QuorumSizes, ensemble: [LogNodeID]
    ) async throws(MetadataError) -> (ledger: LedgerID, metadata: Versioned<LedgerMetadata>) {
        let metadata: LedgerMetadata
        do throws(LedgerMetadataError) {
            metadata = try LedgerMetadata(sizes: sizes, ensemble: ensemble)
        } catch {
            throw MetadataError(.create, keys.ledgers, .limit("\(error) is no ensemble of \(sizes)"))
        }
        let ledger = try await allocateLedgerID()
        let key = keys.ledger(ledger)
        do throws(MetadataError) {
            return (ledger, Versioned(metadata, version: try await records.create(key, metadata)))
        } catch {
            guard error.isUnavailable, let found = try await records.get(LedgerMetadata.self, key),
                found.value == metadata
            else { throw error }
            return (ledger, found)
        }
    }

    /// Fine when it is gone already.
    package func deleteLedger(_ ledger: LedgerID, expected: MetadataVersion) async throws(MetadataError) {
        do throws(MetadataError) {
            try await records.store.delete(keys.ledger(ledger), expected: expected)
        } catch {
            if error.reason != .missing { throw error }
        }
    }

    /// Calls `body` with every ledger, in the order of their ids. Ledgers that come or change meanwhile may be seen or not.
    package func forEachLedger(
        _ body: (LedgerID, Versioned<LedgerMetadata>) -> Void
    ) async throws(MetadataError) {
        var after: String?
        repeat {
            let page = try await records.list(LedgerMetadata.self, prefix: keys.ledgers, after: after)
            for (key, found) in page.records {
                guard let ledger = keys.ledger(ofKey: key) else {
                    throw MetadataError(.list, key, .damaged("the key is not that of a ledger"))
                }
                body(ledger, found)
            }
            after = page.next
        } while after != nil
    }

    /// The ledgers that have `node` in an ensemble, for repair.
    package func ledgers(
        of node: LogNodeID
    ) async throws(MetadataError) -> [(ledger: LedgerID, metadata: Versioned<LedgerMetadata>)] {
        var found: [(ledger: LedgerID, metadata: Versioned<LedgerMetadata>)] = []
        try await forEachLedger { ledger, metadata in
            if metadata.value.fragments.contains(where: { $0.ensemble.contains(node) }) {
                found.append((ledger, metadata))
            }
        }
        return found
    }
}
