// A snapshot that is read where it lies: gets and scans of a state of the past, for as long as the snapshot exists, sharing files
// and cache with the trees of the engine; or on a directory that no engine has open.
//
//   record ─► files, opened at their first use ┐
//          └► log references ─► memtables ─────┴─► view
//
// Threading: immutable after init, any thread.

package import CisternPrimitives
internal import Synchronization

package final class SnapshotView: Sendable {
    package let info: SnapshotInfo
    private let version: Version
    private let cache: BlockCache
    private let rules: ExpiryRules
    /// What was in no file, newest first.
    private let memtables: [Memtable]

    /// Reads what the snapshot refers to in logs; no table.
    /// - Parameter restore: reads `record.logs`.
    init(_ record: SnapshotRecord, tables: TableDirectory, restore: LogRestore) throws(EngineError) {
        info = record.info
        var state = TreeState(identity: record.identity, epoch: record.progress.epoch, writer: "")
        state.levels = record.levels
        version = Version(state, tables: tables)
        rules = record.expiryRules
        cache = tables.cache
        var memtables: [Memtable] = []
        let last = try restore.run { memtable throws(EngineError) in memtables.append(memtable) }
        last.seal()
        memtables.append(last)
        self.memtables = memtables.reversed()
    }

    /// What was alive when the snapshot was taken.
    package var clock: ExpiryClock {
        ExpiryClock(processing: info.createdMilliseconds, event: info.progress.watermark)
    }

    /// Collects the value of a key in `result`, which is reset first.
    /// - Returns: true when the key has a value that is alive by `clock`; `result.finish(clock)` gives it.
    package func get(
        _ key: UnsafeRawBufferPointer, clock: ExpiryClock, into result: inout LookupResult
    ) throws(EngineError) -> Bool {
        result.reset()
        guard key.count >= EngineLimits.keyBytesMin, unsafe info.identity.keyGroups.contains(keyGroup(of: key)) else {
            return false
        }
        unsafe try collect(key, into: &result)
        unsafe result.apply(rules, to: key)
        return unsafe result.finish(clock) != nil
    }

    private func collect(_ key: UnsafeRawBufferPointer, into result: inout LookupResult) throws(EngineError) {
        let hash = unsafe Hash64.hash(key)
        for memtable in memtables {
            if let entry = unsafe memtable.find(key, hash: hash), result.add(entry, in: memtable.arenaView) { return }
        }
        if version.fileCount == 0 { return }
        let reader = CacheReader(cache)
        reader.enter()
        defer { reader.leave() }
        unsafe try version.get(key, hash: hash, reader: reader, into: &result)
    }

    /// Visits what is alive by `clock` in key order, from `start` on, until `visit` returns false.
    package func scan(
        from start: [UInt8] = [], clock: ExpiryClock, visit: (EntryView) -> Bool
    ) throws(EngineError) {
        let cursor = MergingCursor(try sources(), clock: clock, rules: rules)
        let first = BlockMemory(copying: start)
        var isPositioned = unsafe try cursor.seek(to: UnsafeRawBufferPointer(first.bytes))
        withExtendedLifetime(first) {}
        while isPositioned, visit(cursor.entry) { isPositioned = try cursor.next() }
    }

    private func sources() throws(EngineError) -> [EntryCursor] {
        var sources = memtables.map { EntryCursor.memtable($0.cursor()) }
        for file in version.levels[0] { sources.append(.level(LevelCursor([try window(file)]))) }
        for level in version.levels.dropFirst() where !level.isEmpty {
            var run: [TableWindow] = []
            for file in level { run.append(try window(file)) }
            sources.append(.level(LevelCursor(run)))
        }
        return sources
    }

    private func window(_ file: FileReference) throws(EngineError) -> TableWindow {
        TableWindow(try file.table.reader(), keyGroups: file.record.window)
    }
}

extension Engine {
    /// Opens a snapshot for reading. It stays readable after its release, as long as the view lives: files go afterwards.
    /// - Parameter completion: on the recovery lane, where the log it refers to is read. `unsupported` when it is unknown.
    package func openSnapshot(
        _ handle: String, completion: @escaping @Sendable (Result<SnapshotView, EngineError>) -> Void
    ) {
        lanes.metadata.submit { [self] in
            // Releases end on this lane, so what is found here is owned until the hold is.
            guard let record = state.withLock({ $0.isClosed ? nil : $0.snapshots[handle]?.record }) else {
                return completion(.failure(.unknownSnapshot(handle)))
            }
            let segments = LogHold(logs, record.logs.segmentIDs)
            let files = Version(record.fileState, tables: tables)
            lanes.recovery.submit { [self] in
                defer { withExtendedLifetime((segments, files)) {} }
                let restore = LogRestore(
                    logs: record.logs, root: options.directory, memtables: memtables(PointStates()),
                    fileSystem: fileSystem)
                let result: Result<SnapshotView, EngineError>
                do throws(EngineError) {
                    result = .success(try SnapshotView(record, tables: tables, restore: restore))
                } catch {
                    result = .failure(error)
                }
                completion(result)
            }
        }
    }
}
