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
    private let writer: ManifestWriter
    private var state: TreeState
    private var isRetired = false
    /// Files of edits that failed and will not be tried again.
    private var givenUp: [UInt64] = []
    /// The durable state, for whoever lists trees.
    private let published: Mutex<TreeState>

    /// - Parameter number: the manifest that recovery read; 0 for a tree that is being made.
    /// Takes ownership of the files of `state`.
    init(
        id: TreeID, root: String, fileSystem: any FileSystem, tables: TableDirectory, state: TreeState, number: UInt64
    ) {
        self.id = id
        directory = DataDirectory.tree(root, id)
        self.fileSystem = fileSystem
        self.tables = tables
        self.state = state
        published = Mutex(state)
        writer = ManifestWriter(
            directory: directory, tree: id, fileSystem: fileSystem, state: state, number: number)
        tables.retain(state.files.map(\.number))
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
        let problem = state.apply(edit)
        invariant(problem == nil, "a committed edit does not fit: \(problem ?? "")")
        tables.retain(edit.added.map(\.file.number))
        tables.release(edit.removed.map(\.file.number))
        releaseGivenUp()
        let state = self.state
        published.withLock { $0 = state }
    }

    /// Removes the tree: it is gone when CURRENT is, and the rest follows. Files are released only after that is durable.
    func retire() throws(EngineError) {
        guard !isRetired else { return }
        writer.close()
        try TreeManifest.removeDirectory(directory, fileSystem: fileSystem)
        isRetired = true
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

    /// Removes CURRENT, then everything else. Only the first step must work.
    static func removeDirectory(_ directory: String, fileSystem: any FileSystem) throws(EngineError) {
        let current = directory + "/" + DataDirectory.currentName
        do throws(FileError) {
            try fileSystem.removeIfPresent(current)
            try fileSystem.syncDirectory(directory)
        } catch {
            if error.isNotFound { return }
            throw .file(error)
        }
        do throws(FileError) {
            for name in try fileSystem.list(directory) { try fileSystem.remove(directory + "/" + name) }
            try fileSystem.remove(directory)
        } catch {
            // A directory without CURRENT is no tree; the next start removes it.
            return
        }
    }
}
