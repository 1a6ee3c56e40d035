// A scan of a tree: its memtables, level-0 files and levels as the sources of one merge. Kept by the tree from scan to scan, with
// its cursors and their memory, so that a scan of a few entries allocates next to nothing.
//
// Owned by the tree's owner. A scan inside a scan's `visit` needs another scanner.

internal import CisternPrimitives

@safe final class TreeScanner {
    let cursor = MergingCursor()
    private let reader: CacheReader
    // Unchecked: one owner, and nobody is called while they change.
    /// Cursors over files and memtables; the first `used` and `usedMemtables` belong to the scan.
    @exclusivity(unchecked) private var levels: [LevelCursor] = []
    private var used = 0
    @exclusivity(unchecked) private var memtables: [MemtableCursor] = []
    private var usedMemtables = 0
    /// Keeps the files of the scan.
    private var version: Version?
    /// Start and end of the range, one behind the other.
    @exclusivity(unchecked) private var bounds = GrowingBuffer(capacity: 256)
    private var startCount = 0

    init(reader: CacheReader) { self.reader = reader }

    /// - Parameters:
    ///   - start, end: copied; an empty end is none.
    ///   - sealed: oldest first.
    /// - Returns: true when there is an entry; `cursor` stands on it.
    func begin(
        from start: [UInt8], to end: [UInt8], clock: ExpiryClock, rules: ExpiryRules, keysOnly: Bool, active: Memtable,
        sealed: [SealedMemtable], version: Version
    ) throws(EngineError) -> Bool {
        unsafe bounds.reset()
        unsafe bounds.append(start)
        startCount = unsafe bounds.count
        unsafe bounds.append(end)
        let first = unsafe UnsafeRawBufferPointer(rebasing: bounds.bytes[..<startCount])
        let last = unsafe UnsafeRawBufferPointer(rebasing: bounds.bytes[startCount...])
        let range = unsafe ScanBounds(from: first, to: last)
        cursor.begin(range, clock: clock, rules: rules, skipsPointed: keysOnly)
        self.version = version
        if !active.isEmpty { add(active, range) }
        for index in stride(from: sealed.count - 1, through: 0, by: -1) { add(sealed[index].memtable, range) }
        for level in 0..<version.levels.count {
            let search = version.search(level)
            if level > 0 {
                if search.count > 0 { add(version, level, 0..<search.count, range) }
                continue
            }
            for file in 0..<search.count where unsafe search.meets(file, from: first, to: last) {
                add(version, level, file..<(file + 1), range)
            }
        }
        return unsafe try cursor.seek(to: first)
    }

    private func add(_ memtable: Memtable, _ bounds: ScanBounds) {
        let scope = unsafe memtable.scope(from: bounds.start, to: bounds.end)
        if unsafe usedMemtables == memtables.count {
            unsafe memtables.append(MemtableCursor(memtable, scope))
        } else {
            unsafe memtables[usedMemtables].retarget(memtable, scope)
        }
        cursor.add(.memtable(unsafe memtables[usedMemtables]))
        usedMemtables += 1
    }

    private func add(_ version: Version, _ number: Int, _ files: Range<Int>, _ bounds: ScanBounds) {
        if unsafe used == levels.count { unsafe levels.append(LevelCursor([], reader: reader)) }
        let level = unsafe levels[used]
        level.retarget(version, level: number, files: files, bounds)
        cursor.add(.level(level))
        used += 1
    }

    /// Lets go of files, blocks and memtables.
    func finish() {
        cursor.finish()
        for level in 0..<used { unsafe levels[level].letGo() }
        used = 0
        for index in 0..<usedMemtables { unsafe memtables[index].letGo() }
        usedMemtables = 0
        version = nil
    }
}
