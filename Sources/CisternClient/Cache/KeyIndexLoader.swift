// Fills the key index from the server's key stream while the session works. Pages arrive on other threads and wait in the
// mailbox; the session puts them into the index between its own operations, so no lock guards the index. The index gives
// the session's own writes precedence over the pages, whichever comes first.

internal import CisternPrimitives

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
        case complete
        /// Given up: the server refused.
        case failed(ClientError)
    }

    let mailbox = Mailbox<Message>()
    private(set) var phase = Phase.idle
    /// Keys before this one are in the index.
    private var start: [UInt8] = []
    private var task: Task<Void, Never>?
    /// The session's count of connections when the stream was started.
    private(set) var connection = 0

    deinit { task?.cancel() }

    func begin(_ remote: any RemoteTree, watermark: UInt64, connection: Int) {
        guard phase == .idle || phase == .interrupted else { return }
        phase = .streaming
        self.connection = connection
        let start = self.start
        task = Task { [mailbox] in
            do throws(RemoteError) {
                try await remote.keyIndex(from: start, watermark: watermark) { mailbox.deposit(.page($0)) }
                mailbox.deposit(.finished)
            } catch {
                mailbox.deposit(.failed(error))
            }
        }
    }

    /// Puts what has arrived into the index. `skipping`: state ids whose keys nobody asks for one by one (timers).
    func drain(into index: inout KeyIndex, skipping: Set<UInt16>) {
        for message in mailbox.drain() {
            switch message {
            case .page(let page):
                insert(page, into: &index, skipping: skipping)
                if !page.next.isEmpty { start = page.next }
            case .finished:
                phase = .complete
                index.finishLoading()
            case .failed(.fatal(let error)): phase = .failed(error)
            case .failed: phase = .interrupted
            }
        }
    }

    private func insert(_ page: EntryPage, into index: inout KeyIndex, skipping: Set<UInt16>) {
        for item in 0..<page.count {
            let key = page.key(item)
            if key.count >= StateKey.prefixSize, skipping.contains(UInt16(key[2]) << 8 | UInt16(key[3])) { continue }
            index.insertFromServer(key, hash: Hash64.hash(key), expiry: page.expiry(item))
        }
    }
}
