// What logs of ledgers ask of metadata, in a metadata store.

package import CisternLogProtocol
package import CisternPrimitives

extension LedgerStore: LogMetadataService {
    package func createLedger(
        _ sizes: QuorumSizes, on ensemble: [LogNodeID]
    ) async -> (LedgerID, Versioned<LedgerMetadata>)? {
        do throws(MetadataError) {
            let made = try await createLedger(sizes: sizes, ensemble: ensemble)
            return (made.ledger, made.metadata)
        } catch {
            report(error)
            return nil
        }
    }

    package func deleteLedger(_ ledger: LedgerID) async -> Bool {
        do throws(MetadataError) {
            guard let found = try await records.get(LedgerMetadata.self, keys.ledger(ledger)) else { return true }
            try await deleteLedger(ledger, expected: found.version)
            return true
        } catch {
            report(error)
            return false
        }
    }

    /// Registered nodes that are not read-only, begun with another one for each ledger, so that ledgers spread over all of them. Empty when
    /// metadata gives no answer.
    package func writableNodes() async -> [LogNodeID] {
        do throws(MetadataError) {
            var nodes: [LogNodeID] = []
            var after: String?
            repeat {
                let page = try await records.list(LogNodeRegistration.self, prefix: keys.nodes, after: after)
                nodes += page.records.map(\.found.value).filter { !$0.isReadOnly }.map(\.node)
                after = page.next
            } while after != nil
            guard !nodes.isEmpty else { return [] }
            let start = Int(try await highestLedger().rawValue % UInt64(nodes.count))
            return Array(nodes[start...] + nodes[..<start])
        } catch {
            report(error)
            return []
        }
    }

    /// nil when the node is not registered now, or metadata gives no answer.
    package func registration(of node: LogNodeID) async -> LogNodeRegistration? {
        do throws(MetadataError) {
            return try await records.get(LogNodeRegistration.self, keys.node(node))?.value
        } catch {
            report(error)
            return nil
        }
    }

    /// Calls `body` with every log, in the order of their names. Logs that come or change meanwhile may be seen or not.
    package func forEachLog(
        _ body: (_ name: String, Versioned<LogMetadata>) -> Void
    ) async throws(MetadataError) {
        var after: String?
        repeat {
            let page = try await records.list(LogMetadata.self, prefix: keys.logs, after: after)
            for (key, found) in page.records { body(String(key.dropFirst(keys.logs.count)), found) }
            after = page.next
        } while after != nil
    }

    /// Removes a log with its ledgers; whoever owns it finds them gone. What an error leaves is in no list.
    package func deleteLog(_ name: String) async throws(MetadataError) {
        guard let found = try await records.get(LogMetadata.self, keys.log(name)) else { return }
        // First, so that nobody takes over a list of ledgers that go.
        do throws(MetadataError) {
            try await records.store.delete(keys.log(name), expected: found.version)
        } catch {
            if error.reason != .missing { throw error }
        }
        for ledger in found.value.ledgers {
            if let metadata = try await records.get(LedgerMetadata.self, keys.ledger(ledger)) {
                try await deleteLedger(ledger, expected: metadata.version)
            }
        }
    }
}
