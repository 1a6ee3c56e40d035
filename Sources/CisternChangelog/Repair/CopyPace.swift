// How fast copies may go: so many bytes a second, of all that share the pace. What was read is paid for afterwards, so that an
// answer need not be known before it comes: over any time, no more than the rate allows and one answer of each that copies.
//
// Threading: any; guarded by its mutex.

package import CisternPrimitives
internal import Synchronization

package final class CopyPace: Sendable {
    /// Calls back after so many nanoseconds.
    package typealias Timer = @Sendable (_ nanoseconds: UInt64, _ fire: @escaping @Sendable () -> Void) -> Void

    private struct State {
        /// All that was read is paid for at this time.
        var paidNanoseconds: UInt64 = 0
        var bytes: UInt64 = 0
    }

    package let bytesPerSecond: UInt64
    private let time: any TimeSource
    private let timer: Timer
    private let state = Mutex(State())

    /// - Precondition: a rate of 1 or more.
    package init(bytesPerSecond: UInt64, time: any TimeSource, timer: @escaping Timer) {
        precondition(bytesPerSecond > 0, "copies at no bytes a second")
        self.bytesPerSecond = bytesPerSecond
        self.time = time
        self.timer = timer
    }

    /// Bytes that were read so far.
    package var bytes: UInt64 { state.withLock { $0.bytes } }

    /// Nanoseconds until the next read may be asked for.
    package var delayNanoseconds: UInt64 {
        let now = time.monotonicNanoseconds
        return state.withLock { $0.paidNanoseconds > now ? $0.paidNanoseconds - now : 0 }
    }

    package func took(bytes: Int) {
        let now = time.monotonicNanoseconds
        // An answer is far below the 18 GB at which this overflows.
        let cost = UInt64(bytes) * 1_000_000_000 / bytesPerSecond
        state.withLock { state in
            state.paidNanoseconds = max(now, state.paidNanoseconds) + cost
            state.bytes += UInt64(bytes)
        }
    }

    /// Calls `go` when a read may be asked for: from within, or on the timer's thread.
    func whenFree(_ go: @escaping @Sendable () -> Void) {
        let delay = delayNanoseconds
        if delay == 0 { return go() }
        timer(delay) { [self] in whenFree(go) }
    }
}
