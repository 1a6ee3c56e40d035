// An index partition: where the data blocks of one partition lie and which keys they may hold.
//
//    separators │ separator ends u32 × n │ block ends u32 × n │ [latest expiries u64 × n × 2] │ footer 32
//
//    separator      of a block: the shortest start of its first key that is greater than the last key before it, and at least
//                   the key group. A key belongs to the last block whose separator is not greater.
//    block ends     running ends of the blocks, trailers included, from the partition's first block
//    expiries       processing, event: the latest expiry in the block by each clock, 0 none; when an entry of the block does
//                   not expire or is a delete, the processing one is 2⁶⁴ - 1. Present when an entry of the partition expires.
//    footer         0 u32 n │ 4 u32 separators' size │ 8 u64 first block's offset │ 16 u32 flags (1: expiries) │ 20 12 zero bytes

internal import CisternPrimitives

enum IndexFormat {
    static let footerBytes = 32
    static let expiriesFlag: UInt32 = 1
    /// A block with this latest expiry has entries that never expire.
    static let neverExpires = UInt64.max
}

/// The latest expiries of a block.
struct BlockExpiry: Equatable {
    var processing: UInt64 = 0
    var event: UInt64 = 0

    mutating func add(_ entry: EntryView) {
        if entry.kind == .delete || entry.expiry == .never {
            processing = IndexFormat.neverExpires
        } else if entry.expiry.isEventTime {
            event = max(event, entry.expiry.milliseconds)
        } else {
            processing = max(processing, entry.expiry.milliseconds)
        }
    }
}

// Unchecked: immutable after init, and so is the memory it points into.
@safe final class IndexPartition: @unchecked Sendable {
    let count: Int
    private let separators: SeparatorColumn
    private let blockEnds: UnsafeRawPointer
    /// Meaningful only with `hasExpiries`.
    private let expiries: UnsafeRawPointer
    private let hasExpiries: Bool
    private let firstOffset: UInt64
    private let memory: BlockMemory

    private init(
        count: Int, separators: SeparatorColumn, blockEnds: UnsafeRawPointer, expiries: UnsafeRawPointer,
        hasExpiries: Bool,
        firstOffset: UInt64, memory: BlockMemory
    ) {
        self.count = count
        self.separators = separators
        unsafe self.blockEnds = unsafe blockEnds
        unsafe self.expiries = unsafe expiries
        self.hasExpiries = hasExpiries
        self.firstOffset = firstOffset
        self.memory = memory
    }

    /// - Parameter limit: where the last data block must have ended.
    static func parse(memory: BlockMemory, payloadBytes: Int, limit: UInt64) -> Result<IndexPartition, LayoutFault> {
        let payload = unsafe memory.slice(0, payloadBytes)
        guard payloadBytes >= IndexFormat.footerBytes else {
            return .failure("an index partition of \(payloadBytes) bytes has no footer")
        }
        var reader = unsafe ByteReader(payload)
        guard reader.skip(payloadBytes - IndexFormat.footerBytes), let count: UInt32 = reader.readInteger(),
            let separatorBytes: UInt32 = reader.readInteger(), let firstOffset: UInt64 = reader.readInteger(),
            let flags: UInt32 = reader.readInteger(), count > 0, flags <= IndexFormat.expiriesFlag
        else { return .failure("the footer of an index partition is malformed") }
        let n = Int(count)
        let columns = Int(separatorBytes) + n * 8 + (flags == 0 ? 0 : n * 16) + IndexFormat.footerBytes
        guard columns == payloadBytes, let base = payload.baseAddress else {
            return .failure("an index partition of \(n) blocks takes \(columns) bytes, found \(payloadBytes)")
        }
        let ends = unsafe base + Int(separatorBytes)
        guard let separators = unsafe SeparatorColumn(bytes: base, byteCount: Int(separatorBytes), ends: ends, count: n)
        else {
            return .failure("the separators of an index partition do not fill their column")
        }
        let blockEnds = unsafe ends + n * 4
        var previous: UInt32 = 0
        for index in 0..<n {
            let end = unsafe UInt32(littleEndian: blockEnds.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
            guard Int(end) > Int(previous) + TableFormat.trailerBytes else {
                return .failure("block \(index) of an index partition is empty")
            }
            previous = end
        }
        guard firstOffset <= limit, UInt64(previous) <= limit - firstOffset else {
            return .failure("the blocks of an index partition run to \(firstOffset) + \(previous), behind \(limit)")
        }
        return unsafe .success(
            IndexPartition(
                count: n, separators: separators, blockEnds: blockEnds, expiries: blockEnds + n * 4,
                hasExpiries: flags != 0,
                firstOffset: firstOffset, memory: memory))
    }

    /// The one block that may hold `key`, or nil when the key lies before the partition.
    @inline(__always)
    func block(for key: UnsafeRawBufferPointer) -> Int? { unsafe separators.lastNotGreater(than: key) }

    func separator(_ block: Int) -> UnsafeRawBufferPointer { unsafe separators[block] }

    /// - Precondition: `block` is in `0..<count`.
    func handle(_ block: Int) -> BlockHandle {
        let start = block == 0 ? 0 : end(block - 1)
        return BlockHandle(
            offset: firstOffset + UInt64(start),
            payloadBytes: end(block) - start - UInt32(TableFormat.trailerBytes))
    }

    func expiry(_ block: Int) -> BlockExpiry {
        guard hasExpiries else { return BlockExpiry(processing: IndexFormat.neverExpires, event: 0) }
        return unsafe BlockExpiry(
            processing: UInt64(littleEndian: expiries.loadUnaligned(fromByteOffset: block * 16, as: UInt64.self)),
            event: UInt64(littleEndian: expiries.loadUnaligned(fromByteOffset: block * 16 + 8, as: UInt64.self)))
    }

    @inline(__always)
    private func end(_ block: Int) -> UInt32 {
        unsafe UInt32(littleEndian: blockEnds.loadUnaligned(fromByteOffset: block &* 4, as: UInt32.self))
    }
}

/// Ascending byte strings with running u32 ends, searched by halving.
@safe struct SeparatorColumn {
    private let bytes: UnsafeRawPointer
    private let ends: UnsafeRawPointer
    let count: Int

    /// nil unless the ends ascend and finish at `byteCount`.
    init?(bytes: UnsafeRawPointer, byteCount: Int, ends: UnsafeRawPointer, count: Int) {
        var previous: UInt32 = 0
        for index in 0..<count {
            let end = unsafe UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
            if end < previous { return nil }
            previous = end
        }
        guard Int(previous) == byteCount else { return nil }
        unsafe self.bytes = unsafe bytes
        unsafe self.ends = unsafe ends
        self.count = count
    }

    @inline(__always)
    subscript(index: Int) -> UnsafeRawBufferPointer {
        let start = index == 0 ? 0 : end(index &- 1)
        return unsafe UnsafeRawBufferPointer(start: bytes + start, count: end(index) &- start)
    }

    @inline(__always)
    func lastNotGreater(than key: UnsafeRawBufferPointer) -> Int? {
        var low = 0
        var high = count
        while low < high {
            let middle = (low &+ high) / 2
            if unsafe compareBytes(self[middle], key) <= 0 { low = middle &+ 1 } else { high = middle }
        }
        return low == 0 ? nil : low &- 1
    }

    @inline(__always)
    private func end(_ index: Int) -> Int {
        unsafe Int(UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: index &* 4, as: UInt32.self)))
    }
}
