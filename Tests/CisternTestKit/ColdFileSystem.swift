// A file system whose page cache is a test's: what was not read by a thread that waits is on the disk only, so that reads which
// must not wait find out.

import CisternFileSystem
import Glibc

package final class ColdFileSystem: FileSystem {
    private struct Page: Hashable {
        let path: String
        let number: UInt64
    }

    private struct State {
        var warm: Set<Page> = []
        var keeps = true
        var isHeld = false
        var waits: [String: Int] = [:]
    }

    private static let pageBytes: UInt64 = 4096

    private let base: any FileSystem
    private let state = Guarded(State())

    package init(_ base: any FileSystem) { self.base = base }

    /// Nothing is in memory any more.
    package func cool() { state.withLock { $0.warm = [] } }

    /// What is read from now on does not stay in memory.
    package func forgetAtOnce() {
        state.withLock {
            $0.keeps = false
            $0.warm = []
        }
    }

    /// Reads that wait for the disk do not come back until `release`.
    package func hold() { state.withLock { $0.isHeld = true } }
    package func release() { state.withLock { $0.isHeld = false } }

    /// How many reads waited for the disk since the last call, by the name of their thread.
    package func takeWaits() -> [String: Int] {
        state.withLock { state in
            defer { state.waits = [:] }
            return state.waits
        }
    }

    fileprivate func isWarm(_ path: String, _ offset: UInt64, _ count: Int) -> Bool {
        state.withLock { state in pages(path, offset, count).allSatisfy { state.warm.contains($0) } }
    }

    fileprivate func waited(_ path: String, _ offset: UInt64, _ count: Int) {
        let thread = threadName()
        while state.withLock({ $0.isHeld }) { sched_yield() }
        state.withLock { state in
            state.waits[thread, default: 0] += 1
            if state.keeps { state.warm.formUnion(pages(path, offset, count)) }
        }
    }

    private func pages(_ path: String, _ offset: UInt64, _ count: Int) -> [Page] {
        guard count > 0 else { return [] }
        let last = (offset + UInt64(count) - 1) / ColdFileSystem.pageBytes
        return (offset / ColdFileSystem.pageBytes...last).map { Page(path: path, number: $0) }
    }

    private func threadName() -> String {
        let descriptor = open("/proc/thread-self/comm", O_RDONLY)
        defer { close(descriptor) }
        var name = [UInt8](repeating: 0, count: 32)
        let count = Glibc.read(descriptor, &name, name.count)
        return String(decoding: name.prefix(max(0, count - 1)), as: UTF8.self)
    }

    package func createDirectory(_ path: String) throws(FileError) { try base.createDirectory(path) }
    package func list(_ path: String) throws(FileError) -> [String] { try base.list(path) }
    package func exists(_ path: String) throws(FileError) -> Bool { try base.exists(path) }
    package func size(_ path: String) throws(FileError) -> UInt64 { try base.size(path) }
    package func openWrite(_ path: String) throws(FileError) -> any PositionedFile { try base.openWrite(path) }
    package func createSized(_ path: String, bytes: UInt64) throws(FileError) -> any PositionedFile {
        try base.createSized(path, bytes: bytes)
    }
    package func createAppend(_ path: String) throws(FileError) -> any AppendFile { try base.createAppend(path) }
    package func openRead(_ path: String) throws(FileError) -> any RandomReadFile {
        ColdFile(try base.openRead(path), self)
    }
    package func readAll(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        try base.readAll(path, limit: limit)
    }
    package func rename(_ from: String, to: String) throws(FileError) { try base.rename(from, to: to) }
    package func remove(_ path: String) throws(FileError) { try base.remove(path) }
    package func truncate(_ path: String, to size: UInt64) throws(FileError) { try base.truncate(path, to: size) }
    package func syncDirectory(_ path: String) throws(FileError) { try base.syncDirectory(path) }
    package func lock(_ path: String) throws(FileError) -> any DirectoryLock { try base.lock(path) }
}

private final class ColdFile: RandomReadFile {
    private let base: any RandomReadFile
    private let fileSystem: ColdFileSystem
    var path: String { base.path }
    var size: UInt64 { base.size }

    init(_ base: any RandomReadFile, _ fileSystem: ColdFileSystem) {
        self.base = base
        self.fileSystem = fileSystem
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        if let waits = DiskWaits.ofThread {
            guard fileSystem.isWarm(path, offset, buffer.count) else {
                waits.note(DiskRange(file: self, offset: offset, count: buffer.count))
                throw FileError(operation: "read", path: path, reason: .wouldWait)
            }
        } else {
            fileSystem.waited(path, offset, buffer.count)
        }
        try base.read(at: offset, into: buffer)
    }
}
