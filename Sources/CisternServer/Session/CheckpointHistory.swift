// The last checkpoints of all trees, for the status page and the metrics.
//
// Threading: any; behind a mutex that is held for an append or a copy.

internal import Synchronization

/// One tree's part of a checkpoint.
package struct CheckpointPart: Equatable, Sendable {
    package let store: String
    /// `0...63`.
    package let keyGroups: String
    package let checkpoint: UInt64
    /// When it was answered, wall clock.
    package let finishedMilliseconds: UInt64
    /// From the request's arrival to its answer.
    package let microseconds: UInt64
    package let bytes: UInt64
    /// What no earlier snapshot held.
    package let newBytes: UInt64
    package let failure: String?

    package init(
        store: String, keyGroups: String, checkpoint: UInt64, finishedMilliseconds: UInt64, microseconds: UInt64,
        bytes: UInt64, newBytes: UInt64, failure: String?
    ) {
        self.store = store
        self.keyGroups = keyGroups
        self.checkpoint = checkpoint
        self.finishedMilliseconds = finishedMilliseconds
        self.microseconds = microseconds
        self.bytes = bytes
        self.newBytes = newBytes
        self.failure = failure
    }
}

package final class CheckpointHistory: Sendable {
    package static let partsMax = 256

    private struct State {
        var parts: [CheckpointPart] = []
        /// Where the oldest is once the ring is full.
        var start = 0
        var taken: UInt64 = 0
        var failed: UInt64 = 0
        var microseconds: UInt64 = 0
    }

    /// Totals since the start.
    package struct Sums: Equatable, Sendable {
        package var taken: UInt64 = 0
        package var failed: UInt64 = 0
        package var microseconds: UInt64 = 0
    }

    private let state = Mutex(State())

    package init() {}

    package func record(_ part: CheckpointPart) {
        state.withLock { state in
            if part.failure == nil { state.taken += 1 } else { state.failed += 1 }
            state.microseconds &+= part.microseconds
            if state.parts.count < CheckpointHistory.partsMax {
                state.parts.append(part)
            } else {
                state.parts[state.start] = part
                state.start = (state.start + 1) % CheckpointHistory.partsMax
            }
        }
    }

    /// Oldest first.
    package var parts: [CheckpointPart] {
        state.withLock { Array($0.parts[$0.start...] + $0.parts[..<$0.start]) }
    }

    package var sums: Sums {
        state.withLock { Sums(taken: $0.taken, failed: $0.failed, microseconds: $0.microseconds) }
    }
}
