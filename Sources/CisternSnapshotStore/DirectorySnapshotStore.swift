// A snapshot store in a directory, on a disk that others than this machine's server can read: a network file system, a mounted volume.
//
//   put: NAME.tmp written ─► synced ─► renamed ─► directory synced
//
// Threading: any thread.

package import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

package final class DirectorySnapshotStore: SnapshotStore {
    private let root: String
    private let fileSystem: any FileSystem
    /// Directories that are there for sure.
    private let known = Mutex<Set<String>>([])

    /// - Parameter root: made when the first object is put.
    package init(_ root: String, fileSystem: any FileSystem) {
        self.root = root
        self.fileSystem = fileSystem
    }

    package var location: String { "file://" + root }

    package func put(_ name: String, _ bytes: [UInt8]) throws(SnapshotStoreError) -> Bool {
        let (directory, file) = place(name)
        do throws(FileError) {
            if known.withLock({ !$0.contains(directory) }) {
                try fileSystem.createDirectory(directory)
                known.withLock { _ = $0.insert(directory) }
            }
            if try fileSystem.exists(directory + "/" + file) { return false }
            try AtomicFile.write(bytes, to: file, in: directory, fileSystem: fileSystem)
            return true
        } catch {
            // Somebody may have removed the whole store.
            known.withLock { _ = $0.remove(directory) }
            throw failure("put", name, error)
        }
    }

    package func get(_ name: String, limit: Int) throws(SnapshotStoreError) -> [UInt8]? {
        do throws(FileError) {
            return try fileSystem.readAll(path(name), limit: limit)
        } catch {
            if error.isNotFound { return nil }
            throw failure("get", name, error)
        }
    }

    package func get(_ name: String, range: Range<UInt64>) throws(SnapshotStoreError) -> [UInt8]? {
        do throws(FileError) {
            let file = try fileSystem.openRead(path(name))
            return try file.readBytes(range)
        } catch {
            if error.isNotFound { return nil }
            throw failure("get bytes \(range) of", name, error)
        }
    }

    package func list(_ prefix: String) throws(SnapshotStoreError) -> [StoredObject] {
        var objects: [StoredObject] = []
        do throws(FileError) {
            try walk(prefix) { (name, path) throws(FileError) in
                if name.hasSuffix(AtomicFile.temporarySuffix) { return }
                do throws(FileError) {
                    objects.append(StoredObject(name: name, bytes: try fileSystem.size(path)))
                } catch {
                    // Deleted since the directory was read.
                    if !error.isNotFound { throw error }
                }
            }
        } catch {
            throw failure("list", prefix, error)
        }
        return objects.sorted { $0.name < $1.name }
    }

    package func delete(_ names: [String]) throws(SnapshotStoreError) {
        for name in names {
            do throws(FileError) {
                try fileSystem.removeIfPresent(path(name))
            } catch {
                throw failure("delete", name, error)
            }
        }
        for directory in Set(names.map { place($0).directory }) {
            do throws(FileError) {
                try fileSystem.syncDirectory(directory)
            } catch {
                if !error.isNotFound { throw failure("delete from", directory, error) }
            }
        }
    }

    package func removeLeftovers(_ prefix: String) throws(SnapshotStoreError) {
        do throws(FileError) {
            try walk(prefix) { (name, path) throws(FileError) in
                if name.hasSuffix(AtomicFile.temporarySuffix) { try fileSystem.removeIfPresent(path) }
            }
        } catch {
            throw failure("remove leftovers of", prefix, error)
        }
    }

    /// No call waits for more than the disk.
    package func close() {}

    // MARK: Paths

    private func path(_ name: String) -> String {
        precondition(StoreName.isValid(name), "\(name) is no name of a snapshot store's object")
        return root + "/" + name
    }

    private func place(_ name: String) -> (directory: String, file: String) {
        let whole = path(name)
        guard let slash = whole.lastIndex(of: "/") else { preconditionFailure("a path without a directory") }
        return (String(whole[..<slash]), String(whole[whole.index(after: slash)...]))
    }

    /// Every file below a prefix. Names are at most so many parts deep as the layout has.
    private func walk(
        _ prefix: String, visit: (String, String) throws(FileError) -> Void
    ) throws(FileError) {
        var directories = [prefix]
        while let directory = directories.popLast() {
            let path = directory.isEmpty ? root : root + "/" + directory.dropLast()
            for name in try listIfPresent(path) ?? [] {
                let child = path + "/" + name
                // Two levels of directories, then files: no need to ask what each is.
                if directory.split(separator: "/").count < DirectorySnapshotStore.depth {
                    directories.append(directory + name + "/")
                } else {
                    try visit(directory + name, child)
                }
            }
        }
    }

    private static let depth = 2

    private func listIfPresent(_ path: String) throws(FileError) -> [String]? {
        do throws(FileError) {
            return try fileSystem.list(path)
        } catch {
            // Not a directory: a stray file that the layout does not have.
            if error.isNotFound || error.isNotDirectory { return nil }
            throw error
        }
    }

    private func failure(_ operation: String, _ name: String, _ error: FileError) -> SnapshotStoreError {
        SnapshotStoreError(
            operation: operation, name: name, location: location, reason: "\(error)", isTransient: true)
    }
}

extension RandomReadFile {
    /// - Throws: `endOfFile` when the file ends before the range does.
    package func readBytes(_ range: Range<UInt64>) throws(FileError) -> [UInt8] {
        // Nothing is allocated for what is not there.
        guard range.upperBound <= size else { throw FileError(operation: "read", path: path, reason: .endOfFile) }
        var bytes = [UInt8](repeating: 0, count: range.count)
        // A closure of the standard library's `with…` functions would lose the typed error, hence the result value.
        let failure: FileError? = unsafe bytes.withUnsafeMutableBytes { buffer in
            do throws(FileError) {
                unsafe try read(at: range.lowerBound, into: buffer)
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
        return bytes
    }
}
