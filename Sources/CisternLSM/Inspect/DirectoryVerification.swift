// A data directory that no process has open, checked from the outside: every file's format and checksums, and that whatever is
// referred to is there and is what the reference says. Changes nothing on disk.
//
//   CISTERN ─► tables listed ─► trees: CURRENT ─► manifest ─► files, own log, logs of other trees
//                           └─► snapshots: record ─► files, logs
//   then each table once: header, footer, properties and top index; deep: every block, entry, filter and property
//
// Owned by one thread.

package import CisternFileSystem
internal import CisternPrimitives

/// Something wrong in a file.
package struct VerificationFault: Equatable, Sendable {
    package let path: String
    package let offset: UInt64
    package let detail: String

    package init(path: String, offset: UInt64, detail: String) {
        self.path = path
        self.offset = offset
        self.detail = detail
    }
}

package struct DirectoryVerification: Equatable, Sendable {
    package let directory: String
    package let isDeep: Bool
    package var trees = 0
    package var snapshots = 0
    package var tables = 0
    package var valueFiles = 0
    package var segments = 0
    /// Bytes of table files, of value files and of log segments.
    package var tableBytes: UInt64 = 0
    package var valueBytes: UInt64 = 0
    package var logBytes: UInt64 = 0
    /// Entries of table files; of all blocks when deep, else as the properties have it.
    package var entries: UInt64 = 0
    package var faults: [VerificationFault] = []
    /// What is not wrong and yet worth a look: files that the next start removes.
    package var remarks: [String] = []

    package init(directory: String, isDeep: Bool) {
        self.directory = directory
        self.isDeep = isDeep
    }

    /// Reads what must be read.
    /// - Throws: `unsupported` when the directory as a whole is of another format; `file` when it cannot be listed. Everything
    ///   else is a fault in the result.
    package static func run(
        _ directory: String, deep: Bool, fileSystem: any FileSystem
    ) throws(EngineError) -> DirectoryVerification {
        var verifier = DirectoryVerifier(directory, deep: deep, fileSystem: fileSystem)
        return try verifier.run()
    }
}

private struct DirectoryVerifier {
    let root: String
    let fileSystem: any FileSystem
    var result: DirectoryVerification
    /// What somebody refers to, with the path of the first that does.
    var referredTables: [UInt64: (summary: TableSummary, by: String)] = [:]
    var referredSegments: Set<SegmentID> = []
    var presentTables: Set<UInt64> = []
    /// Value files there are, and the table files that point into them.
    var presentValues: Set<UInt64> = []
    var referredValues: [UInt64: (use: ValueFileUse, by: String)] = [:]
    let values: ValueFiles

    init(_ root: String, deep: Bool, fileSystem: any FileSystem) {
        self.root = root
        self.fileSystem = fileSystem
        values = ValueFiles(directory: DataDirectory.tables(root), fileSystem: fileSystem)
        result = DirectoryVerification(directory: root, isDeep: deep)
    }

    mutating func run() throws(EngineError) -> DirectoryVerification {
        let formatPath = root + "/" + DataDirectory.formatName
        let format = try asEngineError { () throws(FileError) in try fileSystem.readAll(formatPath, limit: 64) }
        do throws(EngineError) {
            _ = try DirectoryRecovery.checkFormat(format, path: formatPath)
        } catch {
            guard case .corruption = error else { throw error }
            add(error, at: formatPath)
        }
        let names = try list(DataDirectory.tables(root))
        presentTables = Set(names.compactMap { DataDirectory.tableNumber(ofName: $0) })
        presentValues = Set(names.compactMap { DataDirectory.valueFileNumber(ofName: $0) })
        try verifySnapshots()
        try verifyTrees()
        for number in presentTables.sorted() { verifyTable(number) }
        for number in presentValues.sorted() { verifyValueFile(number) }
        return result
    }

