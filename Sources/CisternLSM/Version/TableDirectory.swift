// The table files of a data directory, shared by all trees and snapshots, and when they are deleted.
//
// Two counts keep a file: owners (manifests and snapshots on disk, and jobs that have written it and not yet published it),
// and living `TableFile` objects (versions that a read or a compaction still uses). A file without either is deleted. Owners
// are counted only after what they stand for is durable, so a crash never finds a reference to a deleted file.
//
// Threading: any thread. To look whether a `TableFile` lives is to hold it for a moment, and it may be the last reference by
// then, whose end calls `letGo`. So every reference that is loaded under the lock is carried out of it and goes outside.

package import CisternFileSystem
package import CisternPrimitives
internal import Synchronization

/// An open table file. Opened at its first use: a restore that refers to thousands of files reads none of them.
package final class TableFile: Sendable {
    package let number: UInt64
    private let directory: TableDirectory
    private let opened = AtomicLazyReference<TableReader>()

    fileprivate init(number: UInt64, directory: TableDirectory) {
        self.number = number
        self.directory = directory
    }

    deinit { directory.letGo(of: number) }

    /// The reader; the first call opens the file. When two threads meet here, both open it and one reader is kept.
    package func reader() throws(EngineError) -> TableReader {
        if let reader = opened.load() { return reader }
        let reader = try directory.open(number)
        return opened.storeIfNil(reader)
    }
}

package final class TableDirectory: Sendable {
    private struct WeakTable {
        weak var table: TableFile?
    }

    private struct State {
        var nextNumber: UInt64
        var owners: [UInt64: Int] = [:]
        var tables: [UInt64: WeakTable] = [:]
        var isClosed = false
    }

    private let path: String
    private let fileSystem: any FileSystem
    let cache: BlockCache
    private let lane: any BackgroundLane
    private let state: Mutex<State>

    /// - Parameter lane: where files are removed.
    package init(
        path: String, fileSystem: any FileSystem, cache: BlockCache, lane: any BackgroundLane, nextNumber: UInt64
    ) {
        self.path = path
        self.fileSystem = fileSystem
        self.cache = cache
        self.lane = lane
        state = Mutex(State(nextNumber: nextNumber))
    }

    package func table(_ number: UInt64) -> TableFile {
        state.withLock { state in
            if let table = state.tables[number]?.table { return table }
            let table = TableFile(number: number, directory: self)
            state.tables[number] = WeakTable(table: table)
            return table
        }
    }

    /// A new file, owned by the caller until it releases the number.
    func create() throws(EngineError) -> (number: UInt64, file: any AppendFile) {
        let number = state.withLock { state in
            let number = state.nextNumber
            state.nextNumber += 1
            state.owners[number] = 1
            return number
        }
        do throws(FileError) {
            return (number, try fileSystem.createAppend(filePath(number)))
        } catch {
            release([number])
            throw .file(error)
        }
    }

    /// Makes created files findable after a crash; before any manifest refers to them.
    func syncEntries() throws(EngineError) {
        try asEngineError { () throws(FileError) in try fileSystem.syncDirectory(path) }
    }

    package func retain(_ numbers: some Sequence<UInt64>) {
        state.withLock { state in
            for number in numbers { state.owners[number, default: 0] += 1 }
        }
    }

    package func release(_ numbers: some Sequence<UInt64>) {
        let (dead, living) = state.withLock { state -> ([UInt64], [TableFile]) in
            var dead: [UInt64] = []
            var living: [TableFile] = []
            for number in numbers {
                let owners = state.owners[number] ?? 0
                invariant(owners > 0, "table file \(number) was released more often than retained")
                state.owners[number] = owners == 1 ? nil : owners - 1
                guard owners == 1 else { continue }
                if let table = state.tables[number]?.table {
                    living.append(table)
                } else {
                    state.tables[number] = nil
                    dead.append(number)
                }
            }
            return (state.isClosed ? [] : dead, living)
        }
        withExtendedLifetime(living) {}
        remove(dead)
    }

    fileprivate func letGo(of number: UInt64) {
        let (isDead, successor) = state.withLock { state -> (Bool, TableFile?) in
            guard let entry = state.tables[number] else { return (false, nil) }
            // The file was asked for again meanwhile.
            if let successor = entry.table { return (false, successor) }
            state.tables[number] = nil
            return (state.owners[number] == nil && !state.isClosed, nil)
        }
        withExtendedLifetime(successor) {}
        if isDead { remove([number]) }
    }

    fileprivate func open(_ number: UInt64) throws(EngineError) -> TableReader {
        let file = try asEngineError { () throws(FileError) in try fileSystem.openRead(filePath(number)) }
        return try TableReader.open(file: file, number: number, cache: cache)
    }

    /// From here on nothing is deleted: objects that die now die because the engine closes.
    func close() { state.withLock { $0.isClosed = true } }

    func filePath(_ number: UInt64) -> String { path + "/" + DataDirectory.tableName(number) }

    private func remove(_ numbers: [UInt64]) {
        guard !numbers.isEmpty else { return }
        for number in numbers { cache.forget(file: number) }
        let fileSystem = self.fileSystem
        let paths = numbers.map { filePath($0) }
        lane.submit {
            for path in paths {
                // A file that cannot be removed is found and removed as an orphan at the next start.
                do throws(FileError) { try fileSystem.remove(path) } catch { continue }
            }
        }
    }
}
