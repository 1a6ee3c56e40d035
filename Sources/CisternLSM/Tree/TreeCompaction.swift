// A tree's compactions as its owner sees them: what starts one, and what its completion changes.
//
//   picker ─► plan ─► compaction lane writes tables ─► metadata lane commits the edit ─► owner installs the version
//
// A commit that failed is repeated with the same edit, as for flushes. Every method runs on the owner's executor.

internal import CisternPrimitives

struct UnfinishedCompaction: Sendable {
    let edit: VersionEdit
    let written: [UInt64]
}

extension Tree {
    /// Starts the most urgent compaction, when there is one.
    func startCompaction() {
        guard lifecycle == .open, !isCompacting else { return }
        if let unfinished = unfinishedCompaction {
            isCompacting = true
            return commitCompaction(unfinished.edit, written: unfinished.written)
        }
        if let request = dueCompactionRequest { return startRequested(request) }
        guard let plan = picker.pick(state.levels, clock: clock) else { return compactionIdle() }
        if plan.kind == .merge, isMergeBlocked { return announceIdle() }
        start(plan)
    }

    private func startRequested(_ request: CompactionRequest) {
        guard let plan = picker.fullPlan(state.levels, keyGroups: request.keyGroups) else {
            finishCompactionRequest(.success(()))
            return startCompaction()
        }
        runsRequest = true
        start(plan)
    }

    private func start(_ plan: CompactionPlan) {
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
                if tree.runsRequest {
                    tree.runsRequest = false
                    tree.finishCompactionRequest(.success(()))
                }
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
            if runsRequest { finishCompactionRequest(.failure(error)) }
            runsRequest = false
            announceIdle()
        } else if lifecycle == .open {
            // A request stays: it is tried again with the compactions.
            if unfinishedCompaction == nil { runsRequest = false }
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
        announceIdle()
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
}
