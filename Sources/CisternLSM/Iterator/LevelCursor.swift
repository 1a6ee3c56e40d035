// Tables of one level, which do not overlap, walked as one run by one table cursor that goes from table to table. A table is
// opened for reading when the walk reaches it.
// Owned by one thread.

package import CisternPrimitives

/// A table, or the part of it that lies in a window of key groups: what a version refers to.
package struct TableWindow: Sendable {
    package let reader: TableReader
    package let keyGroups: KeyGroupRange

    package init(_ reader: TableReader, keyGroups: KeyGroupRange? = nil) {
        self.reader = reader
        self.keyGroups = keyGroups ?? reader.summary.keyGroups
    }

    /// nil when the whole table is shown.
    var clip: KeyGroupRange? { keyGroups.contains(reader.summary.keyGroups) ? nil : keyGroups }
}

package final class LevelCursor {
    /// What is walked.
    private enum Run {
        case windows([TableWindow])
        /// Files of a version, as its look-ups see them: the part of a level that a scan is about.
        case files(LevelSearch, [FileReference], Range<Int>)
    }

    private var run: Run
    private let policy: CachePolicy
    private let cacheReader: CacheReader?
    /// The one map that a scan is about: files whose filters do not know it are passed over.
    private var map: MapRange?
    /// Files that begin at or behind this key are not entered; empty: no end.
    private var end: [UInt8] = []
    private var number = 0
    /// Made with the first table.
    private(set) var table: TableCursor?

    /// - Precondition: the windows are in key order and do not overlap.
    /// - Parameter reader: of the thread that owns the cursor; nil: each table's cursor makes its own.
    package init(_ windows: [TableWindow], policy: CachePolicy = .fill, reader: CacheReader? = nil) {
        cacheReader = reader
        run = .windows(windows)
        self.policy = policy
    }

    package convenience init(tables: [TableReader], policy: CachePolicy = .fill) {
        self.init(tables.map { TableWindow($0) }, policy: policy)
    }

    /// Walks other files from here on, not positioned yet. What `files` and `search` refer to stays until the next call of
    /// this or `letGo`.
    func retarget(
        _ search: LevelSearch, _ files: [FileReference], _ range: Range<Int>, end newEnd: [UInt8], map newMap: MapRange?
    ) {
        table?.letGo()
        run = .files(search, files, range)
        end = newEnd
        map = newMap
    }

    /// Lets go of files and blocks.
    func letGo() {
        table?.letGo()
        run = .windows([])
        map = nil
    }

    package var isValid: Bool { table?.isValid ?? false }

    /// Valid until the next move.
    /// - Precondition: the cursor is positioned.
    package var entry: EntryView {
        guard let table else { preconditionFailure("the entry of a cursor that is not positioned") }
        return table.entry
    }

    package func seekToFirst() throws(EngineError) -> Bool {
        try enter(numbers.lowerBound)
    }

    /// Positions on the first key at or behind `key`.
    package func seek(to key: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        table?.letGo()
        let first = unsafe firstTable(endingAtOrBehind: key)
        guard first < numbers.upperBound, !isBehindEnd(first) else { return false }
        if let cursor = try open(first), unsafe try cursor.seek(to: key) { return true }
        return try enter(first + 1)
    }

    package func next() throws(EngineError) -> Bool {
        guard let table else { return false }
        if try table.next() { return true }
        return try enter(number + 1)
    }

    // MARK: Tables

    private var numbers: Range<Int> {
        switch run {
        case .windows(let windows): 0..<windows.count
        case .files(_, _, let range): range
        }
    }

    /// The cursor on table `newNumber`; nil when its filters do not know the map.
    private func open(_ newNumber: Int) throws(EngineError) -> TableCursor? {
        number = newNumber
        switch run {
        case .windows(let windows): return cursor(windows[newNumber])
        case .files(let search, let files, _):
            let reader = unsafe try search.reader(newNumber, files).takeUnretainedValue()
            if let map, try !reader.mayContain(map, reader: cacheReader) {
                table?.letGo()
                return nil
            }
            return cursor(TableWindow(reader, keyGroups: files[newNumber].record.window))
        }
    }

    private func cursor(_ window: TableWindow) -> TableCursor {
        if let table {
            table.retarget(window.reader, window: window.clip)
            return table
        }
        let made = window.reader.cursor(window: window.clip, policy: policy, reader: cacheReader)
        table = made
        return made
    }

    /// The first entry at or behind the start of table `first`; a window may be empty.
    private func enter(_ first: Int) throws(EngineError) -> Bool {
        for next in first..<max(first, numbers.upperBound) {
            if isBehindEnd(next) { break }
            if let cursor = try open(next), try cursor.seekToFirst() { return true }
        }
        table?.letGo()
        return false
    }

    private func isBehindEnd(_ number: Int) -> Bool {
        guard !end.isEmpty, case .files(_, let files, _) = run else { return false }
        return compareKeys(files[number].smallestKey, end) >= 0
    }

    private func firstTable(endingAtOrBehind key: UnsafeRawBufferPointer) -> Int {
        switch run {
        case .files(let search, let files, let range):
            if range.count == 1 {
                return unsafe isBelow(files[range.lowerBound].largestKey, key) ? range.upperBound : range.lowerBound
            }
            return unsafe search.file(for: key) ?? range.upperBound
        case .windows(let windows):
            var low = 0
            var high = windows.count
            while low < high {
                let middle = (low + high) / 2
                if unsafe ends(windows[middle], before: key) { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }

    private func ends(_ window: TableWindow, before key: UnsafeRawBufferPointer) -> Bool {
        if key.count >= keyGroupBytes, unsafe window.keyGroups.last < keyGroup(of: key) { return true }
        let largest = window.reader.summary.largestKey
        let order = unsafe largest.withUnsafeBytes { unsafe compareBytes($0, key) }
        return order < 0
    }
}
