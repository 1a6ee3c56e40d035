// Snapshots as the engine keeps them: records on disk, what they own, and their release.
//
//   record:  files and segments retained ─► record written ─► known under its handle
//   release: forgotten ─► record removed, durably ─► files and segments released
//
// Threading: lists from any thread; records are written and removed on the metadata lane.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

extension Engine {
    /// Snapshots of a store, oldest first.
    package func snapshots(store: String) -> [SnapshotInfo] {
        state.withLock { state in
            state.snapshots.all.filter { $0.record.identity.store == store }
                .sorted { $0.number < $1.number }.map(\.info)
        }
    }

    /// Snapshots of all stores.
    package var snapshotCount: Int { state.withLock { $0.snapshots.count } }

    func snapshot(tree: TreeID, epoch: UInt64, checkpoint: UInt64) -> SnapshotInfo? {
        state.withLock { $0.snapshots.taken(of: tree, epoch: epoch, checkpoint: checkpoint)?.info }
    }

    /// Writes a snapshot record; durable when it returns. Metadata lane.
    /// - Parameter hold: keeps files and segments until the record owns them.
    func record(
        _ template: SnapshotRecord, epoch: UInt64, holding hold: SnapshotHold
    ) throws(EngineError) -> SnapshotInfo {
        defer { withExtendedLifetime(hold) {} }
        let number = try state.withLock { state throws(EngineError) -> UInt64 in
            // The segments went with their tree when it was retired before they were held. On this lane it is known for sure.
            if !template.logs.isEmpty, state.manifests[template.tree] == nil {
                throw .closed(tree: "\(template.identity.store) \(template.identity.keyGroups)")
            }
            state.nextSnapshot += 1
            return state.nextSnapshot - 1
        }
        var record = template
        record.handle = record.makeHandle(number)
        return try store(record, number: number, epoch: epoch)
    }

    /// Writes the record of a snapshot under a number of its own; durable when it returns. Metadata lane. What it refers to is
    /// held by the caller.
    func store(_ record: SnapshotRecord, number: UInt64, epoch: UInt64) throws(EngineError) -> SnapshotInfo {
        retain(record)
        do throws(FileError) {
            try AtomicFile.write(
                SnapshotFormat.encode(record), to: DataDirectory.snapshotName(number),
                in: DataDirectory.snapshots(options.directory), fileSystem: fileSystem)
        } catch {
            removeSnapshots([number], owning: [record]) {}
            throw .file(error)
        }
        let stored = state.withLock { state -> StoredSnapshot in
            let stored = StoredSnapshot(
                number: number, epoch: epoch, record: record, newBytes: state.snapshots.newBytes(of: record))
            state.snapshots.add(stored)
            return stored
        }
        return stored.info
    }

    private func retain(_ record: SnapshotRecord) {
        tables.retain(record.fileNumbers)
        logs.retain(record.logs.segmentIDs)
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
            let released = handles.compactMap { state.snapshots.remove($0) }
            for snapshot in released { state.releasing[snapshot.record.handle] = snapshot.number }
            return (released, handles.compactMap { state.releasing[$0] })
        }
        lanes.metadata.submit { [self] in
            removeSnapshots(numbers, owning: released.map(\.record)) { [self] in
                state.withLock { state in
                    for snapshot in released { state.releasing[snapshot.record.handle] = nil }
                }
                completion(released.count)
            }
        }
        return released.count
    }

    /// Removes records, durably, and then gives up what they owned; tries again later when the disk does not let it.
    private func removeSnapshots(
        _ numbers: [UInt64], owning records: [SnapshotRecord], completion: @escaping @Sendable () -> Void
    ) {
        let directory = DataDirectory.snapshots(options.directory)
        do throws(FileError) {
            for number in numbers {
                try fileSystem.removeIfPresent(directory + "/" + DataDirectory.snapshotName(number))
            }
            if !numbers.isEmpty { try fileSystem.syncDirectory(directory) }
        } catch {
            return lanes.metadata.submit(afterMilliseconds: options.retryLastMilliseconds) { [self] in
                removeSnapshots(numbers, owning: records, completion: completion)
            }
        }
        for record in records {
            tables.release(record.fileNumbers)
            logs.release(record.logs.segmentIDs)
        }
        completion()
    }
}

extension EngineError {
    static func unknownSnapshot(_ handle: String) -> EngineError {
        .unsupported(detail: "snapshot \(handle) is unknown here: it was released, or is of another server")
    }
}
