// Entries of one ledger in their order, from one on: to a given one, to the end of a closed ledger, or following a ledger that is
// written until it is closed. Only what is in the ledger for ever is delivered.
//
// Threading: may be used from anywhere; each entry is given once, whoever asks.

package import CisternPrimitives

package struct LedgerEntry: Hashable, Sendable {
    package let id: EntryID
    package let body: [UInt8]
}

/// A run of entries.
package struct LedgerBatch: Hashable, Sendable {
    package let first: EntryID
    package let bodies: [[UInt8]]
    let bytes: Int

    init(first: EntryID, bodies: [[UInt8]]) {
        self.first = first
        self.bodies = bodies
        // What an entry takes beside its body, so that empty ones count too.
        bytes = bodies.reduce(0) { $0 + $1.count + LedgerBatch.entryOverheadBytes }
    }

    static let entryOverheadBytes = 64
}

package final class LedgerReaderHandle: AsyncSequence, Sendable {
    package typealias Element = LedgerEntry

    package let ledger: LedgerID
    private let queue: LedgerReaderQueue

    init(_ queue: LedgerReaderQueue) {
        ledger = queue.ledger
        self.queue = queue
    }

    deinit { queue.stop() }

    /// The next run of entries; nil at the end. A task that is cancelled stops the reader.
    package func nextBatch() async throws(LedgerError) -> LedgerBatch? {
        let result = await withTaskCancellationHandler {
            do throws(LedgerError) {
                return Result<LedgerBatch?, LedgerError>.success(try await queue.next())
            } catch {
                return .failure(error)
            }
        } onCancel: {
            queue.stop()
        }
        return try result.get()
    }

    /// Bytes that were fetched ahead.
    package var bufferedBytes: Int { queue.bytes }

    /// Stops reading. What was fetched is still given, then `stopped`. Idempotent.
    package func stop() { queue.stop() }

    package func makeAsyncIterator() -> Iterator { Iterator(self) }

    package struct Iterator: AsyncIteratorProtocol {
        private let reader: LedgerReaderHandle
        private var batch: LedgerBatch?
        private var index = 0

        init(_ reader: LedgerReaderHandle) { self.reader = reader }

        package mutating func next() async throws -> LedgerEntry? {
            while true {
                if let batch, index < batch.bodies.count {
                    defer { index += 1 }
                    return LedgerEntry(id: batch.first.advanced(by: index), body: batch.bodies[index])
                }
                guard let next = try await reader.nextBatch() else { return nil }
                batch = next
                index = 0
            }
        }
    }
}
