// A scan of a tree: its memtables, level-0 files and levels as the sources of one merge. Kept by the tree from scan to scan, with
// its cursors and their memory, so that a scan of a few entries allocates next to nothing.
//
// Owned by the tree's owner. A scan inside a scan's `visit` needs another scanner.

internal import CisternPrimitives

@safe final class TreeScanner {
    let cursor = MergingCursor()
    private let reader: CacheReader
    /// Cursors over files; the first `used` belong to the scan.
    private var levels: [LevelCursor] = []
    private var used = 0
    /// Keeps the files of the scan.
    private var version: Version?
    /// Start and end of the range, one behind the other.
    private var bounds = GrowingBuffer(capacity: 256)
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
        bounds.reset()
        bounds.append(start)
        startCount = bounds.count
        bounds.append(end)
        let first = unsafe UnsafeRawBufferPointer(rebasing: bounds.bytes[..<startCount])
        let last = unsafe UnsafeRawBufferPointer(rebasing: bounds.bytes[startCount...])
        unsafe cursor.begin(from: first, to: last, clock: clock, rules: rules, skipsPointed: keysOnly)
        self.version = version
        if !active.isEmpty { cursor.add(.memtable(active.cursor(from: start, to: end))) }
        for memtable in sealed.reversed() { cursor.add(.memtable(memtable.memtable.cursor(from: start, to: end))) }
        let map = unsafe MapRange(from: first, to: last)
        for level in 0..<version.levels.count {
            let files = version.levels[level]
            if files.isEmpty { continue }
            let search = version.search(level)
            if level > 0 {
                add(search, files, 0..<files.count, end, map)
                continue
            }
            for file in 0..<files.count
            where compareKeys(files[file].largestKey, start) >= 0
                && (end.isEmpty || compareKeys(files[file].smallestKey, end) < 0)
            {
                add(search, files, file..<(file + 1), end, map)
            }
        }
        return unsafe try cursor.seek(to: first)
    }

    private func add(
        _ search: LevelSearch, _ files: [FileReference], _ range: Range<Int>, _ end: [UInt8], _ map: MapRange?
    ) {
        if used == levels.count { levels.append(LevelCursor([], reader: reader)) }
        levels[used].retarget(search, files, range, end: end, map: map)
        cursor.add(.level(levels[used]))
        used += 1
    }

    /// Lets go of files, blocks and memtables.
    func finish() {
        cursor.finish()
        for level in 0..<used { levels[level].letGo() }
        used = 0
        version = nil
    }
}
