// Waiting, for tests on real threads, which must not block the cooperative pool.

import CisternLSM
import CisternPrimitives
import Glibc

/// A value that one thread waits for and another gives.
package final class Latch<Value: Sendable>: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>
    // Guarded by `mutex`.
    private var value: Value?

    package init() {
        mutex = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        changed = .allocate(capacity: 1)
        pthread_cond_init(changed, nil)
    }

    deinit {
        pthread_cond_destroy(changed)
        changed.deallocate()
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    package func give(_ new: Value) {
        pthread_mutex_lock(mutex)
        value = new
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(mutex)
    }

    /// Blocks the calling thread.
    package func wait() -> Value {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let value { return value }
            pthread_cond_wait(changed, mutex)
        }
    }
}

extension TreeExecutor {
    /// Runs `body` there, behind what was asked before, and blocks until it is done. Not from the executor itself.
    package func call<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
        let latch = Latch<Result<Value, any Error>>()
        execute { latch.give(Result { try body() }) }
        return try latch.wait().get()
    }
}

/// Runs `body` on so many threads of their own, waits for all, and throws what one of them threw.
package func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) throws -> Void) async throws {
    let threads = (0..<count).map { SerialThread(name: "test-\($0)") }
    defer { for thread in threads { thread.stop() } }
    try await withThrowingTaskGroup(of: Void.self) { group in
        for (number, thread) in threads.enumerated() {
            group.addTask {
                try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
                    thread.submit { done.resume(with: Result { try body(number) }) }
                }
            }
        }
        try await group.waitForAll()
    }
}
