// Snapshots of a data directory that no engine has open: listed and read, and nothing on disk is changed.

package import CisternFileSystem
internal import CisternPrimitives

package struct OfflineSnapshots {
    /// Blocks that a scan keeps; each is read once as a rule.
    private static let cacheBytes = 8 << 20

    private let root: String
    private let fileSystem: any FileSystem
    private let records: [SnapshotRecord]
    /// Records that cannot be read.
    package let faults: [VerificationFault]

    /// Reads all snapshot records, and checks that the directory has a format that is known.
    package init(_ root: String, fileSystem: any FileSystem) throws(EngineError) {
        self.root = root
        self.fileSystem = fileSystem
        let formatPath = root + "/" + DataDirectory.formatName
        _ = try DirectoryRecovery.checkFormat(
            try asEngineError { () throws(FileError) in try fileSystem.readAll(formatPath, limit: 64) },
            path: formatPath)
        let directory = DataDirectory.snapshots(root)
        let names = try asEngineError { () throws(FileError) in try fileSystem.list(directory) }
        var records: [(number: UInt64, record: SnapshotRecord)] = []
        var faults: [VerificationFault] = []
        for name in names {
            guard let number = DataDirectory.snapshotNumber(ofName: name) else { continue }
            let path = directory + "/" + name
            do throws(EngineError) {
                let bytes = try asEngineError { () throws(FileError) in
                    try fileSystem.readAll(path, limit: SnapshotFormat.snapshotBytesMax)
                }
                records.append((number, try SnapshotFormat.decode(bytes, path: path)))
            } catch {
                faults.append(VerificationFault(path: path, offset: 0, detail: describe(error)))
            }
        }
        self.records = records.sorted { $0.number < $1.number }.map(\.record)
        self.faults = faults
    }

    /// Oldest first.
    package var infos: [SnapshotInfo] { records.map(\.info) }

    /// - Throws: `unsupported` when there is no such snapshot.
    package func open(_ handle: String) throws(EngineError) -> SnapshotView {
        guard let record = records.first(where: { $0.handle == handle }) else {
            throw .unsupported(detail: "snapshot \(handle) is not in \(root): `cistern snapshots` lists those that are")
        }
        let tables = TableDirectory(
            path: DataDirectory.tables(root), fileSystem: fileSystem,
            cache: BlockCache(capacityBytes: OfflineSnapshots.cacheBytes), lane: IdleLane(), closingLane: IdleLane(),
            nextNumber: 1)
        // Nobody owns the files here, and a view that goes must not take them with it.
        tables.close()
        let restore = LogRestore(
            logs: record.logs, root: root, memtables: .offline(root), fileSystem: fileSystem)
        return try SnapshotView(record, tables: tables, restore: restore)
    }
}

/// Does nothing: there is nothing to remove.
final class IdleLane: BackgroundLane {
    func submit(_ job: @escaping @Sendable () -> Void) {}
    func submit(afterMilliseconds delay: UInt64, _ job: @escaping @Sendable () -> Void) {}
    func drain() {}
    func stop() {}
}
