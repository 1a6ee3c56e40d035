// Results that arrive on other threads and wait for the session to look: recorded on arrival, acted on in the owner's loop.

internal import Synchronization

/// A queue with one consumer. Any thread deposits; the session drains, or waits until there is something to drain.
final class Mailbox<Message: Sendable>: Sendable {
    private struct State {
        var messages: [Message] = []
        var waiter: CheckedContinuation<Void, Never>?
    }

    /// Guarded by itself.
    private let state = Mutex(State())
    /// Deposits not yet drained. Relaxed: a look that is late by one deposit is repeated with the next operation.
    private let pending = Atomic<Int>(0)

    var isEmpty: Bool { pending.load(ordering: .relaxed) == 0 }

    func deposit(_ message: Message) {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.messages.append(message)
            pending.store(state.messages.count, ordering: .relaxed)
            let waiter = state.waiter
            state.waiter = nil
            return waiter
        }
        waiter?.resume()
    }

    func drain() -> [Message] {
        if isEmpty { return [] }
        return state.withLock { state -> [Message] in
            let messages = state.messages
            state.messages = []
            pending.store(0, ordering: .relaxed)
            return messages
        }
    }

    /// Returns when there is something to drain. One waiter at a time.
    func wait() async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let resumeNow = state.withLock { state -> Bool in
                if !state.messages.isEmpty { return true }
                precondition(state.waiter == nil, "a mailbox has one consumer")
                state.waiter = continuation
                return false
            }
            if resumeNow { continuation.resume() }
        }
    }
}
