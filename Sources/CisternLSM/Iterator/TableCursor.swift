// Walks a table in key order, within a window of key groups when one is given. Owned by one thread.

internal import CisternFileSystem
package import CisternPrimitives

package final class TableCursor {
    /// What a streaming cursor reads at once, at least one block.
    private static let streamBytes = 1 << 20

    private(set) var reader: TableReader
    private var window: KeyGroupRange?
    private let policy: CachePolicy
    private let cacheReader: CacheReader
    private var partition = 0
    private var indexHold: BlockHold?
    private var index: IndexPartition?
    private var blockNumber = 0
    /// Of the block below, without entries when the cursor is not positioned.
    private var columns = DataColumns.none
    /// The block the cursor stands on: one of the cache, or one of the chunk.
    private var dataHold: BlockHold?
    private var streamed: DataBlock?
    private var position = 0
    /// Where the cursor stands.
    private var current = EntryView.none
    /// The block's prefix, then the current suffix: the key in one piece.
    @exclusivity(unchecked) private var key = GrowingBuffer(capacity: 256)
    /// Raw bytes of blocks `chunkFirst ..< chunkEnd` of the partition, for streaming.
    private var chunk: BlockMemory?
    private var chunkFirst = 0
    private var chunkEnd = 0

    init(_ reader: TableReader, window: KeyGroupRange?, policy: CachePolicy, cacheReader: CacheReader) {
        self.reader = reader
        self.window = window
        self.policy = policy
        self.cacheReader = cacheReader
    }

    deinit {
        indexHold?.release()
        dataHold?.release()
    }

    /// Goes over to another table, not positioned there yet.
    func retarget(_ newReader: TableReader, window newWindow: KeyGroupRange?) {
        letGo()
        reader = newReader
        window = newWindow
    }

    /// Lets go of the blocks it stands on; not positioned any more.
    func letGo() {
        leave()
        indexHold?.release()
        indexHold = nil
        index = nil
        dataHold?.release()
        dataHold = nil
        streamed = nil
        chunk = nil
    }

    package var isValid: Bool { columns.count > 0 }

    /// Valid until the next move.
    /// - Precondition: the cursor is positioned.
    package var entry: EntryView {
        invariant(isValid, "the entry of a cursor that is not positioned")
        return current
    }

    /// The same without the check.
    @inline(__always)
    var uncheckedEntry: EntryView { current }

    package func seekToFirst() throws(EngineError) -> Bool {
        if let window { return try seekInside(BlockMemory(copying: firstKey(ofGroup: window.first))) }
        try enterPartition(0)
        return try enterBlock(0, position: 0)
    }

    /// Positions on the first key at or behind `key`.
    package func seek(to target: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        if let window {
            let start = BlockMemory(copying: firstKey(ofGroup: window.first))
            if unsafe compareBytes(target, UnsafeRawBufferPointer(start.bytes)) < 0 { return try seekInside(start) }
        }
        return unsafe try seekUnclipped(target)
    }

    package func next() throws(EngineError) -> Bool {
        if step() { return true }
        guard isValid else { return false }
        if position + 1 < columns.count {
            // The next entry lies behind the window.
            leave()
            return false
        }
        return try enterNextBlock()
    }

    /// The next entry of the same block. False: not moved; there is none in the block, or it lies behind the window.
    @inline(__always)
    func step() -> Bool { position &+ 1 < columns.count && show(position &+ 1) }

    private func seekInside(_ start: BlockMemory) throws(EngineError) -> Bool {
        unsafe try seekUnclipped(UnsafeRawBufferPointer(start.bytes))
    }

    private func seekUnclipped(_ target: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        leave()
        // A key before all separators is before the first key: the walk starts there.
        unsafe try enterPartition(reader.top.partition(for: target) ?? 0)
        guard let index else { return false }
        blockNumber = unsafe index.block(for: target) ?? 0
        let candidate = try loadBlock(index, blockNumber)
        let found = unsafe candidate.lowerBound(target)
        if found == candidate.count { return try enterNextBlock() }
        return enter(candidate, at: found)
    }

    // MARK: Steps

    private func enterPartition(_ number: Int) throws(EngineError) {
        partition = number
        chunk = nil
        leave()
        index = nil
        indexHold?.release()
        indexHold = nil
        let hold = try reader.holdIndex(number, policy, cacheReader)
        indexHold = hold
        index = IndexPartition(hold.frame)
    }

    private func enterNextBlock() throws(EngineError) -> Bool {
        leave()
        guard let index else { return false }
        if blockNumber + 1 < index.count { return try enterBlock(blockNumber + 1, position: 0) }
        if partition + 1 >= reader.top.count { return false }
        try enterPartition(partition + 1)
        return try enterBlock(0, position: 0)
    }

    private func enterBlock(_ number: Int, position: Int) throws(EngineError) -> Bool {
        guard let index else { return false }
        blockNumber = number
        return enter(try loadBlock(index, number), at: position)
    }

    private func enter(_ block: DataColumns, at newPosition: Int) -> Bool {
        columns = block
        unsafe key.reset()
        unsafe key.append(block.prefix)
        if show(newPosition) { return true }
        leave()
        return false
    }

    private func leave() {
        columns = .none
        position = 0
        current = .none
    }

    /// Moves to an entry of the block; false, and not moved, when it lies behind the window.
    @inline(__always)
    private func show(_ newPosition: Int) -> Bool {
        unsafe key.truncate(to: columns.prefix.count)
        unsafe key.append(columns.suffix(newPosition))
        let bytes = unsafe key.bytes
        if let window, unsafe bytes.count < keyGroupBytes || keyGroup(of: bytes) > window.last { return false }
        position = newPosition
        current = unsafe columns.entry(newPosition, key: bytes)
        return true
    }

    // MARK: Blocks

    private func loadBlock(_ index: IndexPartition, _ number: Int) throws(EngineError) -> DataColumns {
        switch policy {
        case .fill:
            dataHold?.release()
            dataHold = nil
            let hold = try reader.holdData(partition, number, index.handle(number), cacheReader)
            dataHold = hold
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

extension EntryView {
    /// What a cursor shows that does not stand on an entry.
    static var none: EntryView {
        unsafe EntryView(
            key: UnsafeRawBufferPointer(start: nil, count: 0), kind: .delete, expiry: .never,
            value: UnsafeRawBufferPointer(start: nil, count: 0))
    }
}
