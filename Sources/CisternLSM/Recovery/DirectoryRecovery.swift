// What a data directory holds, read when it is opened: trees, snapshots, and which table files nobody refers to.
//
// A tree or snapshot that cannot be read is reported and left alone, and as long as there is one no table file is removed: it
// may be the one it refers to.

internal import CisternFileSystem
internal import CisternPrimitives

/// Something in a data directory that cannot be used.
package struct DamagedPart: Equatable, Sendable {
    package let path: String
    /// The tree it is, when it is one; `Engine.retireTree` removes it.
    package let tree: TreeID?
    package let error: EngineError
}

struct RecoveredTree {
    let id: TreeID
    let state: TreeState
    let manifest: UInt64
}

struct DirectoryContents {
    /// What the directory says that it may hold.
    var format = DirectoryRecovery.formatVersion
    var trees: [RecoveredTree] = []
    var snapshots: [(number: UInt64, record: SnapshotRecord)] = []
    var damaged: [DamagedPart] = []
    var tableNumbers: Set<UInt64> = []
    var valueFileNumbers: Set<UInt64> = []
    /// Log segments in each directory of a tree.
    var segmentNumbers: [TreeID: Set<UInt64>] = [:]
    /// Directories without CURRENT: what an interruption left, or segments that others refer to.
    var remains: [TreeID] = []
    var nextTree: UInt64 = 1
    var nextSnapshot: UInt64 = 1
    var nextTable: UInt64 = 1

    /// Table files, as each tree and each snapshot refers to them.
    var referredFiles: some Sequence<FileRecord> {
        [trees.flatMap { Array($0.state.files) }, snapshots.flatMap { $0.record.levels.joined() }].joined()
    }

    /// Segments that a snapshot or another tree refers to.
    var referredSegments: [SegmentID] {
        trees.flatMap { $0.state.logs.segmentIDs } + snapshots.flatMap { $0.record.logs.segmentIDs }
    }
}

struct DirectoryRecovery {
    let root: String
    let fileSystem: any FileSystem

    /// Format of the directory as a whole. On disk: never renumber.
    static let formatVersion: UInt16 = 4
    /// Format 1: segments belong to their tree alone. A program that knows only this one removes those of trees that are no
    /// more, so in such a directory nobody else may refer to them.
    static let formatVersionOfOwnLogs: UInt16 = 1
    /// From this one on manifests and snapshots hold expiry rules, and sorted files tell of their states.
    static let formatVersionWithRules: UInt16 = 4
    /// The version of sorted files that a directory of a format gets.
    static func tableVersion(inFormat format: UInt16) -> UInt32 {
        // Each format so far has brought a version.
        min(UInt32(format), TableFormat.versions.upperBound)
    }

    static let formatMagic: UInt32 = 0x5453_4943

    func run() throws(EngineError) -> DirectoryContents {
        var contents = DirectoryContents()
        contents.format = try makeDirectories()
        try readTables(&contents)
        try readTrees(&contents)
        try readSnapshots(&contents)
        try finishExchanges(&contents)
        checkFiles(&contents)
        removeRemains(contents)
        if contents.damaged.isEmpty { try removeOrphans(contents) }
        return contents
    }

    /// Returns the format.
    private func makeDirectories() throws(EngineError) -> UInt16 {
        try asEngineError { () throws(FileError) in
            for directory in [
                DataDirectory.tables(root), DataDirectory.trees(root), DataDirectory.snapshots(root),
            ] { try fileSystem.createDirectory(directory) }
        }
        let path = root + "/" + DataDirectory.formatName
        if try asEngineError({ () throws(FileError) in try fileSystem.exists(path) }) { return try checkFormat(path) }
        try writeFormat()
        return DirectoryRecovery.formatVersion
    }

    private func writeFormat() throws(EngineError) {
        var writer = ByteWriter(capacity: 8)
        writer.writeInteger(DirectoryRecovery.formatMagic)
        writer.writeInteger(DirectoryRecovery.formatVersion)
        writer.writeInteger(UInt16(0))
        try asEngineError { () throws(FileError) in
            try AtomicFile.write(writer.bytes, to: DataDirectory.formatName, in: root, fileSystem: fileSystem)
        }
    }

    /// What a directory that exists says.
    func format() throws(EngineError) -> UInt16 { try checkFormat(root + "/" + DataDirectory.formatName) }

    /// Raises the format to the newest. What is written from then on, programs that know only older formats cannot read.
    /// - Returns: the format there was.
    func upgrade() throws(EngineError) -> UInt16 {
        let found = try format()
        if found != DirectoryRecovery.formatVersion { try writeFormat() }
        return found
    }

