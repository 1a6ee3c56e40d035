// A tree's compactions as its owner sees them: what starts one, and what its completion changes.
//
//   picker ─► plan ─► parts by key group ─► compaction threads write tables ─► metadata lane commits one edit ─► owner installs
//
// Several compactions of a tree run side by side; the picker sees to it that they do not meet. A commit that failed is repeated
// with the same edit, as for flushes: edits of other compactions may be committed in between, because they share no file.
// Every method runs on the owner's executor.

internal import CisternPrimitives

/// A compaction that runs, or that is written and whose commit failed.
final class RunningCompaction {
    let plan: CompactionPlan
    /// The one that was asked for; completing it answers the oldest request.
    let isRequested: Bool
    var edit: VersionEdit
    /// What the parts wrote, in key order; nil for one that still runs.
    var parts: [[FileRecord]?]
    var failure: EngineError?
    /// Stops the other parts when one fails.
    let cancellation: Cancellation
    /// Value files whose values its inputs point to are written anew.
    var rewrittenValues: Set<UInt64> = []
    var isCommitFailed = false
    /// Given up for more urgent work: its end is no failure.
    var isInterrupted = false

    init(_ plan: CompactionPlan, parts: Int, isRequested: Bool, _ tree: Cancellation) {
        self.plan = plan
        cancellation = Cancellation(partOf: tree)
        self.isRequested = isRequested
        edit = VersionEdit()
        edit.removed = plan.inputs.map { VersionEdit.Removal(level: $0.level, file: $0.file.id) }
        self.parts = Array(repeating: nil, count: parts)
    }

    var written: [FileRecord] { parts.compactMap { $0 }.flatMap { $0 } }
}

extension Tree {
    /// A compaction whose commit failed is one until it is committed or given up.
    var isCompacting: Bool { !compactions.isEmpty }

    /// True while jobs or commits of compactions are under way.
    var isAnyCompactionRunning: Bool { compactions.contains { !$0.isCommitFailed } }

    /// Starts whatever is due and may run beside what runs already.
    func startCompaction() {
        guard lifecycle == .open else { return }
        let unfinished = compactions.filter(\.isCommitFailed)
        if !unfinished.isEmpty {
            for compaction in unfinished {
                compaction.isCommitFailed = false
                commitCompaction(compaction)
            }
            return
        }
        if failures.compaction != nil && isCompacting { return }
        if let request = dueCompactionRequest { return startRequested(request) }
        while let plan = pickCompaction() {
            if plan.kind == .merge, isMergeBlocked { return announceIdle() }
            start(plan, isRequested: false)
        }
        if isRestInTheWay { interruptRest() }
        if compactions.isEmpty { startRest() }
        if compactions.isEmpty { compactionIdle() }
    }

    private func pickCompaction() -> CompactionPlan? {
        var conditions = CompactionConditions(clock: clock, rules: state.expiryRules)
        conditions.running = compactions.map(\.plan)
        conditions.feedback = compactionFeedback
        conditions.deleteAges = deleteAges()
        conditions.garbageValues = state.files.valueUsage.garbage(options.values)
        let plan = picker.pick(state.levels, &conditions)
        compactionFeedback = conditions.feedback
        debtBytes = picker.debtBytes(state.levels, compactionFeedback)
        return plan
    }

    /// A full compaction has the tree to itself.
    private func startRequested(_ request: CompactionRequest) {
        guard !isCompacting else { return interruptRest() }
        guard let plan = picker.fullPlan(state.levels, keyGroups: request.keyGroups) else {
            finishCompactionRequest(.success(()))
            return startCompaction()
        }
        start(plan, isRequested: true)
    }

    func start(_ plan: CompactionPlan, isRequested: Bool) {
        let parts = plan.parts(bytes: options.compaction.partBytes, partsMax: CompactionOptions.partsMax)
        let compaction = RunningCompaction(plan, parts: parts.count, isRequested: isRequested, cancellation)
        compactions.append(compaction)
        switch plan.kind {
        case .drop:
            commitCompaction(compaction)
        case .move:
            compaction.edit.added = plan.inputs.map {
                VersionEdit.Addition(level: plan.outputLevel, file: $0.file)
            }
            commitCompaction(compaction)
        case .merge:
            compaction.rewrittenValues = state.files.valueUsage.rewritten(options.values)
            for (number, part) in parts.enumerated() { merge(part, number, of: compaction) }
        }
    }

    private func merge(_ part: CompactionPlan, _ number: Int, of compaction: RunningCompaction) {
        let tables = part.inputs.map { engine.tables.table($0.file.number) }
        let clock = self.clock
        let rules = state.expiryRules
        var output = output(
            targetFileBytes: options.compaction.targetFileBytes, part.priority, compaction.cancellation)
        output.values = ValuePlan(
            options.values, inputs: part.inputs.lazy.map(\.file), rewritten: compaction.rewrittenValues)
        let job = output
        // The compaction belongs to the owner; the job only hands it back.
        let handle = CompactionHandle(compaction)
        engine.lanes.compaction.submit(part.priority) { [self] in
            let result: Result<[FileRecord], EngineError>
            do throws(EngineError) {
                result = .success(
                    try CompactionJob.run(part, tables: tables, clock: clock, rules: rules, output: job))
            } catch {
                result = .failure(error)
            }
            mailbox.post(to: self) { $0.partEnded(number, of: handle.compaction, result) }
        }
    }

