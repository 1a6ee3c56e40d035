// Repair in a process: looks for nodes that are gone when it is this process's turn, works off the queue, and mends the
// process's own node.
//
//     lease ─┬─ auditor: registrations ─► queue         one process of all, the others stand by
//            └─ worker: queue ─► copies, swaps          every process, each ledger by one of them
//     mender: what the own node has lost ─► queue ─► copies back
//
// The lease ends when this process does not keep it alive: what depends on it is cancelled here, and another process goes on.
//
// Threading: any. Tasks belong to `start` and end within `stop`.

package import CisternChangelog
package import CisternLogNode
internal import CisternLogProtocol
package import CisternMetadata
package import CisternPrimitives
package import Logging
package import NIOCore
internal import Synchronization

package final class RepairHost: Sendable {
    private let context: RepairContext
    private let worker: RepairWorker
    private let node: LogNodeHost?
    private let task = Mutex<Task<Void, Never>?>(nil)

    /// - Parameters:
    ///   - client: opens connections for copies and recoveries; closed by its owner after `stop`.
    ///   - node: the log node of this process, which mends itself; it is stopped after `stop`.
    package init(
        store: LedgerStore, client: LedgerClient, node: LogNodeHost?, group: any EventLoopGroup,
        options: RepairOptions = RepairOptions(), time: any TimeSource = SystemTime(), logger: Logger
    ) {
        let pace = CopyPace(bytesPerSecond: options.copyBytesPerSecond, time: time) { nanoseconds, fire in
            group.next().scheduleTask(in: .nanoseconds(Int64(clamping: nanoseconds)), fire)
        }
        context = RepairContext(
            store: store, client: client, pace: pace, options: options, time: time, logger: logger)
        worker = RepairWorker(context)
        self.node = node
    }

    package var figures: RepairFigures { context.figures }

    /// Once.
    package func start() {
        task.withLock { task in
            guard task == nil else { return }
            task = Task {
                await withTaskGroup { group in
                    group.addTask { await self.serve() }
                    if let node = self.node { group.addTask { await self.mend(node) } }
                }
            }
        }
    }

    /// Ends the work where it is and gives the lease back, so that others go on at once. Idempotent.
    package func stop() async {
        let task = task.withLock { $0 }
        task?.cancel()
        await task?.value
    }

    private var options: RepairOptions { context.options }
    private var metadata: any MetadataStore { context.store.records.store }

    // MARK: - Terms of a lease

    private func serve() async {
        while !Task.isCancelled {
            do throws(MetadataError) {
                let lease = try await metadata.acquireLease(milliseconds: options.leaseMilliseconds)
                await withTaskGroup { group in
                    group.addTask { await self.keepAlive(lease) }
                    group.addTask { await self.work(lease.id) }
                    group.addTask { await self.audit(lease.id) }
                    // The first one to end is the lease, or all are cancelled.
                    await group.next()
                    group.cancelAll()
                }
                context.board.note { $0.isAuditor = false }
                await release(lease.id)
            } catch {
                await pause(after: error)
            }
        }
    }

    /// Ends when the lease has ended, or may have: when nobody answered for as long as it lasts.
    private func keepAlive(_ lease: MetadataLease) async {
        var kept = context.nowMilliseconds
        while await pause(milliseconds: lease.milliseconds / 3) {
            do throws(MetadataError) {
                try await metadata.keepAlive(lease.id)
                kept = context.nowMilliseconds
            } catch {
                guard error.isUnavailable, context.nowMilliseconds - kept < lease.milliseconds else { return }
            }
        }
    }

    /// Also when this task is cancelled.
    private func release(_ lease: MetadataLeaseID) async {
        await Task { [metadata, context] in
            do throws(MetadataError) {
                try await metadata.release(lease)
            } catch {
                // It ends by itself.
                context.logger.info("a lease could not be given back", metadata: ["error": "\(error)"])
            }
        }.value
    }

    // MARK: - Worker

    private func work(_ lease: MetadataLeaseID) async {
        let signal = WakeSignal()
        let prefixes = [context.store.keys.repairs, context.store.keys.nodes]
        await withTaskGroup { group in
            for prefix in prefixes { group.addTask { await self.watch(prefix, signal) } }
            while !Task.isCancelled {
                do throws(MetadataError) {
                    try await worker.round(lease: lease)
                    await signal.wait(milliseconds: options.retryMilliseconds)
                } catch {
                    await pause(after: error)
                }
            }
            group.cancelAll()
        }
    }

    // MARK: - Auditor

    private func audit(_ lease: MetadataLeaseID) async {
        while !Task.isCancelled {
            do throws(MetadataError) {
                if try await isElected(lease) {
                    context.board.note { $0.isAuditor = true }
                    context.logger.info("this process looks for log nodes that are gone")
                    try await auditOn()
                } else {
                    try await waitForVacancy()
                }
            } catch {
                await pause(after: error)
            }
        }
    }

    private func isElected(_ lease: MetadataLeaseID) async throws(MetadataError) -> Bool {
        let key = context.store.keys.repairer
        do throws(MetadataError) {
            _ = try await metadata.create(key, [], lease: lease)
            return true
        } catch {
            guard case .exists = error.reason else { throw error }
            // A create without an answer may have been this process's.
            return try await metadata.get(key)?.lease == lease
        }
    }

    /// Until the auditor's key changes: it is deleted when the auditor's lease ends.
    private func waitForVacancy() async throws(MetadataError) {
        let key = context.store.keys.repairer
        let page = try await metadata.list(prefix: key, after: nil, limit: 1)
        if page.entries.isEmpty { return }
        var changes = metadata.watch(prefix: key, from: page.version + 1).makeAsyncIterator()
        _ = try await changes.next()
    }

    private func auditOn() async throws(MetadataError) {
        let auditor = RepairAuditor(context)
        let signal = WakeSignal()
        let result = await withTaskGroup { group -> Result<Void, MetadataError> in
            group.addTask { await self.watch(self.context.store.keys.nodes, signal) }
            defer { group.cancelAll() }
            do throws(MetadataError) {
                while !Task.isCancelled {
                    let next = try await auditor.audit()
                    await signal.wait(milliseconds: min(next ?? .max, options.auditMilliseconds))
                }
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    // MARK: - Mender

    private func mend(_ node: LogNodeHost) async {
        let mender = NodeMender(context, host: node)
        let signal = WakeSignal()
        var scrubbed = context.nowMilliseconds
        while !Task.isCancelled {
            if let interval = options.scrubMilliseconds, context.nowMilliseconds - scrubbed >= interval {
                scrubbed = context.nowMilliseconds
                // Not waited for: it reads all that the node has.
                node.scrub(bytesPerSecond: options.scrubBytesPerSecond) { [context] entries in
                    context.logger.info("all stored entries were read", metadata: ["entries": "\(entries)"])
                    signal.wake()
                }
            }
            do throws(MetadataError) {
                try await mender.mend()
                await signal.wait(milliseconds: options.mendMilliseconds)
            } catch {
                await pause(after: error)
            }
        }
    }

    // MARK: - Waiting

    /// Wakes at every change of the prefix. What a watch that fails does not see is seen at the next look.
    private func watch(_ prefix: String, _ signal: WakeSignal) async {
        while !Task.isCancelled {
            do throws(MetadataError) {
                let page = try await metadata.list(prefix: prefix, after: nil, limit: 1)
                signal.wake()
                var changes = metadata.watch(prefix: prefix, from: page.version + 1).makeAsyncIterator()
                while try await changes.next() != nil { signal.wake() }
            } catch {
                await pause(after: error)
            }
        }
    }

    private func pause(after error: MetadataError) async {
        if Task.isCancelled { return }
        context.board.note { $0.lastError = "\(error)" }
        context.logger.warning("repair waits for the metadata store", metadata: ["error": "\(error)"])
        _ = await pause(milliseconds: min(options.retryMilliseconds, RepairHost.metadataRetryMillisecondsMax))
    }

    /// The store answers again, or the lease ends: both are soon.
    private static let metadataRetryMillisecondsMax: UInt64 = 1_000

    /// False when the task is cancelled.
    private func pause(milliseconds: UInt64) async -> Bool {
        do {
            try await Task.sleep(for: .milliseconds(milliseconds))
            return true
        } catch {
            return false
        }
    }
}
