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

/// What a scan is about, borrowed from the scan.
@safe struct ScanBounds {
    let start: UnsafeRawBufferPointer
    /// Without it; empty: no end.
    let end: UnsafeRawBufferPointer
    /// Bytes that all keys between them begin with.
    let sharedCount: Int
    /// The one map that all of them belong to.
    let map: MapRange?

    init(from start: UnsafeRawBufferPointer, to end: UnsafeRawBufferPointer) {
        unsafe self.start = unsafe start
        unsafe self.end = unsafe end
        sharedCount = unsafe commonPrefixCount(start, end)
        map = unsafe MapRange(from: start, to: end)
    }
}

@safe package final class LevelCursor {
    /// What is walked: these windows, or files `range` of a level of a version, as its look-ups see them.
    private var windows: [TableWindow] = []
    private var search: LevelSearch?
    /// Kept by the scan.
    private unowned(unsafe) var version: Version?
    private var level = 0
    private var range = 0..<0
    private let policy: CachePolicy
    private let cacheReader: CacheReader?
    /// The one map that a scan is about: files whose filters do not know it are passed over.
    private var map: MapRange?
    /// Where the range ends; empty: nowhere. And how many bytes all its keys share.
    private var end = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    private var sharedCount = 0
    private var number = 0
    /// Made with the first table.
    private var table: TableCursor?
    /// Where that stands.
    private(set) var place: UnsafeMutablePointer<BlockPlace>?
    /// What it walks at the moment.
    var reader: TableReader? { table?.reader }
    /// A seek is under way in steps, at table `number`; false as well when there is none to look into.
    private var isAiming = false

    /// - Precondition: the windows are in key order and do not overlap.
    /// - Parameter reader: of the thread that owns the cursor; nil: each table's cursor makes its own.
    package init(_ windows: [TableWindow], policy: CachePolicy = .fill, reader: CacheReader? = nil) {
        cacheReader = reader
        self.windows = windows
        self.policy = policy
    }

    package convenience init(tables: [TableReader], policy: CachePolicy = .fill) {
        self.init(tables.map { TableWindow($0) }, policy: policy)
    }

    /// Walks files of a level from here on, not positioned yet.
    /// - Parameters:
    ///   - newVersion: kept by the caller until the next call of this or `letGo`, as is what the bounds refer to.
    func retarget(_ newVersion: Version, level newLevel: Int, files: Range<Int>, _ bounds: ScanBounds) {
        table?.letGo()
        search = newVersion.search(newLevel)
        unsafe version = newVersion
        level = newLevel
        range = files
        unsafe end = unsafe bounds.end
        sharedCount = bounds.sharedCount
        map = bounds.map
    }

    /// Lets go of files and blocks.
    func letGo() {
        table?.letGo()
        search = nil
        unsafe version = nil
        range = 0..<0
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
        unsafe aim(at: key)
        unsafe try approach(key)
        return unsafe try finishSeek(key)
    }

    // A seek in three steps. A merge makes each for all of its sources before the next, so that their waits for memory pass
    // together.

    /// Finds the table, and asks for what the next step reads.
    func aim(at key: UnsafeRawBufferPointer) {
        table?.letGo()
        number = unsafe firstTable(endingAtOrBehind: key)
        isAiming = number < numbers.upperBound && !isBehindEnd(number)
        guard isAiming, let search, let reader = unsafe search.openReader(number) else { return }
        let hash = map?.hash ?? 0
        unsafe reader._withUnsafeGuaranteedRef { unsafe $0.prefetchPartition(key, hash: hash) }
    }

    /// Asks the filter, finds the block, and asks for its lines.
    func approach(_ key: UnsafeRawBufferPointer) throws(EngineError) {
        if isAiming, let cursor = try open(number) { unsafe try cursor.approach(key) }
    }

    func finishSeek(_ key: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        guard isAiming else { return false }
        isAiming = false
        // Without an approach the table does not know the map.
        if let table, table.isNear, unsafe try table.seek(to: key) { return true }
        return try enter(number + 1)
    }

    package func next() throws(EngineError) -> Bool {
        guard let table else { return false }
        if try table.next() { return true }
        return try enter(number + 1)
    }

    /// The first entry behind the block it stands on.
    func nextBlock() throws(EngineError) -> Bool {
        guard let table else { return false }
        return try table.nextBlock() ? true : enter(number + 1)
    }

    // MARK: Tables

    private var numbers: Range<Int> { search == nil ? 0..<windows.count : range }

    /// The cursor on table `newNumber`; nil when its filters do not know the map.
    private func open(_ newNumber: Int) throws(EngineError) -> TableCursor? {
        number = newNumber
        guard let search, let version = unsafe version else { return cursor(windows[newNumber]) }
        let reader: TableReader
        if let known = unsafe search.openReader(newNumber) {
            reader = unsafe known.takeUnretainedValue()
        } else {
            reader = unsafe try search.reader(newNumber, version.levels[level]).takeUnretainedValue()
        }
        if let map, try !reader.mayContain(map, reader: cacheReader) {
            table?.letGo()
            return nil
        }
        return cursor(TableWindow(reader, keyGroups: search.window(newNumber)))
    }

    private func cursor(_ window: TableWindow) -> TableCursor {
        if let table {
            unsafe table.retarget(window.reader, window: window.clip, end: end, headOffset: sharedCount)
            return table
        }
        let made = window.reader.cursor(window: window.clip, policy: policy, reader: cacheReader)
        unsafe made.retarget(window.reader, window: window.clip, end: end, headOffset: sharedCount)
        table = made
        unsafe place = unsafe made.place
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
        guard unsafe end.count > 0, let search else { return false }
        return unsafe compareInPlace(search.smallestKey(number), end) >= 0
    }

    private func firstTable(endingAtOrBehind key: UnsafeRawBufferPointer) -> Int {
        guard let search else { return unsafe firstWindow(endingAtOrBehind: key) }
        if range.count > 1 { return unsafe search.file(for: key) ?? range.upperBound }
        let file = range.lowerBound
        return unsafe range.isEmpty || compareInPlace(search.largestKey(file), key) < 0 ? range.upperBound : file
    }

    private func firstWindow(endingAtOrBehind key: UnsafeRawBufferPointer) -> Int {
        var low = 0
        var high = windows.count
        while low < high {
            let middle = (low + high) / 2
            if unsafe ends(windows[middle], before: key) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func ends(_ window: TableWindow, before key: UnsafeRawBufferPointer) -> Bool {
        if key.count >= keyGroupBytes, unsafe window.keyGroups.last < keyGroup(of: key) { return true }
        let largest = window.reader.summary.largestKey
        let order = unsafe largest.withUnsafeBytes { unsafe compareBytes($0, key) }
        return order < 0
    }
}
