// Reads of a tree: from the newest source to the oldest, until a put or delete ends the search.

package import CisternPrimitives

/// Bounds of one page of a scan.
package struct ScanLimits: Equatable, Sendable {
    package var entriesMax: Int
    package var bytesMax: Int

    package init(entriesMax: Int = 10_000, bytesMax: Int = 1 << 20) {
        self.entriesMax = entriesMax
        self.bytesMax = bytesMax
    }
}

extension Tree {
    /// Collects the value of a key in `result`, which is reset first.
    /// - Returns: true when the key has a living value; `result.finish(clock)` gives it.
    package func get(
        _ key: UnsafeRawBufferPointer, clock: ExpiryClock, into result: inout LookupResult
    ) throws(EngineError) -> Bool {
        result.reset()
        guard lifecycle != .closed else { throw .closed(tree: name) }
        counters.gets += 1
        guard key.count >= EngineLimits.keyBytesMin, unsafe identity.keyGroups.contains(keyGroup(of: key)) else {
            return false
        }
        unsafe try collect(key, into: &result)
        return unsafe result.finish(clock) != nil
    }

    func collect(_ key: UnsafeRawBufferPointer, into result: inout LookupResult) throws(EngineError) {
        let hash = unsafe Hash64.hash(key)
        if let entry = unsafe active.get(key, hash: hash), result.add(entry) { return }
        for index in stride(from: sealed.count - 1, through: 0, by: -1) {
            if let entry = unsafe sealed[index].memtable.get(key, hash: hash), result.add(entry) { return }
        }
        let version = self.version
        if version.fileCount == 0 { return }
        cacheReader.enter()
        defer { cacheReader.leave() }
        unsafe try version.get(key, hash: hash, reader: cacheReader, into: &result)
    }

    /// Visits living entries in key order from `start` on, up to and without `end` (empty: no end), until a limit is reached
    /// or `visit` returns false.
    /// - Parameter keysOnly: counts only keys against `bytesMax`; values are still shown.
    /// - Returns: the key to go on from, or nil when everything was visited.
    package func scan(
        from start: [UInt8], to end: [UInt8], clock: ExpiryClock, limits: ScanLimits, keysOnly: Bool = false,
        visit: (EntryView) -> Bool
    ) throws(EngineError) -> [UInt8]? {
        guard lifecycle != .closed else { throw .closed(tree: name) }
        counters.scans += 1
        // Borrowed for the whole scan: a copy with an address that stays.
        let bounds = ScanBounds(start, end)
        let map = unsafe MapRange(from: bounds.start, to: bounds.end)
        let cursor = MergingCursor(try scanSources(from: start, to: end, map), clock: clock)
        var isPositioned = unsafe try cursor.seek(to: bounds.start)
        var entries = 0
        var bytes = 0
        while isPositioned {
            let entry = cursor.entry
            if !end.isEmpty, unsafe compareBytes(entry.key, bounds.end) >= 0 { return nil }
            if entries >= limits.entriesMax || (bytes >= limits.bytesMax && entries > 0) {
                return unsafe Array(entry.key)
            }
            entries += 1
            unsafe bytes += entry.key.count + (keysOnly ? 0 : entry.value.count)
            let goesOn = visit(entry)
            isPositioned = try cursor.next()
            if !goesOn {
                guard isPositioned, unsafe end.isEmpty || compareBytes(cursor.entry.key, bounds.end) < 0 else {
                    return nil
                }
                return unsafe Array(cursor.entry.key)
            }
        }
        return nil
    }

    /// - Parameter map: the one map that the range is about, if it is: files whose filters do not know it are left out.
    private func scanSources(
        from start: [UInt8], to end: [UInt8], _ map: MapRange?
    ) throws(EngineError) -> [EntryCursor] {
        var sources: [EntryCursor] = [.memtable(active.cursor(from: start, to: end))]
        for memtable in sealed.reversed() { sources.append(.memtable(memtable.memtable.cursor(from: start, to: end))) }
        for file in version.levels[0] where try isInside(file, start, end, map) {
            sources.append(.level(LevelCursor([try window(file)], reader: cacheReader)))
        }
        for level in version.levels.dropFirst() {
            var run: [TableWindow] = []
            for file in level where try isInside(file, start, end, map) { run.append(try window(file)) }
            if !run.isEmpty { sources.append(.level(LevelCursor(run, reader: cacheReader))) }
        }
        return sources
    }

    private func isInside(
        _ file: FileReference, _ start: [UInt8], _ end: [UInt8], _ map: MapRange?
    ) throws(EngineError) -> Bool {
        guard compareKeys(file.largestKey, start) >= 0, end.isEmpty || compareKeys(file.smallestKey, end) < 0 else {
            return false
        }
        guard let map else { return true }
        return try file.table.reader().mayContain(map, reader: cacheReader)
    }

    private func window(_ file: FileReference) throws(EngineError) -> TableWindow {
        TableWindow(try file.table.reader(), keyGroups: file.record.window)
    }
}

/// Owned memory for the two keys a scan compares with.
@safe private final class ScanBounds {
    private let memory: UnsafeMutableRawBufferPointer
    let start: UnsafeRawBufferPointer
    let end: UnsafeRawBufferPointer

    init(_ start: [UInt8], _ end: [UInt8]) {
        unsafe memory = .allocate(byteCount: start.count + end.count + 1, alignment: 8)
        unsafe memory.copyBytes(from: start + end + [0])
        unsafe self.start = unsafe UnsafeRawBufferPointer(rebasing: memory[0..<start.count])
        unsafe self.end = unsafe UnsafeRawBufferPointer(rebasing: memory[start.count..<(start.count + end.count)])
    }

    deinit { unsafe memory.deallocate() }
}
