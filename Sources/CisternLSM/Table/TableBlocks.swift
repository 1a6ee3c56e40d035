// Blocks of a table: found in the cache, or read, checked, laid out and put there.

internal import CisternFileSystem
internal import CisternPrimitives

extension TableReader {
    /// True when the block is in the cache and was read there lately.
    /// - Parameter reader: of the calling thread, outside of an epoch.
    func isHot(_ partition: Int, _ block: Int, _ reader: CacheReader) -> Bool {
        guard let slot = unsafe slots.dataIfMade(partition, block) else { return false }
        reader.enter()
        defer { reader.leave() }
        let word = unsafe loadSlot(slot)
        return word != 0 && CacheFrame(bits: word).recentReads > 0
    }

    // MARK: Holding: the block stays until the hold is released. Not inside an epoch, because the disk may be waited for.

    /// nil when the partition has no filter.
    func holdFilter(_ partition: Int, _ reader: CacheReader) throws(EngineError) -> BlockHold? {
        let slot = unsafe slots.filter(partition)
        while true {
            reader.enter()
            let word = unsafe loadSlot(slot)
            if word == TableSlots.noFilter {
                reader.leave()
                return nil
            }
            if let hold = pin(word, reader) { return hold }
            let handle = top.row(partition).filter
            let block = try TableReader.readBlock(file, handle, .filter)
            let size = CacheFrame.headerBytes + block.payloadBytes
            let (frame, isCached) = makeFrame(size, .fill)
            if let fault = unsafe FilterPartition.load(block.slice(0, block.payloadBytes), into: frame) {
                discard(frame, isCached)
                throw tableCorruption(file.path, handle.offset, fault.detail)
            }
            let word2 = FilterPartition.word(frame)
            if let hold = unsafe publish(frame, isCached, word2, slot, handle, isMetadata: true) { return hold }
        }
    }

    func holdIndex(_ partition: Int, _ policy: CachePolicy, _ reader: CacheReader) throws(EngineError) -> BlockHold {
        let slot = unsafe slots.index(partition)
        while true {
            reader.enter()
            if let hold = unsafe pin(loadSlot(slot), reader) { return hold }
            let handle = top.row(partition).index
            let block = try TableReader.readBlock(file, handle, .index)
            let payload = unsafe block.slice(0, block.payloadBytes)
            let size: Int
            switch unsafe IndexPartition.frameBytes(payload) {
            case .success(let bytes): size = bytes
            case .failure(let fault): throw tableCorruption(file.path, handle.offset, fault.detail)
            }
            let (frame, isCached) = makeFrame(size, policy)
            if let fault = unsafe IndexPartition.load(payload, limit: handle.offset, into: frame) {
                discard(frame, isCached)
                throw tableCorruption(file.path, handle.offset, fault.detail)
            }
            guard slots.prepareData(partition, blockCount: IndexPartition(frame).count) else {
                discard(frame, isCached)
                throw tableCorruption(file.path, handle.offset, "partition \(partition) changed its number of blocks")
            }
            if let hold = unsafe publish(frame, isCached, frame.bits, slot, handle, isMetadata: true) { return hold }
        }
    }

    /// - Precondition: the caller holds the partition's index, which says `handle`.
    func holdData(_ partition: Int, _ number: Int, _ handle: BlockHandle, _ reader: CacheReader) throws(EngineError)
        -> BlockHold
    {
        while true {
            if let hold = try holdDataOnce(partition, number, handle, reader, unless: { _ in false }) {
                return hold
            }
        }
    }

    /// The same for a look-up of one key. A block that a filter sent here for nothing is not kept: it would take the place of one
    /// that is of use, and the memory of a cache that is not full yet has to be made by the system first. Unless the
    /// filter does so again soon, as when the same key is asked for.
    /// - Returns: nil when the block does not have the key and was not in memory.
    func holdData(
        _ partition: Int, _ number: Int, _ handle: BlockHandle, _ reader: CacheReader, for key: UnsafeRawBufferPointer,
        hash: UInt64
    ) throws(EngineError) -> BlockHold? {
        var isUseless = false
        while !isUseless {
            let hold = try holdDataOnce(partition, number, handle, reader) { columns in
                isUseless =
                    unsafe columns.find(key, hash: hash) == nil
                    && !reader.wasUselessBefore(file: self.number, offset: handle.offset)
                return isUseless
            }
            if let hold { return hold }
        }
        return nil
    }

    /// nil when another thread has published the block meanwhile, or when `isUseless` says so of what was read.
    private func holdDataOnce(
        _ partition: Int, _ number: Int, _ handle: BlockHandle, _ reader: CacheReader,
        unless isUseless: (DataColumns) -> Bool
    ) throws(EngineError) -> BlockHold? {
        let slot = unsafe slots.data(partition, number)
        reader.enter()
        if let hold = unsafe pin(loadSlot(slot), reader) { return hold }
        // Read to where it stays.
        let (frame, isCached) = makeFrame(
            CacheFrame.headerBytes + Int(handle.payloadBytes) + TableFormat.trailerBytes, .fill)
        do throws(EngineError) { try loadData(handle, into: frame) } catch {
            discard(frame, isCached)
            throw error
        }
        if isUseless(DataColumns(frame)) {
            discard(frame, isCached)
            return nil
        }
        let shown = DataColumns.word(frame)
        return unsafe publish(frame, isCached, shown, slot, handle, isMetadata: false)
    }

