// Reads a table. Open once, share: any thread. Point reads go top index → filter partition → index partition → data block;
// the top index stays with the reader, the rest is in the block cache while it has room. The reader has the slots in which
// the cache's readers find the blocks (`TableSlots`).
//
// Nothing of the file is believed before its checksum and its structure were proven: damage anywhere is an error with file
// and offset, never wrong data, never a trap.

package import CisternFileSystem
package import CisternPrimitives

// Unchecked: everything is immutable but the slots, which are atomic.
@safe package final class TableReader: @unchecked Sendable {
    package let number: UInt64
    package let summary: TableSummary
    package var path: String { file.path }
    let file: any RandomReadFile
    let cache: BlockCache
    let top: TopIndex
    let slots: TableSlots
    private let values: ValueFiles?
    private let charge: MemoryCharge

    /// - Parameters:
    ///   - number: unique among all files that share `cache`.
    ///   - values: where entries that point to their values find them; nil when none will be read.
    /// - Throws: `corruption`, `unsupported` for another format version, or `file`.
    package static func open(
        file: any RandomReadFile, number: UInt64, cache: BlockCache, values: ValueFiles? = nil
    ) throws(EngineError) -> TableReader {
        let size = file.size
        let front = try readBytes(file, at: 0, count: Int(min(size, UInt64(TableFormat.headerBytes))))
        if unsafe front.bytes.starts(with: TableFormat.placeholderMagic) {
            throw .unsupported(
                detail:
                    "\(file.path) stands for a file that is in a snapshot store still: start the server of the directory with its "
                    + "snapshot_store, and wait until cistern_hydration_pending_files is 0")
        }
        guard size >= UInt64(TableFormat.headerBytes + TableFormat.footerBytes) else {
            throw tableCorruption(file.path, 0, "\(size) bytes are too few for a table")
        }
        let footerStart = size - UInt64(TableFormat.footerBytes)
        let tail = try readBytes(file, at: footerStart, count: TableFormat.footerBytes)
        let footer = unsafe try TableFooter.decode(UnsafeRawBufferPointer(tail.bytes), path: file.path, fileBytes: size)
        guard unsafe Array(front.bytes) == TableFormat.header(version: footer.version) else {
            throw tableCorruption(file.path, 0, "the header is not that of a table of format \(footer.version)")
        }
        let properties = try readBlock(file, footer.properties, .properties)
        guard let summary = unsafe TableSummary.decode(properties.slice(0, properties.payloadBytes), fileBytes: size)
        else {
            throw tableCorruption(file.path, footer.properties.offset, "the properties are malformed")
        }
        guard summary.formatVersion == footer.version else {
            throw tableCorruption(
                file.path, footer.properties.offset, "the properties are not those of format \(footer.version)")
        }
        let topBlock = try readBlock(file, footer.topIndex, .topIndex)
        let payload = unsafe topBlock.slice(0, topBlock.payloadBytes)
        switch unsafe TopIndex.parse(payload, limit: footer.topIndex.offset) {
        case .success(let top):
            return TableReader(file: file, number: number, cache: cache, summary: summary, top: top, values: values)
        case .failure(let fault): throw tableCorruption(file.path, footer.topIndex.offset, fault.detail)
        }
    }

    private init(
        file: any RandomReadFile, number: UInt64, cache: BlockCache, summary: TableSummary, top: TopIndex,
        values: ValueFiles?
    ) {
        self.values = values
        self.file = file
        self.number = number
        self.cache = cache
        self.summary = summary
        self.top = top
        slots = TableSlots(top, ledger: cache.ledger)
        charge = MemoryCharge(cache.ledger, .tables, top.byteCount)
        slots.adopt(file: number, from: cache)
    }

    /// The last user of the file is gone: its blocks would never be read again.
    deinit {
        slots.drop(from: cache)
        slots.deallocate()
        top.deallocate()
    }

    // MARK: Point reads

    /// What a look-up in memory came to.
    enum Probe {
        /// Nothing that ends the search: older tables must be asked.
        case passed
        /// The search is complete.
        case complete
        /// A block is not in memory; nothing was added.
        case notInMemory
    }

    /// Adds what the table holds of `key` to `result`, if all it takes is in memory.
    /// - Parameters:
    ///   - hash: `Hash64.hash(key)`.
    ///   - reader: of the calling thread, inside an epoch.
    @inline(__always)
    func probe(
        _ key: UnsafeRawBufferPointer, hash: UInt64, reader: CacheReader, into result: inout LookupResult
    ) -> Probe {
        guard let partition = unsafe top.partition(for: key) else { return .passed }
        let filter = unsafe loadSlot(slots.filter(partition))
        if filter == 0 { return .notInMemory }
        if filter != TableSlots.noFilter {
            reader.countHit()
            // The frame's header is a line of its own, which nothing else of the look-up reads: every eighth key's read counts.
            if hash & 7 == 0 { CacheFrame(bits: filter).touch() }
            if !FilterPartition(word: filter).mayContain(hash) { return .passed }
        }
        return unsafe probeBehindFilter(key, hash, partition, reader, &result)
    }

    /// The partition that may hold `key` and the word of its filter's slot; nil when the key lies before the table.
    @inline(__always)
    func filterWord(_ key: UnsafeRawBufferPointer) -> (partition: Int, word: UInt)? {
        guard let partition = unsafe top.partition(for: key) else { return nil }
        return (partition, unsafe loadSlot(slots.filter(partition)))
    }

    private func probeBehindFilter(
        _ key: UnsafeRawBufferPointer, _ hash: UInt64, _ partition: Int, _ reader: CacheReader,
        _ result: inout LookupResult
    ) -> Probe {
        let indexWord = unsafe loadSlot(slots.index(partition))
        if indexWord == 0 { return .notInMemory }
        reader.countHit()
        let indexFrame = CacheFrame(bits: indexWord)
        indexFrame.touch()
        guard let number = unsafe IndexPartition(indexFrame).block(for: key) else { return .passed }
        let dataWord = unsafe loadSlot(slots.data(partition, number))
        if dataWord == 0 { return .notInMemory }
        DataColumns.prefetch(word: dataWord)
        reader.countHit()
        let frame = CacheFrame(bits: dataWord)
        frame.touch()
        let columns = DataColumns(frame)
        guard let found = unsafe columns.find(key, hash: hash) else { return .passed }
        let entry = unsafe columns.entry(found, key: key)
        if entry.isPointer { return .notInMemory }
        return result.add(entry) ? .complete : .passed
    }

    /// The same, reading what is not in memory. It leaves the epoch for the disk, and enters another one.
    /// - Returns: true when the search is complete.
    @inline(never)
    func getLoading(
        _ key: UnsafeRawBufferPointer, hash: UInt64, reader: CacheReader, into result: inout LookupResult
    ) throws(EngineError) -> Bool {
        guard let partition = unsafe top.partition(for: key) else { return false }
        reader.leave()
        defer { reader.enter() }
        if let filter = try holdFilter(partition, reader) {
            defer { filter.release() }
            if !FilterPartition(filter.frame).mayContain(hash) { return false }
        }
        let indexHold = try holdIndex(partition, .fill, reader)
        defer { indexHold.release() }
        let index = IndexPartition(indexHold.frame)
        guard let number = unsafe index.block(for: key) else { return false }
        let handle = index.handle(number)
        guard let hold = unsafe try holdData(partition, number, handle, reader, for: key, hash: hash) else {
            return false
        }
        defer { hold.release() }
        let columns = DataColumns(hold.frame)
        guard let found = unsafe columns.find(key, hash: hash) else { return false }
        let entry = unsafe columns.entry(found, key: key)
        if entry.isPointer {
            try result.add(entry, hash: hash, of: self)
            return true
        }
        return result.add(entry)
    }

    /// Where the values lie that entries of the table point to.
    func valueFiles() throws(EngineError) -> ValueFiles {
        guard let values else {
            throw .unsupported(detail: "\(path) has values in value files, and was opened without them")
        }
        return values
    }

    /// A look-up of its own, for callers that do few.
    /// - Parameter reader: of the calling thread; nil: one for this look-up.
    package func get(
        _ key: UnsafeRawBufferPointer, hash: UInt64, reader: CacheReader? = nil, into result: inout LookupResult
    ) throws(EngineError) -> Bool {
        let reader = reader ?? CacheReader(cache)
        reader.enter()
        defer { reader.leave() }
        return unsafe try getLoading(key, hash: hash, reader: reader, into: &result)
    }

    /// False when `key` is certainly not here.
    package func mayContain(_ key: UnsafeRawBufferPointer, hash: UInt64) throws(EngineError) -> Bool {
        guard let partition = unsafe top.partition(for: key) else { return false }
        guard let filter = try holdFilter(partition, CacheReader(cache)) else { return true }
        defer { filter.release() }
        return FilterPartition(filter.frame).mayContain(hash)
    }

    /// Not positioned yet.
    /// - Parameters:
    ///   - window: shows only keys of these key groups.
    ///   - policy: `.fill` for reads that may come again, `.stream` for a pass over the whole table.
    ///   - reader: of the thread that owns the cursor; nil: the cursor makes its own.
    package func cursor(
        window: KeyGroupRange? = nil, policy: CachePolicy = .fill, reader: CacheReader? = nil
    ) -> TableCursor {
        TableCursor(self, window: window, policy: policy, cacheReader: reader ?? CacheReader(cache))
    }
}

/// What reading a block does to the cache.
package enum CachePolicy: Sendable {
    /// Look there first, keep what was read.
    case fill
    /// Read data around the cache, in large pieces: for compaction and other passes that do not come back.
    case stream
}
