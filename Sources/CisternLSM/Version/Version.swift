// An immutable picture of a tree's files by level, with the open files. Reads, scans, flushes, compactions and snapshots each
// hold the version they began with; its files live at least as long.

internal import CisternPrimitives

/// A file as one version refers to it. A class, because a look-up passes several of them: one count each instead of five.
package final class FileReference: Sendable {
    package let record: FileRecord
    package let table: TableFile
    /// Bounds of the visible keys; `largestKey` is inclusive.
    package let smallestKey: [UInt8]
    package let largestKey: [UInt8]

    init(_ record: FileRecord, tables: TableDirectory) {
        self.record = record
        table = tables.table(record.number)
        smallestKey = record.smallestKey
        largestKey = record.largestKey
    }
}

// Unchecked: immutable but for the readers' slots, which are atomic.
@safe package final class Version: @unchecked Sendable {
    package let levels: [[FileReference]]
    package let fileCount: Int
    /// One a level, level 0 first.
    private let searches: UnsafeMutableBufferPointer<LevelSearch>

    init(_ state: TreeState, tables: TableDirectory) {
        levels = state.levels.map { level in level.map { FileReference($0, tables: tables) } }
        fileCount = levels.reduce(0) { $0 + $1.count }
        unsafe searches = .allocate(capacity: levels.count)
        for (number, level) in levels.enumerated() {
            unsafe searches.initializeElement(at: number, to: LevelSearch(level, isSorted: number > 0))
        }
    }

    deinit {
        for level in unsafe searches.indices { unsafe searches[level].deallocate() }
        unsafe searches.deallocate()
    }

    package var fileNumbers: [UInt64] { levels.joined().map(\.record.number) }

    /// What a look-up knows of a level; valid as long as the version lives.
    func search(_ level: Int) -> LevelSearch { unsafe searches[level] }

    /// Adds what the files hold of `key` to `result`, newest first, until the search is complete.
    /// - Parameters:
    ///   - hash: `Hash64.hash(key)`.
    ///   - reader: of the calling thread, inside an epoch, which may be another one afterwards.
    func get(
        _ key: UnsafeRawBufferPointer, hash: UInt64, reader: CacheReader, into result: inout LookupResult
    ) throws(EngineError) {
        let group = unsafe keyGroup(of: key)
        var passes = 0
        for level in unsafe 0..<searches.count {
            let search = unsafe searches[level]
            if search.count == 0 { continue }
            if level == 0 {
                for file in 0..<search.count where search.shows(group, file) {
                    let table = unsafe try search.reader(file, levels[level])
                    if unsafe try get(key, hash, reader, table, &result) { return reader.countPasses(passes) }
                    passes &+= 1
                }
            } else if let file = unsafe search.file(for: key), search.shows(group, file) {
                let table = unsafe try search.reader(file, levels[level])
                if unsafe try get(key, hash, reader, table, &result) { return reader.countPasses(passes) }
                passes &+= 1
            }
        }
        // One run has to be asked in any case.
        reader.countPasses(max(passes &- 1, 0))
    }

    /// The same for many keys, as far as what is in memory decides; see `BatchLookup`.
    func get(_ batch: BatchLookup, reader: CacheReader) {
        var probes = 0
        for level in unsafe 0..<searches.count {
            let search = unsafe searches[level]
            if search.count == 0 { continue }
            if level == 0 {
                for file in 0..<search.count {
                    probes &+= unsafe batch.probe(search, reader) { key in
                        search.shows(unsafe keyGroup(of: key), file) ? file : nil
                    }
                }
            } else {
                probes &+= unsafe batch.probe(search, reader) { key in
                    guard let file = unsafe search.file(for: key), search.shows(unsafe keyGroup(of: key), file) else {
                        return nil
                    }
                    return file
                }
            }
        }
        // One run has to be asked for each key in any case.
        reader.countPasses(max(probes &- batch.count, 0))
    }

    /// True when the search is complete.
    @inline(__always)
    private func get(
        _ key: UnsafeRawBufferPointer, _ hash: UInt64, _ reader: CacheReader, _ table: Unmanaged<TableReader>,
        _ result: inout LookupResult
    ) throws(EngineError) -> Bool {
        let probe = unsafe table._withUnsafeGuaranteedRef { table in
            unsafe table.probe(key, hash: hash, reader: reader, into: &result)
        }
        switch probe {
        case .passed: return false
        case .complete: return true
        case .notInMemory:
            return unsafe try table.takeUnretainedValue().getLoading(key, hash: hash, reader: reader, into: &result)
        }
    }
}
