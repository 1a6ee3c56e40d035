// A snapshot of another data directory becomes one of this. Its files were laid in a directory of the same layout, on the same file
// system; what comes out needs nothing of that directory.
//
//   table without value files ─► opened and compared with the record ─► renamed to a number of this directory
//   table with value files    ─► copied, values and all: pointers and value records have the numbers of the other directory in them
//   log segments              ─► replayed ─► table files of level 0
//                                                                 └─► record with a tree number that nobody else has
//
// Numbers of tables, trees and snapshots are counted in each directory, so none of the other one's may stay: a tree number that
// meant two trees would make one the owner of the other's snapshots. Threading: files on the recovery lane, the record on the
// metadata lane.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// Files that a job has put into the directory, given up with it.
private final class AdoptedFiles: Sendable {
    let numbers: [UInt64]
    private let tables: TableDirectory

    init(_ numbers: [UInt64], _ tables: TableDirectory) {
        self.numbers = numbers
        self.tables = tables
    }

    deinit { tables.release(numbers) }
}

extension Engine {
    /// Makes a snapshot of another data directory one of this. Files without value files are moved out of `directory`; nothing
    /// that is left there is needed afterwards. Known already under its handle: nothing is done.
    /// - Parameters:
    ///   - directory: has what `record.files` names, on the engine's file system.
    ///   - store: the store it is to be of, another than the record's for a fork, which gets a handle of its own.
    ///   - completion: on the recovery or the metadata lane, when the snapshot is durable. `corruption` when a file is not what
    ///     the record says, `unsupported` when the directory's format does not have what the snapshot has.
    package func importSnapshot(
        _ record: SnapshotRecord, from directory: String, as store: String? = nil,
        completion: @escaping @Sendable (Result<SnapshotInfo, EngineError>) -> Void
    ) {
        lanes.recovery.submit { [self] in
            do throws(EngineError) {
                if store == nil, let known = try known(record) { return completion(.success(known)) }
                let (levels, files) = try adoptFiles(of: record, from: directory)
                var imported = record
                imported.levels = levels
                imported.logs = []
                if let store {
                    imported.identity = TreeIdentity(
                        store: store, keyGroups: record.identity.keyGroups, keyGroupCount: record.identity.keyGroupCount
                    )
                    imported.handle = ""
                }
                lanes.metadata.submit { [self, imported] in
                    completion(recordImported(imported, files))
                }
            } catch {
                completion(.failure(error))
            }
        }
    }

    /// Makes a snapshot here one of another store, which shares its files: a job of that store may be restored from it. The two
    /// are released apart.
    /// - Parameter completion: on the metadata lane, when it is durable.
    package func forkSnapshot(
        _ handle: String, as store: String, completion: @escaping @Sendable (Result<SnapshotInfo, EngineError>) -> Void
    ) {
        lanes.metadata.submit { [self] in
            guard let source = state.withLock({ $0.isClosed ? nil : $0.snapshots[handle]?.record }) else {
                return completion(.failure(.unknownSnapshot(handle)))
            }
            // Segments are looked for under the tree that wrote them, so the references stay as they are.
            var fork = source
            fork.handle = ""
            fork.identity = TreeIdentity(
                store: store, keyGroups: source.identity.keyGroups, keyGroupCount: source.identity.keyGroupCount)
            completion(recordImported(fork, nil))
        }
    }

    /// Makes a snapshot here one of another store under a handle of old: it holds what that one held, made again from a log.
    /// - Parameter completion: on the metadata lane, when it is durable.
    package func remakeSnapshot(
        _ old: ReplicatedSnapshot, as store: String, from handle: String,
        completion: @escaping @Sendable (Result<SnapshotInfo, EngineError>) -> Void
    ) {
        lanes.metadata.submit { [self] in
            guard let source = state.withLock({ $0.isClosed ? nil : $0.snapshots[handle]?.record }) else {
                return completion(.failure(.unknownSnapshot(handle)))
            }
            guard source.progress.position == old.progress.position else {
                return completion(
                    .failure(
                        .logLost(
                            detail: "the log ends at batch \(source.progress.position), and snapshot \(old.handle) was "
                                + "taken at \(old.progress.position)")))
            }
            var remade = source
            remade.handle = old.handle
            remade.checkpoint = old.checkpoint
            remade.createdMilliseconds = old.createdMilliseconds
            remade.identity = TreeIdentity(
                store: store, keyGroups: source.identity.keyGroups, keyGroupCount: source.identity.keyGroupCount)
            completion(recordImported(remade, nil))
        }
    }

    /// The snapshot that has the record's handle here.
    /// - Throws: when it is another one.
    private func known(_ record: SnapshotRecord) throws(EngineError) -> SnapshotInfo? {
        guard let stored = state.withLock({ $0.snapshots[record.handle] }) else { return nil }
        let known = stored.record
        guard known.identity == record.identity, known.progress == record.progress,
            known.createdMilliseconds == record.createdMilliseconds
        else {
            throw .unsupported(
                detail:
                    "snapshot \(record.handle) is another one in \(options.directory): release that one, or bring this one under "
                    + "another store's name")
        }
        return stored.info
    }