    private func partEnded(
        _ number: Int, of compaction: RunningCompaction, _ result: Result<[FileRecord], EngineError>
    ) {
        switch result {
        case .success(let files): compaction.parts[number] = files
        case .failure(let error):
            compaction.parts[number] = []
            if compaction.failure == nil { compaction.failure = error }
            compaction.cancellation.cancel()
        }
        guard compaction.parts.allSatisfy({ $0 != nil }) else { return }
        let written = compaction.written
        if let failure = compaction.failure {
            engine.tables.release(written.map(\.number))
            remove(compaction)
            if compaction.isInterrupted && lifecycle == .open { return startCompaction() }
            return compactionFailed(failure, compaction)
        }
        compaction.edit.added = written.map {
            VersionEdit.Addition(level: compaction.plan.outputLevel, file: $0)
        }
        commitCompaction(compaction)
    }

    private func commitCompaction(_ compaction: RunningCompaction) {
        let handle = CompactionHandle(compaction)
        commit(compaction.edit) { tree, result in
            let compaction = handle.compaction
            switch result {
            case .success:
                tree.remove(compaction)
                // After the version has the files, which stay open so.
                defer { tree.engine.tables.release(compaction.written.map(\.number)) }
                if tree.lifecycle == .closed { return }
                tree.compactionCommitted(compaction)
            case .failure(let error):
                compaction.isCommitFailed = true
                if tree.lifecycle == .closed { tree.giveUpUnfinished() }
                tree.compactionFailed(error, compaction)
            }
            tree.continueClosing()
        }
    }

    private func compactionCommitted(_ compaction: RunningCompaction) {
        if !compactions.contains(where: \.isCommitFailed) {
            failures.compaction = nil
            failures.compactionBlock = nil
        }
        install(compaction.edit)
        count(compaction)
        if compaction.isRequested { finishCompactionRequest(.success(())) }
        startCompaction()
    }

    private func count(_ compaction: RunningCompaction) {
        let plan = compaction.plan
        counters.compactions += 1
        switch plan.kind {
        case .drop: counters.droppedFiles += plan.inputs.count
        case .move: counters.movedFiles += plan.inputs.count
        case .merge:
            let written = compaction.written
            counters.compactedBytes = counters.compactedBytes.saturatingAdding(plan.inputBytes)
            counters.compactionWrittenBytes += written.reduce(0) { $0 + $1.summary.fileBytes }
            let known = Set(plan.inputs.lazy.flatMap(\.file.summary.values).map(\.number))
            counters.valueWrittenBytes += written.lazy.flatMap(\.summary.values).filter { !known.contains($0.number) }
                .reduce(0) { $0 + $1.fileBytes }
            guard plan.outputLevel == state.levels.count - 1 else { return }
            let upper = plan.inputs.lazy.filter { $0.level < plan.outputLevel }.map(\.file)
            compactionFeedback.merged(
                upperEntries: upper.windowedEntries, inputEntries: plan.inputs.lazy.map(\.file).windowedEntries,
                outputEntries: written.windowedEntries)
        }
    }

    private func remove(_ compaction: RunningCompaction) { compactions.removeAll { $0 === compaction } }

    private func compactionFailed(_ error: EngineError, _ compaction: RunningCompaction) {
        if case .invalidEntry = error, compaction.plan.priority == .rest {
            restFailed()
            startCompaction()
        } else if case .invalidEntry(let detail) = error {
            failures.compaction = nil
            failures.compactionBlock = CompactionBlock(cause: detail, levelZeroFiles: state.levels[0].count)
            if compaction.isRequested { finishCompactionRequest(.failure(error)) }
            if dueCompactionRequest != nil { startCompaction() }
            announceIdle()
        } else if lifecycle == .open {
            // A request stays: it is tried again with the compactions.
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

    /// How long the tree has known its files with deletes. Counted from the start of the process: a restart gives old
    /// deletes more time, and costs nothing to remember.
    private func deleteAges() -> [UInt64: UInt64] {
        let now = engine.time.monotonicNanoseconds / 1_000_000
        var seen: [UInt64: UInt64] = [:]
        for file in state.files where file.summary.deleteCount > 0 {
            seen[file.number] = filesWithDeletes[file.number] ?? now
        }
        filesWithDeletes = seen
        return seen.mapValues { now - min($0, now) }
    }

    /// Looks for expired files, old deletes and hidden parts from time to time, for trees that nobody writes to, and tries a
    /// blocked merge again. Trees look at different moments, or all would begin to clean up at once.
    func scheduleExpiryCheck() {
        let mailbox = self.mailbox
        let period = options.expiryCheckMilliseconds
        let jitter = (id.number &* 0x9E37_79B9_7F4A_7C15) % max(period / 4, 1)
        engine.lanes.metadata.submit(afterMilliseconds: period - jitter) {
            mailbox.post { tree in
                guard tree.lifecycle == .open else { return }
                tree.failures.compactionBlock?.isDue = true
                tree.startCompaction()
                tree.scheduleExpiryCheck()
            }
        }
    }
}

/// `@unchecked Sendable`: carried through background jobs, and opened by the owner only.
private struct CompactionHandle: @unchecked Sendable {
    let compaction: RunningCompaction

    init(_ compaction: RunningCompaction) { self.compaction = compaction }
}
