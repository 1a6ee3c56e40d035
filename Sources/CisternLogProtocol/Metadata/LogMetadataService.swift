// What logs ask of the metadata store, beside what their ledgers ask.

package import CisternPrimitives

/// Any thread, by many logs at once.
package protocol LogMetadataService: LedgerMetadataService {
    /// Ends within the store's own time limit, with `unavailable` when there is no answer by then.
    func ask(_ request: LogMetadataRequest, ofLog name: String) async -> LogMetadataResult
    /// A new ledger, younger than all others; nil when the store gave no answer: one that nobody uses may be left.
    func createLedger(_ sizes: QuorumSizes, on ensemble: [LogNodeID]) async -> (LedgerID, Versioned<LedgerMetadata>)?
    /// False when the store gave no answer. A ledger that is not there is fine.
    func deleteLedger(_ ledger: LedgerID) async -> Bool
    /// Nodes that take adds, the best in front.
    func writableNodes() async -> [LogNodeID]
}
