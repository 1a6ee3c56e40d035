// The file of an embedded store and what it holds: a change is durable before it is in the tree. Blocking; owned by one thread.

package import CisternFileSystem
package import CisternPrimitives

package enum MetadataOpenError: Error, Equatable, Sendable, CustomStringConvertible {
    case file(FileError)
    case corruption(CorruptionError)

    package var description: String {
        switch self {
        case .file(let error): "the metadata store cannot be opened: \(error)"
        case .corruption(let error):
            "the metadata store cannot be opened: \(error); nothing was changed: restore the file from a copy"
        }
    }
}

final class MetadataFile {
    static let fileName = "metadata"
    static let lockName = "metadata.lock"

    let directory: String
    private(set) var tree: MetadataTree
    /// What was behind the last whole change when the file was opened, and is cut.
    let tornBytes: Int

    private let fileSystem: any FileSystem
    private let options: EmbeddedMetadataOptions
    private let lock: any DirectoryLock
    private var file: (any AppendFile)?
    /// Bytes of changes behind the snapshot, and how many of them there may be.
    private var changeBytes = 0
    private var changeBytesMax = 0
    /// Why nothing is written any more. After a failed write the file's end is not known.
    private(set) var failure: String?

    init(
        directory: String, fileSystem: any FileSystem, options: EmbeddedMetadataOptions
    ) throws(MetadataOpenError) {
        self.directory = directory
        self.fileSystem = fileSystem
        self.options = options
        let path = directory + "/" + MetadataFile.fileName
        lock = try opening { () throws(FileError) in
            try fileSystem.createDirectory(directory)
            return try fileSystem.lock(directory + "/" + MetadataFile.lockName)
        }
        do throws(MetadataOpenError) {
            let contents = try MetadataFile.read(path, fileSystem)
            tree = contents?.tree ?? MetadataTree()
            tornBytes = contents?.tornBytes ?? 0
        } catch {
            lock.release()
            throw error
        }
        // A file is appended to by whoever made it, so that each opening makes one; that cuts a torn tail too.
        do throws(FileError) {
            file = try writeSnapshot()
        } catch {
            lock.release()
            throw .file(error)
        }
    }

    private static func read(
        _ path: String, _ fileSystem: any FileSystem
    ) throws(MetadataOpenError) -> MetadataFileContents? {
        let bytes = try opening { () throws(FileError) -> [UInt8]? in
            do throws(FileError) {
                return try fileSystem.readAll(path, limit: EmbeddedMetadataOptions.fileBytesMax)
            } catch {
                if error.isNotFound { return nil }
                throw error
            }
        }
        guard let bytes else { return nil }
        do throws(CorruptionError) {
            return try MetadataFileFormat.decode(bytes, source: path)
        } catch {
            throw .corruption(error)
        }
    }

    /// Makes a change durable, then applies it. An error's text is why the outcome is not known.
    /// - Precondition: the tree has no objection to it.
    func commit(_ change: StoredChange) -> Result<MetadataChangeSet, MetadataFileFailure> {
        if let failure { return .failure(MetadataFileFailure(detail: failure)) }
        guard let file else { return .failure(MetadataFileFailure(detail: "the store is closed")) }
        let bytes = MetadataFileFormat.encode(change, version: tree.version + 1)
        let size = file.size + UInt64(bytes.count)
        guard size + UInt64(MetadataFileFormat.frameHeadBytes) <= UInt64(EmbeddedMetadataOptions.fileBytesMax) else {
            return .failure(MetadataFileFailure(detail: "\(file.path) has \(file.size) bytes and cannot be rewritten"))
        }
        do throws(FileError) {
            try file.append(bytes)
            try file.sync()
        } catch {
            return .failure(fail(error))
        }
        changeBytes += bytes.count
        return .success(tree.apply(change))
    }

    /// Rewrites the file when most of it is history. Called between changes.
    func compactIfDue() {
        guard failure == nil, file != nil, changeBytes > changeBytesMax else { return }
        do throws(FileError) {
            let old = file
            file = try writeSnapshot()
            old?.close()
        } catch {
            // On a full disk the old file goes on: whatever failed before the rename has changed nothing of it.
            changeBytesMax = changeBytes + options.changeBytesMin
        }
    }

    /// The new file is complete and durable before it has its name.
    private func writeSnapshot() throws(FileError) -> any AppendFile {
        let path = directory + "/" + MetadataFile.fileName
        let temporary = path + AtomicFile.temporarySuffix
        try fileSystem.removeIfPresent(temporary)
        let new = try fileSystem.createAppend(temporary)
        let bytes = MetadataFileFormat.encode(tree)
        do throws(FileError) {
            try new.append(bytes)
            try new.sync()
        } catch {
            new.close()
            fileSystem.removeLeftover(temporary)
            throw error
        }
        do throws(FileError) {
            try fileSystem.rename(temporary, to: path)
            try fileSystem.syncDirectory(directory)
        } catch {
            // Which of the two files a restart finds is not known, so neither may take a change.
            new.close()
            _ = fail(error)
            throw error
        }
        changeBytes = 0
        changeBytesMax = max(options.changeBytesMin, 2 * bytes.count)
        return new
    }

    private func fail(_ error: FileError) -> MetadataFileFailure {
        let detail = "\(error); the store takes nothing more until it is opened again"
        failure = detail
        return MetadataFileFailure(detail: detail)
    }

    /// Seals the file, so that the next opening takes nothing in it for torn. Idempotent.
    func close() {
        guard let open = file else { return }
        file = nil
        if failure == nil {
            do throws(FileError) {
                try open.append(MetadataFileFormat.encodeClosed(version: tree.version + 1))
                try open.sync()
            } catch {
                // An unsealed file is opened like that of a store that was killed.
                failure = "\(error)"
            }
        }
        open.close()
        lock.release()
    }

    var isClosed: Bool { file == nil }
}

struct MetadataFileFailure: Error {
    let detail: String
}

private func opening<Value>(_ body: () throws(FileError) -> Value) throws(MetadataOpenError) -> Value {
    do throws(FileError) {
        return try body()
    } catch {
        throw .file(error)
    }
}
