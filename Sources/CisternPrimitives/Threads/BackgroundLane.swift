// Background work in order: one lane, one job at a time. The engine never uses the cooperative pool, because its jobs block.
//
// `SerialThread` is the real one: a pthread of its own, a queue, delayed jobs. Tests put a scheduler in its place that runs
// all lanes on one thread in an order chosen by a seed.

internal import CCisternShims
internal import Glibc

package protocol BackgroundLane: AnyObject, Sendable {
    /// Runs `job` after everything submitted before it. Jobs submitted after `stop` are dropped.
    func submit(_ job: @escaping @Sendable () -> Void)
    /// Runs `job` when the delay has passed, or later.
    func submit(afterMilliseconds delay: UInt64, _ job: @escaping @Sendable () -> Void)
    /// Returns when everything submitted before it has run, except delayed jobs. Not called by a job of the lane.
    func drain()
    /// Drops what has not started and returns when the running job has ended. Idempotent.
    func stop()
}

/// A lane on its own pthread.
///
/// `@unchecked Sendable`: `queue`, `delayed`, `isStopped` and the drains are guarded by `mutex`; the rest is immutable after
/// init.
@safe package final class SerialThread: BackgroundLane, @unchecked Sendable {
    private typealias Job = @Sendable () -> Void
    private struct DelayedJob {
        let deadline: UInt64
        let job: Job
    }

    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>
    private let name: String
    private var thread: pthread_t = 0
    private var queue: [Job] = []
    /// Few at any time (retries), so a plain array is searched.
    private var delayed: [DelayedJob] = []
    private var isStopped = false
    private var isJoined = false
    /// Calls of `drain` so far, and how many of them the thread has reached.
    private var drainsAsked = 0
    private var drainsReached = 0

    /// - Parameter name: what debuggers and `top` show; the kernel keeps 15 characters.
    package init(name: String) {
        self.name = name
        unsafe mutex = UnsafeMutablePointer.allocate(capacity: 1)
        unsafe changed = UnsafeMutablePointer.allocate(capacity: 1)
        unsafe pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        unsafe pthread_condattr_init(&attributes)
        unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        unsafe pthread_cond_init(changed, &attributes)
        unsafe pthread_condattr_destroy(&attributes)
        let context = unsafe Unmanaged.passRetained(self).toOpaque()
        let result = unsafe pthread_create(&thread, nil, serialThreadMain, context)
        invariant(result == 0, "a thread for \(name) could not be started (errno \(result))")
    }

    deinit {
        unsafe pthread_cond_destroy(changed)
        unsafe pthread_mutex_destroy(mutex)
        unsafe changed.deallocate()
        unsafe mutex.deallocate()
    }

    package func submit(_ job: @escaping @Sendable () -> Void) {
        unsafe pthread_mutex_lock(mutex)
        if !isStopped { queue.append(job) }
        unsafe pthread_cond_broadcast(changed)
        unsafe pthread_mutex_unlock(mutex)
    }

    package func submit(afterMilliseconds delay: UInt64, _ job: @escaping @Sendable () -> Void) {
        let deadline = SystemTime().monotonicNanoseconds + delay * 1_000_000
        unsafe pthread_mutex_lock(mutex)
        if !isStopped { delayed.append(DelayedJob(deadline: deadline, job: job)) }
        unsafe pthread_cond_broadcast(changed)
        unsafe pthread_mutex_unlock(mutex)
    }

    package func drain() {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        guard !isStopped else { return }
        drainsAsked += 1
        let asked = drainsAsked
        queue.append { [self] in reachedDrain(asked) }
        unsafe pthread_cond_broadcast(changed)
        while drainsReached < asked && !isStopped { unsafe pthread_cond_wait(changed, mutex) }
    }

    private func reachedDrain(_ number: Int) {
        unsafe pthread_mutex_lock(mutex)
        drainsReached = number
        unsafe pthread_cond_broadcast(changed)
        unsafe pthread_mutex_unlock(mutex)
    }

    package func stop() {
        unsafe pthread_mutex_lock(mutex)
        isStopped = true
        let dropped = (queue, delayed)
        queue = []
        delayed = []
        let mustJoin = !isJoined && pthread_equal(pthread_self(), thread) == 0
        isJoined = isJoined || mustJoin
        unsafe pthread_cond_broadcast(changed)
        unsafe pthread_mutex_unlock(mutex)
        if mustJoin { pthread_join(thread, nil) }
        // Jobs are released outside the lock: their captures may run code when they go.
        withExtendedLifetime(dropped) {}
    }

    fileprivate func run() {
        while let jobs = waitForJobs() {
            for job in jobs {
                if stopRequested { return }
                job()
            }
        }
    }

    private var stopRequested: Bool {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return isStopped
    }

    /// What is due, in order; nil when stopped.
    private func waitForJobs() -> [Job]? {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        while true {
            if isStopped { return nil }
            moveDueJobs()
            if !queue.isEmpty {
                let jobs = queue
                queue = []
                return jobs
            }
            guard let next = delayed.map(\.deadline).min() else {
                unsafe pthread_cond_wait(changed, mutex)
                continue
            }
            var deadline = timespec(tv_sec: Int(next / 1_000_000_000), tv_nsec: Int(next % 1_000_000_000))
            unsafe pthread_cond_timedwait(changed, mutex, &deadline)
        }
    }

    private func moveDueJobs() {
        guard !delayed.isEmpty else { return }
        let now = SystemTime().monotonicNanoseconds
        for due in delayed.filter({ $0.deadline <= now }).sorted(by: { $0.deadline < $1.deadline }) {
            queue.append(due.job)
        }
        delayed.removeAll { $0.deadline <= now }
    }

    fileprivate func adoptName() { unsafe cistern_set_thread_name(String(name.prefix(15))) }
}

private func serialThreadMain(_ context: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    // Retained by `init` for this thread, so never nil.
    let lane = unsafe Unmanaged<SerialThread>.fromOpaque(context!).takeRetainedValue()
    lane.adoptName()
    lane.run()
    return nil
}
