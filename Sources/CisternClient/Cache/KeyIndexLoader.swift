// Fills the key index from the server's key stream while the session works. Pages arrive on other threads and wait in the
// mailbox; the session puts them into the index between its own operations, so no lock guards the index. The index gives
// the session's own writes precedence over the pages, whichever comes first.

internal import CisternPrimitives
internal import Synchronization

final class KeyIndexLoader {
    enum Message: Sendable {
        case page(EntryPage)
        case finished
        case failed(RemoteError)
    }

    enum Phase: Equatable {
        case idle
        case streaming
        /// The connection was lost; streaming goes on at `start` after the next attach.
        case interrupted
        /// Refused for now, with the connection in order; streaming goes on at `start` after a pause.
        case refused(milliseconds: UInt64)
        case complete
        /// Given up: the server refused.
        case failed(ClientError)
    }

    let mailbox = Mailbox<Message>()
    private(set) var phase = Phase.idle
    /// Keys before this one are in the index.
    private var start: [UInt8] = []
    private var task: Task<Void, Never>?
    /// Set when nobody wants the index any more: pages that still come are dropped where they arrive.
    private let isStopped = Flag()
    /// Losses and refusals since the last page.
    private(set) var failures = 0
    /// Of the last one.
    private(set) var reason = ""
    /// The session's count of connections when the stream was started.
    private(set) var connection = 0

    private final class Flag: Sendable {
        /// Relaxed: a page that comes meanwhile is dropped by the session.
        let isSet = Atomic(false)
    }

    deinit { task?.cancel() }

    /// - Parameter pause: waits before it asks; for a server that said "later".
    func begin(
        _ remote: any RemoteTree, watermark: UInt64, connection: Int,
        after pause: @escaping @Sendable () async -> Void = {}
    ) {
        switch phase {
        case .idle, .interrupted, .refused: break
        case .streaming, .complete, .failed: return
        }
        phase = .streaming
        self.connection = connection
        let start = self.start
        task = Task { [mailbox, isStopped] in
            await pause()
            do throws(RemoteError) {
                try await remote.keyIndex(from: start, watermark: watermark) { page in
                    if !isStopped.isSet.load(ordering: .relaxed) { mailbox.deposit(.page(page)) }
                }
                mailbox.deposit(.finished)
            } catch {
                mailbox.deposit(.failed(error))
            }
        }
    }

    /// The index was given up.
    func stop() { isStopped.isSet.store(true, ordering: .relaxed) }

    /// Puts what has arrived into the index, up to a page beyond `bytesMax`. `skipping`: state ids whose keys nobody asks for
    /// one by one (timers).
    func drain(into index: KeyIndex, bytesMax: Int, skipping: Set<UInt16>) {
        for message in mailbox.drain() {
            switch message {
            case .page(let page):
                // However many pages waited.
                guard index.byteCount <= bytesMax else { return }
                insert(page, into: index, skipping: skipping)
                if !page.next.isEmpty { start = page.next }
                failures = 0
            case .finished:
                phase = .complete
                index.finishLoading()
            case .failed(let error): fail(error)
            }
        }
    }

    private func fail(_ error: RemoteError) {
        failures += 1
        switch error {
        case .fatal(let fatal): phase = .failed(fatal)
        case .disconnected(let reason):
            self.reason = reason
            phase = .interrupted
        case .retryLater(let milliseconds, let reason):
            self.reason = reason
            phase = .refused(milliseconds: milliseconds)
        case .sequenceGap(let expected):
            reason = "the tree waits for batch \(expected)"
            phase = .refused(milliseconds: 0)
        }
    }

    private func insert(_ page: EntryPage, into index: KeyIndex, skipping: Set<UInt16>) {
        unsafe page.keys.withUnsafeBytes { keys in
            var start = 0
            for item in 0..<page.count {
                let end = Int(page.keyEnds[item])
                let key = unsafe UnsafeRawBufferPointer(rebasing: keys[start..<end])
                start = end
                if !skipping.isEmpty, key.count >= StateKey.prefixSize,
                    skipping.contains(unsafe UInt16(key[2]) << 8 | UInt16(key[3]))
                {
                    continue
                }
                unsafe index.insertFromServer(key, expiry: page.expiry(item))
            }
        }
    }
}
