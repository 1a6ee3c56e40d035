// A small file that is replaced as a whole: after a crash the old or the new content is there, never a mixture.
//
//   write NAME.tmp ─► sync ─► rename to NAME ─► sync the directory

package enum AtomicFile {
    /// What a crash may leave behind; such files are removed when the directory is opened.
    package static let temporarySuffix = ".tmp"

    /// Durable when it returns. After an error the old or the new content may be in place.
    package static func write(
        _ bytes: [UInt8], to name: String, in directory: String, fileSystem: any FileSystem
    ) throws(FileError) {
        let path = directory + "/" + name
        let temporary = path + temporarySuffix
        try fileSystem.removeIfPresent(temporary)
        let file = try fileSystem.createAppend(temporary)
        defer { file.close() }
        try append(bytes, to: file)
        try file.sync()
        try fileSystem.rename(temporary, to: path)
        try fileSystem.syncDirectory(directory)
    }
}

extension FileSystem {
    /// Removes a file; fine when it is not there. Unlike a look before, this tells an absent file from one that cannot be
    /// reached.
    package func removeIfPresent(_ path: String) throws(FileError) {
        do throws(FileError) {
            try remove(path)
        } catch {
            if !error.isNotFound { throw error }
        }
    }
}

extension AppendFile {
    /// Appends an array.
    package func append(_ bytes: [UInt8]) throws(FileError) { try CisternFileSystem.append(bytes, to: self) }
}

private func append(_ bytes: [UInt8], to file: any AppendFile) throws(FileError) {
    let outcome: Result<Void, FileError> = unsafe bytes.withUnsafeBytes { buffer in
        do throws(FileError) {
            unsafe try file.append(buffer)
            return .success(())
        } catch {
            return .failure(error)
        }
    }
    try outcome.get()
}