    private mutating func add(_ error: EngineError, at path: String) {
        switch error {
        case .corruption(let damage):
            result.faults.append(
                VerificationFault(path: damage.source, offset: damage.offset, detail: damage.detail))
        case .file(let failure):
            result.faults.append(VerificationFault(path: failure.path, offset: 0, detail: failure.description))
        default: result.faults.append(VerificationFault(path: path, offset: 0, detail: describe(error)))
        }
    }

    /// No directory is the same as an empty one: a directory that was never opened to the end has none.
    private func list(_ directory: String) throws(EngineError) -> [String] {
        do throws(FileError) {
            return try fileSystem.list(directory).sorted()
        } catch {
            if error.isNotFound { return [] }
            throw .file(error)
        }
    }

    private func readAll(_ path: String, limit: Int) throws(EngineError) -> [UInt8] {
        try asEngineError { () throws(FileError) in try fileSystem.readAll(path, limit: limit) }
    }

    // MARK: Snapshots

    private mutating func verifySnapshots() throws(EngineError) {
        let directory = DataDirectory.snapshots(root)
        for name in try list(directory) {
            let path = directory + "/" + name
            guard DataDirectory.snapshotNumber(ofName: name) != nil else {
                result.remarks.append("\(path): no snapshot record; a temporary file goes at the next start")
                continue
            }
            result.snapshots += 1
            do throws(EngineError) {
                let record = try SnapshotFormat.decode(
                    try readAll(path, limit: SnapshotFormat.snapshotBytesMax), path: path)
                refer(record.levels, by: path)
                try verify(record.logs)
            } catch {
                add(error, at: path)
            }
        }
    }

    // MARK: Trees

    private mutating func verifyTrees() throws(EngineError) {
        let names = try list(DataDirectory.trees(root))
        var gone: [(TreeID, [String])] = []
        for name in names {
            guard let id = DataDirectory.treeID(ofName: name) else {
                result.remarks.append("\(DataDirectory.trees(root))/\(name): not a tree's directory")
                continue
            }
            let directory = DataDirectory.tree(root, id)
            let files = try list(directory)
            let segments = files.compactMap { DataDirectory.segmentNumber(ofName: $0) }
            result.segments += segments.count
            for segment in segments { countBytes(of: SegmentID(tree: id, number: segment)) }
            guard files.contains(DataDirectory.currentName) else {
                gone.append((id, files))
                continue
            }
            result.trees += 1
            do throws(EngineError) { try verifyTree(id, directory) } catch { add(error, at: directory) }
        }
        for (id, files) in gone {
            let unneeded = files.filter { name in
                guard let number = DataDirectory.segmentNumber(ofName: name) else { return true }
                return !referredSegments.contains(SegmentID(tree: id, number: number))
            }
            if !unneeded.isEmpty || files.isEmpty {
                result.remarks.append(
                    "\(DataDirectory.tree(root, id)): the remains of a tree that is gone; nothing refers to "
                        + "\(unneeded.count) of its \(files.count) files, which go at the next start")
            }
        }
    }

    private mutating func countBytes(of segment: SegmentID) {
        // A segment that is needed and cannot be read is found by its replay.
        do throws(FileError) {
            result.logBytes = result.logBytes.saturatingAdding(
                try fileSystem.size(DataDirectory.segmentPath(root, segment)))
        } catch { return }
    }

    private mutating func verifyTree(_ id: TreeID, _ directory: String) throws(EngineError) {
        let currentPath = directory + "/" + DataDirectory.currentName
        let number = try ManifestFormat.decodeCurrent(
            try readAll(currentPath, limit: ManifestFormat.currentBytes * 2), path: currentPath)
        let path = directory + "/" + DataDirectory.manifestName(number)
        let state = try ManifestFormat.decode(
            try readAll(path, limit: ManifestFormat.manifestBytesMax), path: path, tree: id, number: number)
        refer(state.levels, by: path)
        verifyOrder(state.levels, path)
        try verify(state.logs)
        // The replay that opening the tree does, in memtables of the default size and without a change to the files.
        let replay = LogReplay(
            root: root, tree: id, state: state, memtables: .offline(root),
            logBytes: EngineOptions(directory: root).logSegmentBytesLimit, logs: nil, fileSystem: fileSystem,
            wallMilliseconds: 0)
        _ = try replay.run()
    }

