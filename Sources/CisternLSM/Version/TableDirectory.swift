// The table files of a data directory, shared by all trees and snapshots, and when they are deleted; and the value files that
// they point into.
//
// Two counts keep a file: owners (manifests and snapshots on disk, and jobs that have written it and not yet published it),
// and living `TableFile` objects (versions that a read or a compaction still uses). A file without either is deleted. Owners
// are counted only after what they stand for is durable, so a crash never finds a reference to a deleted file.
//
// A value file is kept by the table files that point into it, and by the job that writes it: whoever has a table file has what
// it points to. It is deleted behind the last of them. Which these are, a table file's properties say, so manifests and
// snapshots, which repeat the properties, know it without opening a file.
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

    deinit { directory.letGo(of: number, opened.load()) }

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
        /// What each table file points into, when it does.
        var valuesOfTable: [UInt64: [UInt64]] = [:]
        /// Table files that point into a value file, and a job that writes it.
        var valueOwners: [UInt64: Int] = [:]
        /// Opened by who wrote them, until their writer releases them.
        var fresh: [UInt64: TableFile] = [:]
        var isClosed = false

        /// Value files that nobody needs any more.
        mutating func releaseValues(_ numbers: [UInt64]) -> [UInt64] {
            var dead: [UInt64] = []
            for number in numbers {
                let owners = valueOwners[number] ?? 0
                invariant(owners > 0, "value file \(number) was released more often than retained")
                valueOwners[number] = owners == 1 ? nil : owners - 1
                if owners == 1 { dead.append(number) }
            }
            return dead
        }

        /// What a table file that is gone leaves behind.
        mutating func forgetTable(_ number: UInt64) -> [UInt64] {
            tables[number] = nil
            guard let values = valuesOfTable.removeValue(forKey: number) else { return [] }
            return releaseValues(values)
        }
    }

    let values: ValueFiles
    private let path: String
    private let fileSystem: any FileSystem
    let cache: BlockCache
    private let lane: any BackgroundLane
    private let closingLane: any BackgroundLane
    private let state: Mutex<State>

    /// - Parameters:
    ///   - lane: where files are removed.
    ///   - closingLane: where readers end, which takes as long as the file has blocks in the cache.
    package init(
        path: String, fileSystem: any FileSystem, cache: BlockCache, lane: any BackgroundLane,
        closingLane: any BackgroundLane, nextNumber: UInt64
    ) {
        self.path = path
        self.fileSystem = fileSystem
        values = ValueFiles(directory: path, fileSystem: fileSystem)
        self.cache = cache
        self.lane = lane
        self.closingLane = closingLane
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

    /// Moves a table file, which points into no value file, here from elsewhere on the file system; owned by the caller until it
    /// releases the number. Durable with both directories.
    func adopt(_ path: String) throws(EngineError) -> UInt64 {
        let number = state.withLock { state in
            let number = state.nextNumber
            state.nextNumber += 1
            state.owners[number] = 1
            return number
        }
        do throws(FileError) {
            try fileSystem.rename(path, to: filePath(number))
            return number
        } catch {
            release([number])
            throw .file(error)
        }
    }

    /// A new value file, owned by the caller until it releases the number.
    func createValueFile() throws(EngineError) -> (number: UInt64, file: any AppendFile) {
        let number = state.withLock { state in
            let number = state.nextNumber
            state.nextNumber += 1
            state.valueOwners[number] = 1
            return number
        }
        do throws(FileError) {
            return (number, try fileSystem.createAppend(values.path(number)))
        } catch {
            releaseValueFiles([number])
            throw .file(error)
        }
    }

    func releaseValueFiles(_ numbers: [UInt64]) {
        let dead = state.withLock { state in
            let dead = state.releaseValues(numbers)
            return state.isClosed ? [] : dead
        }
        remove([], values: dead)
    }

    /// Notes what a table file points into, which lives as long as it. Once for each table file that there is; again does
    /// nothing.
    func note(_ summary: TableSummary, of number: UInt64) {
        if summary.values.isEmpty { return }
        state.withLock { state in
            guard state.valuesOfTable[number] == nil else { return }
            let values = summary.values.map(\.number)
            state.valuesOfTable[number] = values
            for value in values { state.valueOwners[value, default: 0] += 1 }
        }
    }

    /// Makes created files findable after a crash; before any manifest refers to them.
    func syncEntries() throws(EngineError) {
        try asEngineError { () throws(FileError) in try fileSystem.syncDirectory(path) }
    }

    /// Opens files for their first readers, who have no time to. They stay open until they are released by who made them.
    func openAhead(_ numbers: some Sequence<UInt64>) {
        for number in numbers {
            let file = table(number)
            // Best effort: the first reader tries again, and it gets the error.
            do throws(EngineError) { _ = try file.reader() } catch { continue }
            state.withLock { $0.fresh[number] = file }
        }
    }

    package func retain(_ numbers: some Sequence<UInt64>) {
        state.withLock { state in
            for number in numbers { state.owners[number, default: 0] += 1 }
        }
    }

    package func release(_ numbers: some Sequence<UInt64>) {
        let (dead, deadValues, living) = state.withLock { state -> ([UInt64], [UInt64], [TableFile]) in
            var dead: [UInt64] = []
            var deadValues: [UInt64] = []
            var living: [TableFile] = []
            for number in numbers {
                let owners = state.owners[number] ?? 0
                invariant(owners > 0, "table file \(number) was released more often than retained")
                state.owners[number] = owners == 1 ? nil : owners - 1
                if let fresh = state.fresh.removeValue(forKey: number) { living.append(fresh) }
                guard owners == 1 else { continue }
                if let table = state.tables[number]?.table {
                    living.append(table)
                } else {
                    deadValues += state.forgetTable(number)
                    dead.append(number)
                }
            }
            return state.isClosed ? ([], [], living) : (dead, deadValues, living)
        }
        withExtendedLifetime(living) {}
        remove(dead, values: deadValues)
    }

    fileprivate func letGo(of number: UInt64, _ reader: TableReader?) {
        let (isDead, deadValues, successor) = state.withLock { state -> (Bool, [UInt64], TableFile?) in
            guard let entry = state.tables[number] else { return (false, [], nil) }
            // The file was asked for again meanwhile.
            if let successor = entry.table { return (false, [], successor) }
            guard state.owners[number] == nil else {
                state.tables[number] = nil
                return (false, [], nil)
            }
            let deadValues = state.forgetTable(number)
            return state.isClosed ? (false, [], nil) : (true, deadValues, nil)
        }
        withExtendedLifetime(successor) {}
        if let reader { closingLane.submit { withExtendedLifetime(reader) {} } }
        if isDead { remove([number], values: deadValues) }
    }

    fileprivate func open(_ number: UInt64) throws(EngineError) -> TableReader {
        let file = try asEngineError { () throws(FileError) in try fileSystem.openRead(filePath(number)) }
        return try TableReader.open(file: file, number: number, cache: cache, values: values)
    }

    /// From here on nothing is deleted: objects that die now die because the engine closes.
    func close() { state.withLock { $0.isClosed = true } }

    func filePath(_ number: UInt64) -> String { path + "/" + DataDirectory.tableName(number) }

    private func remove(_ numbers: [UInt64], values valueNumbers: [UInt64]) {
        guard !numbers.isEmpty || !valueNumbers.isEmpty else { return }
        for number in numbers { cache.forget(file: number) }
        values.forget(valueNumbers)
        let fileSystem = self.fileSystem
        let paths = numbers.map { filePath($0) } + valueNumbers.map { values.path($0) }
        lane.submit {
            for path in paths {
                // A file that cannot be removed is found and removed as an orphan at the next start.
                do throws(FileError) { try fileSystem.remove(path) } catch { continue }
            }
        }
    }
}
