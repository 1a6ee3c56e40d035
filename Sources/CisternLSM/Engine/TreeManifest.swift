// A tree's manifest together with the ownership of the table files it refers to.
//
// Everything here runs on the metadata lane, so edits of all trees, snapshot records and removals are in one order; only
// `published` is read elsewhere.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// `@unchecked Sendable`: `writer`, `state`, `isRetired` and `givenUp` belong to the metadata lane.
final class TreeManifest: @unchecked Sendable {
    let id: TreeID
    private let directory: String
    private let fileSystem: any FileSystem
    private let tables: TableDirectory
    private let logs: LogDirectory
    private let writer: ManifestWriter
    private var state: TreeState
    private var isRetired = false
    /// Files of edits that failed and will not be tried again.
    private var givenUp: [UInt64] = []
    /// The durable state, for whoever lists trees.
    private let published: Mutex<TreeState>

    /// - Parameter number: the manifest that recovery read; 0 for a tree that is being made.
    /// Takes ownership of the files and logs of `state`.
    init(
        id: TreeID, root: String, fileSystem: any FileSystem, tables: TableDirectory, logs: LogDirectory,
        state: TreeState, number: UInt64
    ) {
        self.id = id
        directory = DataDirectory.tree(root, id)
        self.fileSystem = fileSystem
        self.tables = tables
        self.logs = logs
        self.state = state
        published = Mutex(state)
        writer = ManifestWriter(
            directory: directory, tree: id, fileSystem: fileSystem, state: state, number: number)
        tables.retain(state.files.map(\.number))
        logs.retain(state.logs.segmentIDs)
        logs.begin(id, floor: state.firstSegment)
    }

    var durableState: TreeState { published.withLock { $0 } }

    /// Makes the directory of a new tree; the tree exists when this returns.
    func create() throws(EngineError) {
        try asEngineError { () throws(FileError) in
            try fileSystem.createDirectory(directory)
            try fileSystem.syncDirectory(parentDirectory)
        }
        try writer.begin()
    }

    func commit(_ edit: VersionEdit) throws(EngineError) {
        guard !isRetired else { throw .closed(tree: id.description) }
        try writer.commit(edit)
        let formerLogs = edit.dropsLogs ? state.logs.segmentIDs : []
        let problem = state.apply(edit)
        invariant(problem == nil, "a committed edit does not fit: \(problem ?? "")")
        tables.retain(edit.added.map(\.file.number))
        tables.release(edit.removed.map(\.file.number))
        logs.release(formerLogs)
        releaseGivenUp()
        let state = self.state
        published.withLock { $0 = state }
    }

    /// Removes the tree: it is gone when CURRENT is, and the rest follows. Files are released only after that is durable.
    func retire() throws(EngineError) {
        guard !isRetired else { return }
        writer.close()
        try TreeManifest.removeDirectory(id, directory, logs: logs, fileSystem: fileSystem)
        isRetired = true
        logs.release(state.logs.segmentIDs)
        tables.release(state.files.map(\.number))
        releaseGivenUp()
    }

    /// Takes over files of an edit that failed and will not be committed again. They go when that edit cannot be found after
    /// a crash: with the next edit that succeeds, because it begins a new manifest, or with the tree.
    func giveUp(_ numbers: [UInt64]) {
        givenUp += numbers
        if isRetired { releaseGivenUp() }
    }

    private func releaseGivenUp() {
        tables.release(givenUp)
        givenUp = []
    }

    private var parentDirectory: String { String(directory[..<(directory.lastIndex(of: "/") ?? directory.endIndex)]) }

    /// Removes CURRENT, then everything else but log segments that others refer to. Only the first step must work.
    static func removeDirectory(
        _ tree: TreeID, _ directory: String, logs: LogDirectory, fileSystem: any FileSystem
    ) throws(EngineError) {
        do throws(FileError) {
            try fileSystem.removeIfPresent(directory + "/" + DataDirectory.currentName)
            try fileSystem.syncDirectory(directory)
        } catch {
            if error.isNotFound { return }
            throw .file(error)
        }
        logs.end(tree)
        removeContents(of: directory, fileSystem: fileSystem) { logs.isOwned(SegmentID(tree: tree, number: $0)) }
    }

    /// Removes a directory without CURRENT, which is no tree. Segments for which `isNeeded` says so stay, and the directory with
    /// them. What cannot be removed is removed at the next start.
    static func removeContents(of directory: String, fileSystem: any FileSystem, isNeeded: (UInt64) -> Bool) {
        do throws(FileError) {
            var isEmpty = true
            for name in try fileSystem.list(directory) {
                if let number = DataDirectory.segmentNumber(ofName: name), isNeeded(number) {
                    isEmpty = false
                } else {
                    try fileSystem.remove(directory + "/" + name)
                }
            }
            if isEmpty { try fileSystem.remove(directory) }
        } catch {
            return
        }
    }
}
