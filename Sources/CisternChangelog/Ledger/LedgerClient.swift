// Opens writers, readers and recoveries of ledgers. Each ledger has one event loop of the group, on which its machine, its
// timers and its connections live; ledgers of one loop share connections.
//
// Threading: may be called from anywhere.

package import CisternLogProtocol
package import CisternPrimitives
package import NIOCore
internal import Synchronization

/// Nodes that take entries, the best in front.
package typealias LedgerWriterCandidates = @Sendable () async -> [LogNodeID]

package final class LedgerClient: Sendable {
    let group: any EventLoopGroup
    private let addresses: any LogNodeAddresses
    let metadata: any LedgerMetadataService
    private let options: LedgerClientOptions
    /// By identity of the loop.
    private let loops = Mutex<[ObjectIdentifier: NIOLoopBound<LogNodeConnections>]>([:])

    package init(
        group: any EventLoopGroup, addresses: any LogNodeAddresses, metadata: any LedgerMetadataService,
        options: LedgerClientOptions = LedgerClientOptions()
    ) {
        self.group = group
        self.addresses = addresses
        self.metadata = metadata
        self.options = options
    }

    /// The writer of a ledger that this process has created and nobody has written to.
    /// - Parameters:
    ///   - candidates: nodes that may take the place of failed ones, the best in front.
    ///   - moreCandidates: asked for them again while a node fails, because nodes come and go. An empty answer changes nothing.
    package func openWriter(
        _ ledger: LedgerID, metadata found: Versioned<LedgerMetadata>, candidates: [LogNodeID],
        moreCandidates: LedgerWriterCandidates? = nil
    ) async -> LedgerWriterHandle {
        let machine = LedgerWriter(
            ledger: ledger, metadata: found, candidates: candidates, windowBytes: options.windowBytes)
        let queue = LedgerWriterQueue(
            ledger: ledger, next: machine.nextEntry, windowBytes: options.windowBytes,
            windowEntries: options.windowEntries)
        let host = await onLoop { [metadata] connections in
            let host = LedgerWriterHost(
                machine, queue: queue, connections: connections, service: metadata, moreCandidates: moreCandidates)
            return NIOLoopBound(host, eventLoop: connections.eventLoop)
        }
        queue.open(host)
        return LedgerWriterHandle(queue, host)
    }

    /// Reads a ledger from `first` on: through an entry, which must exist or come to, or else to the end of the ledger, which is waited for.
    package func openReader(
        _ ledger: LedgerID, metadata found: LedgerMetadata, from first: EntryID = .first, through last: EntryID? = nil
    ) async -> LedgerReaderHandle {
        let queue = LedgerReaderQueue(ledger: ledger)
        let host = await onLoop { [metadata] connections in
            let host = LedgerReaderHost(
                ledger, metadata: found, from: first, through: last, queue: queue, connections: connections,
                service: metadata)
            return NIOLoopBound(host, eventLoop: connections.eventLoop)
        }
        queue.open(host)
        host.eventLoop.execute { host.value.start() }
        return LedgerReaderHandle(queue)
    }

    /// Closes a ledger for a writer that is gone, or that must be stopped. Begins again when too few nodes answer, for as long as the
    /// options are patient.
    package func recover(
        _ ledger: LedgerID, candidates: [LogNodeID]
    ) async throws(LedgerError) -> RecoveredLedger {
        let deadline = NIODeadline.now() + options.patience
        while true {
            let result = await recoverOnce(LedgerRecovery(ledger: ledger, candidates: candidates))
            guard case .failure(let error) = result, error.mayPass, .now() < deadline else { return try result.get() }
            await pause(options.retryInterval)
        }
    }

    private func recoverOnce(_ machine: LedgerRecovery) async -> Result<RecoveredLedger, LedgerError> {
        let loop = group.next()
        return await withCheckedContinuation { continuation in
            loop.execute { [metadata] in
                let run = LedgerRecoveryRun(machine, connections: self.connections(of: loop), service: metadata) {
                    continuation.resume(returning: $0)
                }
                run.start()
            }
        }
    }

    private func pause(_ time: TimeAmount) async {
        await withCheckedContinuation { continuation in
            group.next().scheduleTask(in: time) { continuation.resume() }
        }
    }

    /// Closes the connections. Writers and readers are closed or stopped before. Idempotent.
    package func close() async {
        let loops = loops.withLock { loops in
            defer { loops = [:] }
            return Array(loops.values)
        }
        for loop in loops {
            let ends = await LedgerClient.run(on: loop.eventLoop) { loop.value.close() }
            for end in ends { await end() }
        }
    }

    // MARK: - Loops

    private func onLoop<T: Sendable>(_ body: @escaping @Sendable (LogNodeConnections) -> T) async -> T {
        let loop = group.next()
        return await LedgerClient.run(on: loop) { body(self.connections(of: loop)) }
    }

    func connections(of loop: any EventLoop) -> LogNodeConnections {
        loops.withLock { loops in
            let key = ObjectIdentifier(loop)
            if let found = loops[key] { return found }
            let made = NIOLoopBound(
                LogNodeConnections(eventLoop: loop, addresses: addresses, options: options), eventLoop: loop)
            loops[key] = made
            return made
        }.value
    }

    private static func run<T: Sendable>(on loop: any EventLoop, _ body: @escaping @Sendable () -> T) async -> T {
        await withCheckedContinuation { continuation in
            loop.execute { continuation.resume(returning: body()) }
        }
    }
}
