// One input of a compaction: tables that do not overlap, read from front to back, a block at a time. A block is checked, and
// its columns are laid out for the merge: keys in one piece, starts of keys and values as numbers of one width. Bytes are read
// in pieces of `chunkBytes` into memory that is used again, around the block cache.
//
// Owned by one thread. Nothing of a block is used before its checksum and its structure were proven.

internal import CisternFileSystem
internal import CisternPrimitives

/// The entries of one block, borrowed from the reader that decoded it, until it decodes the next.
@safe struct BlockRows {
    var position = 0
    var count = 0
    /// Row i has its key in `keyStarts[i] ..< keyStarts[i + 1]` of `keys`; the same for values.
    fileprivate(set) var keys: UnsafeRawPointer
    fileprivate(set) var keyStarts: UnsafePointer<UInt32>
    fileprivate(set) var values: UnsafeRawPointer
    fileprivate(set) var valueStarts: UnsafePointer<UInt32>
    /// Absent when all are puts; when none expires.
    fileprivate(set) var kinds: UnsafeRawPointer?
    fileprivate(set) var expiries: UnsafeRawPointer?
    /// The block is in the cache, and reads have found it there.
    fileprivate(set) var isHot = false

    // Row access is unchecked: `position` is below `count`, and the starts were made from columns that were proven to fit.

    @inline(__always)
    var key: UnsafeRawBufferPointer {
        let start = unsafe Int(keyStarts[position])
        return unsafe UnsafeRawBufferPointer(start: keys + start, count: Int(keyStarts[position &+ 1]) &- start)
    }

    @inline(__always)
    var entry: EntryView {
        let start = unsafe Int(valueStarts[position])
        let value = unsafe UnsafeRawBufferPointer(
            start: values + start, count: Int(valueStarts[position &+ 1]) &- start)
        var (kind, isPointer) = (EntryKind.put, false)
        if let kinds = unsafe kinds {
            // `DataLayout` has proven that the kind is one.
            (kind, isPointer) = unsafe DataBlockFormat.kind(kinds.load(fromByteOffset: position, as: UInt8.self))
        }
        var expiry = Expiry.never
        if let expiries = unsafe expiries {
            let raw = unsafe expiries.loadUnaligned(fromByteOffset: position &* 8, as: UInt64.self)
            expiry = Expiry(rawValue: UInt64(littleEndian: raw))
        }
        return unsafe EntryView(key: key, kind: kind, isPointer: isPointer, expiry: expiry, value: value)
    }
}

@safe final class RunReader {
    /// Read at once, at least one block. Half a megabyte stays in the processor's cache until it is copied out.
    private static let chunkBytes = 512 << 10
    /// What the keys of a block add up to, prefix repeated. A writer cuts a block at `blockSizeBytes` of raw keys and values
    /// unless it has one entry.
    private static let blockKeyBytesMax = max(TableOptions.blockSizeBytesRange.upperBound, TableFormat.keyBytesMax)

    private let windows: [TableWindow]
    /// The next window to enter.
    private var nextWindow = 0
    /// The table that the last decoded block is of.
    private(set) var reader: TableReader?
    private var clip: KeyGroupRange?
    private var partition = 0
    private let cacheReader: CacheReader?
    /// Keeps what `index` borrows.
    private var indexHold: BlockHold?
    private var index: IndexPartition?
    private var blockNumber = 0

    /// Bytes of the file from `chunkStart` on.
    @exclusivity(unchecked) private var chunk = GrowingBuffer(capacity: RunReader.chunkBytes)
    private var chunkStart: UInt64 = 0
    @exclusivity(unchecked) private var keys = GrowingBuffer(capacity: 16 << 10)
    @exclusivity(unchecked) private var keyStarts = GrowingBuffer(capacity: 1024)
    @exclusivity(unchecked) private var valueStarts = GrowingBuffer(capacity: 1024)
    private var charge: MemoryCharge

    /// - Precondition: the windows are in key order and do not overlap.
    init(_ windows: [TableWindow]) {
        self.windows = windows
        cacheReader = windows.first.map { CacheReader($0.reader.cache) }
        charge = MemoryCharge(windows.first?.reader.cache.ledger ?? MemoryLedger(), .jobs, 0)
        noteMemory()
    }

    deinit { indexHold?.release() }

