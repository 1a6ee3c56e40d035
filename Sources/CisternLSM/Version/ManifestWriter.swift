// Commits edits of one tree: append to the manifest and sync, or begin a new manifest when the old one is long or in doubt.
//
//   begin: MANIFEST-n ◄─ header, whole state ─► sync ─► directory sync ─► CURRENT names n ─► older ones removed
//
// After a failed append the file's end is unknown, so the next commit begins a new manifest; until that one is in place, a
// crash finds the old one with or without the edit that failed, and both are consistent because nothing was deleted.

internal import CisternFileSystem
internal import CisternPrimitives

/// Owned by the metadata lane: `commit` runs there only, one call at a time.
final class ManifestWriter: @unchecked Sendable {
    private let directory: String
    private let tree: TreeID
    private let fileSystem: any FileSystem
    private var state: TreeState
    private var number: UInt64
    /// nil when the next commit must begin a new manifest.
    private var file: (any AppendFile)?
    private var rewriteAtBytes: UInt64 = 0

    /// A manifest is begun anew when it is this long and four times as long as the state alone.
    static let rewriteBytesMin: UInt64 = 256 << 10

    /// Continues after recovery; the first commit begins a new manifest.
    init(directory: String, tree: TreeID, fileSystem: any FileSystem, state: TreeState, number: UInt64) {
        self.directory = directory
        self.tree = tree
        self.fileSystem = fileSystem
        self.state = state
        self.number = number
    }

    /// Writes a state with no edits: the creation of a tree.
    func begin() throws(EngineError) { try rewrite(state) }

    /// Durable when it returns. After an error the same edit must be committed again before anything it made obsolete or
    /// anything it added is deleted.
    func commit(_ edit: VersionEdit) throws(EngineError) {
        var next = state
        if let problem = next.apply(edit) { throw corruption(directory, 0, "an edit does not fit: " + problem) }
        // A manifest that was begun without rules is of a version that has none.
        let fits = edit.expiryRules == nil || !state.expiryRules.isEmpty
        if let file, file.size < rewriteAtBytes, fits {
            self.file = nil
            let record = ManifestFormat.encode(edit, number: number)
            try asEngineError { () throws(FileError) in
                try file.append(record)
                try file.sync()
            }
            self.file = file
        } else {
            try rewrite(next)
        }
        state = next
    }

    func close() {
        file?.close()
        file = nil
    }

    private func rewrite(_ next: TreeState) throws(EngineError) {
        file?.close()
        file = nil
        let begun = try asEngineError { () throws(FileError) in
            let begun = try beginManifest(next)
            // From here on CURRENT may name the new manifest, error or not, so it stays.
            try AtomicFile.write(
                ManifestFormat.encodeCurrent(number), to: DataDirectory.currentName, in: directory,
                fileSystem: fileSystem)
            return begun
        }
        file = begun
        rewriteAtBytes = max(ManifestWriter.rewriteBytesMin, begun.size * 4)
        removeOlder()
    }

    private func beginManifest(_ next: TreeState) throws(FileError) -> any AppendFile {
        repeat { number += 1 } while try fileSystem.exists(path(number))
        let begun = try fileSystem.createAppend(path(number))
        do throws(FileError) {
            try begun.append(ManifestFormat.encodeHeader(tree: tree, number: number, state: next))
            try begun.append(ManifestFormat.encode(next, number: number))
            try begun.sync()
            try fileSystem.syncDirectory(directory)
            return begun
        } catch {
            begun.close()
            fileSystem.removeLeftover(path(number))
            throw error
        }
    }

    private func path(_ number: UInt64) -> String { directory + "/" + DataDirectory.manifestName(number) }

    /// A manifest that cannot be removed is harmless, and the next rewrite tries again; so errors are dropped here.
    private func removeOlder() {
        do throws(FileError) {
            for name in try fileSystem.list(directory) {
                guard let older = DataDirectory.manifestNumber(ofName: name), older < number else { continue }
                try fileSystem.remove(directory + "/" + name)
            }
        } catch {
            return
        }
    }
}
