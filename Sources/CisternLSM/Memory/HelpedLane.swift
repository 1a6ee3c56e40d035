// Where memory is touched, given back and let go of. While flushes or merges run, their threads do it between two steps of
// their own: they have a processor, and one more thread that wants one would take it from an owner, for milliseconds at a time
// (docs/decisions/0086). While none runs, a thread of its own does it.
//
// Jobs may run beside each other and in any order. Threads: any.

package import CisternPrimitives
internal import Synchronization

package final class HelpedLane: BackgroundLane {
    private typealias Job = @Sendable () -> Void

    private struct State {
        /// For helpers; empty while there is none.
        var jobs: [Job] = []
        var helpers = 0
    }

    private let own: any BackgroundLane
    private let state = Mutex(State())
    /// Of `jobs`, so that a helper finds out without the lock that there is none.
    private let waiting = Atomic<Int>(0)

    package init(_ own: any BackgroundLane) { self.own = own }

    package func submit(_ job: @escaping @Sendable () -> Void) {
        let isForHelpers = state.withLock { state in
            guard state.helpers > 0 else { return false }
            state.jobs.append(job)
            waiting.store(state.jobs.count, ordering: .relaxed)
            return true
        }
        if !isForHelpers { own.submit(job) }
    }

    package func submit(afterMilliseconds delay: UInt64, _ job: @escaping @Sendable () -> Void) {
        own.submit(afterMilliseconds: delay) { [self] in submit(job) }
    }

    package func drain() {
        handOver { _ in }
        own.drain()
    }

    package func stop() {
        handOver { _ in }
        own.stop()
    }

    // MARK: Helping

    /// From here to `leave` the calling thread calls `help` every now and then.
    func join() { state.withLock { $0.helpers += 1 } }

    /// Before the thread waits for something, or ends.
    func leave() { handOver { $0.helpers -= 1 } }

    /// Does one job, if any waits.
    @inline(__always)
    func help() {
        if waiting.load(ordering: .relaxed) > 0 { doJob() }
    }

    @inline(never)
    private func doJob() {
        let job = state.withLock { state -> Job? in
            guard !state.jobs.isEmpty else { return nil }
            let job = state.jobs.removeFirst()
            waiting.store(state.jobs.count, ordering: .relaxed)
            return job
        }
        job?()
    }

    /// Gives what waits for helpers to the lane's own thread when no helper is left.
    private func handOver(after change: (inout State) -> Void) {
        let jobs = state.withLock { state -> [Job] in
            change(&state)
            if state.helpers > 0 { return [] }
            let jobs = state.jobs
            state.jobs = []
            waiting.store(0, ordering: .relaxed)
            return jobs
        }
        for job in jobs { own.submit(job) }
    }
}