    /// No rows, to be filled by `nextBlock`.
    var emptyRows: BlockRows {
        unsafe BlockRows(
            keys: UnsafeRawPointer(keys.base), keyStarts: starts(of: keyStarts), values: UnsafeRawPointer(chunk.base),
            valueStarts: starts(of: valueStarts))
    }

    /// Decodes the next block that has rows within its window; the rows of the one before become invalid.
    /// - Returns: false at the end of the run.
    func nextBlock(_ rows: inout BlockRows) throws(EngineError) -> Bool {
        while true {
            guard let reader, let index, blockNumber < index.count else {
                if try enterNextPartition() { continue }
                return false
            }
            let handle = index.handle(blockNumber)
            try fetch(handle, reader, index)
            blockNumber += 1
            try decode(handle, reader, into: &rows)
            rows.isHot = cacheReader.map { reader.isHot(partition, blockNumber - 1, $0) } ?? false
            if let clip { cut(&rows, to: clip) }
            if rows.position < rows.count { return true }
        }
    }

    // MARK: Steps

    /// The next partition of the current table, or the first one of the next window's part of its table.
    private func enterNextPartition() throws(EngineError) -> Bool {
        if let reader, index != nil, partition + 1 < reader.top.count {
            partition += 1
            blockNumber = 0
            index = try take(reader, partition)
            return true
        }
        guard nextWindow < windows.count else {
            index = nil
            return false
        }
        let window = windows[nextWindow]
        nextWindow += 1
        reader = window.reader
        clip = window.clip
        unsafe chunk.reset()
        partition = 0
        blockNumber = 0
        guard let clip else {
            index = try take(window.reader, 0)
            return true
        }
        // A group before all separators is before the first key: the walk starts there.
        let start = BlockMemory(copying: firstKey(ofGroup: clip.first))
        let key = unsafe UnsafeRawBufferPointer(start.bytes)
        partition = unsafe window.reader.top.partition(for: key) ?? 0
        let entered = try take(window.reader, partition)
        blockNumber = unsafe entered.block(for: key) ?? 0
        index = entered
        withExtendedLifetime(start) {}
        return true
    }

    private func take(_ table: TableReader, _ partition: Int) throws(EngineError) -> IndexPartition {
        index = nil
        indexHold?.release()
        indexHold = nil
        let hold = try table.holdIndex(partition, .stream, cacheReader ?? CacheReader(table.cache))
        indexHold = hold
        return IndexPartition(hold.frame)
    }

    /// Takes rows outside of the window off both ends; leaves the table when its rest lies behind the window.
    private func cut(_ rows: inout BlockRows, to clip: KeyGroupRange) {
        while rows.position < rows.count, unsafe !reaches(rows.key, clip.first) { rows.position += 1 }
        let first = rows.position
        var last = rows.count
        while last > first {
            rows.position = last - 1
            if unsafe !isBehind(rows.key, clip.last) { break }
            last -= 1
        }
        rows.position = first
        if last < rows.count {
            rows.count = last
            index = nil
        }
    }

    // MARK: Bytes

    private func noteMemory() {
        unsafe charge.change(
            to: chunk.capacity + keys.capacity + keyStarts.capacity + valueStarts.capacity)
    }

    /// Brings the block into the chunk.
    private func fetch(_ handle: BlockHandle, _ reader: TableReader, _ index: IndexPartition) throws(EngineError) {
        if handle.offset >= chunkStart, unsafe handle.end <= chunkStart + UInt64(chunk.count) { return }
        var last = blockNumber
        while last + 1 < index.count, index.handle(last + 1).end - handle.offset <= UInt64(RunReader.chunkBytes) {
            last += 1
        }
        let byteCount = Int(index.handle(last).end - handle.offset)
        unsafe chunk.reset()
        chunkStart = handle.offset
        let target = unsafe UnsafeMutableRawBufferPointer(start: chunk.extend(by: byteCount), count: byteCount)
        do { unsafe try reader.file.read(at: handle.offset, into: target) } catch {
            unsafe chunk.reset()
            throw .file(error)
        }
        noteMemory()
    }

