// Answers to write batches of one tree that are held back while the tree's compaction is behind. A client keeps a bounded number
// of batches in flight, so later answers are slower writes; nothing is refused, and nobody else's writes are slowed down.
//
// Threading: owned by the session's event loop.

package import NIOCore

package final class WritePace {
    private struct Held {
        let due: NIODeadline
        let answer: () -> Void
    }

    private var held: CircularBuffer<Held> = []

    package init() {}

    package var isIdle: Bool { held.isEmpty }

    /// Answers after the delay, and after everything that was held before.
    package func hold(milliseconds: UInt64, on eventLoop: any EventLoop, _ answer: @escaping () -> Void) {
        let due = eventLoop.now + .milliseconds(Int64(clamping: milliseconds))
        let isFirst = held.isEmpty
        held.append(Held(due: max(due, held.last?.due ?? due), answer: answer))
        if isFirst { schedule(on: eventLoop) }
    }

    private func schedule(on eventLoop: any EventLoop) {
        guard let first = held.first else { return }
        eventLoop.assumeIsolated().scheduleTask(deadline: first.due) {
            self.release(eventLoop.now)
            self.schedule(on: eventLoop)
        }
    }

    private func release(_ now: NIODeadline) {
        while let first = held.first, first.due <= now {
            held.removeFirst()
            first.answer()
        }
    }
}