    private func checkFormat(_ path: String) throws(EngineError) -> UInt16 {
        let bytes = try asEngineError { () throws(FileError) in try fileSystem.readAll(path, limit: 64) }
        return try DirectoryRecovery.checkFormat(bytes, path: path)
    }

    /// Returns the format.
    static func checkFormat(_ bytes: [UInt8], path: String) throws(EngineError) -> UInt16 {
        let fields = unsafe bytes.withUnsafeBytes { bytes -> (UInt32, UInt16)? in
            var reader = unsafe ByteReader(bytes)
            guard let magic = reader.readInteger(as: UInt32.self), let version = reader.readInteger(as: UInt16.self)
            else { return nil }
            return (magic, version)
        }
        guard let (magic, version) = fields, magic == DirectoryRecovery.formatMagic else {
            throw corruption(path, 0, "this is not the format file of a data directory")
        }
        guard (formatVersionOfOwnLogs...formatVersion).contains(version) else {
            throw .unsupported(
                detail: "\(path) says format \(version), and this program reads formats up to "
                    + "\(DirectoryRecovery.formatVersion): use the program that wrote it, or a newer one")
        }
        return version
    }

    private func list(_ directory: String) throws(EngineError) -> [String] {
        try asEngineError { () throws(FileError) in try fileSystem.list(directory) }
    }

    private func readTables(_ contents: inout DirectoryContents) throws(EngineError) {
        for name in try list(DataDirectory.tables(root)) {
            let number: UInt64
            if let table = DataDirectory.tableNumber(ofName: name) {
                number = table
                contents.tableNumbers.insert(table)
            } else if let valueFile = DataDirectory.valueFileNumber(ofName: name) {
                number = valueFile
                contents.valueFileNumbers.insert(valueFile)
            } else {
                continue
            }
            contents.nextTable = max(contents.nextTable, number + 1)
        }
    }

    // MARK: Trees

    private func readTrees(_ contents: inout DirectoryContents) throws(EngineError) {
        for name in try list(DataDirectory.trees(root)).sorted() {
            guard let id = DataDirectory.treeID(ofName: name) else { continue }
            contents.nextTree = max(contents.nextTree, id.number + 1)
            let directory = DataDirectory.tree(root, id)
            do throws(EngineError) {
                // The listing decides whether there is a tree: an error on the way to CURRENT must not pass for its absence.
                let names = try list(directory)
                contents.segmentNumbers[id] = Set(names.compactMap { DataDirectory.segmentNumber(ofName: $0) })
                guard names.contains(DataDirectory.currentName) else {
                    contents.remains.append(id)
                    continue
                }
                contents.trees.append(try readTree(id, directory))
            } catch {
                contents.damaged.append(DamagedPart(path: directory, tree: id, error: error))
            }
        }
    }

    private func readTree(_ id: TreeID, _ directory: String) throws(EngineError) -> RecoveredTree {
        let currentPath = directory + "/" + DataDirectory.currentName
        let current = try asEngineError { () throws(FileError) in
            try fileSystem.readAll(currentPath, limit: ManifestFormat.currentBytes * 2)
        }
        let number = try ManifestFormat.decodeCurrent(current, path: currentPath)
        let path = directory + "/" + DataDirectory.manifestName(number)
        let bytes = try asEngineError { () throws(FileError) in
            try fileSystem.readAll(path, limit: ManifestFormat.manifestBytesMax)
        }
        let state = try ManifestFormat.decode(bytes, path: path, tree: id, number: number)
        return RecoveredTree(id: id, state: state, manifest: number)
    }

    /// Trees that another one was made in place of, and that a crash left behind.
    private func finishExchanges(_ contents: inout DirectoryContents) throws(EngineError) {
        let replaced = Set(contents.trees.flatMap(\.state.replaces)).intersection(contents.trees.map(\.id))
        for id in replaced {
            let directory = DataDirectory.tree(root, id)
            try asEngineError { () throws(FileError) in
                try fileSystem.removeIfPresent(directory + "/" + DataDirectory.currentName)
                try fileSystem.syncDirectory(directory)
            }
            contents.remains.append(id)
        }
        contents.trees.removeAll { replaced.contains($0.id) }
    }

    /// Directories without a tree go, except for the segments that others refer to; where something could not be read, all
    /// segments stay.
    private func removeRemains(_ contents: DirectoryContents) {
        let referred = Set(contents.referredSegments)
        let keepsAll = !contents.damaged.isEmpty
        for tree in contents.remains {
            TreeManifest.removeContents(of: DataDirectory.tree(root, tree), fileSystem: fileSystem) {
                keepsAll || referred.contains(SegmentID(tree: tree, number: $0))
            }
        }
    }

