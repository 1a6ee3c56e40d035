// Writes a table from entries in key order. Used by flush and compaction, on their threads; one owner.
//
// Output is gathered and appended to the file in large pieces. After an error the writer and its file are useless: the owner
// closes and removes the file.

package import CisternFileSystem
package import CisternPrimitives

package final class TableWriter {
    /// How much is gathered before the file is appended to.
    private static let appendBytes = 512 << 10

    private let file: any AppendFile
    private let options: TableOptions
    private let number: UInt64
    private let cache: BlockCache?
    @exclusivity(unchecked) private var output = GrowingBuffer(capacity: TableWriter.appendBytes + (64 << 10))
    /// Offset in the file of the first byte of `output`.
    private var outputStart: UInt64 = 0
    @exclusivity(unchecked) private var block = DataBlockBuilder()
    private var blockSeparator: [UInt8] = []
    private var blockExpiry = BlockExpiry()
    private var index = IndexPartitionBuilder()
    private var top = TopIndexBuilder()
    @exclusivity(unchecked) private var hashes: [UInt64] = []
    @exclusivity(unchecked) private var lastKey = GrowingBuffer(capacity: 256)
    private var summary = TableSummary()
    private var partitionEntries: UInt32 = 0

    /// - Parameters:
    ///   - number: the file's number, under which `cache` will be asked for its blocks.
    ///   - cache: receives index and filter partitions as they are written, so that the first reads find them.
    package init(
        file: any AppendFile, options: TableOptions = TableOptions(), number: UInt64 = 0, cache: BlockCache? = nil
    ) {
        self.file = file
        self.options = options
        self.number = number
        self.cache = cache
        summary.blockSizeBytes = UInt32(options.blockSizeBytes)
        summary.filterBitsPerKey = UInt32(options.filterBitsPerKey)
        unsafe output.append(TableFormat.header())
    }

    /// Bytes the file has or will have for what was added so far, without the metadata that is still open.
    package var fileBytes: UInt64 { unsafe position + UInt64(block.byteCount) }
    package var entryCount: UInt64 { summary.entryCount }

    /// Adds an entry of any kind behind all others.
    /// - Throws: `invalidEntry` when the key is not greater than the one before, or key or value exceed the format.
    package func add(_ entry: EntryView) throws(EngineError) {
        try check(entry)
        let size = unsafe entry.key.count + entry.value.count + DataBlockBuilder.columnBytes
        if unsafe block.count > 0 && block.byteCount + size > options.blockSizeBytes { try finishBlock() }
        if unsafe block.count == 0 {
            let count = unsafe separatorCount(previous: lastKey.bytes, key: entry.key)
            blockSeparator = unsafe Array(entry.key[..<count])
        }
        let hash = unsafe Hash64.hash(entry.key)
        if summary.entryCount == 0 { summary.smallestKey = unsafe Array(entry.key) }
        if options.filterBitsPerKey > 0 { unsafe hashes.append(hash) }
        partitionEntries += 1
        unsafe block.add(entry, hash: hash)
        blockExpiry.add(entry)
        summary.count(entry)
        unsafe lastKey.reset()
        unsafe lastKey.append(entry.key)
    }

    /// Writes what is open, the indexes and the footer, and syncs the file. The caller closes it.
    /// - Throws: `invalidEntry` when nothing was added: a table has at least one entry.
    package func finish() throws(EngineError) -> TableSummary {
        guard summary.entryCount > 0 else {
            throw .invalidEntry(detail: "\(file.path): a table without entries is not written")
        }
        if unsafe block.count > 0 { try finishBlock() }
        if index.count > 0 { try finishPartition() }
        summary.largestKey = unsafe Array(lastKey.bytes)
        summary.keyGroups = unsafe KeyGroupRange(
            first: UInt16(summary.smallestKey[0]) << 8 | UInt16(summary.smallestKey[1]),
            last: keyGroup(of: lastKey.bytes))
        let topIndex = try writeBlock(BlockMemory(copying: top.encode()), .topIndex)
        let properties = try writeBlock(BlockMemory(copying: summary.encode()), .properties)
        summary.fileBytes = position + UInt64(TableFormat.footerBytes)
        let footer = TableFooter(topIndex: topIndex, properties: properties, fileBytes: summary.fileBytes)
        unsafe output.append(footer.encode())
        try flushOutput()
        do { try file.sync() } catch { throw .file(error) }
        return summary
    }

    // MARK: Blocks

    private var position: UInt64 { unsafe outputStart + UInt64(output.count) }

    private func check(_ entry: EntryView) throws(EngineError) {
        guard unsafe entry.key.count >= keyGroupBytes, unsafe entry.key.count <= TableFormat.keyBytesMax else {
            throw .invalidEntry(
                detail:
                    unsafe "\(file.path): a key of \(entry.key.count) bytes; a table takes \(keyGroupBytes) to \(TableFormat.keyBytesMax)"
            )
        }
        guard unsafe entry.value.count <= options.valueBytesMax else {
            throw .invalidEntry(
                detail:
                    unsafe "\(file.path): a value of \(entry.value.count) bytes; a table takes up to \(options.valueBytesMax)"
            )
        }
        guard unsafe summary.entryCount == 0 || compareBytes(lastKey.bytes, entry.key) < 0 else {
            throw .invalidEntry(
                detail: "\(file.path): entry \(summary.entryCount) has a key that is not greater than the one before")
        }
    }

    private func finishBlock() throws(EngineError) {
        let payload = unsafe block.finish()
        let handle = unsafe try writeBlock(payload, .data)
        unsafe block.reset()
        index.add(separator: blockSeparator, handle: handle, expiry: blockExpiry)
        blockExpiry = BlockExpiry()
        summary.dataBlockCount += 1
        let partitionBytes = position - index.firstOffset
        if index.count == options.blocksPerPartition || partitionBytes > UInt64(TableFormat.partitionBytesMax) {
            try finishPartition()
        }
    }

    private func finishPartition() throws(EngineError) {
        let filter = unsafe BlockMemory(copying: buildFilter(hashes, bitsPerKey: options.filterBitsPerKey))
        let filterHandle = unsafe filter.bytes.isEmpty ? BlockHandle(offset: position) : try writeBlock(filter, .filter)
        let encoded = BlockMemory(copying: index.encode())
        let indexHandle = try writeBlock(encoded, .index)
        top.add(
            separator: index.firstSeparator,
            row: TopIndexRow(index: indexHandle, filter: filterHandle, entryCount: partitionEntries))
        writeThrough(filter: filter, at: filterHandle.offset)
        writeThrough(index: encoded, at: indexHandle.offset)
        index.reset()
        unsafe hashes.removeAll(keepingCapacity: true)
        partitionEntries = 0
    }

    private func writeThrough(filter: BlockMemory, at offset: UInt64) {
        guard let cache, let partition = unsafe FilterPartition(memory: filter, payloadBytes: filter.bytes.count) else {
            return
        }
        unsafe cache.insert(
            .filter(partition), for: BlockKey(file: number, offset: offset), byteCount: filter.bytes.count)
    }

    private func writeThrough(index: BlockMemory, at offset: UInt64) {
        guard let cache else { return }
        switch unsafe IndexPartition.parse(memory: index, payloadBytes: index.bytes.count, limit: offset) {
        case .success(let partition):
            unsafe cache.insert(
                .index(partition), for: BlockKey(file: number, offset: offset), byteCount: index.bytes.count)
        case .failure(let fault): invariant(false, "an index partition does not read back: \(fault.detail)")
        }
    }

    private func writeBlock(_ memory: BlockMemory, _ type: TableBlockType) throws(EngineError) -> BlockHandle {
        unsafe try writeBlock(UnsafeRawBufferPointer(memory.bytes), type)
    }

    private func writeBlock(_ payload: UnsafeRawBufferPointer, _ type: TableBlockType) throws(EngineError)
        -> BlockHandle
    {
        let handle = BlockHandle(offset: position, payloadBytes: UInt32(payload.count))
        unsafe output.append(payload)
        unsafe output.append(type.rawValue)
        unsafe output.appendInteger(TableFormat.checksum(payload: payload, type: type, offset: handle.offset))
        if unsafe output.count >= TableWriter.appendBytes { try flushOutput() }
        return handle
    }

    private func flushOutput() throws(EngineError) {
        do { unsafe try file.append(output.bytes) } catch { throw .file(error) }
        unsafe outputStart += UInt64(output.count)
        unsafe output.reset()
    }
}
