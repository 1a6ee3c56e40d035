// A tree's flushes and its log as its owner sees them: what starts them, and what their completion changes.
//
//   sealed memtable ─► flush lane writes a table ─► metadata lane commits the edit ─► owner installs the version
//
// A commit that failed is repeated with the same edit: until it succeeds nothing it added or made obsolete is deleted, because
// the failed one may be on disk.

internal import CisternFileSystem
internal import CisternPrimitives

/// A flush whose table is written.
struct FlushOutcome: Sendable {
    var edit: VersionEdit
    var written: FileRecord?
}

extension Tree {
    var clock: ExpiryClock { ExpiryClock(processing: engine.time.wallMilliseconds, event: watermark) }

    /// - Parameter priority: nil for a flush.
    func output(
        targetFileBytes: UInt64, _ priority: CompactionPriority?, _ cancellation: Cancellation
    ) -> TableOutput {
        TableOutput(
            tables: engine.tables, options: options.table, cache: engine.cache, keyGroups: identity.keyGroups,
            targetFileBytes: targetFileBytes, pace: BackgroundPace(rate: engine.rate, priority: priority),
            memoryLane: engine.memoryLane, cancellation: cancellation, values: ValuePlan(options.values), clock: clock)
    }

    // MARK: Flush

    func startFlush() {
        guard lifecycle != .closed, !isFlushing, let oldest = sealed.first, mayFlush(oldest) else { return }
        isFlushing = true
        if let unfinished = unfinishedFlush { return commitFlush(unfinished) }
        let clock = self.clock
        let rules = state.expiryRules
        let isBottommost = version.fileCount == 0
        let output = output(targetFileBytes: .max, nil, flushCancellation)
        engine.lanes.flush.submit { [self] in
            do throws(EngineError) {
                let file = try FlushJob.run(
                    oldest.memtable, clock: clock, rules: rules, isBottommost: isBottommost, output: output)
                mailbox.post(to: self) { $0.flushWritten(file, of: oldest) }
            } catch {
                mailbox.post(to: self) { $0.flushFailed(error) }
            }
        }
    }

    private func flushWritten(_ file: FileRecord?, of memtable: SealedMemtable) {
        var edit = VersionEdit()
        edit.flushed = memtable.progress
        edit.firstSegment = memtable.nextSegment
        edit.dropsLogs = memtable.holdsForeignLogs
        if let file { edit.added = [VersionEdit.Addition(level: 0, file: file)] }
        commitFlush(FlushOutcome(edit: edit, written: file))
    }

    private func commitFlush(_ outcome: FlushOutcome) {
        commit(outcome.edit) { tree, result in
            switch result {
            case .success: tree.flushCommitted(outcome)
            case .failure(let error):
                tree.unfinishedFlush = outcome
                if tree.lifecycle == .closed { tree.giveUpUnfinished() }
                tree.flushFailed(error)
            }
        }
    }

    private func flushCommitted(_ outcome: FlushOutcome) {
        isFlushing = false
        unfinishedFlush = nil
        if lifecycle == .closed {
            // Retired while the answer was on its way: the manifest had the file, and memory is let go of already.
            if let file = outcome.written { engine.tables.release([file.number]) }
            return
        }
        failures.flush = nil
        install(outcome.edit)
        if outcome.edit.dropsLogs { foreignLogs = nil }
        // The manifest owns the file by now, and the version has it open.
        if let file = outcome.written {
            engine.tables.release([file.number])
            counters.flushedBytes += file.summary.fileBytes
            counters.valueWrittenBytes += file.summary.values.reduce(0) { $0 + $1.fileBytes }
            restAfterFlush(file.summary.fileBytes)
        }
        counters.flushes += 1
        stallForecast.record(depth: levelZeroDepth, at: engine.time.monotonicNanoseconds / 1_000_000)
        let flushed = sealed.removeFirst()
        if flushed.progress.epoch == epoch { durableSequence = max(durableSequence, flushed.progress.sequence) }
        engine.letGo(flushed.memtable)
        pruneLog()
        advanceSnapshots()
        advanceCompactionRequests()
        startFlush()
        startCompaction()
        continueRecovery()
        announceIdle()
        continueClosing()
    }

    /// Leaves the files of edits that will not be committed again to the manifest, which knows when the failed attempt cannot
    /// be on disk any more.
    func giveUpUnfinished() {
        var numbers = compactions.filter(\.isCommitFailed).flatMap(\.written).map(\.number)
        if let file = unfinishedFlush?.written { numbers.append(file.number) }
        unfinishedFlush = nil
        compactions.removeAll(where: \.isCommitFailed)
        guard !numbers.isEmpty else { return }
        engine.lanes.metadata.submit { [manifest, numbers] in manifest.giveUp(numbers) }
    }

    private func flushFailed(_ error: EngineError) {
        isFlushing = false
        fail(\.flush, error)
        continueClosing()
    }

    private func pruneLog() {
        let first = state.firstSegment
        if let log { return log.prune(below: first) }
        engine.lanes.metadata.submit { [engine, id] in engine.logs.prune(id, below: first) }
    }

    // MARK: Log

    func received(_ event: LogEvent) {
        guard lifecycle != .closed else { return }
        switch event {
        case .durable(let ticket):
            durableTicket = ticket
            if failures.dispute == nil { acknowledge(upTo: ticket) }
            if replication != nil { startFlush() }
        case .failed(let error):
            if failures.log == nil { sealForRecovery() }
            failures.isRestartingLog = false
            fail(\.log, error)
        case .restarted:
            failures.isRestartingLog = false
            failures.log = nil
            failures.settle()
            announceIdle()
        }
        continueClosing()
    }

    func acknowledge(upTo ticket: UInt64) {
        while waitingStart < waiting.count, waiting[waitingStart].ticket <= ticket {
            let next = waiting[waitingStart]
            waitingStart += 1
            if next.epoch == epoch { durableSequence = max(durableSequence, next.sequence) }
            next.durable(.success(()))
        }
        if waitingStart == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            waitingStart = 0
        } else if waitingStart > Tree.waitingCompactCount {
            waiting.removeFirst(waitingStart)
            waitingStart = 0
        }
    }

    private static let waitingCompactCount = 4096

    /// Batches whose acknowledgement was still to come: they are in the memtable, and whether in the log nobody knows.
    func failWaiting(_ error: EngineError) {
        let doubtful = waiting[waitingStart...]
        waiting = []
        waitingStart = 0
        for batch in doubtful { batch.durable(.failure(error)) }
    }
}