    /// Metadata lane.
    private func recordImported(_ record: SnapshotRecord, _ files: AdoptedFiles?) -> Result<SnapshotInfo, EngineError> {
        defer { withExtendedLifetime(files) {} }
        var record = record
        do throws(EngineError) {
            if !record.handle.isEmpty, let known = try known(record) { return .success(known) }
            try check(record.identity, "")
            let number = try state.withLock { state throws(EngineError) -> UInt64 in
                if state.isClosed { throw .closed(tree: record.identity.store) }
                record.tree = TreeID(state.nextTree)
                state.nextTree += 1
                state.nextSnapshot += 1
                return state.nextSnapshot - 1
            }
            if record.handle.isEmpty { record.handle = record.makeHandle(number) }
            return .success(try store(record, number: number, epoch: record.progress.epoch))
        } catch {
            return .failure(error)
        }
    }

    // MARK: Files

    private func adoptFiles(
        of record: SnapshotRecord, from directory: String
    ) throws(EngineError) -> ([[FileRecord]], AdoptedFiles) {
        if !record.expiryRules.isEmpty && !keepsRules { throw tooNew(record, "it has expiry rules") }
        let staged = TableDirectory(
            path: DataDirectory.tables(directory), fileSystem: fileSystem,
            cache: BlockCache(capacityBytes: Engine.importCacheBytes), lane: IdleLane(), closingLane: IdleLane(),
            nextNumber: 1)
        // Whoever laid the files there removes them.
        staged.close()
        var adopted: [UInt64: FileRecord] = [:]
        var levels = record.levels
        var newest: [FileRecord] = []
        do throws(EngineError) {
            for file in record.levels.joined() where adopted[file.number] == nil {
                adopted[file.number] = try adopt(file, of: record, staged)
            }
            newest = try flushLogs(of: record, from: directory)
            if !adopted.isEmpty {
                try asEngineError { () throws(FileError) in
                    try fileSystem.syncDirectory(DataDirectory.tables(directory))
                }
                try tables.syncEntries()
            }
        } catch {
            tables.release(adopted.values.map(\.number) + newest.map(\.number))
            throw error
        }
        for level in levels.indices {
            levels[level] = levels[level].map { file in
                guard let new = adopted[file.number] else { return file }
                return FileRecord(number: new.number, window: file.window, summary: new.summary)
            }
        }
        levels[0] = newest.reversed() + levels[0]
        return (levels, AdoptedFiles(adopted.values.map(\.number) + newest.map(\.number), tables))
    }

    /// Blocks of a table that is copied; each is read once.
    private static let importCacheBytes = 1 << 20

    private func adopt(
        _ file: FileRecord, of record: SnapshotRecord, _ staged: TableDirectory
    ) throws(EngineError) -> FileRecord {
        guard file.summary.formatVersion <= options.table.formatVersion else {
            throw tooNew(record, "it has sorted files of version \(file.summary.formatVersion)")
        }
        let path = staged.filePath(file.number)
        let table = staged.table(file.number)
        let reader = try table.reader()
        guard reader.summary == file.summary else {
            throw corruption(path, 0, "the file is not the one that snapshot \(record.handle) was taken with")
        }
        if file.summary.values.isEmpty {
            let number = try tables.adopt(path)
            return FileRecord(number: number, window: file.window, summary: file.summary)
        }
        var plan = ValuePlan(options.values, inputs: [file], rewritten: Set(file.summary.values.map(\.number)))
        plan.source = staged.values
        let output = importOutput(record, plan)
        let written = try output.write(TableCopy(reader))
        invariant(written.count == 1, "a table became \(written.count)")
        return written[0]
    }

    /// What was in logs as files of level 0, oldest first.
    private func flushLogs(
        of record: SnapshotRecord, from directory: String
    ) throws(EngineError) -> [FileRecord] {
        if record.logs.isEmpty { return [] }
        let output = importOutput(record, ValuePlan(options.values))
        let restore = LogRestore(
            logs: record.logs, root: directory, memtables: memtables(PointStates()), fileSystem: fileSystem)
        var files: [FileRecord] = []
        do throws(EngineError) {
            let flush = { (memtable: Memtable) throws(EngineError) in
                if let file = try FlushJob.run(
                    memtable, clock: output.clock, rules: record.expiryRules, isBottommost: false, output: output)
                {
                    files.append(file)
                }
            }
            let last = try restore.run(spill: flush)
            last.seal()
            try flush(last)
            return files
        } catch {
            tables.release(files.map(\.number))
            throw error
        }
    }

    private func importOutput(_ record: SnapshotRecord, _ values: ValuePlan) -> TableOutput {
        TableOutput(
            tables: tables, options: options.table, cache: cache, keyGroups: record.identity.keyGroups,
            targetFileBytes: .max, pace: BackgroundPace(rate: rate, priority: nil), memoryLane: memoryLane,
            cancellation: Cancellation(), values: values,
            // As the snapshot was: what has expired since is still read at it.
            clock: ExpiryClock(processing: record.createdMilliseconds, event: record.progress.watermark))
    }

    private func tooNew(_ record: SnapshotRecord, _ what: String) -> EngineError {
        .unsupported(
            detail:
                "snapshot \(record.handle) cannot be brought into \(options.directory): \(what), which the directory's "
                + "format does not have; stop the server and run `cistern upgrade \(options.directory)`")
    }
}

/// All entries of a table as they are.
private final class TableCopy: TableInput {
    private let cursor: TableCursor
    private var isStarted = false
    var isHot: Bool { false }

    init(_ reader: TableReader) { cursor = reader.cursor(policy: .stream) }

    func next() throws(EngineError) -> EntryView? {
        let isThere = isStarted ? try cursor.next() : try cursor.seekToFirst()
        isStarted = true
        return isThere ? cursor.entry : nil
    }
}
