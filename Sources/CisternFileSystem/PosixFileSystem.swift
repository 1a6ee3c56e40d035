// The Linux implementation of `FileSystem`: plain blocking system calls, EINTR retried, short reads and writes continued,
// every failure a typed error with operation, path and errno. Its one state, the pool of descriptors for reading, is behind a
// lock, so any thread may use it.

internal import Glibc

package struct PosixFileSystem: FileSystem {
    private let descriptors: DescriptorPool

    /// - Parameter openFilesMax: how many files stay open for reading. nil: half of what the process may open.
    package init(openFilesMax: Int? = nil) { descriptors = DescriptorPool(openFilesMax: openFilesMax) }

    /// Files that are open for reading at this moment.
    package var openFileCount: Int { descriptors.openCount }

    package func createDirectory(_ path: String) throws(FileError) {
        var prefix = path.hasPrefix("/") ? "/" : ""
        for part in path.split(separator: "/") {
            let parent = prefix.isEmpty ? "." : prefix
            prefix += prefix.isEmpty || prefix == "/" ? String(part) : "/" + part
            if unsafe mkdir(prefix, 0o755) != 0 {
                if errno != EEXIST { throw failure("create directory", prefix) }
                continue
            }
            do throws(FileError) {
                try syncDirectory(parent)
            } catch {
                // So that another attempt makes it again, and syncs its parent.
                _ = unsafe rmdir(prefix)
                throw error
            }
        }
    }

    package func list(_ path: String) throws(FileError) -> [String] {
        guard let directory = unsafe opendir(path) else { throw failure("list", path) }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        errno = 0
        while let entry = unsafe readdir(directory) {
            let name = unsafe directoryEntryName(entry)
            if name != "." && name != ".." { names.append(name) }
            errno = 0
        }
        if errno != 0 { throw failure("list", path) }
        return names
    }

    package func exists(_ path: String) throws(FileError) -> Bool {
        if unsafe access(path, F_OK) == 0 { return true }
        if errno == ENOENT || errno == ENOTDIR { return false }
        throw failure("look for", path)
    }

    package func size(_ path: String) throws(FileError) -> UInt64 {
        var status = stat()
        if unsafe stat(path, &status) != 0 { throw failure("read the size of", path) }
        return UInt64(status.st_size)
    }

    package func createAppend(_ path: String) throws(FileError) -> any AppendFile {
        let descriptor = try openDescriptor(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, operation: "create")
        return PosixAppendFile(path: path, descriptor: descriptor)
    }

    package func openWrite(_ path: String) throws(FileError) -> any PositionedFile {
        let descriptor = try openDescriptor(path, O_WRONLY, operation: "open for writing")
        var status = stat()
        if unsafe fstat(descriptor, &status) != 0 {
            let error = failure("read the size of", path)
            close(descriptor)
            throw error
        }
        return PosixPositionedFile(path: path, descriptor: descriptor, size: UInt64(status.st_size))
    }

    package func createSized(_ path: String, bytes: UInt64) throws(FileError) -> any PositionedFile {
        let descriptor = try openDescriptor(path, O_WRONLY | O_CREAT | O_EXCL, operation: "create")
        while ftruncate(descriptor, off_t(bytes)) != 0 {
            if errno == EINTR { continue }
            let error = failure("set the size of", path)
            close(descriptor)
            throw error
        }
        return PosixPositionedFile(path: path, descriptor: descriptor, size: bytes)
    }

    package func openRead(_ path: String) throws(FileError) -> any RandomReadFile {
        let descriptor = try openDescriptor(path, O_RDONLY, operation: "open")
        var status = stat()
        if unsafe fstat(descriptor, &status) != 0 {
            let error = failure("read the size of", path)
            close(descriptor)
            throw error
        }
        return PosixReadFile(
            path: path, descriptor: descriptor, size: UInt64(status.st_size), pool: descriptors)
    }

    package func readAll(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        let file = try openRead(path)
        guard file.size <= UInt64(limit) else {
            throw FileError(operation: "read", path: path, reason: .tooLarge(limit: limit))
        }
        var bytes = [UInt8](repeating: 0, count: Int(file.size))
        try readFully(file, into: &bytes)
        return bytes
    }

    package func rename(_ from: String, to: String) throws(FileError) {
        if unsafe Glibc.rename(from, to) != 0 { throw failure("rename to \(to)", from) }
    }

    package func remove(_ path: String) throws(FileError) {
        var status = stat()
        if unsafe lstat(path, &status) != 0 { throw failure("remove", path) }
        let isDirectory = status.st_mode & S_IFMT == S_IFDIR
        if unsafe (isDirectory ? rmdir(path) : unlink(path)) != 0 { throw failure("remove", path) }
    }

    package func truncate(_ path: String, to size: UInt64) throws(FileError) {
        let descriptor = try openDescriptor(path, O_WRONLY, operation: "open")
        defer { close(descriptor) }
        while ftruncate(descriptor, off_t(size)) != 0 {
            if errno != EINTR { throw failure("truncate", path) }
        }
        if fsync(descriptor) != 0 { throw failure("sync", path) }
    }

    package func syncDirectory(_ path: String) throws(FileError) {
        let descriptor = try openDescriptor(path, O_RDONLY | O_DIRECTORY, operation: "open directory")
        defer { close(descriptor) }
        if fsync(descriptor) != 0 { throw failure("sync directory", path) }
    }

    package func lock(_ path: String) throws(FileError) -> any DirectoryLock {
        let descriptor = try openDescriptor(path, O_RDWR | O_CREAT, operation: "open")
        if flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let busy = errno == EWOULDBLOCK
            let error = busy ? FileError(operation: "lock", path: path, reason: .locked) : failure("lock", path)
            close(descriptor)
            throw error
        }
        return PosixDirectoryLock(descriptor: descriptor)
    }

    package func availableBytes(_ path: String) -> UInt64? {
        var facts = statvfs()
        guard unsafe statvfs(path, &facts) == 0 else { return nil }
        return UInt64(facts.f_bavail) * UInt64(facts.f_frsize)
    }
}

private func readFully(_ file: any RandomReadFile, into bytes: inout [UInt8]) throws(FileError) {
    // A closure of the standard library's `with…` functions would lose the typed error, hence the result value.
    let outcome: Result<Void, FileError> = unsafe bytes.withUnsafeMutableBytes { buffer in
        do throws(FileError) {
            unsafe try file.read(at: 0, into: buffer)
            return .success(())
        } catch {
            return .failure(error)
        }
    }
    try outcome.get()
}

func openDescriptor(_ path: String, _ flags: Int32, operation: String) throws(FileError) -> Int32 {
    while true {
        let descriptor = unsafe open(path, flags | O_CLOEXEC, 0o644)
        if descriptor >= 0 { return descriptor }
        if errno != EINTR { throw failure(operation, path) }
    }
}

private func failure(_ operation: String, _ path: String) -> FileError {
    FileError(operation: operation, path: path, reason: .errno(errno))
}

private func directoryEntryName(_ entry: UnsafeMutablePointer<dirent>) -> String {
    // The name is a C array inside the record; its offset is fixed by the ABI of the C library.
    let offset = MemoryLayout<dirent>.offset(of: \.d_name) ?? 19
    return unsafe String(cString: UnsafeRawPointer(entry).advanced(by: offset).assumingMemoryBound(to: CChar.self))
}