    // MARK: Snapshots

    private func readSnapshots(_ contents: inout DirectoryContents) throws(EngineError) {
        let directory = DataDirectory.snapshots(root)
        for name in try list(directory).sorted() {
            let path = directory + "/" + name
            guard let number = DataDirectory.snapshotNumber(ofName: name) else {
                if name.hasSuffix(AtomicFile.temporarySuffix) {
                    try asEngineError { () throws(FileError) in try fileSystem.remove(path) }
                }
                continue
            }
            contents.nextSnapshot = max(contents.nextSnapshot, number + 1)
            do throws(EngineError) {
                let bytes = try asEngineError { () throws(FileError) in
                    try fileSystem.readAll(path, limit: SnapshotFormat.snapshotBytesMax)
                }
                let record = try SnapshotFormat.decode(bytes, path: path)
                contents.snapshots.append((number, record))
                // The tree may be gone, and its number would name another one.
                contents.nextTree = max(contents.nextTree, record.tree.number + 1)
            } catch {
                contents.damaged.append(DamagedPart(path: path, tree: nil, error: error))
            }
        }
    }

    // MARK: Table files

    /// A manifest that lost its last edit refers to files that were deleted afterwards: better refused than half read.
    private func checkFiles(_ contents: inout DirectoryContents) {
        // A file that is missing keeps its number: a new one under it would pass for it.
        for file in contents.referredFiles {
            let last = max(file.number, file.summary.values.last?.number ?? 0)
            contents.nextTable = max(contents.nextTable, last + 1)
        }
        // So does a tree whose log is referred to.
        let logTrees = contents.referredSegments.map(\.tree.number)
        contents.nextTree = max(contents.nextTree, (logTrees.max() ?? 0) + 1)
        for tree in contents.trees {
            let path = DataDirectory.tree(root, tree.id)
            let missing = missingFile(of: tree.state.files, contents)
            guard let missing = missing ?? missingSegment(tree.state.logs, contents) else { continue }
            contents.damaged.append(DamagedPart(path: path, tree: tree.id, error: missingFile(missing, path)))
        }
        for (number, record) in contents.snapshots {
            let path = DataDirectory.snapshots(root) + "/" + DataDirectory.snapshotName(number)
            let missing = missingFile(of: record.levels.joined(), contents)
            guard let missing = missing ?? missingSegment(record.logs, contents) else { continue }
            contents.damaged.append(DamagedPart(path: path, tree: nil, error: missingFile(missing, path)))
        }
        let damagedTrees = Set(contents.damaged.compactMap(\.tree))
        let damagedPaths = Set(contents.damaged.map(\.path))
        contents.trees.removeAll { damagedTrees.contains($0.id) }
        contents.snapshots.removeAll { number, _ in
            damagedPaths.contains(DataDirectory.snapshots(root) + "/" + DataDirectory.snapshotName(number))
        }
    }

    /// The path of a table file, or of a value file that one points into.
    private func missingFile(of files: some Sequence<FileRecord>, _ contents: DirectoryContents) -> String? {
        for file in files {
            if !contents.tableNumbers.contains(file.number) {
                return DataDirectory.tables(root) + "/" + DataDirectory.tableName(file.number)
            }
            if let missing = file.summary.values.first(where: { !contents.valueFileNumbers.contains($0.number) }) {
                return DataDirectory.tables(root) + "/" + DataDirectory.valueFileName(missing.number)
            }
        }
        return nil
    }

    private func missingSegment(_ logs: [LogReference], _ contents: DirectoryContents) -> String? {
        logs.segmentIDs.first { contents.segmentNumbers[$0.tree]?.contains($0.number) != true }
            .map { DataDirectory.segmentPath(root, $0) }
    }

    private func missingFile(_ missing: String, _ path: String) -> EngineError {
        corruption(path, 0, "it refers to \(missing), which is missing: restore from a snapshot")
    }

    private func removeOrphans(_ contents: DirectoryContents) throws(EngineError) {
        var owned: Set<UInt64> = []
        var ownedValues: Set<UInt64> = []
        for file in contents.referredFiles {
            owned.insert(file.number)
            for use in file.summary.values { ownedValues.insert(use.number) }
        }
        let orphans =
            contents.tableNumbers.subtracting(owned).sorted().map { DataDirectory.tableName($0) }
            + contents.valueFileNumbers.subtracting(ownedValues).sorted().map { DataDirectory.valueFileName($0) }
        for name in orphans {
            let path = DataDirectory.tables(root) + "/" + name
            try asEngineError { () throws(FileError) in try fileSystem.remove(path) }
        }
    }
}
