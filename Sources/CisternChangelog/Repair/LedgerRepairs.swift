// What repair asks of the ledgers' client.

package import CisternLogProtocol
package import CisternPrimitives
internal import NIOCore
internal import Synchronization

extension LedgerClient {
    /// Copies a node's part of a fragment to the repair's target and swaps it in. Returns what the target holds of it.
    ///
    /// Ends with `stopped` when the task is cancelled, with `notEnoughNodes` when the target does not take the copies, with
    /// `unreadable` when no peer gives an entry. Waits for metadata for as long as it takes.
    package func repair(_ machine: FragmentRepair, pace: CopyPace) async throws(LedgerError) -> CopiedEntries {
        let loop = group.next()
        let current = CurrentRun()
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                loop.execute { [metadata] in
                    let run = FragmentRepairRun(
                        machine, connections: self.connections(of: loop), service: metadata, pace: pace
                    ) {
                        continuation.resume(returning: $0)
                    }
                    if current.set(NIOLoopBound(run, eventLoop: loop)) { run.start() } else { run.stop() }
                }
            }
        } onCancel: {
            guard let run = current.stop() else { return }
            run.eventLoop.execute { run.value.stop() }
        }
        return try result.get()
    }

    /// The highest last add confirmed that `nodes` know of, `none` when none of them answers. Fences nothing.
    package func lastAddConfirmed(of ledger: LedgerID, on nodes: [LogNodeID]) async -> EntryID {
        let loop = group.next()
        return await withCheckedContinuation { continuation in
            loop.execute {
                let read = LastAddConfirmedRead(
                    ledger, connections: self.connections(of: loop), nodes: nodes.count
                ) {
                    continuation.resume(returning: $0)
                }
                read.start(nodes)
            }
        }
    }
}

/// Where a cancellation finds the run. Threading: any.
private final class CurrentRun: Sendable {
    private let state = Mutex<(run: NIOLoopBound<FragmentRepairRun>?, isStopped: Bool)>((nil, false))

    /// False when it was stopped before it began.
    func set(_ run: NIOLoopBound<FragmentRepairRun>) -> Bool {
        state.withLock { state in
            state.run = run
            return !state.isStopped
        }
    }

    func stop() -> NIOLoopBound<FragmentRepairRun>? {
        state.withLock { state in
            state.isStopped = true
            return state.run
        }
    }
}
