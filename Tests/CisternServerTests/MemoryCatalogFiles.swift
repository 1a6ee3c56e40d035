// The least file system a catalog needs, in memory, with one failure on demand.

import CisternFileSystem
import Synchronization

final class MemoryCatalogFiles: FileSystem {
    struct State {
        var files: [String: [UInt8]] = [:]
        /// The operation that fails next, and after how many more of its kind.
        var failing: String?
    }
    let state = Mutex(State())

    func failNext(_ operation: String) { state.withLock { $0.failing = operation } }

    private func check(_ operation: String, _ path: String) throws(FileError) {
        let fails = state.withLock { state in
            guard state.failing == operation else { return false }
            state.failing = nil
            return true
        }
        if fails { throw FileError(operation: operation, path: path, reason: .errno(28)) }
    }

    func createDirectory(_ path: String) throws(FileError) {}
    func list(_ path: String) throws(FileError) -> [String] {
        state.withLock { Array($0.files.keys) }.map { String($0.split(separator: "/").last!) }
    }
    func exists(_ path: String) -> Bool { state.withLock { $0.files[path] != nil } }
    func size(_ path: String) throws(FileError) -> UInt64 { UInt64(try readAll(path, limit: .max).count) }
    func createAppend(_ path: String) throws(FileError) -> any AppendFile {
        try check("create", path)
        state.withLock { $0.files[path] = [] }
        return File(path, self)
    }
    func openRead(_ path: String) throws(FileError) -> any RandomReadFile {
        throw FileError(operation: "open", path: path, reason: .errno(2))
    }
    func readAll(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        guard let bytes = state.withLock({ $0.files[path] }) else {
            throw FileError(operation: "read", path: path, reason: .errno(2))
        }
        return bytes
    }
    func rename(_ from: String, to: String) throws(FileError) {
        try check("rename", from)
        state.withLock {
            $0.files[to] = $0.files[from]
            $0.files[from] = nil
        }
    }
    func remove(_ path: String) throws(FileError) { state.withLock { $0.files[path] = nil } }
    func truncate(_ path: String, to size: UInt64) throws(FileError) {}
    func syncDirectory(_ path: String) throws(FileError) { try check("sync directory", path) }
    func lock(_ path: String) throws(FileError) -> any DirectoryLock { Lock() }

    final class Lock: DirectoryLock {
        func release() {}
    }

    final class File: AppendFile {
        let path: String
        let owner: MemoryCatalogFiles
        init(_ path: String, _ owner: MemoryCatalogFiles) {
            self.path = path
            self.owner = owner
        }
        var size: UInt64 { UInt64(owner.state.withLock { $0.files[path]?.count ?? 0 }) }
        func append(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
            try owner.check("append", path)
            let copy = Array(bytes)
            owner.state.withLock { $0.files[path]?.append(contentsOf: copy) }
        }
        func sync() throws(FileError) { try owner.check("sync", path) }
        func close() {}
    }
}
