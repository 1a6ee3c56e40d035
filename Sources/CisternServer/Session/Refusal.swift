// What a client is told when something does not work: one place where errors of the engine, of the catalog and of sessions
// become a code, a class, retry advice and a sentence that says what was attempted, what was found and what to do.

internal import CisternFileSystem
package import CisternLSM
package import CisternPrimitives
package import CisternWire

package struct Refusal: Error, Equatable, Sendable {
    package let body: ErrorBody

    package init(
        _ code: ErrorCode, _ message: String, retryMilliseconds: UInt32? = nil, currentEpoch: UInt64 = 0,
        expectedSequence: UInt64 = 0
    ) {
        body = ErrorBody(
            code, message, retryMilliseconds: retryMilliseconds, currentEpoch: currentEpoch,
            expectedSequence: expectedSequence)
    }

    package init(_ error: WireError) { body = ErrorBody(error) }

    /// - Parameter attempt: what was attempted, on what: `write batch 7 of store "orders" key groups 0...63`.
    package init(_ error: EngineError, attempt: String) {
        switch error {
        case .corruption(let damage):
            self.init(.corruption, "\(attempt): \(damage)")
        case .file(let failure):
            self.init(
                failure.isOutOfSpace ? .readOnly : .internalError,
                "\(attempt): \(failure); free space or repair the disk of the data directory, then try again")
        case .readOnly(let tree, let cause):
            self.init(
                .readOnly,
                "\(attempt): \(tree) takes no writes: \(cause); free space or repair the disk of the data directory, the "
                    + "server then goes on by itself; nothing acknowledged is lost")
        case .invalidEntry(let detail):
            self.init(.limitExceeded, "\(attempt): \(detail)")
        case .sequenceGap(let expected, let found):
            self.init(
                .sequenceGap, "\(attempt): batch \(found) came where \(expected) was expected",
                expectedSequence: expected)
        case .fenced(let current, let found):
            self.init(
                .fenced, "\(attempt): epoch \(found) was replaced by epoch \(current)", currentEpoch: current)
        case .closed(let tree):
            self.init(.notAttached, "\(attempt): \(tree) was closed")
        case .unsupported(let detail):
            self.init(.badMessage, "\(attempt): \(detail)")
        case .logLost(let detail):
            self.init(.notAttached, "\(attempt): the tree's log failed: \(detail); attach again")
        }
    }

    package init(_ error: CatalogError, attempt: String) {
        switch error {
        case .refused(let reason): self.init(Refusal.code(of: reason), "\(attempt): \(reason.sentence)")
        case .file(let failure): self.init(EngineError.file(failure), attempt: attempt)
        case .corruption(let damage): self.init(.corruption, "\(attempt): \(damage)")
        }
    }

    private static func code(of refusal: CatalogRefusal) -> ErrorCode {
        switch refusal {
        case .invalidName, .limit: .limitExceeded
        case .unknownStore: .noSuchStore
        case .keyGroupCountDiffers, .stateKindDiffers, .unknownState, .idsDiffer: .stateMismatch
        case .unknownDictionary: .noSuchDictionary
        }
    }

    package static func fenced(_ attempt: String, by current: UInt64) -> Refusal {
        Refusal(
            .fenced, "\(attempt): a writer with epoch \(current) owns the range; this one was replaced",
            currentEpoch: current)
    }

    package static func mismatch(_ attempt: String, with ranges: [KeyGroupRange]) -> Refusal {
        let list = ranges.map(\.description).joined(separator: ", ")
        return Refusal(
            .rangeMismatch,
            "\(attempt): the store has trees of key groups \(list), none of exactly this range; to work at another "
                + "parallelism, attach restoring the snapshots of a checkpoint")
    }

    package static func draining(_ attempt: String) -> Refusal {
        Refusal(.draining, "\(attempt): the server is stopping")
    }
}
