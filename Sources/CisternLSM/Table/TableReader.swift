// Reads a table. Open once, share: immutable, any thread. Point reads go top index → filter partition → index partition →
// data block; the top index stays with the reader, the rest comes through the block cache.
//
// Nothing of the file is believed before its checksum and its structure were proven: damage anywhere is an error with file
// and offset, never wrong data, never a trap.

package import CisternFileSystem
package import CisternPrimitives

package final class TableReader: Sendable {
    package let number: UInt64
    package let summary: TableSummary
    package var path: String { file.path }
    let file: any RandomReadFile
    let cache: BlockCache
    let top: TopIndex

    /// - Parameter number: unique among all files that share `cache`.
    /// - Throws: `corruption`, `unsupported` for another format version, or `file`.
    package static func open(file: any RandomReadFile, number: UInt64, cache: BlockCache) throws(EngineError)
        -> TableReader
    {
        let size = file.size
        guard size >= UInt64(TableFormat.headerBytes + TableFormat.footerBytes) else {
            throw tableCorruption(file.path, 0, "\(size) bytes are too few for a table")
        }
        let header = try readBytes(file, at: 0, count: TableFormat.headerBytes)
        let footerStart = size - UInt64(TableFormat.footerBytes)
        let tail = try readBytes(file, at: footerStart, count: TableFormat.footerBytes)
        let footer = unsafe try TableFooter.decode(UnsafeRawBufferPointer(tail.bytes), path: file.path, fileBytes: size)
        guard unsafe Array(header.bytes) == TableFormat.header() else {
            throw tableCorruption(file.path, 0, "the header is not that of a table of format \(TableFormat.version)")
        }
        let propertiesMemory = try readBlock(file, footer.properties, .properties)
        let propertiesBytes = unsafe propertiesMemory.slice(0, Int(footer.properties.payloadBytes))
        guard let summary = unsafe TableSummary.decode(propertiesBytes, fileBytes: size) else {
            throw tableCorruption(file.path, footer.properties.offset, "the properties are malformed")
        }
        let topMemory = try readBlock(file, footer.topIndex, .topIndex)
        let parsed = TopIndex.parse(
            memory: topMemory, payloadBytes: Int(footer.topIndex.payloadBytes), limit: footer.topIndex.offset)
        switch parsed {
        case .success(let top): return TableReader(file: file, number: number, cache: cache, summary: summary, top: top)
        case .failure(let fault): throw tableCorruption(file.path, footer.topIndex.offset, fault.detail)
        }
    }

    private init(file: any RandomReadFile, number: UInt64, cache: BlockCache, summary: TableSummary, top: TopIndex) {
        self.file = file
        self.number = number
        self.cache = cache
        self.summary = summary
        self.top = top
    }

    /// The last user of a file is gone, and so should its metadata be, which the cache prefers to keep.
    deinit {
        for partition in 0..<top.count {
            let row = top.row(partition)
            cache.remove(BlockKey(file: number, offset: row.index.offset))
            if row.filter.payloadBytes > 0 { cache.remove(BlockKey(file: number, offset: row.filter.offset)) }
        }
    }

    // MARK: Point reads

    /// Adds what the table holds of `key` to `result`.
    /// - Parameter hash: `Hash64.hash(key)`.
    /// - Returns: true when the search is complete: older tables need not be asked.
    package func get(_ key: UnsafeRawBufferPointer, hash: UInt64, into result: inout LookupResult) throws(EngineError)
        -> Bool
    {
        guard let partition = unsafe top.partition(for: key), try filterPasses(partition, hash) else { return false }
        let index = try indexPartition(partition, .fill)
        guard let number = unsafe index.block(for: key) else { return false }
        let block = try dataBlock(index.handle(number), .fill)
        // The block must outlive the entry, which borrows from it.
        return withExtendedLifetime(block) {
            guard let found = unsafe block.columns.find(key, hash: hash) else { return false }
            return unsafe result.add(block.columns.entry(found, key: key))
        }
    }

    /// False when `key` is certainly not here.
    package func mayContain(_ key: UnsafeRawBufferPointer, hash: UInt64) throws(EngineError) -> Bool {
        guard let partition = unsafe top.partition(for: key) else { return false }
        return try filterPasses(partition, hash)
    }

    /// Not positioned yet.
    /// - Parameters:
    ///   - window: shows only keys of these key groups.
    ///   - policy: `.fill` for reads that may come again, `.stream` for a pass over the whole table.
    package func cursor(window: KeyGroupRange? = nil, policy: CachePolicy = .fill) -> TableCursor {
        TableCursor(self, window: window, policy: policy)
    }

    private func filterPasses(_ partition: Int, _ hash: UInt64) throws(EngineError) -> Bool {
        let handle = top.row(partition).filter
        if handle.payloadBytes == 0 { return true }
        return try filterPartition(handle).mayContain(hash)
    }

    // MARK: Blocks

    func filterPartition(_ handle: BlockHandle) throws(EngineError) -> FilterPartition {
        let key = BlockKey(file: number, offset: handle.offset)
        if case .filter(let cached)? = cache.find(key) { return cached }
        let memory = try TableReader.readBlock(file, handle, .filter)
        guard let partition = FilterPartition(memory: memory, payloadBytes: Int(handle.payloadBytes)) else {
            throw tableCorruption(file.path, handle.offset, "a filter of \(handle.payloadBytes) bytes")
        }
        unsafe cache.insert(.filter(partition), for: key, byteCount: memory.bytes.count)
        return partition
    }

    func indexPartition(_ partition: Int, _ policy: CachePolicy) throws(EngineError) -> IndexPartition {
        let handle = top.row(partition).index
        let key = BlockKey(file: number, offset: handle.offset)
        if case .index(let cached)? = cache.find(key) { return cached }
        let memory = try TableReader.readBlock(file, handle, .index)
        let parsed = IndexPartition.parse(
            memory: memory, payloadBytes: Int(handle.payloadBytes), limit: handle.offset)
        switch parsed {
        case .success(let index):
            if policy == .fill { unsafe cache.insert(.index(index), for: key, byteCount: memory.bytes.count) }
            return index
        case .failure(let fault): throw tableCorruption(file.path, handle.offset, fault.detail)
        }
    }

    func dataBlock(_ handle: BlockHandle, _ policy: CachePolicy) throws(EngineError) -> DataBlock {
        let key = BlockKey(file: number, offset: handle.offset)
        if policy == .fill, case .data(let cached)? = cache.find(key) { return cached }
        let memory = try TableReader.readBlock(file, handle, .data)
        let block = try parseDataBlock(memory, at: 0, handle)
        if policy == .fill { unsafe cache.insert(.data(block), for: key, byteCount: memory.bytes.count) }
        return block
    }

    func parseDataBlock(_ memory: BlockMemory, at start: Int, _ handle: BlockHandle) throws(EngineError) -> DataBlock {
        switch unsafe DataLayout.parse(memory.slice(start, Int(handle.payloadBytes))) {
        case .success(let layout): return DataBlock(memory: memory, offset: start, layout: layout)
        case .failure(let fault): throw tableCorruption(file.path, handle.offset, fault.detail)
        }
    }

    // MARK: Bytes

    private static func readBytes(_ file: any RandomReadFile, at offset: UInt64, count: Int) throws(EngineError)
        -> BlockMemory
    {
        let memory = BlockMemory(byteCount: count)
        do { unsafe try file.read(at: offset, into: memory.bytes) } catch { throw .file(error) }
        return memory
    }

    /// A block whose checksum holds: payload, then the trailer.
    private static func readBlock(_ file: any RandomReadFile, _ handle: BlockHandle, _ type: TableBlockType)
        throws(EngineError) -> BlockMemory
    {
        let memory = try readBytes(
            file, at: handle.offset, count: Int(handle.payloadBytes) + TableFormat.trailerBytes)
        unsafe try checkBlock(memory.bytes.baseAddress!, handle, type, path: file.path)
        return memory
    }

    /// Proves that the payload at `start`, with its trailer behind it, is the block that was written.
    static func checkBlock(
        _ start: UnsafeRawPointer, _ handle: BlockHandle, _ type: TableBlockType, path: String
    ) throws(EngineError) {
        let size = Int(handle.payloadBytes)
        let payload = unsafe UnsafeRawBufferPointer(start: start, count: size)
        let found = unsafe start.load(fromByteOffset: size, as: UInt8.self)
        let raw = unsafe start.loadUnaligned(fromByteOffset: size + 1, as: UInt32.self)
        let recorded = UInt32(littleEndian: raw)
        guard found == type.rawValue else {
            throw tableCorruption(path, handle.offset, "a \(type.name) is expected, its type byte is \(found)")
        }
        let computed = unsafe TableFormat.checksum(payload: payload, type: type, offset: handle.offset)
        guard computed == recorded else {
            throw tableCorruption(
                path, handle.offset,
                "the checksum of a \(type.name) of \(size) bytes is \(computed), recorded is \(recorded)")
        }
    }
}

/// What reading a block does to the cache.
package enum CachePolicy: Sendable {
    /// Look there first, keep what was read.
    case fill
    /// Read data around the cache, in large pieces: for compaction and other passes that do not come back.
    case stream
}
