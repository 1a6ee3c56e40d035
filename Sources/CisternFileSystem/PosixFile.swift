// Open descriptors of `PosixFileSystem`.

internal import CCisternShims
internal import Glibc

/// Owned by one thread at a time, as `AppendFile` says; that is why its variables need no lock.
final class PosixAppendFile: AppendFile, @unchecked Sendable {
    let path: String
    private var descriptor: Int32
    private(set) var size: UInt64 = 0
    private var hintedSize: UInt64 = 0

    init(path: String, descriptor: Int32) {
        self.path = path
        self.descriptor = descriptor
    }

    deinit { close() }

    func append(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
        var written = 0
        while written < bytes.count {
            let count = unsafe write(descriptor, bytes.baseAddress! + written, bytes.count - written)
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(operation: "write", path: path, reason: .errno(errno))
            }
            written += count
            size += UInt64(count)
        }
    }

    func startWriteback() {
        cistern_start_writeback(descriptor, hintedSize, size - hintedSize)
        hintedSize = size
    }

    func sync() throws(FileError) {
        // Never retried: after a failed sync the kernel may have dropped the dirty pages.
        if fdatasync(descriptor) != 0 { throw FileError(operation: "sync", path: path, reason: .errno(errno)) }
    }

    func close() {
        guard descriptor >= 0 else { return }
        // What had to be durable was synced before, so an error here loses nothing.
        _ = Glibc.close(descriptor)
        descriptor = -1
    }
}

/// Owned by one thread at a time, as `PositionedFile` says; that is why its variable needs no lock.
final class PosixPositionedFile: PositionedFile, @unchecked Sendable {
    let path: String
    let size: UInt64
    private var descriptor: Int32

    init(path: String, descriptor: Int32, size: UInt64) {
        self.path = path
        self.descriptor = descriptor
        self.size = size
    }

    deinit { close() }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) {
        guard offset <= size, UInt64(bytes.count) <= size - offset else {
            throw FileError(operation: "write", path: path, reason: .endOfFile)
        }
        var done = 0
        while done < bytes.count {
            let count = unsafe pwrite(
                descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset) + off_t(done))
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(operation: "write", path: path, reason: .errno(errno))
            }
            done += count
        }
    }

    func sync() throws(FileError) {
        // Never retried: after a failed sync the kernel may have dropped the dirty pages.
        if fdatasync(descriptor) != 0 { throw FileError(operation: "sync", path: path, reason: .errno(errno)) }
    }

    func close() {
        guard descriptor >= 0 else { return }
        _ = Glibc.close(descriptor)
        descriptor = -1
    }
}

final class PosixReadFile: RandomReadFile {
    let path: String
    let size: UInt64
    private let pool: DescriptorPool
    private let pooled: PooledDescriptor

    /// Takes over the descriptor.
    init(path: String, descriptor: Int32, size: UInt64, pool: DescriptorPool) {
        self.path = path
        self.size = size
        self.pool = pool
        pooled = pool.adopt(descriptor, path: path)
    }

    deinit { pool.close(pooled) }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        guard offset <= UInt64(Int64.max) - UInt64(buffer.count) else {
            throw FileError(operation: "read", path: path, reason: .endOfFile)
        }
        let descriptor = try pool.enter(pooled)
        defer { pooled.leave() }
        var done = 0
        if let waits = DiskWaits.ofThread {
            done = unsafe try readNow(descriptor, at: offset, into: buffer, waits)
        }
        while done < buffer.count {
            let count = unsafe pread(
                descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset) + off_t(done))
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(operation: "read", path: path, reason: .errno(errno))
            }
            if count == 0 { throw FileError(operation: "read", path: path, reason: .endOfFile) }
            done += count
        }
    }
}

extension PosixReadFile {
    /// Reads what is in the page cache.
    /// - Returns: the bytes read: all, or fewer where only waiting helps because the file system cannot tell.
    private func readNow(
        _ descriptor: Int32, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer, _ waits: DiskWaits
    ) throws(FileError) -> Int {
        var done = 0
        while done < buffer.count {
            let count = unsafe cistern_read_now(
                descriptor, buffer.baseAddress! + done, buffer.count - done, Int64(offset) + Int64(done))
            if count > 0 {
                done += Int(count)
                continue
            }
            switch Int32(-count) {
            case 0: throw FileError(operation: "read", path: path, reason: .endOfFile)
            case EINTR: continue
            case EAGAIN:
                waits.note(DiskRange(file: self, offset: offset + UInt64(done), count: buffer.count - done))
                throw FileError(operation: "read", path: path, reason: .wouldWait)
            // EOPNOTSUPP, EINVAL of old kernels, and errors, which the read that waits finds again.
            default: return done
            }
        }
        return done
    }

    func startReading(at offset: UInt64, count: Int) {
        guard offset <= UInt64(Int64.max), let descriptor = try? pool.enter(pooled) else { return }
        defer { pooled.leave() }
        cistern_start_read(descriptor, Int64(offset), Int64(count))
    }
}

/// `flock` belongs to the open descriptor, so the kernel releases it when the process dies.
final class PosixDirectoryLock: DirectoryLock, @unchecked Sendable {
    // Owned by whoever holds the lock.
    private var descriptor: Int32

    init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { release() }

    func release() {
        guard descriptor >= 0 else { return }
        _ = Glibc.close(descriptor)
        descriptor = -1
    }
}
