// All lanes and executors of an engine on one thread, in an order chosen by a seed: the same seed gives the same run, and a
// crash can be put between any two steps. Time moves only when it is told to, or when nothing else is left to do.

import CisternLSM
import CisternPrimitives

package final class SteppedScheduler: Sendable {
    private typealias Job = @Sendable () -> Void

    private struct Delayed {
        let due: UInt64
        let queue: Int
        let job: Job
    }

    private struct State {
        var queues: [[Job]] = []
        var stopped: Set<Int> = []
        var delayed: [Delayed] = []
        var random: SeededRandom
    }

    package let time: ManualTime
    private let state: Guarded<State>

    package init(seed: UInt64, wallMilliseconds: UInt64 = 1_000_000) {
        time = ManualTime(wallMilliseconds: wallMilliseconds)
        state = Guarded(State(random: SeededRandom(seed: seed)))
    }

    package func makeLane() -> any BackgroundLane { Queue(self, addQueue()) }

    package func makeExecutor() -> any TreeExecutor { Queue(self, addQueue()) }

    package func makeLanes() -> EngineLanes {
        EngineLanes(
            log: makeLane(), metadata: makeLane(), flush: makeLane(),
            compaction: CompactionPool(lanes: [makeLane(), makeLane()]),
            recovery: LanePool(lanes: [makeLane(), makeLane()]), memory: makeLane())
    }

    /// Runs one job of a random queue; false when no queue has one.
    @discardableResult
    package func step() -> Bool {
        let job = state.withLock { state -> Job? in
            let ready = state.queues.indices.filter { !state.queues[$0].isEmpty }
            guard let queue = ready.randomElement(using: &state.random) else { return nil }
            return state.queues[queue].removeFirst()
        }
        job?()
        return job != nil
    }

    package func runUntilIdle() { while step() {} }

    /// Steps until the condition holds, moving time to the next delayed job when nothing else is left.
    /// - Returns: false when it does not hold after so many steps.
    package func run(stepsMax: Int = 200_000, until condition: () -> Bool) -> Bool {
        for _ in 0..<stepsMax {
            if condition() { return true }
            if !step() && !moveToNextDelayed() { return condition() }
        }
        return condition()
    }

    /// Moves both clocks and lets what is due be run.
    package func advance(milliseconds: UInt64) {
        time.advance(milliseconds: milliseconds)
        releaseDue()
    }

    private func moveToNextDelayed() -> Bool {
        let next = state.withLock { state in state.delayed.map(\.due).min() }
        guard let next else { return false }
        let now = time.wallMilliseconds
        if next > now { time.advance(milliseconds: next - now) }
        releaseDue()
        return true
    }

    private func releaseDue() {
        let now = time.wallMilliseconds
        state.withLock { state in
            for delayed in state.delayed where delayed.due <= now { state.queues[delayed.queue].append(delayed.job) }
            state.delayed.removeAll { $0.due <= now }
        }
    }

    private func addQueue() -> Int {
        state.withLock { state in
            state.queues.append([])
            return state.queues.count - 1
        }
    }

    private final class Queue: BackgroundLane, TreeExecutor {
        let scheduler: SteppedScheduler
        let number: Int

        init(_ scheduler: SteppedScheduler, _ number: Int) {
            self.scheduler = scheduler
            self.number = number
        }

        func execute(_ work: @escaping @Sendable () -> Void) { submit(work) }

        func submit(_ job: @escaping @Sendable () -> Void) {
            scheduler.state.withLock { state in
                if !state.stopped.contains(number) { state.queues[number].append(job) }
            }
        }

        func submit(afterMilliseconds delay: UInt64, _ job: @escaping @Sendable () -> Void) {
            let due = scheduler.time.wallMilliseconds + delay
            scheduler.state.withLock { state in
                if !state.stopped.contains(number) {
                    state.delayed.append(Delayed(due: due, queue: number, job: job))
                }
            }
        }

        func drain() {
            let jobs = scheduler.state.withLock { state -> [Job] in
                let jobs = state.queues[number]
                state.queues[number] = []
                return jobs
            }
            for job in jobs { job() }
        }

        func stop() {
            let dropped = scheduler.state.withLock { state -> [Job] in
                state.stopped.insert(number)
                let dropped = state.queues[number] + state.delayed.filter { $0.queue == number }.map(\.job)
                state.queues[number] = []
                state.delayed.removeAll { $0.queue == number }
                return dropped
            }
            withExtendedLifetime(dropped) {}
        }
    }
}

/// A clock that is moved by hand.
package final class ManualTime: TimeSource {
    private let wall: Guarded<UInt64>

    package init(wallMilliseconds: UInt64) { wall = Guarded(wallMilliseconds) }

    package var wallMilliseconds: UInt64 { wall.withLock { $0 } }
    package var monotonicNanoseconds: UInt64 { wall.withLock { $0 * 1_000_000 } }

    package func advance(milliseconds: UInt64) { wall.withLock { $0 += milliseconds } }
}

/// A tree's owner on a thread of its own, for tests with real threads.
package final class ThreadExecutor: TreeExecutor {
    private let thread: SerialThread

    package init(name: String = "test-owner") { thread = SerialThread(name: name) }

    package func execute(_ work: @escaping @Sendable () -> Void) { thread.submit(work) }

    package func stop() { thread.stop() }
}
