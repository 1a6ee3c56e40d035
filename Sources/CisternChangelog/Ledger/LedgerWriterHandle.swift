// The writer of one ledger, for its owner.
//
// `append` gives the entry's id as soon as there is room in the window; the acknowledgement is waited for apart, so that one
// wait covers many entries. Threading: may be called from anywhere; appends of one task come in their order.

package import CisternLogProtocol
internal import CisternLogWire
package import CisternPrimitives
internal import NIOCore

package final class LedgerWriterHandle: Sendable {
    package let ledger: LedgerID
    private let queue: LedgerWriterQueue
    private let host: NIOLoopBound<LedgerWriterHost>

    init(_ queue: LedgerWriterQueue, _ host: NIOLoopBound<LedgerWriterHost>) {
        ledger = queue.ledger
        self.queue = queue
        self.host = host
    }

    deinit { queue.stop() }

    /// All entries up to this one are durable.
    package var lastAcknowledged: EntryID { queue.lastAcknowledged }

    /// Bytes of entries that are not acknowledged; bounded by the window.
    package var unacknowledgedBytes: Int { queue.unacknowledgedBytes }

    /// What log nodes last refused or failed with, for people; empty when an entry was acknowledged since. A writer does not give up
    /// by itself while nodes may come back: its owner looks here.
    package var trouble: String { queue.trouble }

    /// Appends an entry, after a wait for room in the window. It is durable when it is acknowledged.
    @discardableResult
    package func append(_ body: [UInt8]) async throws(LedgerError) -> EntryID {
        try check(body)
        return try await result { queue.append(body, whenAdmitted: $0) }
    }

    /// Appends an entry without waiting; nil when the window is full. `acknowledged` is called once, on the ledger's event loop,
    /// and must not block.
    package func append(
        _ body: [UInt8], acknowledged: (@Sendable (Result<EntryID, LedgerError>) -> Void)?
    ) throws(LedgerError) -> EntryID? {
        try check(body)
        return try queue.append(body, acknowledged)
    }

    /// Waits until all entries up to `entry` are durable.
    /// - Precondition: `entry` was appended.
    package func acknowledged(_ entry: EntryID) async throws(LedgerError) {
        _ = try await result { queue.whenAcknowledged(entry, $0) }
    }

    /// Closes the ledger behind all that was appended and returns its last entry. A second close returns the same.
    @discardableResult
    package func close() async throws(LedgerError) -> EntryID {
        try await result { queue.close($0) }
    }

    /// Lets the ledger go as it is: it stays open in metadata until somebody recovers it. Idempotent.
    package func stop() { queue.stop() }

    /// Which nodes are there to replace others, the best in front.
    package func setCandidates(_ nodes: [LogNodeID]) {
        host.eventLoop.execute { [host] in host.value.setCandidates(nodes) }
    }

    private func check(_ body: [UInt8]) throws(LedgerError) {
        let max = LedgerWriterHandle.entryBytesMax
        guard body.count <= max else { throw .entryTooLarge(ledger, bytes: body.count, max: max) }
    }

    /// Longest entry.
    package static let entryBytesMax = LogWireLimits.entryBytesMax

    private func result(
        _ ask: (@escaping LedgerWriterQueue.Acknowledgement) -> Void
    ) async throws(LedgerError) -> EntryID {
        try await withCheckedContinuation { continuation in
            ask { continuation.resume(returning: $0) }
        }.get()
    }
}
