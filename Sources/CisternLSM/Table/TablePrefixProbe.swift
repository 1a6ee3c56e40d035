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
            guard let hold = try holdFilter(partition, reader) else { return true }
            defer { hold.release() }
            if FilterPartition(hold.frame).mayContain(range.hash) { return true }
            partition += 1
        } while unsafe partition < top.count && startsInside(top.separator(partition), range.prefix)
        return false
    }

    /// A separator may be shorter than the keys behind it.
    private func startsInside(_ separator: UnsafeRawBufferPointer, _ prefix: UnsafeRawBufferPointer) -> Bool {
        unsafe commonPrefixCount(separator, prefix) == min(separator.count, prefix.count)
            || compareBytes(separator, prefix) < 0
    }
}
