// A whole table, checked: every block's checksum and structure, the order of keys, tags, filters, and that the properties
// tell the truth. For `inspect`, for restores of doubtful files, and for tests. Reads around the cache.

internal import CisternPrimitives

extension TableReader {
    /// - Parameter followsPointers: whether the values in value files are read and checked, too.
    /// - Throws: `corruption` at the first thing that is not as it should be.
    package func verify(followsPointers: Bool = false) throws(EngineError) {
        var counted = TableSummary()
        var uses: [UInt64: ValueFileUse] = [:]
        for use in summary.values { uses[use.number] = ValueFileUse(number: use.number, fileBytes: use.fileBytes) }
        var value = GrowingBuffer()
        var details = TableDetailsBuilder(longValueBytes: summary.details?.longValueBytes ?? .max)
        var previous = GrowingBuffer()
        var key = GrowingBuffer()
        let reader = CacheReader(cache)
        for partition in 0..<top.count {
            let row = top.row(partition)
            let filterHold = try holdFilter(partition, reader)
            defer { filterHold?.release() }
            let filter = filterHold.map { FilterPartition($0.frame) }
            let indexHold = try holdIndex(partition, .stream, reader)
            defer { indexHold.release() }
            let index = IndexPartition(indexHold.frame)
            let before = counted.entryCount
            for number in 0..<index.count {
                let handle = index.handle(number)
                let owner = try dataBlock(handle)
                defer { withExtendedLifetime(owner) {} }
                let block = owner.columns
                for position in 0..<block.count {
                    key.reset()
                    unsafe key.append(block.prefix)
                    unsafe key.append(block.suffix(position))
                    let entry = unsafe block.entry(position, key: key.bytes)
                    if let fault = unsafe fault(
                        of: entry, behind: previous.bytes, index.separator(number), block.tag(position), filter)
                    {
                        throw tableCorruption(path, handle.offset, "entry \(position) \(fault)")
                    }
                    counted.count(entry)
                    details.count(entry)
                    if entry.isPointer {
                        try count(entry, &uses, at: handle)
                        value.reset()
                        if followsPointers {
                            unsafe try valueFiles().read(entry, hash: Hash64.hash(entry.key), of: path, into: &value)
                        }
                    }
                    previous.reset()
                    unsafe previous.append(entry.key)
                }
                counted.dataBlockCount += 1
            }
            guard counted.entryCount - before == UInt64(row.entryCount) else {
                throw tableCorruption(
                    path, row.index.offset,
                    "partition \(partition) has \(counted.entryCount - before) entries, recorded are \(row.entryCount)")
            }
        }
        counted.values = uses.values.sorted { $0.number < $1.number }
        if summary.details != nil { counted.details = details.details() }
        unsafe try compare(counted, largest: Array(previous.bytes))
    }

    private func count(
        _ entry: EntryView, _ uses: inout [UInt64: ValueFileUse], at handle: BlockHandle
    ) throws(EngineError) {
        guard let pointer = unsafe ValuePointer(entry.value), uses[pointer.file]?.count(pointer) != nil else {
            throw tableCorruption(
                path, handle.offset, "an entry points to a value file that the properties do not name")
        }
    }

    private func fault(
        of entry: EntryView, behind previous: UnsafeRawBufferPointer, _ separator: UnsafeRawBufferPointer, _ tag: UInt8,
        _ filter: FilterPartition?
    ) -> String? {
        if unsafe entry.key.count < keyGroupBytes { return "has a key without a key group" }
        if unsafe compareBytes(previous, entry.key) >= 0 { return "has a key that is not greater than the one before" }
        if unsafe compareBytes(separator, entry.key) > 0 { return "lies before its block's separator" }
        let hash = unsafe Hash64.hash(entry.key)
        if tag != DataBlockFormat.tag(ofHash: hash) { return "has a tag that is not its key's" }
        guard let filter else { return nil }
        if !filter.mayContain(hash) { return "is missing in its partition's filter" }
        if summary.formatVersion >= TableFormat.versionWithPrefixes,
            let count = unsafe mapPrefixCount(of: entry.key),
            unsafe !filter.mayContain(Hash64.hash(UnsafeRawBufferPointer(rebasing: entry.key[..<count])))
        {
            return "has a map prefix that is missing in its partition's filter"
        }
        return nil
    }

    private func compare(_ counted: TableSummary, largest: [UInt8]) throws(EngineError) {
        var expected = summary
        // What counting cannot tell.
        expected.fileBytes = 0
        expected.blockSizeBytes = 0
        expected.filterBitsPerKey = 0
        var found = counted
        found.smallestKey = summary.smallestKey
        found.largestKey = largest
        found.keyGroups = summary.keyGroups
        found.formatVersion = summary.formatVersion
        if summary.formatVersion < TableFormat.versionWithPrefixes {
            found.minExpiryProcessing = 0
            found.minExpiryEvent = 0
        }
        guard found == expected else {
            throw tableCorruption(path, 0, "the properties say \(expected), the entries are \(found)")
        }
    }
}
