// Entries between a reader's event loop, which fetches ahead, and who takes them. Threading: any; guarded by its mutex.

internal import CisternLogProtocol
internal import CisternPrimitives
internal import NIOCore
internal import Synchronization

final class LedgerReaderQueue: Sendable {
    private struct State {
        var batches = WaitingLine<LedgerBatch>()
        var bytes = 0
        /// nil: more may come.
        var end: Result<Void, LedgerError>?
        var host: NIOLoopBound<LedgerReaderHost>?
        var waiters: [CheckedContinuation<Void, Never>] = []
        var isScheduled = false
    }

    let ledger: LedgerID
    private let state = Mutex(State())

    init(ledger: LedgerID) { self.ledger = ledger }

    func open(_ host: NIOLoopBound<LedgerReaderHost>) { state.withLock { $0.host = host } }

    /// Bytes that wait to be taken.
    var bytes: Int { state.withLock { $0.bytes } }

    // MARK: - Who takes

    private enum Next {
        case batch(LedgerBatch, NIOLoopBound<LedgerReaderHost>?)
        case end(Result<Void, LedgerError>)
        case wait
    }

    /// The next entries; nil at the end.
    func next() async throws(LedgerError) -> LedgerBatch? {
        while true {
            switch take() {
            case .batch(let batch, let host):
                host?.eventLoop.execute { host?.value.entriesWereTaken() }
                return batch
            case .end(let end):
                try end.get()
                return nil
            case .wait: await wait()
            }
        }
    }

    private func take() -> Next {
        state.withLock { state in
            if let batch = state.batches.first {
                state.batches.removeFirst()
                state.bytes -= batch.bytes
                let isFirst = !state.isScheduled
                state.isScheduled = true
                return .batch(batch, isFirst ? state.host : nil)
            }
            if let end = state.end { return .end(end) }
            return .wait
        }
    }

    private func wait() async {
        await withCheckedContinuation { continuation in
            let isReady = state.withLock { state -> Bool in
                if !state.batches.isEmpty || state.end != nil { return true }
                state.waiters.append(continuation)
                return false
            }
            if isReady { continuation.resume() }
        }
    }

    /// Stops reading: whoever waits gets the end. Idempotent.
    func stop() {
        let host = state.withLock { $0.host }
        finish(.failure(.stopped(ledger)))
        host?.eventLoop.execute { host?.value.stop() }
    }

    // MARK: - The loop

    func put(_ batch: LedgerBatch) {
        let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            state.batches.append(batch)
            state.bytes += batch.bytes
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Bytes that wait, and the next time that entries are taken the loop is told again.
    func rearm() -> Int {
        state.withLock { state in
            state.isScheduled = false
            return state.bytes
        }
    }

    /// Nothing more comes; what is here is still taken. The first end counts.
    func finish(_ end: Result<Void, LedgerError>) {
        let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            guard state.end == nil else { return [] }
            state.end = end
            state.host = nil
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }
}
