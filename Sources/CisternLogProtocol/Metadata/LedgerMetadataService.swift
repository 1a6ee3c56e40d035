// The metadata store as the hosts of writers, readers and recoveries see it.

/// Answers what the machines ask. May be called from any thread, by many machines at once; each of them waits for its answer.
package protocol LedgerMetadataService: Sendable {
    /// Ends within the store's own time limit, with `unavailable` when there is no answer by then.
    func ask(_ request: LedgerMetadataRequest) async -> LedgerMetadataResult
}
