// The queue of a tree's owner, run by the benchmark's thread between operations, as an event loop runs its tasks between
// reads.

import CisternLSM
import Dispatch
import Synchronization

final class PumpedExecutor: TreeExecutor {
    private let queue = Mutex<[@Sendable () -> Void]>([])
    private let waiting = Atomic<Int>(0)
    private let arrived = DispatchSemaphore(value: 0)

    func execute(_ work: @escaping @Sendable () -> Void) {
        queue.withLock { $0.append(work) }
        waiting.add(1, ordering: .releasing)
        arrived.signal()
    }

    /// Cheap when nothing waits: it is called for each operation.
    func run() {
        while waiting.load(ordering: .acquiring) > 0 {
            let work = queue.withLock { queue -> [@Sendable () -> Void] in
                defer { queue.removeAll(keepingCapacity: true) }
                return queue
            }
            waiting.subtract(work.count, ordering: .relaxed)
            for item in work { item() }
        }
    }

    func waitForWork(milliseconds: Int = 100) {
        _ = arrived.wait(timeout: .now() + .milliseconds(milliseconds))
        run()
    }

    func wait<Value>(_ value: () -> Value?) -> Value {
        while true {
            run()
            if let value = value() { return value }
            waitForWork()
        }
    }
}

final class Box<Value: Sendable>: Sendable {
    private let stored = Mutex<Value?>(nil)
    var value: Value? { stored.withLock { $0 } }
    func set(_ value: Value) { stored.withLock { $0 = value } }
}
