// A tree's background work as its owner sees it: what starts a flush or a compaction, and what its completion changes.
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

struct UnfinishedCompaction: Sendable {
    let edit: VersionEdit
    let written: [UInt64]
}

extension Tree {
    var clock: ExpiryClock { ExpiryClock(processing: engine.time.wallMilliseconds, event: watermark) }

    private func output(targetFileBytes: UInt64, _ cancellation: Cancellation) -> TableOutput {
        TableOutput(
            tables: engine.tables, options: options.table, cache: engine.cache, keyGroups: identity.keyGroups,
            targetFileBytes: targetFileBytes, cancellation: cancellation)
    }

    // MARK: Flush

    func startFlush() {
        guard lifecycle != .closed, !isFlushing, let oldest = sealed.first else { return }
        isFlushing = true
        if let unfinished = unfinishedFlush { return commitFlush(unfinished) }
        let clock = self.clock
        let isBottommost = version.fileCount == 0
        let output = output(targetFileBytes: .max, flushCancellation)
        engine.lanes.flush.submit { [self] in
            do throws(EngineError) {
                let file = try FlushJob.run(
                    oldest.memtable, clock: clock, isBottommost: isBottommost, output: output)
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
        // The manifest owns the file by now, and the version has it open.
        if let file = outcome.written {
            engine.tables.release([file.number])
            counters.flushedBytes += file.summary.fileBytes
        }
        counters.flushes += 1
        let flushed = sealed.removeFirst()
        if flushed.progress.epoch == epoch { durableSequence = max(durableSequence, flushed.progress.sequence) }
        pruneLog()
        advanceSnapshots()
        startFlush()
        startCompaction()
        continueRecovery()
        continueClosing()
    }

    /// Leaves the files of edits that will not be committed again to the manifest, which knows when the failed attempt cannot
    /// be on disk any more.
    func giveUpUnfinished() {
        var numbers = unfinishedCompaction?.written ?? []
        if let file = unfinishedFlush?.written { numbers.append(file.number) }
        unfinishedFlush = nil
        unfinishedCompaction = nil
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
        let fileSystem = engine.fileSystem
        let directory = DataDirectory.tree(options.directory, id)
        engine.lanes.metadata.submit { LogPruning.removeSegments(below: first, in: directory, fileSystem: fileSystem) }
    }

    // MARK: Compaction

    /// Starts the most urgent compaction, when there is one.
    func startCompaction() {
        guard lifecycle == .open, !isCompacting else { return }
        if let unfinished = unfinishedCompaction {
            isCompacting = true
            return commitCompaction(unfinished.edit, written: unfinished.written)
        }
        guard let plan = picker.pick(state.levels, clock: clock) else { return compactionIdle() }
        if plan.kind == .merge, isMergeBlocked { return }
        isCompacting = true
        var edit = VersionEdit()
        edit.removed = plan.inputs.map { VersionEdit.Removal(level: $0.level, file: $0.file.id) }
        switch plan.kind {
        case .drop:
            counters.droppedFiles += plan.inputs.count
            commitCompaction(edit, written: [])
        case .move:
            counters.movedFiles += plan.inputs.count
            edit.added = plan.inputs.map { VersionEdit.Addition(level: plan.outputLevel, file: $0.file) }
            commitCompaction(edit, written: [])
        case .merge: merge(plan, edit)
        }
    }

    private func merge(_ plan: CompactionPlan, _ removal: VersionEdit) {
        let tables = plan.inputs.map { engine.tables.table($0.file.number) }
        let clock = self.clock
        let output = output(targetFileBytes: options.compaction.targetFileBytes, cancellation)
        engine.lanes.compaction.submit { [self] in
            do throws(EngineError) {
                let files = try CompactionJob.run(plan, tables: tables, clock: clock, output: output)
                mailbox.post(to: self) { tree in
                    var edit = removal
                    edit.added = files.map { VersionEdit.Addition(level: plan.outputLevel, file: $0) }
                    tree.counters.compactedBytes = tree.counters.compactedBytes.saturatingAdding(
                        plan.inputs.map(\.file).windowedBytes)
                    tree.counters.compactionWrittenBytes += files.reduce(0) { $0 + $1.summary.fileBytes }
                    tree.commitCompaction(edit, written: files.map(\.number))
                }
            } catch {
                mailbox.post(to: self) { $0.compactionFailed(error) }
            }
        }
    }

    /// - Parameter written: files this compaction made, which it owns until the manifest does.
    private func commitCompaction(_ edit: VersionEdit, written: [UInt64]) {
        commit(edit) { tree, result in
            switch result {
            case .success:
                tree.isCompacting = false
                tree.unfinishedCompaction = nil
                tree.engine.tables.release(written)
                if tree.lifecycle == .closed { return }
                tree.failures.compaction = nil
                tree.failures.compactionBlock = nil
                tree.install(edit)
                tree.counters.compactions += 1
                tree.startCompaction()
            case .failure(let error):
                tree.unfinishedCompaction = UnfinishedCompaction(edit: edit, written: written)
                if tree.lifecycle == .closed { tree.giveUpUnfinished() }
                tree.compactionFailed(error)
            }
            tree.continueClosing()
        }
    }

    private func compactionFailed(_ error: EngineError) {
        isCompacting = false
        if case .invalidEntry(let detail) = error {
            failures.compaction = nil
            failures.compactionBlock = CompactionBlock(cause: detail, levelZeroFiles: state.levels[0].count)
        } else if lifecycle == .open {
            fail(\.compaction, error)
        }
        continueClosing()
    }

    /// A blocked merge reads much before it fails, so it is tried again only after a while or with many more files.
    private var isMergeBlocked: Bool {
        guard let block = failures.compactionBlock, !block.isDue else { return false }
        return state.levels[0].count < 2 * max(block.levelZeroFiles, options.compaction.levelZeroTrigger)
    }

    /// Nothing to do is success for a compaction that is retried.
    private func compactionIdle() {
        failures.compaction = nil
        failures.compactionBlock = nil
    }

    /// Looks for expired files from time to time, for trees that nobody writes to, and tries a blocked merge again.
    func scheduleExpiryCheck() {
        let mailbox = self.mailbox
        engine.lanes.metadata.submit(afterMilliseconds: options.expiryCheckMilliseconds) {
            mailbox.post { tree in
                guard tree.lifecycle == .open else { return }
                tree.failures.compactionBlock?.isDue = true
                tree.startCompaction()
                tree.scheduleExpiryCheck()
            }
        }
    }

    // MARK: Log

    func received(_ event: LogEvent) {
        guard lifecycle != .closed else { return }
        switch event {
        case .durable(let ticket):
            durableTicket = ticket
            if failures.dispute == nil { acknowledge(upTo: ticket) }
        case .failed(let error):
            if failures.log == nil { sealForRecovery() }
            failures.isRestartingLog = false
            fail(\.log, error)
        case .restarted:
            failures.isRestartingLog = false
            failures.log = nil
            failures.settle()
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
