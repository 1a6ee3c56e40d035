// Wakes one task that waits for something to do; what comes while it is at work is kept, once.
// Threading: any thread wakes, one task waits.

final class WakeSignal: Sendable {
    private let stream: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1)) }

    func wake() { continuation.yield() }

    /// Returns when it was woken since the last wait, when the time is over, or when the task is cancelled.
    func wait(milliseconds: UInt64) async {
        let timer = Task { [continuation] in
            do {
                try await Task.sleep(for: .milliseconds(milliseconds))
                continuation.yield()
            } catch {
                // Cancelled: nobody waits any more.
            }
        }
        defer { timer.cancel() }
        for await _ in stream { return }
    }
}
