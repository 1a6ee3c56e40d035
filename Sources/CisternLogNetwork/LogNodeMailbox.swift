// Where the node's thread leaves answers for a connection. The connection's loop is woken once for all that gather.
// Threading: any; guarded by its mutex.

internal import CisternLogProtocol
internal import NIOCore
internal import Synchronization

final class LogNodeMailbox: LogNodeServiceClient {
    private struct State {
        /// nil before the connection is open and after its end.
        var session: NIOLoopBound<LogNodeSession>?
        var answers: [LogNodeAnswer] = []
    }

    private let state = Mutex(State())

    func open(_ session: NIOLoopBound<LogNodeSession>) { state.withLock { $0.session = session } }

    /// Later answers go nowhere.
    func close() {
        state.withLock { state in
            state.session = nil
            state.answers = []
        }
    }

    func deliver(_ answers: [LogNodeAnswer]) {
        let session = state.withLock { state -> NIOLoopBound<LogNodeSession>? in
            guard state.session != nil else { return nil }
            let isFirst = state.answers.isEmpty
            state.answers.append(contentsOf: answers)
            return isFirst ? state.session : nil
        }
        guard let session else { return }
        session.eventLoop.execute { session.value.answersCame() }
    }

    func take() -> [LogNodeAnswer] {
        state.withLock { state in
            defer { state.answers = [] }
            return state.answers
        }
    }
}
