// Raising the format of a data directory: what an operator does once no older program will be needed again. Blocks.

package import CisternFileSystem

package enum DirectoryUpgrade {
    /// Raises the format to the newest that this program writes. Files are not rewritten: those that are there stay readable,
    /// and compaction replaces them in time.
    /// - Returns: the format before and after.
    /// - Throws: `file` when there is no such directory or a process has it open; `unsupported` for a newer format.
    package static func run(
        _ directory: String, fileSystem: any FileSystem
    ) throws(EngineError) -> (from: UInt16, to: UInt16) {
        let recovery = DirectoryRecovery(root: directory, fileSystem: fileSystem)
        _ = try recovery.format()
        let lock = try asEngineError { () throws(FileError) in
            try fileSystem.lock(directory + "/" + DataDirectory.lockName)
        }
        defer { lock.release() }
        return (try recovery.upgrade(), DirectoryRecovery.formatVersion)
    }
}