    private mutating func verifyOrder(_ levels: [[FileRecord]], _ path: String) {
        for (level, files) in levels.enumerated().dropFirst() {
            for (left, right) in zip(files, files.dropFirst())
            where compareKeys(left.largestKey, right.smallestKey) > 0 {
                result.faults.append(
                    VerificationFault(
                        path: path, offset: 0,
                        detail: "files \(left.number) and \(right.number) of level \(level) overlap or are out of order"
                    ))
            }
        }
    }

    private mutating func verify(_ logs: [LogReference]) throws(EngineError) {
        referredSegments.formUnion(logs.segmentIDs)
        _ = try LogRestore(logs: logs, root: root, memtables: .offline(root), fileSystem: fileSystem).verify()
    }

    // MARK: Tables

    private mutating func refer(_ levels: [[FileRecord]], by path: String) {
        for file in levels.joined() {
            if !presentTables.contains(file.number) {
                result.faults.append(
                    VerificationFault(
                        path: path, offset: 0,
                        detail: "it refers to \(DataDirectory.tableName(file.number)), which is missing"))
            }
            if let known = referredTables[file.number], known.summary != file.summary {
                result.faults.append(
                    VerificationFault(
                        path: path, offset: 0,
                        detail: "it says otherwise about \(DataDirectory.tableName(file.number)) than \(known.by)"))
            }
            referredTables[file.number] = (file.summary, path)
            for use in file.summary.values { refer(use, by: DataDirectory.tableName(file.number)) }
        }
    }

    private mutating func refer(_ use: ValueFileUse, by table: String) {
        let name = DataDirectory.valueFileName(use.number)
        if let known = referredValues[use.number] {
            if known.use.fileBytes == use.fileBytes { return }
            result.faults.append(
                VerificationFault(
                    path: values.path(use.number), offset: 0,
                    detail: "\(table) says otherwise about it than \(known.by)"))
        } else if !presentValues.contains(use.number) {
            result.faults.append(
                VerificationFault(
                    path: DataDirectory.tables(root) + "/" + table, offset: 0,
                    detail: "it points into \(name), which is missing"))
        }
        referredValues[use.number] = (use, table)
    }

    private mutating func verifyValueFile(_ number: UInt64) {
        let path = values.path(number)
        result.valueFiles += 1
        do throws(EngineError) {
            let size = try values.file(number).byteCount()
            result.valueBytes = result.valueBytes.saturatingAdding(size)
            guard let referred = referredValues[number] else {
                result.remarks.append("\(path): nothing points into it; it goes at the next start")
                return
            }
            guard referred.use.fileBytes == size else {
                throw corruption(path, 0, "it has \(size) bytes, and \(referred.by) says \(referred.use.fileBytes)")
            }
            if result.isDeep { try values.file(number).verify() }
        } catch {
            add(error, at: path)
        }
    }

    private mutating func verifyTable(_ number: UInt64) {
        let path = DataDirectory.tables(root) + "/" + DataDirectory.tableName(number)
        result.tables += 1
        do throws(EngineError) {
            let file = try asEngineError { () throws(FileError) in try fileSystem.openRead(path) }
            result.tableBytes = result.tableBytes.saturatingAdding(file.size)
            guard let referred = referredTables[number] else {
                result.remarks.append("\(path): nothing refers to it; it goes at the next start")
                return
            }
            let table = try TableReader.open(
                file: file, number: number, cache: BlockCache(capacityBytes: 0), values: values)
            guard table.summary == referred.summary else {
                throw corruption(path, 0, "its properties are not those that \(referred.by) has of it")
            }
            if result.isDeep { try table.verify(followsPointers: true) }
            result.entries = result.entries.saturatingAdding(table.summary.entryCount)
        } catch {
            add(error, at: path)
        }
    }
}
