// Whether a table has keys of a map: asked before a scan opens it. Any thread.

internal import CisternPrimitives

extension TableReader {
    /// False when certainly no key of the range's map is here; true as well when the table's filters do not know prefixes.
    /// - Parameter reader: of the calling thread, outside an epoch; nil for callers that ask seldom.
    package func mayContain(_ range: MapRange, reader: CacheReader? = nil) throws(EngineError) -> Bool {
        guard summary.formatVersion >= TableFormat.versionWithPrefixes else { return true }
        // The keys begin in the partition that may hold the prefix itself, and go on while a partition begins with a key of
        // the map.
        var partition = unsafe top.partition(for: range.prefix) ?? 0
        let reader = reader ?? CacheReader(cache)
        repeat {
            if try mayContain(range.hash, partition, reader) { return true }
            partition += 1
        } while unsafe partition < top.count && startsInside(top.separator(partition), range.prefix)
        return false
    }

    @inline(__always)
    private func mayContain(_ hash: UInt64, _ partition: Int, _ reader: CacheReader) throws(EngineError) -> Bool {
        reader.enter()
        let word = unsafe loadSlot(slots.filter(partition))
        if word == 0 {
            reader.leave()
            return try mayContainLoading(hash, partition, reader)
        }
        defer { reader.leave() }
        if word == TableSlots.noFilter { return true }
        reader.countHit()
        CacheFrame(bits: word).touch()
        return FilterPartition(word: word).mayContain(hash)
    }

    @inline(never)
    private func mayContainLoading(
        _ hash: UInt64, _ partition: Int, _ reader: CacheReader
    ) throws(EngineError) -> Bool {
        guard let hold = try holdFilter(partition, reader) else { return true }
        defer { hold.release() }
        return FilterPartition(hold.frame).mayContain(hash)
    }

    /// A separator may be shorter than the keys behind it.
    private func startsInside(_ separator: UnsafeRawBufferPointer, _ prefix: UnsafeRawBufferPointer) -> Bool {
        unsafe commonPrefixCount(separator, prefix) == min(separator.count, prefix.count)
            || compareBytes(separator, prefix) < 0
    }
}
