// How fast compactions may write, for all trees together: a token bucket in bytes a second.
//
//   flush, level 0    never wait, and are charged: what they take, the others save
//   deeper, clean-up  wait until the bucket is out of debt; not while nobody writes
//
// Threading: any thread; the bucket is behind a mutex that nobody waits under.

package import CisternPrimitives
internal import Synchronization

package final class BackgroundRate: Sendable {
    private struct State {
        /// Bytes that may be written; negative when more was written than the rate allows.
        var credit = 0.0
        var refilledAt: UInt64 = 0
        var batches: UInt64 = 0
        /// When the number of batches was seen to change last.
        var busyAt: UInt64 = 0
        var hasBegun = false
    }

    private let bytesPerSecond: UInt64
    private let time: any TimeSource
    private let state = Mutex(State())
    /// Batches applied in all trees. Relaxed: only whether it changes is of interest.
    private let batches = Atomic<UInt64>(0)

    /// With no batch for so long, compactions may have the disk.
    static let idleNanoseconds: UInt64 = 1_000_000_000
    /// What the bucket holds, in time at the rate.
    private static let burstSeconds = 0.1
    /// No job waits longer at once, so that it sees a cancellation and the end of the rush.
    static let waitNanosecondsMax: UInt64 = 50_000_000

    /// - Parameter bytesPerSecond: 0 for no limit.
    package init(bytesPerSecond: UInt64, time: any TimeSource) {
        self.bytesPerSecond = bytesPerSecond
        self.time = time
    }

    package func noteBatch() { batches.wrappingAdd(1, ordering: .relaxed) }

    /// Charges `bytes` that were written.
    /// - Returns: for how many nanoseconds the writer has to wait before it asks again with 0 bytes; 0 when it may go on.
    package func charge(_ bytes: UInt64, _ priority: CompactionPriority?) -> UInt64 {
        if bytesPerSecond == 0 { return 0 }
        let now = time.monotonicNanoseconds
        let batches = batches.load(ordering: .relaxed)
        let rate = Double(bytesPerSecond)
        return state.withLock { state in
            let burst = rate * BackgroundRate.burstSeconds
            if !state.hasBegun {
                state = State(credit: burst, refilledAt: now, batches: batches, busyAt: now, hasBegun: true)
            }
            state.credit += Double(now - min(state.refilledAt, now)) / 1e9 * rate
            state.refilledAt = now
            if state.batches != batches {
                state.batches = batches
                state.busyAt = now
            }
            state.credit = min(state.credit, burst) - Double(bytes)
            if now - min(state.busyAt, now) >= BackgroundRate.idleNanoseconds {
                state.credit = max(state.credit, 0)
            }
            guard let priority, priority > .levelZero, state.credit < 0 else { return 0 }
            let wait = -state.credit / rate * 1e9
            return wait >= Double(BackgroundRate.waitNanosecondsMax)
                ? BackgroundRate.waitNanosecondsMax : UInt64(wait) + 1
        }
    }
}

/// One background job's use of the rate.
struct BackgroundPace: Sendable {
    let rate: BackgroundRate
    /// nil for flushes.
    let priority: CompactionPriority?

    /// Charges what a job wrote and holds it up as long as it must wait; blocks its thread.
    func wrote(_ bytes: UInt64, _ cancellation: Cancellation) {
        var wait = rate.charge(bytes, priority)
        while wait > 0, !cancellation.isCancelled {
            pauseThread(nanoseconds: wait)
            wait = rate.charge(0, priority)
        }
    }
}
