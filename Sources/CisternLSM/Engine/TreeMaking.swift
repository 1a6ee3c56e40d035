// How a tree is made: empty, or as the union of clipped snapshots.
//
//   [metadata lane] snapshots looked up ─► state = clipped references, held ─┬─ no logs ───────────────────────────┐
//   [recovery lane]                    records of referred logs ─► memtable ─┤ fits: the manifest refers to the logs│
//                                                                            └ too large: table files of level 0   │
//   [metadata lane] manifest written ─► replaced trees retired ─► Tree, delivered to its owner ◄────────────────────┘
//
// Table files are neither opened nor read. What the snapshots left in logs is bounded by what memtables held when they were
// taken.

internal import CisternPrimitives
internal import Synchronization

/// What a tree is to be and who waits for it.
struct TreeRequest: Sendable {
    let identity: TreeIdentity
    let epoch: UInt64
    let writer: String
    /// The store whose snapshots are meant; another one than the tree's makes the tree a fork.
    let source: String
    let snapshots: [SnapshotReference]
    let replacing: [TreeID]
    /// Where its log begins; nil: at the epoch's begin.
    let position: LogPosition?
    let pointStates: PointStates
    let executor: any TreeExecutor
    /// When it was asked for.
    let monotonicNanoseconds: UInt64
    let completion: @Sendable (Result<Tree, EngineError>) -> Void

    func fail(_ error: EngineError) { executor.execute { completion(.failure(error)) } }
}

/// A tree that is being made. Owns the files and segments of `state` until `Engine.letGo`.
private struct TreeDraft: Sendable {
    let id: TreeID
    var state: TreeState
    /// What it begins with in memory.
    var active: Memtable
    /// Files and segments that were retained for the draft.
    var files: [UInt64]
    let segments: [SegmentID]
}

extension Engine {
    /// Makes a tree and hands it to its owner: empty, or with what the snapshots hold of its range. No table file is opened;
    /// what the snapshots refer to in logs is read.
    /// - Parameters:
    ///   - replacing: trees that go in the same step; after a crash either they are there or the new one.
    ///   - position: the last batch that the snapshots hold, when writers go on behind it; nil: none of the epoch is there.
    ///   - pointStates: as `Tree.declare`.
    ///   - completion: on the executor. `unsupported` when a snapshot is unknown, they overlap, or a part of the range is
    ///     in none of them.
    package func createTree(
        _ identity: TreeIdentity, epoch: UInt64, writer: String, from snapshots: [SnapshotReference],
        replacing: [TreeID] = [], at position: LogPosition? = nil, pointStates: PointStates = PointStates(),
        executor: any TreeExecutor, completion: @escaping @Sendable (Result<Tree, EngineError>) -> Void
    ) {
        let request = TreeRequest(
            identity: identity, epoch: epoch, writer: writer, source: identity.store, snapshots: snapshots,
            replacing: replacing, position: position, pointStates: pointStates, executor: executor,
            monotonicNanoseconds: time.monotonicNanoseconds,
            completion: completion)
        make(request)
    }

    /// Makes a tree of one store from snapshots of another: from here on the two go their own ways, and share the files they
    /// have in common. Else as `createTree`.
    /// - Parameter source: the store of all the snapshots, with the same number of key groups.
    package func forkTree(
        _ identity: TreeIdentity, epoch: UInt64, writer: String, of source: String, from snapshots: [SnapshotReference],
        at position: LogPosition? = nil, pointStates: PointStates = PointStates(), executor: any TreeExecutor,
        completion: @escaping @Sendable (Result<Tree, EngineError>) -> Void
    ) {
        make(
            TreeRequest(
                identity: identity, epoch: epoch, writer: writer, source: source, snapshots: snapshots, replacing: [],
                position: position, pointStates: pointStates, executor: executor,
                monotonicNanoseconds: time.monotonicNanoseconds,
                completion: completion))
    }

    private func make(_ request: TreeRequest) {
        lanes.metadata.submit { [self] in
            do throws(EngineError) {
                let draft = try makeDraft(request)
                if draft.state.logs.isEmpty { return finish(draft, request) }
                // Other trees' metadata need not wait for the reading of a log.
                lanes.recovery.submit { [self] in readLogs(draft, request) }
            } catch {
                request.fail(error)
            }
        }
    }

