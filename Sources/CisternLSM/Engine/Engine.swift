// The front door: a data directory with its trees, table files, snapshots and background lanes.
//
//   Engine.open ─► lock ─► manifests and snapshot records read ─► orphans removed ─► lanes run
//   openTree    ─► log replayed on the recovery lane ─► Tree, delivered to its owner
//   createTree  ─► empty, or from snapshots (TreeMaking.swift)
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
    /// Guarded by its mutex; reached by the engine's own files only.
    struct State {
        var manifests: [TreeID: TreeManifest] = [:]
        var open: [TreeID: Tree] = [:]
        /// Trees whose opening is under way.
        var opening: Set<TreeID> = []
        var snapshots = SnapshotCatalog()
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
    struct Dispute {
        let manifest: TreeManifest
        let replaced: [TreeID]
        let error: EngineError

        func concerns(_ identity: TreeIdentity) -> Bool {
            let other = manifest.durableState.identity
            return other.store == identity.store && other.keyGroups.overlaps(identity.keyGroups)
        }
    }

    package let options: EngineOptions
    let fileSystem: any FileSystem
    let time: any TimeSource
    let lanes: EngineLanes
    let cache: BlockCache
    /// Memory of memtables and of flushes' scratch.
    let memory = MemoryLedger()
    let memoryPool: MemoryPool
    let memoryRelief: MemoryRelief
    let memoryLane: HelpedLane
    let tables: TableDirectory
    let logs: LogDirectory
    /// Snapshots and new trees may refer to log segments of others, which programs that know only format 1 would remove.
    let sharesLogs: Bool
    /// The directory may hold expiry rules.
    let keepsRules: Bool
    let rate: BackgroundRate
    private let directoryLock: any DirectoryLock
    let state: Mutex<State>

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
                options, fileSystem: fileSystem, time: time,
                lanes: lanes ?? .threads(compactions: options.compaction.threads), contents: contents, lock: lock)
        } catch {
            lock.release()
            throw error
        }
    }

    private init(
        _ options: EngineOptions, fileSystem: any FileSystem, time: any TimeSource, lanes: EngineLanes,
        contents: DirectoryContents, lock: any DirectoryLock
    ) {
        var options = options
        options.table.formatVersion = DirectoryRecovery.tableVersion(inFormat: contents.format)
        // Until an operator raises the format, nothing is written that older programs cannot read.
        if options.table.formatVersion < TableFormat.versionWithValueFiles { options.values.thresholdBytes = 0 }
        options.table.longValueBytes = options.longListBytes
        self.options = options
        self.fileSystem = fileSystem
        self.time = time
        self.lanes = lanes
        let memoryLane = HelpedLane(lanes.memory)
        self.memoryLane = memoryLane
        directoryLock = lock
        rate = BackgroundRate(bytesPerSecond: options.backgroundBytesPerSecond, time: time)
        cache = BlockCache(capacityBytes: options.blockCacheBytes, lane: memoryLane, ledger: memory)
        memoryRelief = MemoryRelief(cacheBytes: options.blockCacheBytes)
        memoryPool = MemoryPool(
            retainedBytesMax: options.memoryBytesLimit / EngineOptions.poolShare, ledger: memory, lane: memoryLane)
        let tables = TableDirectory(
            path: DataDirectory.tables(options.directory), fileSystem: fileSystem, cache: cache, lane: lanes.metadata,
            closingLane: memoryLane, nextNumber: contents.nextTable)
        self.tables = tables
        let logs = LogDirectory(root: options.directory, fileSystem: fileSystem, lane: lanes.metadata)
        self.logs = logs
        keepsRules = contents.format >= DirectoryRecovery.formatVersionWithRules
        sharesLogs = contents.format > DirectoryRecovery.formatVersionOfOwnLogs
        for tree in contents.remains { logs.end(tree) }
        var state = State(
            damaged: contents.damaged, nextTree: contents.nextTree, nextSnapshot: contents.nextSnapshot)
        for file in contents.referredFiles { tables.note(file.summary, of: file.number) }
        for tree in contents.trees {
            state.manifests[tree.id] = TreeManifest(
                id: tree.id, root: options.directory, fileSystem: fileSystem, tables: tables, logs: logs,
                state: tree.state, number: tree.manifest)
        }
        for (number, record) in contents.snapshots {
            tables.retain(record.fileNumbers)
            logs.retain(record.logs.segmentIDs)
            state.snapshots.add(StoredSnapshot(number: number, epoch: record.progress.epoch, record: record))
        }
        // A snapshot that could not be read may refer to any segment, so those that are there outlive this process.
        if !contents.damaged.isEmpty {
            logs.retain(
                contents.segmentNumbers.flatMap { tree, numbers in numbers.map { SegmentID(tree: tree, number: $0) } })
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
        logs.close()
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
                bytes: state.files.windowedBytes.saturatingAdding(state.files.windowedValueBytes))
        }.sorted { $0.id < $1.id }
    }

    /// Trees and snapshots that could not be read when the directory was opened.
    package var damagedParts: [DamagedPart] { state.withLock { $0.damaged } }

    package var cacheStatistics: BlockCacheStatistics { cache.statistics }

    var openTrees: [Tree] { state.withLock { Array($0.open.values) } }

    /// Lets go of something whose end takes a while: on a lane, because owners have no time.
    func letGo(_ object: some AnyObject & Sendable) {
        memoryLane.submit { [self] in
            withExtendedLifetime(object) {}
            balanceMemory()
        }
    }

    func memtables(_ pointStates: PointStates) -> MemtableSource {
        MemtableSource(budgetBytes: options.memtableBytes, pool: memoryPool, pointStates: pointStates)
    }

    /// Replays the tree's log and hands the tree to its owner.
    /// - Parameters:
    ///   - pointStates: as `Tree.declare`.
    ///   - completion: on the executor. `closed` when there is no such tree or it is open already.
    package func openTree(
        _ id: TreeID, pointStates: PointStates = PointStates(), executor: any TreeExecutor,
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
                root: options.directory, tree: id, state: durable, memtables: memtables(pointStates),
                logBytes: options.logSegmentBytesLimit, logs: logs, fileSystem: fileSystem,
                wallMilliseconds: time.wallMilliseconds)
            do throws(EngineError) {
                let recovered = try replay.run()
                deliver(manifest, durable, recovered, asked: asked, executor: executor, completion: completion)
            } catch {
                state.withLock { _ = $0.opening.remove(id) }
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

    func deliver(
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

    /// Removes a tree whose making failed: what was written may be found after a crash. Where the disk does not let it, the
    /// trees that the new one names wait until it does.
    func withdraw(_ manifest: TreeManifest, replacing: [TreeID]) {
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
    func settleDisputes(_ identity: TreeIdentity) throws(EngineError) {
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

    func check(_ identity: TreeIdentity, _ writer: String) throws(EngineError) {
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

    func retireOnLane(_ id: TreeID, completion: @escaping @Sendable (Result<Void, EngineError>) -> Void) {
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
                try TreeManifest.removeDirectory(
                    id, DataDirectory.tree(options.directory, id), logs: logs, fileSystem: fileSystem)
            }
            completion(.success(()))
        } catch {
            if let manifest { discard(manifest) }
            completion(.failure(error))
        }
    }
}
