// A small file that is replaced as a whole: after a crash the old or the new content is there, never a mixture.
//
//   write NAME.tmp ─► sync ─► rename to NAME ─► sync the directory

package enum AtomicFile {
    /// What a crash may leave behind; such files are removed when the directory is opened.
    package static let temporarySuffix = ".tmp"

    /// Durable when it returns. After an error the old or the new content may be in place, and nothing else is left: on a full
    /// disk every attempt would take a little more of it.
    package static func write(
        _ bytes: [UInt8], to name: String, in directory: String, fileSystem: any FileSystem
    ) throws(FileError) {
        let path = directory + "/" + name
        let temporary = path + temporarySuffix
        try fileSystem.removeIfPresent(temporary)
        let file = try fileSystem.createAppend(temporary)
        do throws(FileError) {
            defer { file.close() }
            try append(bytes, to: file)
            try file.sync()
            try fileSystem.rename(temporary, to: path)
        } catch {
            fileSystem.removeLeftover(temporary)
            throw error
        }
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

    /// Removes what a failed attempt has left. The error that made it fail matters more than one of this call, and whoever
    /// opens the directory next removes the file.
    package func removeLeftover(_ path: String) {
        do throws(FileError) { try remove(path) } catch { return }
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
