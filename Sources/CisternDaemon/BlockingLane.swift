// One thread for everything that may block and is no read or write of entries: opening the data directory, catalog changes,
// retiring trees, releasing snapshots. One, because catalog changes must not overlap. Work runs in the order it came.

internal import NIOPosix

package final class BlockingLane: Sendable {
    private let pool = NIOThreadPool(numberOfThreads: 1)

    package init() { pool.start() }

    /// The result, or nil when the lane was stopped.
    package func run<Result: Sendable>(_ work: @escaping @Sendable () -> Result) async -> Result? {
        do {
            return try await pool.runIfActive { work() }
        } catch {
            // The pool's only error: it is not active any more.
            return nil
        }
    }

    /// Finishes what was begun. Idempotent.
    package func stop() async {
        do {
            try await pool.shutdownGracefully()
        } catch {
            // Already stopped, which is what was asked for.
        }
    }
}
