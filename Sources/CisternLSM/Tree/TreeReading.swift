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
        counters.gets &+= 1
        if counters.gets & (Tree.readsPerLook &- 1) == 0 { lookAfterReads() }
        guard key.count >= EngineLimits.keyBytesMin, unsafe identity.keyGroups.contains(keyGroup(of: key)) else {
            return false
        }
        unsafe try collect(key, into: &result)
        if !state.expiryRules.areIdle { unsafe result.apply(state.expiryRules, to: key) }
        return unsafe result.finish(clock) != nil
    }

    func collect(_ key: UnsafeRawBufferPointer, into result: inout LookupResult) throws(EngineError) {
        let hash = unsafe Hash64.hash(key)
        if let entry = unsafe active.find(key, hash: hash), result.add(entry, in: active.arenaView) { return }
        for index in stride(from: sealedCount - 1, through: 0, by: -1) {
            let memtable = sealed[index].memtable
            if let entry = unsafe memtable.find(key, hash: hash), result.add(entry, in: memtable.arenaView) { return }
        }
        let version = self.version
        if version.fileCount == 0 { return }
        cacheReader.enter()
        defer { cacheReader.leave() }
        unsafe try version.get(key, hash: hash, reader: cacheReader, into: &result)
    }

    /// Visits living entries in key order from `start` on, up to and without `end` (empty: no end), until a limit is reached
    /// or `visit` returns false.
    /// - Parameter keysOnly: counts only keys against `bytesMax`; values are shown as far as they need not be read from a value
    ///   file, and else as empty.
    /// - Returns: the key to go on from, or nil when everything was visited.
    package func scan(
        from start: [UInt8], to end: [UInt8], clock: ExpiryClock, limits: ScanLimits, keysOnly: Bool = false,
        visit: (EntryView) -> Bool
    ) throws(EngineError) -> [UInt8]? {
        guard lifecycle != .closed else { throw .closed(tree: name) }
        counters.scans &+= 1
        if counters.scans & (Tree.readsPerLook / UInt64(RestCredit.passesPerScan) &- 1) == 0 { lookAfterReads() }
        let scanner = self.scanner ?? TreeScanner(reader: cacheReader)
        self.scanner = nil
        defer {
            scanner.finish()
            self.scanner = scanner
        }
        let isPositioned = try scanner.begin(
            from: start, to: end, clock: clock, rules: state.expiryRules, keysOnly: keysOnly, active: active,
            sealed: sealed, version: version)
        guard isPositioned, try scanner.cursor.show(limits, keysOnly: keysOnly, visit) else { return nil }
        return unsafe Array(scanner.cursor.entry.key)
    }
}
