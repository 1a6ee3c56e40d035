// The end of a tree's life in this process (close) or for good (retire).

internal import CisternPrimitives
internal import Synchronization

extension Tree {
    /// Flushes what is in memory and lets the tree go; `Engine.openTree` brings it back. Idempotent.
    /// - Parameter completion: on the owner's executor. A failure means that the flush did not work: with the log on nothing
    ///   acknowledged is lost, because the log still has it.
    package func close(completion: @escaping @Sendable (Result<Void, EngineError>) -> Void) {
        if lifecycle == .closed { return completion(.success(())) }
        closing.append(completion)
        guard lifecycle == .open else { return }
        lifecycle = .closing
        // A merge that is under way stops at its next look at the flag; a flush is short and is waited for.
        cancellation.cancel()
        if hasUnsealedWrites { seal() }
        startClosingFlush()
        continueClosing()
    }

    private func startClosingFlush() {
        // The log's failure does not keep a flush from working, so one attempt is made in any case.
        failures.flush = nil
        startFlush()
    }

    /// Ends the closing when nothing runs any more.
    func continueClosing() {
        guard lifecycle == .closing, !isFlushing, !snapshots.contains(where: { $0.isRecording }) else { return }
        let isFlushed = sealed.isEmpty
        if !isFlushed && failures.flush == nil && !isCutFromReplica { return startFlush() }
        guard !isAnyCompactionRunning, commitsUnderWay == 0 else { return }
        lifecycle = .closed
        let result: Result<Void, EngineError> =
            isFlushed ? .success(()) : .failure(failures.flush ?? failures.log ?? .closed(tree: name))
        failWaiting(.closed(tree: name))
        failSnapshots(.closed(tree: name))
        failMaintenance(.closed(tree: name))
        failDeclarations(.closed(tree: name))
        giveUpUnfinished()
        letGo()
        finishClosing(result)
    }

    private func finishClosing(_ result: Result<Void, EngineError>) {
        let completions = closing
        closing = []
        let done: @Sendable () -> Void = { [self] in
            mailbox.post(to: self) { tree in
                tree.engine.closed(tree)
                for completion in completions { completion(result) }
            }
        }
        if let log { log.close(done) } else { done() }
    }

    /// Lets go of memtables and files, so that files nobody else refers to can be deleted. Reads throw `closed` afterwards.
    private func letGo() {
        sealed = []
        foreignLogs = nil
        active = Memtable(budgetBytes: EngineOptions.memtableBytesRange.lowerBound, pool: engine.memoryPool)
        memtableGauge.store(0, ordering: .relaxed)
        // Their cursors stand on what was read last.
        scanner = nil
        batchLookup = nil
        version = Version(
            TreeState(identity: identity, epoch: epoch, writer: writer), tables: engine.tables)
    }

    /// The tree was replaced or removed: everything under way fails, nothing is written any more.
    func retire() {
        guard lifecycle != .closed else { return }
        lifecycle = .closed
        cancellation.cancel()
        flushCancellation.cancel()
        let gone = EngineError.closed(tree: name)
        failWaiting(gone)
        failSnapshots(gone)
        failMaintenance(gone)
        failDeclarations(gone)
        giveUpUnfinished()
        let completions = closing
        closing = []
        for completion in completions { completion(.failure(gone)) }
        log?.close { [engine, id] in engine.logs.sweep(id) }
        letGo()
    }
}
