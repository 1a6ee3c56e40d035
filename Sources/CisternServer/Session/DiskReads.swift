// Reads of a session that have to come from the disk. The event loop never waits for it: a request whose reads are not all in
// memory is put aside, threads that may wait bring what was missing into the page cache, and the request runs again from its
// beginning. Most requests find everything at their first run; each further one gets a step further (index, block, the next
// table), and the last one allowed waits, so that memory that is too small for a request's blocks cannot keep it for ever.
//
// Each request is answered for itself: another that came later on the connection may be answered before one that waits.

internal import CisternFileSystem
internal import CisternLSM
internal import NIOPosix
internal import NIOCore

/// Threads that wait for the disk in place of event loops. Any thread may ask.
package final class DiskLane: Sendable {
    /// As many ranges are under way at once: a disk with a queue serves them side by side.
    private static let threads = 4

    private let pool = NIOThreadPool(numberOfThreads: DiskLane.threads)

    package init() { pool.start() }

    /// Loads the ranges and then calls `done` on some thread. Not when the lane was stopped, which is after the last session.
    func load(_ ranges: [DiskRange], ahead: Int, done: @escaping @Sendable () -> Void) {
        pool.submit { state in
            guard case .active = state else { return }
            // All at once to the kernel, which orders them; then each is waited for.
            for range in ranges { range.file.startReading(at: range.offset, count: range.count + ahead) }
            unsafe withUnsafeTemporaryAllocation(byteCount: DiskRange.loadBytes, alignment: 16) { buffer in
                for range in ranges { unsafe range.load(ahead: ahead, buffer: buffer) }
            }
            done()
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

/// How often a request was put aside so far, and how it goes on.
struct DiskPatience: Sendable {
    /// Runs that do not wait. A key's read takes three blocks a table at most, so this is enough for seven tables that are all
    /// on the disk.
    static let roundsMax = 24

    var round = 0

    var next: DiskPatience { DiskPatience(round: round + 1) }
}

extension ServerSession {
    /// Bytes behind a missing block that a scan will ask for next.
    static let scanAheadBytes = 256 << 10

    /// Runs `reads`, which may run again later and must begin from nothing each time.
    /// - Parameters:
    ///   - ahead: bytes to load behind each range that is missing.
    ///   - again: on the session's loop, when what was missing is in memory.
    /// - Returns: true when `reads` came to its end; false when `again` will be called.
    func readWithoutWaiting(
        _ patience: DiskPatience, ahead: Int = 0, again: () -> @Sendable (DiskPatience) -> Void,
        _ reads: () throws(EngineError) -> Void
    ) throws(EngineError) -> Bool {
        if patience.round >= DiskPatience.roundsMax {
            counters.noteReadThatWaited()
            try reads()
            return true
        }
        let waits = scratch.waits
        do throws(EngineError) {
            try waits.collect(reads)
            return true
        } catch {
            guard error.wouldWait else { throw error }
        }
        counters.noteReadPutAside()
        let goOn = again()
        let executor = executor
        let next = patience.next
        core.disk.load(waits.take(), ahead: ahead) { executor.execute { goOn(next) } }
        return false
    }
}
