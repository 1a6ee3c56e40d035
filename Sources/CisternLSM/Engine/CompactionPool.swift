// The threads that merge tables, for all trees: jobs wait by priority, and one thread is kept for compactions of level 0, so
// that a burst of writes never waits behind a big merge of deeper levels.
//
// Threading: any thread submits. The queues are behind one mutex, and no job runs while it is held.

package import CisternPrimitives
internal import Synchronization

package final class CompactionPool: Sendable {
    private typealias Job = @Sendable () -> Void

    private struct State {
        /// By priority, each in order.
        var queues = [[Job]](repeating: [], count: CompactionPriority.allCases.count)
        /// Lanes without a job.
        var idle: [Int]
        /// Jobs below level 0 that run.
        var patientRunning = 0
        var isStopped = false
    }

    private let lanes: [any BackgroundLane]
    private let state: Mutex<State>

    /// - Precondition: there is at least one lane, and nobody else uses them.
    package init(lanes: [any BackgroundLane]) {
        precondition(!lanes.isEmpty, "a compaction pool without a lane")
        self.lanes = lanes
        state = Mutex(State(idle: Array(lanes.indices)))
    }

    package func submit(_ priority: CompactionPriority, _ job: @escaping @Sendable () -> Void) {
        state.withLock { state in
            if !state.isStopped { state.queues[priority.rawValue].append(job) }
        }
        dispatch()
    }

    /// Drops what has not begun and returns when what runs has ended.
    package func stop() {
        let dropped = state.withLock { state in
            state.isStopped = true
            let dropped = state.queues
            state.queues = State(idle: []).queues
            return dropped
        }
        // Jobs are released outside the lock: their captures may run code when they go.
        withExtendedLifetime(dropped) {}
        for lane in lanes { lane.stop() }
    }

    /// Threads that jobs below level 0 may have.
    private var patientMax: Int { max(lanes.count - 1, 1) }

    private func dispatch() {
        while let (lane, priority, job) = next() {
            lanes[lane].submit { [self] in
                job()
                state.withLock { state in
                    state.idle.append(lane)
                    if priority > .levelZero { state.patientRunning -= 1 }
                }
                dispatch()
            }
        }
    }

    private func next() -> (lane: Int, priority: CompactionPriority, job: Job)? {
        state.withLock { state in
            guard !state.isStopped, !state.idle.isEmpty else { return nil }
            for priority in CompactionPriority.allCases where !state.queues[priority.rawValue].isEmpty {
                if priority > .levelZero {
                    if state.patientRunning >= patientMax { return nil }
                    state.patientRunning += 1
                }
                return (state.idle.removeLast(), priority, state.queues[priority.rawValue].removeFirst())
            }
            return nil
        }
    }
}
