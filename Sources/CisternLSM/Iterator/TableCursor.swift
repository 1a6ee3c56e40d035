// Walks a table in key order, within a window of key groups when one is given. Owned by one thread.

internal import CisternFileSystem
package import CisternPrimitives

@safe package final class TableCursor {
    /// What a streaming cursor reads at once, at least one block.
    private static let streamBytes = 1 << 20

    private(set) var reader: TableReader
    private let policy: CachePolicy
    private let cacheReader: CacheReader
    // Unchecked: one owner, and nobody is called while they change.
    /// First key of the window, empty: none.
    @exclusivity(unchecked) private var start = GrowingBuffer()
    /// Where the window or the range ends, whichever is first; empty: nowhere.
    @exclusivity(unchecked) private var end = GrowingBuffer()
    /// Where heads of keys begin, for a merge.
    private var headOffset = 0
    private var partition = 0
    private var indexHold: BlockHold?
    private var index: IndexPartition?
    private var blockNumber = 0
    /// Blocks of the partition before the end.
    private var blockEnd = 0
    /// `approach` has found partition and block of a seek that follows.
    private(set) var isNear = false
    /// The block the cursor stands on: one of the cache, or one of the chunk.
    private var dataHold: BlockHold?
    private var streamed: DataBlock?
    /// Where it stands in that block. A merge steps here by itself as long as the block lasts; then it calls `nextBlock`.
    let place: UnsafeMutablePointer<BlockPlace>
    /// Raw bytes of blocks `chunkFirst ..< chunkEnd` of the partition, for streaming.
    private var chunk: BlockMemory?
    private var chunkFirst = 0
    private var chunkEnd = 0

    init(_ reader: TableReader, window: KeyGroupRange?, policy: CachePolicy, cacheReader: CacheReader) {
        self.reader = reader
        self.policy = policy
        self.cacheReader = cacheReader
        unsafe place = .allocate(capacity: 1)
        unsafe place.initialize(to: BlockPlace())
        clip(window)
    }

    deinit {
        indexHold?.release()
        dataHold?.release()
        unsafe place.deinitialize(count: 1)
        unsafe place.deallocate()
    }

    /// Goes over to another table, not positioned there yet.
    /// - Parameters:
    ///   - newEnd: keys at or behind it are not shown; empty: no end.
    ///   - newHeadOffset: bytes that all keys shown begin with.
    func retarget(
        _ newReader: TableReader, window: KeyGroupRange?, end newEnd: UnsafeRawBufferPointer,
        headOffset newHeadOffset: Int
    ) {
        letGo()
        reader = newReader
        headOffset = newHeadOffset
        clip(window)
        if unsafe newEnd.count > 0 && (end.count == 0 || compareBytes(newEnd, end.bytes) < 0) {
            unsafe end.reset()
            unsafe end.append(newEnd)
        }
    }

    private func clip(_ window: KeyGroupRange?) {
        unsafe start.reset()
        unsafe end.reset()
        guard let window else { return }
        unsafe start.append(firstKey(ofGroup: window.first))
        if window.last < .max { unsafe end.append(firstKey(ofGroup: window.last + 1)) }
    }

    /// Lets go of the blocks it stands on; not positioned any more.
    func letGo() {
        leave()
        indexHold?.release()
        indexHold = nil
        index = nil
        dataHold?.release()
        dataHold = nil
        isNear = false
        if streamed != nil { streamed = nil }
        if chunk != nil { chunk = nil }
    }

    package var isValid: Bool { unsafe place.pointee.isPositioned }

    /// Valid until the next move.
    /// - Precondition: the cursor is positioned.
    package var entry: EntryView {
        invariant(isValid, "the entry of a cursor that is not positioned")
        return unsafe place.pointee.entry()
    }

    package func seekToFirst() throws(EngineError) -> Bool {
        if unsafe start.count > 0 { return unsafe try seekUnclipped(start.bytes) }
        try enterPartition(0)
        return try enterBlock(0)
    }

    /// Positions on the first key at or behind `key`.
    package func seek(to target: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        unsafe try seekUnclipped(clipped(target))
    }

    /// The first half of a seek, which ends with asking for the block's lines. A merge does it for all of its sources before
    /// it comes back for the second half, so that the waits pass together.
    func approach(_ target: UnsafeRawBufferPointer) throws(EngineError) {
        let first = unsafe clipped(target)
        // A key before all separators is before the first key: the walk starts there.
        unsafe try enterPartition(reader.top.partition(for: first) ?? 0)
        guard let index else { return }
        blockNumber = unsafe index.block(for: first) ?? 0
        if policy == .fill { reader.prefetchData(partition, blockNumber) }
        isNear = true
    }

    private func clipped(_ target: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        unsafe start.count > 0 && compareBytes(target, start.bytes) < 0 ? start.bytes : target
    }

    package func next() throws(EngineError) -> Bool {
        guard isValid else { return false }
        return unsafe place.pointee.step() ? true : try nextBlock()
    }

    /// The first entry of the next block; false when the table, its window or the range ends with this one.
    func nextBlock() throws(EngineError) -> Bool {
        let goesOn = unsafe place.pointee.showsWholeBlock
        leave()
        guard goesOn, let index else { return false }
        if blockNumber + 1 < blockEnd { return try enterBlock(blockNumber + 1) }
        guard blockEnd == index.count, partition + 1 < reader.top.count else { return false }
        // A separator is not greater than the keys behind it.
        if unsafe end.count > 0 && compareInPlace(reader.top.separator(partition + 1), end.bytes) >= 0 { return false }
        try enterPartition(partition + 1)
        return try enterBlock(0)
    }

    // MARK: Steps

    private func seekUnclipped(_ target: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        if !isNear { unsafe try approach(target) }
        isNear = false
        guard let index else { return false }
        let candidate = try loadBlock(index, blockNumber)
        return unsafe try enter(candidate, at: candidate.lowerBound(target))
    }

    private func enterPartition(_ number: Int) throws(EngineError) {
        partition = number
        isNear = false
        if chunk != nil { chunk = nil }
        leave()
        index = nil
        indexHold?.release()
        indexHold = nil
        let hold = try reader.holdIndex(number, policy, cacheReader)
        indexHold = hold
        let found = IndexPartition(hold.frame)
        index = found
        blockEnd = unsafe end.count == 0 ? found.count : found.blockCount(before: end.bytes)
    }

    private func enterBlock(_ number: Int) throws(EngineError) -> Bool {
        guard let index else { return false }
        blockNumber = number
        return try enter(try loadBlock(index, number), at: 0)
    }

    /// Stands on the entry; when it is none of the block, on the one that follows.
    private func enter(_ block: DataColumns, at position: Int) throws(EngineError) -> Bool {
        let limit = unsafe end.count == 0 ? block.count : block.countBefore(end.bytes)
        unsafe place.pointee.enter(block, at: position, limit: limit, headOffset: headOffset)
        return position < limit ? true : try nextBlock()
    }

    private func leave() { unsafe place.pointee.leave() }

    // MARK: Blocks

    private func loadBlock(_ index: IndexPartition, _ number: Int) throws(EngineError) -> DataColumns {
        switch policy {
        case .fill:
            dataHold?.release()
            dataHold = nil
            let hold: BlockHold
            if let cached = reader.holdCachedData(partition, number, cacheReader) {
                hold = cached
            } else {
                hold = try reader.holdData(partition, number, index.handle(number), cacheReader)
            }
            dataHold = hold
            if number + 1 < blockEnd { reader.prefetchData(partition, number + 1) }
            return DataColumns(hold.frame)
        case .stream:
            let block = try streamBlock(index, number)
            streamed = block
            return block.columns
        }
    }

    /// Takes the block from the chunk; reads the next chunk of neighbouring blocks when it is not there.
    private func streamBlock(_ index: IndexPartition, _ number: Int) throws(EngineError) -> DataBlock {
        if chunk == nil || number < chunkFirst || number >= chunkEnd { try readChunk(index, from: number) }
        guard let chunk else { preconditionFailure("a chunk was just read") }
        let handle = index.handle(number)
        let start = Int(handle.offset - index.handle(chunkFirst).offset)
        unsafe try TableReader.checkBlock(chunk.bytes.baseAddress! + start, handle, .data, path: reader.path)
        return try reader.parseDataBlock(chunk, at: start, handle)
    }

    private func readChunk(_ index: IndexPartition, from first: Int) throws(EngineError) {
        let start = index.handle(first).offset
        var end = first + 1
        while end < index.count, index.handle(end).end - start <= UInt64(TableCursor.streamBytes) { end += 1 }
        let memory = BlockMemory(byteCount: Int(index.handle(end - 1).end - start))
        do { unsafe try reader.file.read(at: start, into: memory.bytes) } catch { throw .file(error) }
        chunk = memory
        chunkFirst = first
        chunkEnd = end
    }
}
