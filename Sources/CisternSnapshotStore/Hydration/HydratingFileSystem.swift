// A data directory some of whose files are in a snapshot store: it is used at once, and its files come behind.
//
//   place ─► placeholder, durable, under the file's name + empty part file in DIR/hydration ─► reads bring what they need,
//   `Hydration` brings the rest ─► part file renamed to the file's name
//   lock of the directory (a start) ─► DIR/hydration emptied ─► placeholders among the tables found, and begun anew
//
// Whatever is not a placeholder goes to the file system below. Threading: any thread; `state` is held for the calls of the file
// system below that change names, and no longer.

package import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// Shared by all files.
final class HydrationCounters: Sendable {
    private let reads = Atomic<UInt64>(0)
    private let bytes = Atomic<UInt64>(0)

    func fetched(_ count: UInt64) {
        reads.add(1, ordering: .relaxed)
        bytes.add(count, ordering: .relaxed)
    }

    var values: (reads: UInt64, bytes: UInt64) {
        (reads.load(ordering: .relaxed), bytes.load(ordering: .relaxed))
    }
}

package final class HydratingFileSystem: FileSystem {
    private struct State: Sendable {
        var files: [String: HydratingFile] = [:]
        /// Oldest first.
        var order: [HydratingFile] = []
        var nextPart: UInt64 = 1
    }

    package static let directoryName = "hydration"

    package let base: any FileSystem
    package let store: any SnapshotStore
    private let lockPath: String
    private let tables: String
    private let parts: String
    private let counters = HydrationCounters()
    private let state = Mutex(State())

    /// - Parameters:
    ///   - directory: the data directory; it is looked into when its lock is taken.
    ///   - lockPath: its lock.
    ///   - tables: where its files are that may have placeholders.
    package init(
        _ base: any FileSystem, store: any SnapshotStore, directory: String, lockPath: String, tables: String
    ) {
        self.base = base
        self.store = store
        self.lockPath = lockPath
        self.tables = tables
        parts = directory + "/" + HydratingFileSystem.directoryName
    }

    /// What is not here.
    package var pending: (files: Int, bytes: UInt64) {
        state.withLock { state in (state.files.count, state.files.values.reduce(0) { $0 + $1.missingBytes }) }
    }

    /// What reads have brought that could not wait for the hydration.
    package var readCounts: (reads: UInt64, bytes: UInt64) { counters.values }

    /// Puts a placeholder where a file is to be; it is durable when this returns, but for its name.
    package func place(_ placeholder: Placeholder, at path: String) throws(FileError) {
        let output = try base.createAppend(path)
        defer { output.close() }
        let bytes = placeholder.encode()
        guard bytes.count <= Placeholder.bytesMax else {
            throw FileError(operation: "create", path: path, reason: .tooLarge(limit: Placeholder.bytesMax))
        }
        try output.append(bytes)
        try output.sync()
        try base.createDirectory(parts)
        try register(placeholder, at: path)
    }

    private func register(_ placeholder: Placeholder, at path: String) throws(FileError) {
        let number = state.withLock { state in
            defer { state.nextPart += 1 }
            return state.nextPart
        }
        let partPath = parts + "/\(number)"
        let part = try base.createSized(partPath, bytes: placeholder.file.bytes)
        let file = HydratingFile(
            placeholder, path: path, partPath: partPath, part: part, store: store, base: base, counters: counters)
        state.withLock { state in
            state.files[path] = file
            state.order.append(file)
        }
    }

    /// The file whose turn it is.
    func first() -> HydratingFile? { state.withLock { $0.order.first } }

    /// Has the others go first.
    func postpone(_ file: HydratingFile) {
        state.withLock { state in
            guard let index = state.order.firstIndex(where: { $0 === file }) else { return }
            state.order.append(state.order.remove(at: index))
        }
    }

    /// All of it is here.
    func finish(_ file: HydratingFile) throws(FileError) {
        let path = try state.withLock { state throws(FileError) -> String? in
            let path = file.path
            guard state.files[path] === file else {
                state.order.removeAll { $0 === file }
                return nil
            }
            try file.finish()
            state.files[path] = nil
            state.order.removeAll { $0 === file }
            return path
        }
        guard let path, let slash = path.lastIndex(of: "/") else { return }
        // Until then a power cut may bring the placeholder back, which is as good.
        try base.syncDirectory(String(path[..<slash]))
    }

    // MARK: The start

    private func load() throws(FileError) {
        guard try base.exists(parts) else { return }
        for name in try base.list(parts) { try base.removeIfPresent(parts + "/" + name) }
        guard try base.exists(tables) else { return }
        for name in try base.list(tables).sorted() {
            let path = tables + "/" + name
            guard let placeholder = try placeholder(path) else { continue }
            try register(placeholder, at: path)
        }
    }

    /// nil also when it is damaged: then it is a damaged file.
    private func placeholder(_ path: String) throws(FileError) -> Placeholder? {
        guard try base.size(path) <= UInt64(Placeholder.bytesMax) else { return nil }
        let bytes = try base.readAll(path, limit: Placeholder.bytesMax)
        guard Placeholder.isPlaceholder(bytes) else { return nil }
        do throws(StoredSnapshotDamage) { return try Placeholder.decode(bytes) } catch { return nil }
    }

    // MARK: FileSystem

    package func lock(_ path: String) throws(FileError) -> any DirectoryLock {
        let lock = try base.lock(path)
        guard path == lockPath else { return lock }
        do throws(FileError) {
            try load()
        } catch {
            lock.release()
            throw error
        }
        return lock
    }

    private func file(_ path: String) -> HydratingFile? { state.withLock { $0.files[path] } }

    package func openRead(_ path: String) throws(FileError) -> any RandomReadFile {
        if let file = file(path) { return file }
        return try base.openRead(path)
    }

    package func size(_ path: String) throws(FileError) -> UInt64 {
        if let file = file(path) { return file.size }
        return try base.size(path)
    }

    package func readAll(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        guard let file = file(path) else { return try base.readAll(path, limit: limit) }
        guard file.size <= UInt64(limit) else {
            throw FileError(operation: "read", path: path, reason: .tooLarge(limit: limit))
        }
        return try file.readBytes(0..<file.size)
    }

    package func rename(_ from: String, to: String) throws(FileError) {
        try state.withLock { state throws(FileError) in
            try base.rename(from, to: to)
            let file = state.files.removeValue(forKey: from)
            state.files.removeValue(forKey: to)?.abandon()
            guard let file else { return }
            state.files[to] = file
            file.moved(to: to)
        }
    }

    package func remove(_ path: String) throws(FileError) {
        try state.withLock { state throws(FileError) in
            try base.remove(path)
            guard let file = state.files.removeValue(forKey: path) else { return }
            state.order.removeAll { $0 === file }
            file.abandon()
        }
    }

    /// What is still to come takes its room as well.
    package func availableBytes(_ path: String) -> UInt64? {
        guard let available = base.availableBytes(path) else { return nil }
        let pending = pending.bytes
        return available > pending ? available - pending : 0
    }

    package func createDirectory(_ path: String) throws(FileError) { try base.createDirectory(path) }
    package func list(_ path: String) throws(FileError) -> [String] { try base.list(path) }
    package func exists(_ path: String) throws(FileError) -> Bool { try base.exists(path) }
    package func createAppend(_ path: String) throws(FileError) -> any AppendFile { try base.createAppend(path) }
    package func createSized(_ path: String, bytes: UInt64) throws(FileError) -> any PositionedFile {
        try base.createSized(path, bytes: bytes)
    }
    package func openWrite(_ path: String) throws(FileError) -> any PositionedFile { try base.openWrite(path) }
    package func truncate(_ path: String, to size: UInt64) throws(FileError) { try base.truncate(path, to: size) }
    package func syncDirectory(_ path: String) throws(FileError) { try base.syncDirectory(path) }
}
