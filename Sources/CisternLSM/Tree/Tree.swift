// One LSM tree: the keyed state of one key-group range of one store, written by one writer.
//
//   write ─► epoch, sequence ─► log queue ‖ memtable ─► [log lane syncs] ─► durable
//              memtable full ─► sealed ─► [flush lane] ─► level 0 ─► [compaction lane] ─► deeper levels
//   get   ─► memtable ─► sealed memtables ─► level 0, newest first ─► one file a level
//
// Threading: every method and every stored variable belongs to the owner's executor. Background lanes get immutable things
// (sealed memtables, versions, edits) and post their completions back through the mailbox.

internal import CisternFileSystem
package import CisternPrimitives
internal import Synchronization

package enum WriteOutcome: Equatable, Sendable {
    case applied
    /// The batch was applied before; it is acknowledged again.
    case duplicate
    /// Not applied: the same batch may be sent again after the hint.
    case busy(reason: BusyReason, retryMilliseconds: UInt64)
}

package enum BusyReason: String, Sendable {
    /// Flushes are behind: as many sealed memtables wait as may.
    case flushBehind
    /// Compaction is behind: level 0 has as many runs as may be.
    case compactionBehind
    /// The log's disk is behind.
    case logBehind
    /// Memory is used up, and flushes have not freed enough of it yet.
    case memoryUsedUp
}