    private func decode(
        _ handle: BlockHandle, _ reader: TableReader, into rows: inout BlockRows
    ) throws(EngineError) {
        let frame = unsafe UnsafeRawPointer(chunk.base) + Int(handle.offset - chunkStart)
        unsafe try TableReader.checkBlock(frame, handle, .data, path: reader.path)
        let payload = unsafe UnsafeRawBufferPointer(start: frame, count: Int(handle.payloadBytes))
        switch unsafe DataLayout.parse(payload) {
        case .success(let layout):
            guard unsafe decodeKeys(layout, frame) else {
                throw tableCorruption(
                    reader.path, handle.offset,
                    "the keys of \(layout.count) entries are longer than a block holds, \(RunReader.blockKeyBytesMax)")
            }
            unsafe decodeValues(layout, frame)
            rows.position = 0
            rows.count = layout.count
            unsafe rows.keys = unsafe UnsafeRawPointer(keys.base)
            unsafe rows.keyStarts = unsafe starts(of: keyStarts)
            unsafe rows.values = unsafe frame
            unsafe rows.valueStarts = unsafe starts(of: valueStarts)
            unsafe rows.kinds = unsafe layout.has(DataBlockFlags.kinds) ? frame + layout.kinds : nil
            unsafe rows.expiries = unsafe layout.has(DataBlockFlags.expiries) ? frame + layout.expiries : nil
        case .failure(let fault): throw tableCorruption(reader.path, handle.offset, fault.detail)
        }
    }

    /// Puts the keys together; false when they would take more memory than a block justifies.
    private func decodeKeys(_ layout: DataLayout, _ base: UnsafeRawPointer) -> Bool {
        let count = layout.count
        let suffixBytes = layout.valueEnds - layout.suffixes
        let byteCount = suffixBytes + layout.prefixCount * count
        guard byteCount <= RunReader.blockKeyBytesMax else { return false }
        unsafe keys.reset()
        unsafe keyStarts.reset()
        var target = unsafe keys.extend(by: byteCount)
        let starts = unsafe keyStarts.extend(by: (count + 1) * 4).assumingMemoryBound(to: UInt32.self)
        let prefix = unsafe base + layout.prefix
        let prefixCount = layout.prefixCount
        var suffix = unsafe base + layout.suffixes
        let ends = unsafe base + layout.keyEnds
        let isFixed = !layout.has(DataBlockFlags.keyEnds)
        let isWide = layout.has(DataBlockFlags.wideKeyEnds)
        var size = layout.suffixSize
        var previous = 0
        var start: UInt32 = 0
        for index in 0..<count {
            if !isFixed {
                let end = unsafe loadEnd(ends, index, isWide)
                size = end &- previous
                previous = end
            }
            unsafe starts[index] = start
            unsafe copyBytes(to: target, from: prefix, count: prefixCount)
            unsafe copyBytes(to: target + prefixCount, from: suffix, count: size)
            unsafe suffix += size
            unsafe target += prefixCount &+ size
            start &+= UInt32(truncatingIfNeeded: prefixCount &+ size)
        }
        unsafe starts[count] = start
        return true
    }

    private func decodeValues(_ layout: DataLayout, _ base: UnsafeRawPointer) {
        let count = layout.count
        unsafe valueStarts.reset()
        let starts = unsafe valueStarts.extend(by: (count + 1) * 4).assumingMemoryBound(to: UInt32.self)
        unsafe starts[0] = 0
        guard layout.has(DataBlockFlags.valueEnds) else {
            let size = UInt32(truncatingIfNeeded: layout.valueSize)
            var start: UInt32 = 0
            for index in 0..<count {
                start &+= size
                unsafe starts[index &+ 1] = start
            }
            return
        }
        let ends = unsafe base + layout.valueEnds
        let isWide = layout.has(DataBlockFlags.wideValueEnds)
        for index in 0..<count {
            unsafe starts[index &+ 1] = unsafe UInt32(truncatingIfNeeded: loadEnd(ends, index, isWide))
        }
    }

    private func starts(of column: borrowing GrowingBuffer) -> UnsafePointer<UInt32> {
        unsafe UnsafeRawPointer(column.base).assumingMemoryBound(to: UInt32.self)
    }
}

/// False for a key before the key group; one too short to name a group is before all.
private func reaches(_ key: UnsafeRawBufferPointer, _ group: UInt16) -> Bool {
    unsafe key.count >= keyGroupBytes && keyGroup(of: key) >= group
}

private func isBehind(_ key: UnsafeRawBufferPointer, _ group: UInt16) -> Bool {
    unsafe key.count >= keyGroupBytes && keyGroup(of: key) > group
}