    /// Metadata lane.
    private func makeDraft(_ request: TreeRequest) throws(EngineError) -> TreeDraft {
        try check(request.identity, request.writer)
        let (records, id) = try state.withLock { state throws(EngineError) -> ([SnapshotRecord], TreeID) in
            guard !state.isClosed else { throw .closed(tree: request.identity.store) }
            var records: [SnapshotRecord] = []
            for reference in request.snapshots {
                guard let stored = state.snapshots[reference.handle] else { throw .unknownSnapshot(reference.handle) }
                records.append(stored.record)
            }
            let id = TreeID(state.nextTree)
            state.nextTree += 1
            return (records, id)
        }
        var initial = try SnapshotUnion.state(
            identity: request.identity, epoch: request.epoch, writer: request.writer, of: request.source, from: records)
        initial.replaces = request.replacing
        if let position = request.position {
            initial.flushed.epoch = position.epoch
            initial.flushed.sequence = position.sequence
        }
        // The snapshots may be released before the new manifest owns what they refer to.
        let draft = TreeDraft(
            id: id, state: initial, active: memtables(request.pointStates).make(),
            files: initial.files.map(\.number), segments: initial.logs.segmentIDs)
        tables.retain(draft.files)
        logs.retain(draft.segments)
        return draft
    }

    private func letGo(_ draft: TreeDraft) {
        tables.release(draft.files)
        logs.release(draft.segments)
    }

    /// Recovery lane. What fits one memtable stays in the logs until it is flushed; more than that becomes table files at once,
    /// so that neither memory nor the next start pays for how many trees are united.
    private func readLogs(_ draft: TreeDraft, _ request: TreeRequest) {
        var draft = draft
        do throws(EngineError) {
            let files = try restoreLogs(&draft, request)
            draft.files += files.map(\.number)
            if !files.isEmpty {
                draft.state.levels[0] = files.reversed() + draft.state.levels[0]
                draft.active = memtables(request.pointStates).make()
            }
            if draft.active.isEmpty { draft.state.logs = [] }
            lanes.metadata.submit { [self, draft] in finish(draft, request) }
        } catch {
            letGo(draft)
            request.fail(error)
        }
    }

    /// The files that were written, oldest first; none when everything is in `draft.active`.
    private func restoreLogs(_ draft: inout TreeDraft, _ request: TreeRequest) throws(EngineError) -> [FileRecord] {
        let restore = LogRestore(
            logs: draft.state.logs, root: options.directory, memtables: memtables(request.pointStates),
            fileSystem: fileSystem, dead: LogRestore.dead(in: draft.state, wallMilliseconds: time.wallMilliseconds))
        let clock = ExpiryClock(processing: time.wallMilliseconds, event: draft.state.flushed.watermark)
        let output = TableOutput(
            tables: tables, options: options.table, cache: cache, keyGroups: draft.state.identity.keyGroups,
            targetFileBytes: .max, pace: BackgroundPace(rate: rate, priority: nil), memoryLane: memoryLane,
            cancellation: Cancellation(), values: ValuePlan(options.values), clock: clock)
        let rules = draft.state.expiryRules
        var files: [FileRecord] = []
        do throws(EngineError) {
            var hasSpilled = draft.state.logs.count > Engine.restoredLogsMax
            let last = try restore.run { memtable throws(EngineError) in
                hasSpilled = true
                if let file = try FlushJob.run(
                    memtable, clock: clock, rules: rules, isBottommost: false, output: output)
                {
                    files.append(file)
                }
            }
            draft.active = last
            if hasSpilled {
                last.seal()
                if let file = try FlushJob.run(
                    last, clock: clock, rules: rules, isBottommost: false, output: output)
                {
                    files.append(file)
                }
                // All of it is in files, even where nothing was worth keeping.
                draft.active = memtables(request.pointStates).make()
            }
            return files
        } catch {
            tables.release(files.map(\.number))
            throw error
        }
    }

    /// A manifest refers to no more parts of logs; what is in more becomes files.
    private static let restoredLogsMax = 64

    /// Metadata lane.
    private func finish(_ draft: TreeDraft, _ request: TreeRequest) {
        defer { letGo(draft) }
        do throws(EngineError) {
            let manifest = try makeManifest(draft, request)
            for id in request.replacing { retireOnLane(id, completion: { _ in }) }
            let durable = manifest.durableState
            var recovered = RecoveredLog(
                active: draft.active, pointStates: request.pointStates, progress: durable.flushed,
                nextSegment: durable.firstSegment)
            recovered.activeHoldsForeignLogs = !durable.logs.isEmpty
            deliver(
                manifest, durable, recovered, asked: request.monotonicNanoseconds, executor: request.executor,
                completion: request.completion)
        } catch {
            request.fail(error)
        }
    }

    private func makeManifest(_ draft: TreeDraft, _ request: TreeRequest) throws(EngineError) -> TreeManifest {
        try settleDisputes(request.identity)
        if state.withLock({ $0.isClosed }) { throw .closed(tree: request.identity.store) }
        let manifest = TreeManifest(
            id: draft.id, root: options.directory, fileSystem: fileSystem, tables: tables, logs: logs,
            state: draft.state, number: 0)
        do throws(EngineError) {
            try manifest.create()
        } catch {
            withdraw(manifest, replacing: request.replacing)
            throw error
        }
        state.withLock { $0.manifests[draft.id] = manifest }
        return manifest
    }
}
