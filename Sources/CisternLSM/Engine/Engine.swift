// The front door: a data directory with its trees, table files, snapshots and background lanes.
//
//   Engine.open ─► lock ─► manifests and snapshot records read ─► orphans removed ─► lanes run
//   openTree    ─► log replayed on the recovery lane ─► Tree, delivered to its owner
//   createTree  ─► empty, or the union of clipped snapshots: a manifest of references, no data is read
//
// Threading: any thread may call. Shared state is small and behind one mutex, and no I/O happens while it is held; everything
// slow runs on a lane.

package import CisternFileSystem
package import CisternPrimitives
internal import Synchronization

/// A tree as the disk knows it.
package struct TreeInfo: Equatable, Sendable {
    package let id: TreeID
    package let identity: TreeIdentity
    package let epoch: UInt64
    package let writer: String
    /// How far table files reach; the log may reach further, which `openTree` finds out.
    package let flushed: WriteProgress
    package let fileCount: Int
    package let bytes: UInt64
}

package final class Engine: Sendable {
    private struct State {
        var manifests: [TreeID: TreeManifest] = [:]
        var open: [TreeID: Tree] = [:]
        /// Trees whose opening is under way.
        var opening: Set<TreeID> = []
        var snapshots: [String: StoredSnapshot] = [:]
        /// Released snapshots, by handle, whose records may still be on disk, with the numbers of the records.
        var releasing: [String: UInt64] = [:]
        var disputes: [TreeID: Dispute] = [:]
        var damaged: [DamagedPart]
        var nextTree: UInt64
        var nextSnapshot: UInt64
        var isClosed = false
    }

    /// A tree whose making failed, and which the next start may find nevertheless. Until it is gone for sure, nothing may be
    /// acknowledged in the trees it names, because that start removes them.
    private struct Dispute {
        let manifest: TreeManifest
        let replaced: [TreeID]
        let error: EngineError

        func concerns(_ identity: TreeIdentity) -> Bool {
            let other = manifest.durableState.identity
            return other.store == identity.store && other.keyGroups.overlaps(identity.keyGroups)
        }
    }

    private struct StoredSnapshot {
        let number: UInt64
        let epoch: UInt64
        let record: SnapshotRecord
        /// Of the files that no snapshot held before; known until the next start.
        var newBytes: UInt64 = 0

        var info: SnapshotInfo {
            var info = record.info
            info.newBytes = newBytes
            return info
        }
    }

    package let options: EngineOptions
    let fileSystem: any FileSystem
    let time: any TimeSource
    let lanes: EngineLanes
    let cache: BlockCache
    let tables: TableDirectory
    private let directoryLock: any DirectoryLock
    private let state: Mutex<State>

    // MARK: Opening and closing

    /// Opens a data directory, which is made when it does not exist. Blocks: reads manifests and snapshot records.
    /// - Throws: `file` with reason `.locked` when another process has it; `unsupported` for a newer format.
    package static func open(
        _ options: EngineOptions, fileSystem: any FileSystem, time: any TimeSource, lanes: EngineLanes? = nil
    ) throws(EngineError) -> Engine {
        try options.validate()
        let lock = try asEngineError { () throws(FileError) in
            try fileSystem.createDirectory(options.directory)
            return try fileSystem.lock(options.directory + "/" + DataDirectory.lockName)
        }
        do throws(EngineError) {
            let contents = try DirectoryRecovery(root: options.directory, fileSystem: fileSystem).run()
            return Engine(
                options, fileSystem: fileSystem, time: time, lanes: lanes ?? .threads(), contents: contents, lock: lock)
        } catch {
            lock.release()
            throw error
        }
    }

    private init(
        _ options: EngineOptions, fileSystem: any FileSystem, time: any TimeSource, lanes: EngineLanes,
        contents: DirectoryContents, lock: any DirectoryLock
    ) {
        self.options = options
        self.fileSystem = fileSystem
        self.time = time
        self.lanes = lanes
        directoryLock = lock
        cache = BlockCache(capacityBytes: options.blockCacheBytes)
        let tables = TableDirectory(
            path: DataDirectory.tables(options.directory), fileSystem: fileSystem, cache: cache, lane: lanes.metadata,
            nextNumber: contents.nextTable)
        self.tables = tables
        var state = State(
            damaged: contents.damaged, nextTree: contents.nextTree, nextSnapshot: contents.nextSnapshot)
        for tree in contents.trees {
            state.manifests[tree.id] = TreeManifest(
                id: tree.id, root: options.directory, fileSystem: fileSystem, tables: tables, state: tree.state,
                number: tree.manifest)
        }
        for (number, record) in contents.snapshots {
            tables.retain(record.fileNumbers)
            state.snapshots[record.handle] = StoredSnapshot(
                number: number, epoch: record.progress.epoch, record: record)
        }
        self.state = Mutex(state)
    }

    /// Stops the lanes and lets go of the directory. Trees that are still open end as in a crash: what was acknowledged is in
    /// the log. Blocks until running jobs have ended. Idempotent.
    package func close() {
        let open = state.withLock { state -> [Tree]? in
            if state.isClosed { return nil }
            state.isClosed = true
            let open = Array(state.open.values)
            state.open = [:]
            return open
        }
        guard let open else { return }
        for tree in open {
            tree.cancellation.cancel()
            tree.flushCancellation.cancel()
        }
        tables.close()
        lanes.stop()
        directoryLock.release()
    }

    // MARK: Trees

    /// All trees on disk that can be opened, in order of their ids.
    package func treeInfos() -> [TreeInfo] {
        let manifests = state.withLock { Array($0.manifests.values) }
        return manifests.map { manifest in
            let state = manifest.durableState
            return TreeInfo(
                id: manifest.id, identity: state.identity, epoch: state.epoch, writer: state.writer,
                flushed: state.flushed, fileCount: state.levels.reduce(0) { $0 + $1.count },
                bytes: state.files.windowedBytes)
        }.sorted { $0.id < $1.id }
    }

    /// Trees and snapshots that could not be read when the directory was opened.
    package var damagedParts: [DamagedPart] { state.withLock { $0.damaged } }

    package var cacheStatistics: BlockCacheStatistics { cache.statistics }

    /// Replays the tree's log and hands the tree to its owner.
    /// - Parameter completion: on the executor. `closed` when there is no such tree or it is open already.
    package func openTree(
        _ id: TreeID, executor: any TreeExecutor,
        completion: @escaping @Sendable (Result<Tree, EngineError>) -> Void
    ) {
        let asked = time.monotonicNanoseconds
        let manifest = state.withLock { state -> TreeManifest? in
            guard !state.isClosed, state.open[id] == nil, !state.opening.contains(id),
                let manifest = state.manifests[id]
            else { return nil }
            state.opening.insert(id)
            return manifest
        }
        guard let manifest else {
            return executor.execute { completion(.failure(.closed(tree: "\(id) (unknown, open already, or damaged)"))) }
        }
        lanes.recovery.submit { [self] in
            let durable = manifest.durableState
            let replay = LogReplay(
                directory: DataDirectory.tree(options.directory, id), tree: id, state: durable,
                memtableBytes: options.memtableBytes, logBytes: options.logSegmentBytesLimit, fileSystem: fileSystem)
            do throws(EngineError) {
                let recovered = try replay.run()
                deliver(manifest, durable, recovered, asked: asked, executor: executor, completion: completion)
            } catch {
                state.withLock { _ = $0.opening.remove(id) }
                executor.execute { completion(.failure(error)) }
            }
        }
    }

    /// Makes a tree and hands it to its owner: empty, or with what the snapshots hold of its range. Metadata only: no table
    /// file is opened.
    /// - Parameters:
    ///   - replacing: trees that go in the same step; after a crash either they are there or the new one.
    ///   - completion: on the executor. `unsupported` when a snapshot is unknown, they overlap, or a part of the range is
    ///     in none of them.
    package func createTree(
        _ identity: TreeIdentity, epoch: UInt64, writer: String, from snapshots: [SnapshotReference],
        replacing: [TreeID] = [], executor: any TreeExecutor,
        completion: @escaping @Sendable (Result<Tree, EngineError>) -> Void
    ) {
        let asked = time.monotonicNanoseconds
        lanes.metadata.submit { [self] in
            do throws(EngineError) {
                let manifest = try makeManifest(identity, epoch: epoch, writer: writer, snapshots, replacing)
                for id in replacing { retireOnLane(id, completion: { _ in }) }
                let durable = manifest.durableState
                let recovered = RecoveredLog(
                    active: Memtable(budgetBytes: options.memtableBytes), progress: durable.flushed,
                    nextSegment: durable.firstSegment)
                deliver(manifest, durable, recovered, asked: asked, executor: executor, completion: completion)
            } catch {
                executor.execute { completion(.failure(error)) }
            }
        }
    }

    /// Forgets a tree: its files go when nothing else refers to them. An open tree is closed at once, and everything under way
    /// in it fails with `closed`.
    /// - Parameter completion: on the metadata lane, when the tree cannot come back.
    package func retireTree(
        _ id: TreeID, completion: @escaping @Sendable (Result<Void, EngineError>) -> Void = { _ in }
    ) {
        lanes.metadata.submit { [self] in retireOnLane(id, completion: completion) }
    }

    /// The tree has closed itself.
    func closed(_ tree: Tree) {
        state.withLock { state in
            if state.open[tree.id] === tree { state.open[tree.id] = nil }
        }
    }

    private func deliver(
        _ manifest: TreeManifest, _ durable: TreeState, _ recovered: RecoveredLog, asked: UInt64,
        executor: any TreeExecutor, completion: @escaping @Sendable (Result<Tree, EngineError>) -> Void
    ) {
        let id = manifest.id
        executor.execute { [self] in
            let tree = Tree(
                id: id, engine: self, manifest: manifest, state: durable, recovered: recovered, executor: executor)
            let (isWanted, dispute) = state.withLock { state -> (Bool, Dispute?) in
                state.opening.remove(id)
                guard !state.isClosed, state.manifests[id] != nil else { return (false, nil) }
                state.open[id] = tree
                return (true, state.disputes.values.first { $0.replaced.contains(id) })
            }
            guard isWanted else { return completion(.failure(.closed(tree: tree.name))) }
            if let dispute { tree.suspend(because: dispute.error) }
            tree.counters.openMicroseconds = (time.monotonicNanoseconds - asked) / 1000
            tree.startFlush()
            tree.startCompaction()
            tree.scheduleExpiryCheck()
            completion(.success(tree))
        }
    }

    private func makeManifest(
        _ identity: TreeIdentity, epoch: UInt64, writer: String, _ references: [SnapshotReference],
        _ replacing: [TreeID]
    ) throws(EngineError) -> TreeManifest {
        try check(identity, writer)
        try settleDisputes(identity)
        let (records, id) = try state.withLock { state throws(EngineError) -> ([SnapshotRecord], TreeID) in
            guard !state.isClosed else { throw .closed(tree: identity.store) }
            var records: [SnapshotRecord] = []
            for reference in references {
                guard let stored = state.snapshots[reference.handle] else {
                    throw .unsupported(
                        detail: "snapshot \(reference.handle) is unknown here: it was released, or is of another server"
                    )
                }
                records.append(stored.record)
            }
            let id = TreeID(state.nextTree)
            state.nextTree += 1
            return (records, id)
        }
        var initial = try SnapshotUnion.state(identity: identity, epoch: epoch, writer: writer, from: records)
        initial.replaces = replacing
        let manifest = TreeManifest(
            id: id, root: options.directory, fileSystem: fileSystem, tables: tables, state: initial, number: 0)
        do throws(EngineError) {
            try manifest.create()
        } catch {
            withdraw(manifest, replacing: replacing)
            throw error
        }
        state.withLock { $0.manifests[id] = manifest }
        return manifest
    }

    /// Removes a tree whose making failed: what was written may be found after a crash. Where the disk does not let it, the
    /// trees that the new one names wait until it does.
    private func withdraw(_ manifest: TreeManifest, replacing: [TreeID]) {
        do throws(EngineError) {
            try manifest.retire()
            let replaced = state.withLock { state -> [Tree] in
                guard state.disputes.removeValue(forKey: manifest.id) != nil else { return [] }
                return replacing.compactMap { state.open[$0] }
            }
            for tree in replaced { tree.mailbox.post { $0.resume() } }
        } catch {
            let dispute = Dispute(manifest: manifest, replaced: replacing, error: error)
            let replaced = state.withLock { state -> [Tree] in
                state.disputes[manifest.id] = dispute
                return replacing.compactMap { state.open[$0] }
            }
            for tree in replaced { tree.mailbox.post { $0.suspend(because: dispute.error) } }
            lanes.metadata.submit(afterMilliseconds: options.retryLastMilliseconds) { [self] in
                withdraw(manifest, replacing: replacing)
            }
        }
    }

    /// A tree must not be made where the remains of another one may still be found: a start would find both.
    private func settleDisputes(_ identity: TreeIdentity) throws(EngineError) {
        let disputes = state.withLock { state in state.disputes.values.filter { $0.concerns(identity) } }
        for dispute in disputes {
            try dispute.manifest.retire()
            withdraw(dispute.manifest, replacing: dispute.replaced)
        }
    }

    private func discard(_ manifest: TreeManifest) {
        do throws(EngineError) {
            try manifest.retire()
        } catch {
            lanes.metadata.submit(afterMilliseconds: options.retryLastMilliseconds) { [self] in discard(manifest) }
        }
    }

    private func check(_ identity: TreeIdentity, _ writer: String) throws(EngineError) {
        guard identity.store.utf8.count <= EngineLimits.storeNameBytesMax else {
            throw .invalidEntry(detail: "the store name has \(identity.store.utf8.count) bytes, which is too long")
        }
        guard writer.utf8.count <= EngineLimits.writerNameBytesMax else {
            throw .invalidEntry(detail: "the writer name has \(writer.utf8.count) bytes, which is too long")
        }
        guard identity.keyGroupCount <= KeyGroup.countMax, Int(identity.keyGroups.last) < identity.keyGroupCount else {
            throw .invalidEntry(
                detail: "key groups \(identity.keyGroups) do not fit \(identity.keyGroupCount) key groups")
        }
    }

    private func retireOnLane(_ id: TreeID, completion: @escaping @Sendable (Result<Void, EngineError>) -> Void) {
        let (manifest, tree) = state.withLock { state in
            let found = (state.manifests[id], state.open[id])
            state.manifests[id] = nil
            state.open[id] = nil
            state.damaged.removeAll { $0.tree == id }
            return found
        }
        tree?.mailbox.post { $0.retire() }
        do throws(EngineError) {
            if let manifest {
                try manifest.retire()
            } else {
                try TreeManifest.removeDirectory(DataDirectory.tree(options.directory, id), fileSystem: fileSystem)
            }
            completion(.success(()))
        } catch {
            if let manifest { discard(manifest) }
            completion(.failure(error))
        }
    }

    // MARK: Snapshots

    /// Snapshots of a store, oldest first.
    package func snapshots(store: String) -> [SnapshotInfo] {
        state.withLock { state in
            state.snapshots.values.filter { $0.record.identity.store == store }
                .sorted { $0.number < $1.number }.map(\.info)
        }
    }

    func snapshot(tree: TreeID, epoch: UInt64, checkpoint: UInt64) -> SnapshotInfo? {
        state.withLock { state in
            state.snapshots.values.first {
                $0.record.tree == tree && $0.epoch == epoch && $0.record.checkpoint == checkpoint
            }?.info
        }
    }

    /// Writes a snapshot record; durable when it returns. Metadata lane.
    /// - Parameter version: keeps the files until the record owns them.
    func record(_ template: SnapshotRecord, epoch: UInt64, version: Version) throws(EngineError) -> SnapshotInfo {
        let number = state.withLock { state in
            state.nextSnapshot += 1
            return state.nextSnapshot - 1
        }
        var record = template
        let range = record.identity.keyGroups
        let suffix = String(number, radix: 16) + "-" + String(record.createdMilliseconds, radix: 16)
        record.handle = "\(record.identity.store)/\(record.checkpoint)/\(range.first)-\(range.last)/\(suffix)"
        tables.retain(record.fileNumbers)
        do throws(FileError) {
            try AtomicFile.write(
                SnapshotFormat.encode(record), to: DataDirectory.snapshotName(number),
                in: DataDirectory.snapshots(options.directory), fileSystem: fileSystem)
        } catch {
            removeSnapshots([number], fileNumbers: record.fileNumbers) {}
            throw .file(error)
        }
        let files = record.levels.joined()
        let stored = state.withLock { [record] state -> StoredSnapshot in
            let held = Set(state.snapshots.values.flatMap(\.record.fileNumbers))
            let newBytes = files.filter { !held.contains($0.number) }.windowedBytes
            let stored = StoredSnapshot(number: number, epoch: epoch, record: record, newBytes: newBytes)
            state.snapshots[record.handle] = stored
            return stored
        }
        withExtendedLifetime(version) {}
        return stored.info
    }

    /// Drops snapshots; their files go when nothing else refers to them. Unknown handles are ignored, so that a release may be
    /// repeated.
    /// - Parameter completion: on the metadata lane with the number of known handles, when none of the snapshots can come
    ///   back, whoever released them. It waits for a disk that does not let the records be removed.
    /// - Returns: how many were known.
    @discardableResult
    package func releaseSnapshots(
        _ handles: [String], completion: @escaping @Sendable (Int) -> Void = { _ in }
    ) -> Int {
        let (released, numbers) = state.withLock { state -> ([StoredSnapshot], [UInt64]) in
            let released = handles.compactMap { state.snapshots.removeValue(forKey: $0) }
            for snapshot in released { state.releasing[snapshot.record.handle] = snapshot.number }
            return (released, handles.compactMap { state.releasing[$0] })
        }
        lanes.metadata.submit { [self] in
            removeSnapshots(numbers, fileNumbers: released.flatMap(\.record.fileNumbers)) { [self] in
                state.withLock { state in
                    for snapshot in released { state.releasing[snapshot.record.handle] = nil }
                }
                completion(released.count)
            }
        }
        return released.count
    }

    /// Removes records, durably, and then gives up files that they owned; tries again later when the disk does not let it.
    private func removeSnapshots(
        _ numbers: [UInt64], fileNumbers: [UInt64], completion: @escaping @Sendable () -> Void
    ) {
        let directory = DataDirectory.snapshots(options.directory)
        do throws(FileError) {
            for number in numbers {
                try fileSystem.removeIfPresent(directory + "/" + DataDirectory.snapshotName(number))
            }
            if !numbers.isEmpty { try fileSystem.syncDirectory(directory) }
        } catch {
            return lanes.metadata.submit(afterMilliseconds: options.retryLastMilliseconds) { [self] in
                removeSnapshots(numbers, fileNumbers: fileNumbers, completion: completion)
            }
        }
        tables.release(fileNumbers)
        completion()
    }
}
