// What all connections of a log node together have unanswered, and who waits for it to become less.
// Threading: any; guarded by its mutex. Callbacks are made outside of it.

internal import CisternPrimitives
internal import Synchronization

final class UnansweredBudget: Sendable {
    private struct State {
        var bytes = 0
        var waiting: [@Sendable () -> Void] = []
    }

    private let bytesMax: Int
    private let state = Mutex(State())

    init(bytesMax: Int) { self.bytesMax = bytesMax }

    var bytes: Int { state.withLock { $0.bytes } }

    /// Takes always; false when it is too much by now. `resume` is called once then, when half of it is answered.
    func take(_ bytes: Int, orWait resume: @escaping @Sendable () -> Void) -> Bool {
        state.withLock { state in
            state.bytes += bytes
            if state.bytes <= bytesMax { return true }
            state.waiting.append(resume)
            return false
        }
    }

    func giveBack(_ bytes: Int) {
        let ready = state.withLock { state -> [@Sendable () -> Void] in
            invariant(state.bytes >= bytes, "more bytes were answered than asked")
            state.bytes -= bytes
            guard state.bytes <= bytesMax / 2, !state.waiting.isEmpty else { return [] }
            defer { state.waiting = [] }
            return state.waiting
        }
        for resume in ready { resume() }
    }
}