    /// The same when the block is in memory, which a walk asks first.
    /// - Precondition: the caller holds the partition's index.
    @inline(__always)
    func holdCachedData(_ partition: Int, _ number: Int, _ reader: CacheReader) -> BlockHold? {
        reader.enter()
        let word = unsafe loadSlot(slots.data(partition, number))
        if word == 0 {
            reader.leave()
            return nil
        }
        return hold(word, reader)
    }

    /// Asks for the lines that a walk reads first when it comes to the block. A frame that leaves the cache meanwhile is still
    /// memory, and nothing of it is looked at.
    /// - Precondition: as above.
    @inline(__always)
    func prefetchData(_ partition: Int, _ number: Int) {
        let word = unsafe loadSlot(slots.data(partition, number))
        if word != 0 { DataColumns.prefetchWalk(word: word) }
    }

    /// The same for the partition where a walk from `key` on begins.
    /// - Parameter hash: what its filter will be asked for.
    @inline(__always)
    func prefetchPartition(_ key: UnsafeRawBufferPointer, hash: UInt64) {
        let partition = unsafe top.partition(for: key) ?? 0
        let filter = unsafe loadSlot(slots.filter(partition))
        if filter != 0 { FilterPartition.prefetch(word: filter, hash: hash) }
        let index = unsafe loadSlot(slots.index(partition))
        if index != 0 { IndexPartition.prefetch(word: index) }
    }

    private func loadData(_ handle: BlockHandle, into frame: CacheFrame) throws(EngineError) {
        let size = Int(handle.payloadBytes)
        let bytes = unsafe UnsafeMutableRawBufferPointer(
            start: frame.payload, count: size + TableFormat.trailerBytes)
        do { unsafe try file.read(at: handle.offset, into: bytes) } catch { throw .file(error) }
        unsafe try TableReader.checkBlock(frame.payload, handle, .data, path: file.path)
        switch unsafe DataLayout.parse(UnsafeRawBufferPointer(rebasing: bytes[..<size])) {
        case .success(let layout): frame.setLayout(layout)
        case .failure(let fault): throw tableCorruption(file.path, handle.offset, fault.detail)
        }
    }

    /// Ends the epoch the caller has entered.
    private func pin(_ word: UInt, _ reader: CacheReader) -> BlockHold? {
        if word == 0 {
            reader.leave()
            reader.countMiss()
            return nil
        }
        return hold(word, reader)
    }

    /// Holds what a slot's word says. Ends the epoch the caller has entered.
    @inline(__always)
    private func hold(_ word: UInt, _ reader: CacheReader) -> BlockHold {
        let frame = CacheFrame(bits: word)
        frame.pin()
        frame.touch()
        reader.leave()
        reader.countHit()
        return BlockHold(pinned: frame)
    }

    private func makeFrame(_ byteCount: Int, _ policy: CachePolicy) -> (CacheFrame, isCached: Bool) {
        if policy == .fill, let frame = cache.allocate(byteCount: byteCount) { return (frame, true) }
        return (CacheFrame.allocate(byteCount: byteCount), false)
    }

    private func discard(_ frame: CacheFrame, _ isCached: Bool) {
        if isCached { cache.giveBack(frame) } else { frame.deallocate() }
    }

    /// nil when another thread has published the block meanwhile.
    private func publish(
        _ frame: CacheFrame, _ isCached: Bool, _ word: UInt, _ slot: BlockSlot, _ handle: BlockHandle, isMetadata: Bool
    ) -> BlockHold? {
        if !isCached { return BlockHold(private: frame) }
        frame.pin()
        let key = BlockKey(file: number, offset: handle.offset)
        if unsafe cache.publish(frame, word: word, slot: slot, key: key, isMetadata: isMetadata) {
            return BlockHold(pinned: frame)
        }
        frame.unpin()
        cache.giveBack(frame)
        return nil
    }

    // MARK: Around the cache

    /// A data block in memory of its own.
    func dataBlock(_ handle: BlockHandle) throws(EngineError) -> DataBlock {
        let memory = try TableReader.readBlock(file, handle, .data)
        return try parseDataBlock(memory, at: 0, handle)
    }

    func parseDataBlock(_ memory: BlockMemory, at start: Int, _ handle: BlockHandle) throws(EngineError) -> DataBlock {
        switch unsafe DataLayout.parse(memory.slice(start, Int(handle.payloadBytes))) {
        case .success(let layout): return DataBlock(memory: memory, offset: start, layout: layout)
        case .failure(let fault): throw tableCorruption(file.path, handle.offset, fault.detail)
        }
    }

    // MARK: Bytes

    static func readBytes(_ file: any RandomReadFile, at offset: UInt64, count: Int) throws(EngineError)
        -> BlockMemory
    {
        let memory = BlockMemory(byteCount: count)
        do { unsafe try file.read(at: offset, into: memory.bytes) } catch { throw .file(error) }
        return memory
    }

    /// A block whose checksum holds: payload, then the trailer.
    static func readBlock(_ file: any RandomReadFile, _ handle: BlockHandle, _ type: TableBlockType)
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

/// A data block that was read around the cache. Shares the memory it lies in.
// Unchecked: immutable after init, and so is the memory it points into.
@safe final class DataBlock: @unchecked Sendable {
    /// Valid as long as the block lives.
    let columns: DataColumns
    private let memory: BlockMemory

    /// - Precondition: `layout` was parsed from the payload that starts at `offset` of `memory`.
    init(memory: BlockMemory, offset: Int, layout: DataLayout) {
        self.memory = memory
        columns = unsafe DataColumns(base: UnsafeRawPointer(memory.bytes.baseAddress! + offset), layout: layout)
    }
}