/// `@unchecked Sendable`: a reference may travel, but only the owner's executor touches what it refers to.
package final class Tree: @unchecked Sendable {
    package let id: TreeID
    package let identity: TreeIdentity
    let engine: Engine
    let manifest: TreeManifest
    let mailbox: TreeMailbox
    let log: TreeLog?
    let options: EngineOptions
    let picker: CompactionPicker
    /// The owner's way into the block cache.
    let cacheReader: CacheReader
    /// Made at the first scan; away while a scan uses it.
    var scanner: TreeScanner?
    /// Made at the first `multiGet`.
    var batchLookup: BatchLookup?
    let throttle: WriteThrottle
    /// Stops merges when the tree closes; `flushCancellation` stops flushes too, when nobody waits for them any more. These
    /// two may be reached from any thread.
    let cancellation = Cancellation()
    let flushCancellation = Cancellation()

    // Writer.
    package internal(set) var epoch: UInt64
    package internal(set) var writer: String
    package internal(set) var lastSequence: UInt64
    package internal(set) var watermark: UInt64
    /// Highest epoch a `setEpoch` under way asks for; older writers are refused from then on.
    var announcedEpoch: UInt64
    var durableSequence: UInt64

    // Data, newest to oldest: active, sealed (oldest first), version.
    var active: Memtable
    var sealed: [SealedMemtable] { didSet { sealedCount = sealed.count } }
    /// Of `sealed`: every read looks at it, and an array costs it a run-time check.
    private(set) var sealedCount: Int
    let memtableGauge = Atomic<Int>(0)
    /// States that the next memtable keeps in its hash index.
    private(set) var pointStates: PointStates
    var state: TreeState
    var version: Version
    /// Keeps the segments of `state.logs` until what they hold is in table files.
    var foreignLogs: LogHold?
    /// `active` holds what is in them; else a sealed memtable does.
    var activeHoldsForeignLogs: Bool
    /// Times to live that were told and are on their way to the manifest, in order.
    var declarations: [TimeToLiveDeclaration] = []
    /// Expiries of a batch as they are stored.
    var storedExpiries = GrowingBuffer()
    /// What files say of long lists: bytes by `Hash64` of the key.
    var longLists: [UInt64: Int] = [:]
    /// Log segment of the active memtable.
    var segment: UInt64
    /// Log of what the active memtable took, in this process and before.
    var unsealedLogBytes: Int

    // Acknowledgements that wait for the log, in order.
    struct Waiting {
        let ticket: UInt64
        let epoch: UInt64
        let sequence: UInt64
        let durable: @Sendable (Result<Void, EngineError>) -> Void
    }
    var waiting: [Waiting] = []
    var waitingStart = 0
    var lastTicket: UInt64 = 0
    /// Up to here the log is durable.
    var durableTicket: UInt64 = 0

    // Background work: at most one flush of a tree at a time, and compactions that do not meet.
    var isFlushing = false
    var compactions: [RunningCompaction] = []
    var compactionFeedback = CompactionFeedback()
    var rest = TreeRest()
    /// By file number: when the tree saw a file with deletes first, in monotonic milliseconds.
    var filesWithDeletes: [UInt64: UInt64] = [:]
    /// Runs of level 0 that a read may look into; follows `state`.
    var levelZeroDepth = 0
    /// What compactions that are due have to read, when the picker looked last.
    var debtBytes: UInt64 = 0
    var stallForecast = StallForecast()
    /// A flush whose commit failed; it is committed again before the next.
    var unfinishedFlush: FlushOutcome?
    var failures = TreeFailures()
    var snapshots: [PendingSnapshot] = []
    /// Full compactions asked for, in order.
    var compactionRequests: [CompactionRequest] = []
    var idleCompletions: [@Sendable () -> Void] = []
    /// Set while and after a replicated log is read.
    var replication: TreeReplication?
    /// Where the records end that were found in files and log.
    package let recoveredPosition: LogPosition
    var lifecycle = Lifecycle.open
    var closing: [@Sendable (Result<Void, EngineError>) -> Void] = []
    var counters = TreeCounters()
    /// Edits on their way to the manifest; a tree is not let go before they are answered.
    var commitsUnderWay = 0

    enum Lifecycle {
        case open, closing, closed
    }

    init(
        id: TreeID, engine: Engine, manifest: TreeManifest, state: TreeState, recovered: RecoveredLog,
        executor: any TreeExecutor
    ) {
        self.id = id
        self.engine = engine
        self.manifest = manifest
        self.state = state
        identity = state.identity
        options = engine.options
        picker = CompactionPicker(options: engine.options.compaction)
        cacheReader = CacheReader(engine.cache)
        throttle = WriteThrottle(
            options: engine.options.compaction, sealedMemtablesMax: engine.options.sealedMemtablesMax)
        version = Version(state, tables: engine.tables)
        levelZeroDepth = CompactionPicker.levelZeroDepth(state.levels[0])
        longLists = LongLists.sizes(state.files)
        epoch = state.epoch
        writer = state.writer
        announcedEpoch = state.epoch
        let isCurrent = recovered.progress.epoch == state.epoch
        lastSequence = isCurrent ? recovered.progress.sequence : 0
        durableSequence = lastSequence
        watermark = recovered.progress.watermark
        recoveredPosition = recovered.progress.position
        active = recovered.active
        pointStates = recovered.pointStates
        sealed = recovered.sealed
        sealedCount = recovered.sealed.count
        segment = recovered.nextSegment
        unsealedLogBytes = recovered.unsealedBytes
        activeHoldsForeignLogs = recovered.activeHoldsForeignLogs
        foreignLogs = state.logs.isEmpty ? nil : LogHold(engine.logs, state.logs.segmentIDs)
        counters.recoveredBatches = recovered.records
        let mailbox = TreeMailbox(executor: executor)
        self.mailbox = mailbox
        if engine.options.log == .off {
            log = nil
        } else {
            log = TreeLog(
                directory: DataDirectory.tree(engine.options.directory, id), tree: id, mode: engine.options.log,
                logs: engine.logs, fileSystem: engine.fileSystem, lane: engine.lanes.log,
                previous: recovered.segments,
                deliver: { event in mailbox.post { $0.received(event) } })
        }
        mailbox.attach(self)
    }

    var name: String { "\(identity.store) \(identity.keyGroups)" }

    /// Where the writer is; what a memtable sealed at this moment covers.
    var progress: WriteProgress { WriteProgress(epoch: epoch, sequence: lastSequence, watermark: watermark) }

    // MARK: Writing

    /// Applies a batch, at most once.
    /// - Parameter durable: called once on the owner's executor when the batch may be acknowledged, or with the error that
    ///   keeps it from being so; during this call when nothing has to be waited for. Not called for a busy outcome or a
    ///   thrown error.
    /// - Throws: `fenced`, `sequenceGap`, `readOnly`, `invalidEntry`, `closed`. None of them changes the tree.
    package func write(
        _ batch: EntryColumns, epoch: UInt64, sequence: UInt64, watermark: UInt64,
        durable: @escaping @Sendable (Result<Void, EngineError>) -> Void
    ) throws(EngineError) -> WriteOutcome {
        guard lifecycle == .open else { throw .closed(tree: name) }
        guard epoch == announcedEpoch, epoch == self.epoch else {
            throw .fenced(current: max(announcedEpoch, self.epoch), found: epoch)
        }
        try checkNotSuspended()
        if sequence <= lastSequence { return try acknowledgeAgain(sequence, durable) }
        guard sequence == lastSequence + 1 else { throw .sequenceGap(expected: lastSequence + 1, found: sequence) }
        if let cause = failures.cause { throw .readOnly(tree: name, cause: cause) }
        if let reason = busyReason() {
            counters.busyAnswers += 1
            return .busy(reason: reason, retryMilliseconds: options.busyRetryMilliseconds)
        }
        try check(batch)
        let batch = state.expiryRules.areIdle ? batch : withStoredExpiries(batch, watermark: watermark)
        active.apply(batch)
        lastSequence = sequence
        self.watermark = max(self.watermark, watermark)
        counters.batches += 1
        engine.rate.noteBatch()
        counters.entries += UInt64(batch.count)
        if let log {
            let record = LogRecord(epoch: epoch, sequence: sequence, watermark: watermark, columns: batch)
            let recordBytes: Int
            (lastTicket, recordBytes) = log.append(record, segment: segment)
            unsealedLogBytes += recordBytes
            waiting.append(Waiting(ticket: lastTicket, epoch: epoch, sequence: sequence, durable: durable))
        } else {
            durableSequence = sequence
            durable(.success(()))
        }
        if active.isFull || unsealedLogBytes >= options.logSegmentBytesLimit {
            seal()
            startFlush()
        }
        noteMemory()
        return .applied
    }

    private func acknowledgeAgain(
        _ sequence: UInt64, _ durable: @escaping @Sendable (Result<Void, EngineError>) -> Void
    ) throws(EngineError) -> WriteOutcome {
        counters.duplicates += 1
        if sequence <= durableSequence {
            durable(.success(()))
            return .duplicate
        }
        if let cause = failures.cause { throw .readOnly(tree: name, cause: cause) }
        // Still on its way to the log: acknowledged with whatever was written last.
        waiting.append(Waiting(ticket: lastTicket, epoch: epoch, sequence: sequence, durable: durable))
        return .duplicate
    }

    private func busyReason() -> BusyReason? {
        // Merges that a list keeps from working do not come back by waiting: its owner must be able to clear it.
        let isBehind =
            levelZeroDepth >= options.compaction.levelZeroStop || debtBytes >= options.compaction.debtStopBytes
        if isBehind && failures.compactionBlock == nil { return .compactionBehind }
        if sealed.count >= options.sealedMemtablesMax && isActiveHalfFull { return .flushBehind }
        if let log, log.queuedBytes >= options.queuedLogBytesMax { return .logBehind }
        if engine.isMemoryUsedUp { return .memoryUsedUp }
        return nil
    }

    /// How long the answer to a batch should wait, because flushes or compactions of this tree are behind: 0 as a rule, and
    /// more and more until writes are answered busy.
    package var writeDelayMilliseconds: UInt64 {
        // Merges that a list keeps from working do not come back by waiting.
        if failures.compactionBlock != nil { return 0 }
        return throttle.delayMilliseconds(writeDebt)
    }

    var writeDebt: WriteDebt {
        var debt = WriteDebt()
        debt.levelZeroDepth = levelZeroDepth
        let fill = max(
            Double(active.byteCount) / Double(options.memtableBytes),
            Double(unsealedLogBytes) / Double(options.logSegmentBytesLimit))
        debt.memtables = Double(sealed.count) + min(fill, 1)
        debt.bytes = debtBytes
        return debt
    }

    private var isActiveHalfFull: Bool {
        active.byteCount * 2 >= options.memtableBytes || unsealedLogBytes * 2 >= options.logSegmentBytesLimit
    }

    private func check(_ batch: EntryColumns) throws(EngineError) {
        guard batch.count <= EngineLimits.batchEntriesMax else {
            throw .invalidEntry(detail: "a batch of \(batch.count) entries; at most \(EngineLimits.batchEntriesMax)")
        }
        guard unsafe batch.keys.count + batch.values.count <= EngineLimits.batchBytesMax else {
            throw .invalidEntry(
                detail: unsafe "a batch of \(batch.keys.count + batch.values.count) bytes; at most "
                    + "\(EngineLimits.batchBytesMax)")
        }
        let columns = ColumnReader(batch)
        let (first, last) = (identity.keyGroups.first, identity.keyGroups.last)
        for index in 0..<batch.count {
            let key = unsafe columns.key(index)
            guard key.count >= EngineLimits.keyBytesMin, key.count <= EngineLimits.keyBytesMax,
                unsafe columns.value(index).count <= EngineLimits.valueBytesMax,
                case let group = unsafe keyGroup(of: key), first <= group, group <= last
            else { throw refusal(of: columns.entry(index), number: index) }
        }
        try checkFoldedValues(batch)
    }

    @inline(never)
    private func refusal(of entry: EntryView, number: Int) -> EngineError {
        let keyBytes = unsafe entry.key.count
        if keyBytes < EngineLimits.keyBytesMin || keyBytes > EngineLimits.keyBytesMax {
            return .invalidEntry(
                detail: "entry \(number) has a key of \(keyBytes) bytes; expected \(EngineLimits.keyBytesMin) to "
                    + "\(EngineLimits.keyBytesMax)")
        }
        let valueBytes = unsafe entry.value.count
        if valueBytes > EngineLimits.valueBytesMax {
            return .invalidEntry(
                detail: "entry \(number) has a value of \(valueBytes) bytes; at most \(EngineLimits.valueBytesMax)")
        }
        return .invalidEntry(
            detail: "entry \(number) is of key group \(unsafe keyGroup(of: entry.key)), outside the tree's "
                + "\(identity.keyGroups)")
    }

    // MARK: Sessions

    /// Makes a newer attach durable: from this call on, writers of older epochs are fenced.
    /// - Parameter completion: on the owner's executor. After an error the former writer's epoch is valid again.
    package func setEpoch(
        _ newEpoch: UInt64, writer newWriter: String,
        completion: @escaping @Sendable (Result<Void, EngineError>) -> Void
    ) {
        guard lifecycle == .open else { return completion(.failure(.closed(tree: name))) }
        if newEpoch == epoch && newEpoch == announcedEpoch && newWriter == writer { return completion(.success(())) }
        guard newEpoch > announcedEpoch else {
            return completion(.failure(.fenced(current: announcedEpoch, found: newEpoch)))
        }
        guard newWriter.utf8.count <= EngineLimits.writerNameBytesMax else {
            return completion(
                .failure(.invalidEntry(detail: "a writer name of \(newWriter.utf8.count) bytes is too long")))
        }
        do throws(EngineError) { try checkNotSuspended() } catch { return completion(.failure(error)) }
        announcedEpoch = newEpoch
        let edit = VersionEdit(session: VersionEdit.Session(epoch: newEpoch, writer: newWriter))
        commit(edit) { tree, result in
            switch result {
            case .success:
                tree.install(edit)
                tree.epoch = newEpoch
                tree.writer = newWriter
                tree.lastSequence = 0
                tree.durableSequence = 0
            case .failure:
                if tree.announcedEpoch == newEpoch { tree.announcedEpoch = tree.epoch }
            }
            completion(result)
        }
    }

    /// Moves the tree to another executor. The caller must not touch it again; the new owner may after `completion`, which
    /// runs on the new executor.
    package func handOver(to executor: any TreeExecutor, completion: @escaping @Sendable (Tree) -> Void) {
        mailbox.moveTo(executor)
        mailbox.post { completion($0) }
    }

    /// Tells which states are only looked up by their whole key. It decides how memtables keep their entries and nothing else:
    /// scans over them go on working. Counts from the next memtable on, or at once where no entry is in the way.
    package func declare(pointStates: PointStates) {
        self.pointStates = pointStates
        _ = active.adopt(pointStates)
    }

    // MARK: Sealing

    /// Ends the active memtable and its log segment.
    func seal() {
        active.seal()
        sealed.append(
            SealedMemtable(
                memtable: active, progress: progress, nextSegment: segment + 1,
                holdsForeignLogs: activeHoldsForeignLogs, ticket: lastTicket))
        activeHoldsForeignLogs = false
        active = engine.memtables(pointStates).make()
        segment += 1
        unsealedLogBytes = 0
    }

    /// True when a seal now would cover writes that no table file and no sealed memtable covers.
    var hasUnsealedWrites: Bool {
        !active.isEmpty || progress != (sealed.last?.progress ?? state.flushed)
    }

    func install(_ edit: VersionEdit) {
        let problem = state.apply(edit)
        invariant(problem == nil, "a committed edit does not fit: \(problem ?? "")")
        guard !edit.added.isEmpty || !edit.removed.isEmpty else { return }
        let old = version
        version = Version(state, tables: engine.tables)
        levelZeroDepth = CompactionPicker.levelZeroDepth(state.levels[0])
        engine.letGo(old)
        longLists = LongLists.sizes(state.files)
    }

    /// Commits on the metadata lane, in order with all other edits of the tree, and returns to the owner.
    func commit(
        _ edit: VersionEdit, then completion: @escaping @Sendable (Tree, Result<Void, EngineError>) -> Void
    ) {
        commitsUnderWay += 1
        engine.lanes.metadata.submit { [self] in
            let result: Result<Void, EngineError>
            do throws(EngineError) { result = .success(try manifest.commit(edit)) } catch { result = .failure(error) }
            mailbox.post(to: self) { tree in
                tree.commitsUnderWay -= 1
                completion(tree, result)
                tree.continueClosing()
            }
        }
    }
}
