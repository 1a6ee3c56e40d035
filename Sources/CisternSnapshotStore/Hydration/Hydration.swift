// Brings the files of a data directory that are in a snapshot store still, piece by piece, oldest first.
//
// Threading: calls from any thread; the pieces on one lane. One step of work is one piece.

internal import CisternFileSystem
package import CisternPrimitives
internal import Synchronization

package struct HydrationStatus: Equatable, Sendable {
    /// Files that are not here whole, and what they lack.
    package var pendingFiles = 0
    package var pendingBytes: UInt64 = 0
    /// Brought since the start.
    package var files: UInt64 = 0
    package var bytes: UInt64 = 0
    /// Of these, what reads did not wait for; they may be brought again.
    package var reads: UInt64 = 0
    package var readBytes: UInt64 = 0
    package var failures: UInt64 = 0
    /// Why the last step failed; nil when it did not.
    package var error: String?

    package init() {}
}

package final class Hydration: Sendable {
    private struct State: Sendable {
        var isScheduled = false
        var isStopped = false
        var failuresInARow = 0
        var status = HydrationStatus()
    }

    package let fileSystem: HydratingFileSystem
    private let lane: any BackgroundLane
    private let bytesPerSecond: UInt64
    private let state = Mutex(State())

    private static let retryFirstMilliseconds: UInt64 = 100
    private static let retryLastMilliseconds: UInt64 = 30_000

    /// - Parameters:
    ///   - lane: this object's alone; it stops it.
    ///   - bytesPerSecond: 0: as fast as it can.
    package init(_ fileSystem: HydratingFileSystem, lane: any BackgroundLane, bytesPerSecond: UInt64) {
        self.fileSystem = fileSystem
        self.lane = lane
        self.bytesPerSecond = bytesPerSecond
    }

    package var status: HydrationStatus {
        var status = state.withLock { $0.status }
        (status.pendingFiles, status.pendingBytes) = fileSystem.pending
        (status.reads, status.readBytes) = fileSystem.readCounts
        return status
    }

    /// There are placeholders.
    /// - Parameter delay: what is to come first: a server that takes a tree over needs its threads and disk for that.
    package func wake(afterMilliseconds delay: UInt64 = 0) {
        let isNew = state.withLock { state in
            if state.isScheduled || state.isStopped { return false }
            state.isScheduled = true
            return true
        }
        guard isNew else { return }
        submit(afterMilliseconds: delay)
    }

    /// Waits for the piece under way. The next start begins anew with what is not whole.
    package func stop() {
        state.withLock { $0.isStopped = true }
        lane.stop()
    }

    private func submit(afterMilliseconds delay: UInt64) {
        if delay == 0 {
            lane.submit { [self] in run() }
        } else {
            lane.submit(afterMilliseconds: delay) { [self] in run() }
        }
    }

    private func run() {
        guard !state.withLock({ $0.isStopped }), let file = fileSystem.first() else {
            state.withLock { $0.isScheduled = false }
            // Something may have come between the two.
            if fileSystem.first() != nil { wake() }
            return
        }
        do throws(HydrationFault) {
            let bytes = try bring(file)
            let pause = bytesPerSecond == 0 ? 0 : bytes * 1000 / bytesPerSecond
            state.withLock { state in
                state.failuresInARow = 0
                state.status.error = nil
                state.status.bytes += bytes
            }
            submit(afterMilliseconds: pause)
        } catch {
            fileSystem.postpone(file)
            let delay = state.withLock { state in
                state.status.error = "\(file.path): \(error)"
                state.status.failures += 1
                state.failuresInARow += 1
                let doublings = min(state.failuresInARow - 1, 9)
                return min(Hydration.retryFirstMilliseconds << UInt64(doublings), Hydration.retryLastMilliseconds)
            }
            submit(afterMilliseconds: delay)
        }
    }

    /// A piece, and the end of the file behind the last one.
    private func bring(_ file: HydratingFile) throws(HydrationFault) -> UInt64 {
        let bytes = try file.hydrateNext()
        guard file.isHydrated else { return bytes }
        do throws(FileError) {
            try fileSystem.finish(file)
        } catch {
            throw .file(error)
        }
        state.withLock { $0.status.files += 1 }
        return bytes
    }
}
