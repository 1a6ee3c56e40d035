// A file system in memory that behaves like a disk on a bad day.
//
// Durability: bytes of a file are durable after `sync`, directory entries after `syncDirectory`; `afterPowerCut` returns
// what a machine would find when it comes back. Operations on one directory become durable in the order in which they were
// done (as a journaling file system does it), a random number of those not synced. An unsynced tail is kept up to a random
// byte, and some of what is kept may read as zeros.
//
// Faults: `inject` lets chosen operations fail with an errno; `capacityBytes` fills the disk.

import CisternFileSystem
import CisternPrimitives
import Glibc

package final class MemoryFileSystem: FileSystem, Sendable {
    package enum Operation: Hashable, Sendable, CaseIterable {
        case create, append, write, sync, read, open, rename, remove, truncate, syncDirectory, createDirectory, list,
            exists
    }

    /// Lets matching operations fail.
    package struct Fault: Sendable {
        var operations: Set<Operation>
        var matches: @Sendable (String) -> Bool
        var error: Int32
        /// So many matching operations still work first.
        var skip: Int
        /// So many fail after those.
        var count: Int

        package init(
            _ operations: Set<Operation>, error: Int32 = EIO, skip: Int = 0, count: Int = .max,
            where matches: @escaping @Sendable (String) -> Bool = { _ in true }
        ) {
            self.operations = operations
            self.matches = matches
            self.error = error
            self.skip = skip
            self.count = count
        }
    }

    final class Inode {
        var bytes: [UInt8] = []
        /// `bytes[..<durable]` survives a power cut.
        var durable = 0
        /// Sectors that were written in place and not synced, as they were before.
        var overwritten: [Int: [UInt8]] = [:]
    }

    private static let sectorBytes = 512

    private enum DirectoryChange {
        case link(String, Inode)
        case unlink(String)
        case rename(String, String)

        var directory: String {
            switch self {
            case .link(let path, _), .unlink(let path), .rename(let path, _): parent(of: path)
            }
        }
    }

    private struct State: ~Copyable {
        var files: [String: Inode] = [:]
        var durableFiles: [String: Inode] = [:]
        var directories: Set<String> = []
        /// Changes of directories that no `syncDirectory` has made durable, oldest first.
        var pending: [DirectoryChange] = []
        var locks: Set<String> = []
        var faults: [Fault] = []
        var capacity: UInt64 = .max
        var used: UInt64 = 0
        var random: SeededRandom
        var syncs = 0
        var powerFailsAtSync = Int.max
        var isDead = false
    }

    private let state: Guarded<State>

    package init(seed: UInt64 = 1) { state = Guarded(State(random: SeededRandom(seed: seed))) }

    // MARK: Faults

    package func inject(_ fault: Fault) { state.withLock { $0.faults.append(fault) } }

    package func clearFaults() { state.withLock { $0.faults = [] } }

    /// Appends beyond this many bytes in all files together fail with ENOSPC, after a part of the bytes was written.
    package var capacityBytes: UInt64 {
        get { state.withLock { $0.capacity } }
        set { state.withLock { $0.capacity = newValue } }
    }

    package var usedBytes: UInt64 { state.withLock { $0.used } }

    /// Syncs of files and directories so far.
    package var syncCount: Int { state.withLock { $0.syncs } }

    /// The sync with this number (counted from 1) and everything after it fails: the machine is off.
    package func failPower(atSync number: Int) { state.withLock { $0.powerFailsAtSync = number } }

    package var isDead: Bool { state.withLock { $0.isDead } }

    /// What is found when the machine comes back. The receiver fails every call from here on.
    package func afterPowerCut(seed: UInt64) -> MemoryFileSystem {
        let next = MemoryFileSystem(seed: seed)
        state.withLock { old in
            old.isDead = true
            var random = SeededRandom(seed: seed)
            var survivors = old.durableFiles
            let kept = Int.random(in: 0...old.pending.count, using: &random)
            for change in old.pending.prefix(kept) { apply(change, to: &survivors) }
            next.state.withLock { new in
                new.directories = old.directories
                for (path, inode) in survivors.sorted(by: { $0.key < $1.key }) {
                    let copy = Inode()
                    copy.bytes = remains(of: inode, using: &random)
                    copy.durable = copy.bytes.count
                    new.files[path] = copy
                    // A directory cannot be gone before what was in it.
                    var directory = parent(of: path)
                    while !directory.isEmpty, new.directories.insert(directory).inserted {
                        directory = parent(of: directory)
                    }
                    new.used += UInt64(copy.bytes.count)
                }
                new.durableFiles = new.files
            }
        }
        return next
    }

    /// The same files once more, all of them durable.
    package func copied() -> MemoryFileSystem {
        let next = MemoryFileSystem()
        state.withLock { old in
            next.state.withLock { new in
                new.directories = old.directories
                for (path, inode) in old.files {
                    let copy = Inode()
                    copy.bytes = inode.bytes
                    copy.durable = inode.bytes.count
                    new.files[path] = copy
                    new.used += UInt64(copy.bytes.count)
                }
                new.durableFiles = new.files
            }
        }
        return next
    }

    /// What the next process finds when this one is killed: everything, synced or not, and no locks. The receiver fails every call from
    /// here on.
    package func afterProcessEnd() -> MemoryFileSystem {
        let next = MemoryFileSystem()
        state.withLock { old in
            old.isDead = true
            next.state.withLock { new in
                new.files = old.files
                new.durableFiles = old.durableFiles
                new.directories = old.directories
                new.pending = old.pending
                new.capacity = old.capacity
                new.used = old.used
                new.random = old.random
            }
        }
        return next
    }

    /// The bytes of a file as they are, for tests that damage them.
    package func contents(_ path: String) -> [UInt8]? { state.withLock { $0.files[path]?.bytes } }

    package func setContents(_ path: String, _ bytes: [UInt8]) {
        state.withLock {
            let inode = Inode()
            inode.bytes = bytes
            inode.durable = bytes.count
            $0.used += UInt64(bytes.count)
            if let replaced = $0.files[path] { $0.used -= UInt64(replaced.bytes.count) }
            $0.files[path] = inode
            $0.durableFiles[path] = inode
        }
    }

    package var paths: [String] { state.withLock { $0.files.keys.sorted() } }

    // MARK: FileSystem

    package func createDirectory(_ path: String) throws(FileError) {
        try perform(.createDirectory, path) { (state: inout State) -> Outcome<Void> in
            var current = path
            // Directories are durable at once: losing one is the same as losing every entry in it.
            while !current.isEmpty && current != "/" {
                state.directories.insert(current)
                current = parent(of: current)
            }
            return .success(())
        }
    }

    package func list(_ path: String) throws(FileError) -> [String] {
        try perform(.list, path) { (state: inout State) -> Outcome<[String]> in
            guard state.directories.contains(path) else { return .failure(ENOENT) }
            let names = state.files.keys.filter { parent(of: $0) == path }.map { name(of: $0) }
            let directories = state.directories.filter { parent(of: $0) == path }.map { name(of: $0) }
            return .success((names + directories).sorted())
        }
    }

    package func exists(_ path: String) throws(FileError) -> Bool {
        try perform(.exists, path) { (state: inout State) -> Outcome<Bool> in
            .success(state.files[path] != nil || state.directories.contains(path))
        }
    }

    package func size(_ path: String) throws(FileError) -> UInt64 {
        try perform(.open, path) { state in
            guard let inode = state.files[path] else { return .failure(ENOENT) }
            return .success(UInt64(inode.bytes.count))
        }
    }

    package func createAppend(_ path: String) throws(FileError) -> any AppendFile {
        let inode = try perform(.create, path) { (state: inout State) -> Outcome<Handle> in
            guard state.directories.contains(parent(of: path)) else { return .failure(ENOENT) }
            guard state.files[path] == nil else { return .failure(EEXIST) }
            let inode = Inode()
            state.files[path] = inode
            state.pending.append(.link(path, inode))
            return .success(Handle(inode))
        }
        return MemoryAppendFile(fileSystem: self, path: path, inode: inode.inode)
    }

    package func openWrite(_ path: String) throws(FileError) -> any PositionedFile {
        let inode = try perform(.open, path) { (state: inout State) -> Outcome<Handle> in
            guard let inode = state.files[path] else { return .failure(ENOENT) }
            return .success(Handle(inode))
        }
        return MemoryPositionedFile(fileSystem: self, path: path, inode: inode.inode)
    }

    package func createSized(_ path: String, bytes: UInt64) throws(FileError) -> any PositionedFile {
        let inode = try perform(.create, path) { (state: inout State) -> Outcome<Handle> in
            guard state.directories.contains(parent(of: path)) else { return .failure(ENOENT) }
            guard state.files[path] == nil else { return .failure(EEXIST) }
            let inode = Inode()
            inode.bytes = [UInt8](repeating: 0, count: Int(bytes))
            state.used += bytes
            state.files[path] = inode
            state.pending.append(.link(path, inode))
            return .success(Handle(inode))
        }
        return MemoryPositionedFile(fileSystem: self, path: path, inode: inode.inode)
    }

    package func openRead(_ path: String) throws(FileError) -> any RandomReadFile {
        let inode = try perform(.open, path) { (state: inout State) -> Outcome<Handle> in
            guard let inode = state.files[path] else { return .failure(ENOENT) }
            return .success(Handle(inode))
        }
        return MemoryReadFile(fileSystem: self, path: path, inode: inode.inode)
    }

    package func readAll(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        let bytes: [UInt8] = try perform(.read, path) { state in
            guard let inode = state.files[path] else { return .failure(ENOENT) }
            return .success(inode.bytes)
        }
        guard bytes.count <= limit else {
            throw FileError(operation: "read", path: path, reason: .tooLarge(limit: limit))
        }
        return bytes
    }

    package func rename(_ from: String, to: String) throws(FileError) {
        try perform(.rename, from) { (state: inout State) -> Outcome<Void> in
            guard let inode = state.files.removeValue(forKey: from) else { return .failure(ENOENT) }
            if let replaced = state.files[to] { state.used -= UInt64(replaced.bytes.count) }
            state.files[to] = inode
            state.pending.append(.rename(from, to))
            return .success(())
        }
    }

    package func remove(_ path: String) throws(FileError) {
        try perform(.remove, path) { (state: inout State) -> Outcome<Void> in
            if let inode = state.files.removeValue(forKey: path) {
                state.used -= UInt64(inode.bytes.count)
                state.pending.append(.unlink(path))
                return .success(())
            }
            guard state.directories.contains(path) else { return .failure(ENOENT) }
            let isEmpty =
                !state.files.keys.contains { parent(of: $0) == path }
                && !state.directories.contains { parent(of: $0) == path }
            guard isEmpty else { return .failure(ENOTEMPTY) }
            state.directories.remove(path)
            return .success(())
        }
    }

    package func truncate(_ path: String, to size: UInt64) throws(FileError) {
        try perform(.truncate, path) { (state: inout State) -> Outcome<Void> in
            guard let inode = state.files[path] else { return .failure(ENOENT) }
            guard size <= UInt64(inode.bytes.count) else { return .failure(EINVAL) }
            state.used -= UInt64(inode.bytes.count) - size
            inode.bytes.removeSubrange(Int(size)...)
            inode.durable = inode.bytes.count
            return .success(())
        }
    }

    package func syncDirectory(_ path: String) throws(FileError) {
        try perform(.syncDirectory, path) { (state: inout State) -> Outcome<Void> in
            var rest: [DirectoryChange] = []
            for change in state.pending {
                if change.directory == path { apply(change, to: &state.durableFiles) } else { rest.append(change) }
            }
            state.pending = rest
            return .success(())
        }
    }

    package func availableBytes(_ path: String) -> UInt64? {
        state.withLock { $0.capacity > $0.used ? $0.capacity - $0.used : 0 }
    }

    package func lock(_ path: String) throws(FileError) -> any DirectoryLock {
        let taken = state.withLock { $0.locks.insert(path).inserted }
        guard taken else { throw FileError(operation: "lock", path: path, reason: .locked) }
        return MemoryLock { [self] in state.withLock { _ = $0.locks.remove(path) } }
    }

    // MARK: Open files

    func append(_ bytes: UnsafeRawBufferPointer, to inode: Inode, path: String) throws(FileError) {
        let chunk = Array(bytes)
        let target = Handle(inode)
        var fault: Int32 = 0
        do throws(FileError) {
            try perform(.append, path) { (state: inout State) -> Outcome<Void> in
                let free = state.capacity > state.used ? state.capacity - state.used : 0
                let fits = UInt64(chunk.count) <= free
                let count = fits ? chunk.count : Int(free)
                target.inode.bytes.append(contentsOf: chunk[..<count])
                state.used += UInt64(count)
                return fits ? .success(()) : .failure(ENOSPC)
            }
        } catch {
            // An injected fault may still have let a part through, as a short write does.
            if case .errno(let code) = error.reason { fault = code }
            state.withLock { state in
                guard !state.isDead, fault != ENOSPC || state.capacity == .max else { return }
                let count = Int.random(in: 0...chunk.count, using: &state.random)
                target.inode.bytes.append(contentsOf: chunk[..<count])
                state.used += UInt64(count)
            }
            throw error
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, to inode: Inode, path: String) throws(FileError) {
        let chunk = Array(bytes)
        let target = Handle(inode)
        let place = Int(offset)
        do throws(FileError) {
            try perform(.write, path) { (_: inout State) -> Outcome<Void> in
                overwrite(target.inode, at: place, chunk[...]) ? .success(()) : .failure(0)
            }
        } catch {
            // A fault may still have let a part through.
            state.withLock { state in
                guard !state.isDead, !chunk.isEmpty else { return }
                _ = overwrite(target.inode, at: place, chunk[..<Int.random(in: 0..<chunk.count, using: &state.random)])
            }
            throw error
        }
    }

    private func overwrite(_ inode: Inode, at offset: Int, _ bytes: ArraySlice<UInt8>) -> Bool {
        guard offset + bytes.count <= inode.bytes.count else { return false }
        guard !bytes.isEmpty else { return true }
        let sector = MemoryFileSystem.sectorBytes
        for number in offset / sector...(offset + bytes.count - 1) / sector where inode.overwritten[number] == nil {
            inode.overwritten[number] = Array(
                inode.bytes[number * sector..<min(inode.bytes.count, (number + 1) * sector)])
        }
        inode.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        return true
    }

    func sync(_ inode: Inode, path: String) throws(FileError) {
        let target = Handle(inode)
        try perform(.sync, path) { (_: inout State) -> Outcome<Void> in
            target.inode.overwritten = [:]
            target.inode.durable = target.inode.bytes.count
            return .success(())
        }
    }

    func read(_ inode: Inode, path: String, at offset: UInt64, count: Int) throws(FileError) -> [UInt8] {
        let target = Handle(inode)
        return try perform(.read, path) { (_: inout State) -> Outcome<[UInt8]> in
            let size = UInt64(target.inode.bytes.count)
            guard offset <= size, UInt64(count) <= size - offset else { return .failure(0) }
            return .success(Array(target.inode.bytes[Int(offset)..<Int(offset) + count]))
        }
    }

    func byteCount(of inode: Inode) -> UInt64 {
        let target = Handle(inode)
        return state.withLock { _ in UInt64(target.inode.bytes.count) }
    }

    private enum Outcome<Value> {
        case success(Value)
        case failure(Int32)
    }

    private func perform<Value: Sendable>(
        _ operation: Operation, _ path: String, _ body: (inout State) -> Outcome<Value>
    ) throws(FileError) -> Value {
        let outcome: Outcome<Value> = state.withLock { state in
            if operation == .sync || operation == .syncDirectory {
                state.syncs += 1
                if state.syncs >= state.powerFailsAtSync { state.isDead = true }
            }
            if state.isDead { return .failure(EIO) }
            if let error = injected(operation, path, &state.faults) { return .failure(error) }
            return body(&state)
        }
        switch outcome {
        case .success(let value): return value
        case .failure(0): throw FileError(operation: "read", path: path, reason: .endOfFile)
        case .failure(let code): throw FileError(operation: "\(operation)", path: path, reason: .errno(code))
        }
    }

    private func injected(_ operation: Operation, _ path: String, _ faults: inout [Fault]) -> Int32? {
        for index in faults.indices where faults[index].operations.contains(operation) && faults[index].matches(path) {
            if faults[index].skip > 0 {
                faults[index].skip -= 1
            } else if faults[index].count > 0 {
                if faults[index].count != .max { faults[index].count -= 1 }
                return faults[index].error
            }
        }
        return nil
    }

    private func apply(_ change: DirectoryChange, to files: inout [String: Inode]) {
        switch change {
        case .link(let path, let inode): files[path] = inode
        case .unlink(let path): files[path] = nil
        case .rename(let from, let to):
            if let inode = files.removeValue(forKey: from) { files[to] = inode }
        }
    }

    /// Durable bytes, then a random part of the rest; now and then the end of that part reads as zeros.
    private func remains(of inode: Inode, using random: inout SeededRandom) -> [UInt8] {
        let kept = Int.random(in: inode.durable...inode.bytes.count, using: &random)
        var bytes = Array(inode.bytes[..<kept])
        if kept > inode.durable && Int.random(in: 0..<3, using: &random) == 0 {
            let from = Int.random(in: inode.durable..<kept, using: &random)
            let to = Int.random(in: from..<kept, using: &random)
            for index in from...to { bytes[index] = 0 }
        }
        for (number, old) in inode.overwritten.sorted(by: { $0.key < $1.key }) where Bool.random(using: &random) {
            let from = number * MemoryFileSystem.sectorBytes
            guard from < bytes.count else { continue }
            let count = min(old.count, bytes.count - from)
            bytes.replaceSubrange(from..<from + count, with: old.prefix(count))
        }
        return bytes
    }
}

/// Inodes are reached only while the file system's state is locked; the handle carries one into the closure.
private struct Handle: @unchecked Sendable {
    let inode: MemoryFileSystem.Inode
    init(_ inode: MemoryFileSystem.Inode) { self.inode = inode }
}

private final class MemoryAppendFile: AppendFile, @unchecked Sendable {
    let fileSystem: MemoryFileSystem
    let path: String
    let inode: MemoryFileSystem.Inode
    var size: UInt64 { fileSystem.byteCount(of: inode) }

    init(fileSystem: MemoryFileSystem, path: String, inode: MemoryFileSystem.Inode) {
        self.fileSystem = fileSystem
        self.path = path
        self.inode = inode
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
        try fileSystem.append(bytes, to: inode, path: path)
    }

    func sync() throws(FileError) { try fileSystem.sync(inode, path: path) }

    func close() {}
}

private final class MemoryPositionedFile: PositionedFile, @unchecked Sendable {
    let fileSystem: MemoryFileSystem
    let path: String
    let inode: MemoryFileSystem.Inode
    var size: UInt64 { fileSystem.byteCount(of: inode) }

    init(fileSystem: MemoryFileSystem, path: String, inode: MemoryFileSystem.Inode) {
        self.fileSystem = fileSystem
        self.path = path
        self.inode = inode
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) {
        try fileSystem.write(bytes, at: offset, to: inode, path: path)
    }

    func sync() throws(FileError) { try fileSystem.sync(inode, path: path) }

    func close() {}
}

private final class MemoryReadFile: RandomReadFile, @unchecked Sendable {
    let fileSystem: MemoryFileSystem
    let path: String
    let inode: MemoryFileSystem.Inode
    var size: UInt64 { fileSystem.byteCount(of: inode) }

    init(fileSystem: MemoryFileSystem, path: String, inode: MemoryFileSystem.Inode) {
        self.fileSystem = fileSystem
        self.path = path
        self.inode = inode
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        let bytes = try fileSystem.read(inode, path: path, at: offset, count: buffer.count)
        buffer.copyBytes(from: bytes)
    }
}

private final class MemoryLock: DirectoryLock, @unchecked Sendable {
    // Owned by whoever holds the lock.
    private var onRelease: (() -> Void)?

    init(_ onRelease: @escaping @Sendable () -> Void) { self.onRelease = onRelease }

    func release() {
        onRelease?()
        onRelease = nil
    }
}

private func parent(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "" }
    return String(path[..<slash])
}

private func name(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return path }
    return String(path[path.index(after: slash)...])
}
