// Writes a table from entries in key order. Used by flush and compaction, on their threads; one owner.
//
// Output is gathered and appended to the file in large pieces. After an error the writer and its file are useless: the owner
// closes and removes the file.

package import CisternFileSystem
package import CisternPrimitives

package final class TableWriter {
    /// How much is gathered before the file is appended to.
    private static let appendBytes = 512 << 10
    /// The kernel is asked to write this much at a time, so that the sync at the end waits for little.
    private static let writebackBytes: UInt64 = 4 << 20

    private let file: any AppendFile
    private let options: TableOptions
    private let number: UInt64
    private let cache: BlockCache?
    @exclusivity(unchecked) private var output = GrowingBuffer(capacity: TableWriter.appendBytes + (64 << 10))
    private var writebackStart: UInt64 = 0
    /// Offset in the file of the first byte of `output`.
    private var outputStart: UInt64 = 0
    @exclusivity(unchecked) private var block = DataBlockBuilder()
    private var blockExpiry = BlockExpiry()
    /// Minus the entries of the open block that are not puts without expiry.
    private var blockPlainCount = 0
    @exclusivity(unchecked) private var index = IndexPartitionBuilder()
    private var top = TopIndexBuilder()
    /// Of the keys of the partition so far.
    @exclusivity(unchecked) private var hashes = GrowingBuffer(capacity: 32 << 10)
    /// The last key before the block that is open; while one is open, its own last key counts.
    @exclusivity(unchecked) private var lastKey = GrowingBuffer(capacity: 256)
    private var summary = TableSummary()
    /// nil for a version without.
    private var details: TableDetailsBuilder?
    private var partitionEntries: UInt32 = 0
    private var partitionCount = 0
    private let notesPrefixes: Bool
    private var charge: MemoryCharge
    /// Of the open block, and of all blocks less those that were put into the cache: no more goes there than was there.
    private var blockHotEntries = 0
    private var hotEntriesLeft = 0
    /// Blocks of the open partition that go into the cache when it is finished.
    private var hotBlocks: [HotBlock] = []

    private struct HotBlock {
        let number: Int
        let offset: UInt64
        let frame: CacheFrame
    }

    /// A block goes into the cache when at least this share of its entries came from blocks that are read there: 1 / this.
    private static let hotShare = 4
    /// Size of the map prefix that the partition's filter got last, 0 for none.
    private var notedPrefixBytes = 0

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
        charge = MemoryCharge(cache?.ledger ?? MemoryLedger(), .jobs, 0)
        summary.blockSizeBytes = UInt32(options.blockSizeBytes)
        summary.filterBitsPerKey = UInt32(options.filterBitsPerKey)
        summary.formatVersion = options.formatVersion
        if options.formatVersion >= TableFormat.versionWithDetails {
            details = TableDetailsBuilder(longValueBytes: UInt64(options.longValueBytes))
        }
        notesPrefixes = options.formatVersion >= TableFormat.versionWithPrefixes && options.filterBitsPerKey > 0
        unsafe output.append(TableFormat.header(version: options.formatVersion))
    }

    /// Bytes the file has or will have for what was added so far, without the metadata that is still open.
    package var fileBytes: UInt64 { unsafe position &+ UInt64(block.byteCount &- block.rawValueBytes) }
    package var entryCount: UInt64 { unsafe summary.entryCount + UInt64(block.count) }

    /// What a file that is not finished would have put into the cache.
    deinit {
        guard let cache else { return }
        for block in hotBlocks { cache.giveBack(block.frame) }
    }

    /// Adds an entry of any kind behind all others.
    /// - Parameter isHot: the cache has the block it came from, for those who read it.
    /// - Throws: `invalidEntry` when the key is not greater than the one before, or key or value exceed the format.
    @inline(__always)
    package func add(_ entry: EntryView, isHot: Bool = false) throws(EngineError) {
        try check(entry)
        let size = unsafe entry.key.count &+ entry.value.count &+ DataBlockBuilder.columnBytes
        if unsafe block.count > 0, unsafe block.byteCount &+ size > options.blockSizeBytes { try finishBlock() }
        if unsafe block.count == 0 { unsafe beginBlock(entry.key) }
        let hash = unsafe Hash64.hash(entry.key)
        if notesPrefixes { unsafe notePrefix(of: entry.key) }
        unsafe hashes.appendInteger(hash)
        unsafe block.add(entry, hash: hash, to: &output)
        if entry.kind != .put || entry.expiry != .never { noteExpiry(entry) }
        blockHotEntries &+= isHot ? 1 : 0
    }

    /// Writes what is open, the indexes and the footer, and syncs the file. The caller closes it.
    /// - Throws: `invalidEntry` when nothing was added: a table has at least one entry.
    /// - Parameter values: the value files that entries point into.
    package func finish(values: [ValueFileUse] = []) throws(EngineError) -> TableSummary {
        if unsafe block.count > 0 { try finishBlock() }
        invariant(
            values.isEmpty || options.formatVersion >= TableFormat.versionWithValueFiles,
            "a table of format \(options.formatVersion) points into value files")
        summary.values = values
        guard summary.entryCount > 0 else {
            throw .invalidEntry(detail: "\(file.path): a table without entries is not written")
        }
        if unsafe index.count > 0 { try finishPartition() }
        summary.largestKey = unsafe Array(lastKey.bytes)
        summary.keyGroups = unsafe KeyGroupRange(
            first: UInt16(summary.smallestKey[0]) << 8 | UInt16(summary.smallestKey[1]),
            last: keyGroup(of: lastKey.bytes))
        summary.details = details?.details()
        let topStart = unsafe output.count
        unsafe output.append(top.encode())
        let topIndex = try endBlock(at: topStart, .topIndex)
        let propertiesStart = unsafe output.count
        unsafe output.append(summary.encode())
        let properties = try endBlock(at: propertiesStart, .properties)
        summary.fileBytes = position + UInt64(TableFormat.footerBytes)
        let footer = TableFooter(
            topIndex: topIndex, properties: properties, fileBytes: summary.fileBytes, version: options.formatVersion)
        unsafe output.append(footer.encode())
        try flushOutput()
        do { try file.sync() } catch { throw .file(error) }
        return summary
    }

    // MARK: Blocks

    private var position: UInt64 { unsafe outputStart + UInt64(output.count) }

    @inline(__always)
    private func check(_ entry: EntryView) throws(EngineError) {
        guard
            unsafe entry.key.count >= keyGroupBytes && entry.key.count <= TableFormat.keyBytesMax
                && entry.value.count <= options.valueBytesMax
        else { throw sizeError(entry) }
        let previous = unsafe block.count > 0 ? block.lastKey : lastKey.bytes
        guard unsafe compareInPlace(previous, entry.key) < 0 else { throw orderError() }
    }

    @inline(never)
    private func sizeError(_ entry: EntryView) -> EngineError {
        if unsafe entry.key.count < keyGroupBytes || entry.key.count > TableFormat.keyBytesMax {
            return .invalidEntry(
                detail:
                    unsafe "\(file.path): a key of \(entry.key.count) bytes; a table takes \(keyGroupBytes) to \(TableFormat.keyBytesMax)"
            )
        }
        return .invalidEntry(
            detail:
                unsafe "\(file.path): a value of \(entry.value.count) bytes; a table takes up to \(options.valueBytesMax)"
        )
    }

    @inline(never)
    private func orderError() -> EngineError {
        .invalidEntry(
            detail:
                unsafe "\(file.path): entry \(summary.entryCount + UInt64(block.count)) has a key that is not greater than the one before"
        )
    }

    /// Puts what the keys of a map begin with into the filter, once a map and partition.
    @inline(__always)
    private func notePrefix(of key: UnsafeRawBufferPointer) {
        guard let count = unsafe mapPrefixCount(of: key), count < key.count else { return }
        let previous = unsafe block.count > 0 ? block.lastKey : lastKey.bytes
        // A key that begins as the one before, whose prefix is noted or is the whole key, has the same prefix.
        if unsafe count == notedPrefixBytes && previous.count >= count
            && bytesAreEqual(previous.baseAddress!, key.baseAddress!, count: count)
        {
            return
        }
        notedPrefixBytes = count
        unsafe hashes.appendInteger(Hash64.hash(UnsafeRawBufferPointer(rebasing: key[..<count])))
    }

    private func beginBlock(_ key: UnsafeRawBufferPointer) {
        if summary.entryCount == 0 { summary.smallestKey = unsafe Array(key) }
        let count = unsafe separatorCount(previous: lastKey.bytes, key: key)
        unsafe index.begin(separator: UnsafeRawBufferPointer(rebasing: key[..<count]))
        unsafe block.begin(in: output)
    }

    /// What is counted of entries that are not plain puts; the others are known by their number.
    @inline(never)
    private func noteExpiry(_ entry: EntryView) {
        blockPlainCount -= 1
        blockExpiry.add(entry)
        if entry.kind == .append && entry.expiry == .never { summary.neverExpiringCount += 1 }
        summary.countSpecial(entry)
        details?.countSpecial(entry)
    }

    /// Entries by state, and long values. The keys of a block are of one state as a rule.
    private func countDetails() {
        let count = unsafe block.count
        let first = unsafe block.key(0)
        let last = unsafe block.lastKey
        if unsafe commonPrefixCount(first, last) >= EngineLimits.keyBytesMin {
            details?.count(UInt64(count), of: unsafe stateNumber(of: first))
        } else {
            for index in 0..<count { details?.count(1, of: unsafe tableState(of: block.key(index))) }
        }
        // A value that is shorter than all of the block's is not long.
        if unsafe block.rawValueBytes < options.longValueBytes && !block.mayPoint { return }
        for index in 0..<count {
            unsafe details?.note(block.key(index), valueBytes: block.valueBytes(index, in: output))
        }
    }

    private func finishBlock() throws(EngineError) {
        let count = unsafe block.count
        if count + blockPlainCount > 0 { blockExpiry.processing = IndexFormat.neverExpires }
        summary.entryCount += UInt64(count)
        unsafe summary.rawKeyBytes += UInt64(block.keyBytes)
        unsafe summary.rawValueBytes += UInt64(block.rawValueBytes)
        summary.neverExpiringCount += UInt64(count + blockPlainCount)
        summary.dataBlockCount += 1
        if details != nil { countDetails() }
        partitionEntries += UInt32(count)
        unsafe lastKey.reset()
        unsafe lastKey.append(block.lastKey)
        let payloadBytes = unsafe block.finish(in: &output)
        if blockHotEntries > 0 { unsafe keepIfHot(blockAt: output.count - payloadBytes, entries: count) }
        let handle = unsafe try endBlock(at: output.count - payloadBytes, .data)
        unsafe block.begin(in: output)
        unsafe index.end(handle, expiry: blockExpiry)
        blockExpiry = BlockExpiry()
        blockPlainCount = 0
        let partitionBytes = unsafe position - index.firstOffset
        if unsafe index.count == options.blocksPerPartition || partitionBytes > UInt64(TableFormat.partitionBytesMax) {
            try finishPartition()
        }
    }

    private func finishPartition() throws(EngineError) {
        let filterStart = unsafe output.count
        let filterBytes = unsafe buildFilter(
            UnsafeRawPointer(hashes.base).assumingMemoryBound(to: UInt64.self), count: hashes.count / 8,
            bitsPerKey: options.filterBitsPerKey, into: &output)
        writeThrough(filterAt: filterStart, filterBytes)
        let filter =
            filterBytes == 0 ? BlockHandle(offset: position) : try endBlock(at: filterStart, .filter)
        let indexStart = unsafe output.count
        unsafe index.encode(into: &output)
        writeThrough(indexAt: indexStart)
        let indexHandle = try endBlock(at: indexStart, .index)
        unsafe top.add(
            separator: index.firstSeparator,
            row: TopIndexRow(index: indexHandle, filter: filter, entryCount: partitionEntries))
        writeThroughHotBlocks()
        unsafe index.reset()
        unsafe hashes.reset()
        partitionEntries = 0
        partitionCount += 1
        notedPrefixBytes = 0
    }

    // MARK: Write-through: a copy of what stands in the output from `start` on, for the cache.

    private func writeThrough(filterAt start: Int, _ byteCount: Int) {
        guard let cache, byteCount > 0 else { return }
        let filter = unsafe UnsafeRawBufferPointer(rebasing: output.bytes[start..<(start + byteCount)])
        let place = TableSlots.writtenFilter(partitionCount)
        let size = CacheFrame.headerBytes + byteCount
        let offset = outputStart + UInt64(start)
        cache.writeThrough(file: number, slot: place, offset: offset, byteCount: size) { frame in
            unsafe FilterPartition.load(filter, into: frame) == nil ? FilterPartition.word(frame) : nil
        }
    }

    private func writeThrough(indexAt start: Int) {
        guard let cache else { return }
        let index = unsafe UnsafeRawBufferPointer(rebasing: output.bytes[start...])
        guard case .success(let size) = unsafe IndexPartition.frameBytes(index) else { return }
        let place = TableSlots.writtenIndex(partitionCount)
        let offset = outputStart + UInt64(start)
        cache.writeThrough(file: number, slot: place, offset: offset, byteCount: size) { frame in
            unsafe IndexPartition.load(index, limit: offset, into: frame) == nil ? frame.bits : nil
        }
    }

    /// Copies the block for the cache, when enough of it was there before and there is room.
    @inline(never)
    private func keepIfHot(blockAt start: Int, entries: Int) {
        hotEntriesLeft += blockHotEntries
        let isHot = blockHotEntries * TableWriter.hotShare >= entries && hotEntriesLeft >= entries
        blockHotEntries = 0
        guard isHot, let cache else { return }
        let payload = unsafe UnsafeRawBufferPointer(rebasing: output.bytes[start...])
        guard case .success(let layout) = unsafe DataLayout.parse(payload),
            let frame = cache.allocate(byteCount: CacheFrame.headerBytes + payload.count)
        else { return }
        unsafe frame.payload.copyMemory(from: payload.baseAddress!, byteCount: payload.count)
        frame.setLayout(layout)
        hotEntriesLeft -= entries
        unsafe hotBlocks.append(HotBlock(number: index.count, offset: outputStart + UInt64(start), frame: frame))
    }

    private func writeThroughHotBlocks() {
        guard let cache else { return }
        for block in hotBlocks {
            let place = unsafe WrittenBlocks.DataPlace(
                partition: partitionCount, blockCount: index.count, block: block.number)
            cache.writeThrough(file: number, block: place, offset: block.offset, frame: block.frame)
        }
        hotBlocks.removeAll(keepingCapacity: true)
    }

    // MARK: Output

    /// Makes a block of what stands in the output from `start` on.
    private func endBlock(at start: Int, _ type: TableBlockType) throws(EngineError) -> BlockHandle {
        let payload = unsafe UnsafeRawBufferPointer(rebasing: output.bytes[start...])
        let handle = BlockHandle(offset: outputStart + UInt64(start), payloadBytes: UInt32(payload.count))
        let checksum = unsafe TableFormat.checksum(payload: payload, type: type, offset: handle.offset)
        unsafe output.append(type.rawValue)
        unsafe output.appendInteger(checksum)
        if unsafe output.count >= TableWriter.appendBytes { try flushOutput() }
        return handle
    }

    private func flushOutput() throws(EngineError) {
        do { unsafe try file.append(output.bytes) } catch { throw .file(error) }
        unsafe outputStart += UInt64(output.count)
        unsafe charge.change(to: output.capacity + hashes.capacity + top.byteCount)
        unsafe output.reset()
        if outputStart - writebackStart >= TableWriter.writebackBytes {
            file.startWriteback()
            writebackStart = outputStart
        }
    }
}
