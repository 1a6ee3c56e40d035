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

internal import CCisternShims
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

/// What is known of an index partition's payload once it was proven well-formed. In a frame, the heads of the separators lie
/// before the payload, so that a search finds them without waiting for the header.
private struct IndexLayout: BitwiseCopyable {
    var firstOffset: UInt64
    var count: UInt32
    var separatorEnds: UInt32
    var blockEnds: UInt32
    /// 0: none.
    var expiries: UInt32
    var prefixCount: UInt32

    var headBytes: Int { Int(count) * MemoryLayout<UInt64>.stride }
}

/// An index partition in a frame. Borrowed: valid as long as the frame is.
@safe struct IndexPartition {
    let count: Int
    private let separators: KeyColumn
    private let payload: UnsafeRawPointer
    private let layout: IndexLayout

    @inline(__always)
    init(_ frame: CacheFrame) {
        layout = frame.layout()
        count = Int(layout.count)
        unsafe payload = unsafe UnsafeRawPointer(frame.payload) + layout.headBytes
        separators = unsafe KeyColumn(
            count: Int(layout.count), prefixCount: Int(layout.prefixCount), bytes: payload,
            ends: payload + Int(layout.separatorEnds),
            heads: UnsafePointer(frame.payload.assumingMemoryBound(to: UInt64.self)))
    }

    /// Bytes of a frame for the partition, or the sentence that says why its payload is not one.
    static func frameBytes(_ payload: UnsafeRawBufferPointer) -> Result<Int, LayoutFault> {
        switch unsafe parse(payload) {
        case .success(let layout):
            return .success(CacheFrame.headerBytes + layout.headBytes + payload.count)
        case .failure(let fault): return .failure(fault)
        }
    }

    /// Copies a payload into a frame of `frameBytes` and lays it out.
    /// - Parameter limit: where the last data block must have ended.
    static func load(_ payload: UnsafeRawBufferPointer, limit: UInt64, into frame: CacheFrame) -> LayoutFault? {
        switch unsafe parse(payload) {
        case .failure(let fault): return fault
        case .success(var layout):
            let base = unsafe frame.payload + layout.headBytes
            unsafe base.copyMemory(from: payload.baseAddress!, byteCount: payload.count)
            let heads = unsafe frame.payload.bindMemory(to: UInt64.self, capacity: Int(layout.count))
            let prefixCount = unsafe KeyColumn.fillHeads(
                heads, count: Int(layout.count), bytes: base, ends: base + Int(layout.separatorEnds))
            guard let prefixCount else { return "the separators of an index partition do not ascend" }
            layout.prefixCount = UInt32(prefixCount)
            frame.setLayout(layout)
            return unsafe checkBlocks(base + Int(layout.blockEnds), layout, limit)
        }
    }

    private static func parse(_ payload: UnsafeRawBufferPointer) -> Result<IndexLayout, LayoutFault> {
        let payloadBytes = payload.count
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
        guard unsafe KeyColumn.validate(ends: ends, count: n, byteCount: Int(separatorBytes)) else {
            return .failure("the separators of an index partition do not fill their column")
        }
        let blockEnds = separatorBytes + count * 4
        // A payload has less than 2³¹ bytes, so the offsets fit.
        return .success(
            IndexLayout(
                firstOffset: firstOffset, count: count, separatorEnds: separatorBytes, blockEnds: blockEnds,
                expiries: flags == 0 ? 0 : blockEnds + count * 4, prefixCount: 0))
    }

    private static func checkBlocks(_ ends: UnsafeRawPointer, _ layout: IndexLayout, _ limit: UInt64) -> LayoutFault? {
        var previous: UInt32 = 0
        for index in 0..<Int(layout.count) {
            let end = unsafe UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
            guard Int(end) > Int(previous) + TableFormat.trailerBytes else {
                return "block \(index) of an index partition is empty"
            }
            previous = end
        }
        guard layout.firstOffset <= limit, UInt64(previous) <= limit - layout.firstOffset else {
            return "the blocks of an index partition run to \(layout.firstOffset) + \(previous), behind \(limit)"
        }
        return nil
    }

    /// The one block that may hold `key`, or nil when the key lies before the partition.
    @inline(__always)
    func block(for key: UnsafeRawBufferPointer) -> Int? {
        let behind = unsafe separators.countNotGreater(than: key)
        return behind == 0 ? nil : behind &- 1
    }

    /// Blocks that may hold keys before `end`.
    @inline(__always)
    func blockCount(before end: UnsafeRawBufferPointer) -> Int { unsafe separators.countLess(than: end) }

    /// Asks for what a search reads first of the frame in a slot: its header, and the heads in the middle and in the middles
    /// of both halves; the processor gets lines in pairs.
    @inline(__always)
    static func prefetch(word: UInt) {
        let base = unsafe CacheFrame(bits: word).base
        unsafe cistern_prefetch(base)
        unsafe cistern_prefetch(base + 2 &* CacheFrame.alignment)
        unsafe cistern_prefetch(base + 4 &* CacheFrame.alignment)
        unsafe cistern_prefetch(base + 6 &* CacheFrame.alignment)
    }

    func separator(_ block: Int) -> UnsafeRawBufferPointer { unsafe separators[block] }

    /// - Precondition: `block` is in `0..<count`.
    func handle(_ block: Int) -> BlockHandle {
        let start = block == 0 ? 0 : end(block - 1)
        return BlockHandle(
            offset: layout.firstOffset + UInt64(start),
            payloadBytes: end(block) - start - UInt32(TableFormat.trailerBytes))
    }

    func expiry(_ block: Int) -> BlockExpiry {
        guard layout.expiries > 0 else { return BlockExpiry(processing: IndexFormat.neverExpires, event: 0) }
        let row = unsafe payload + Int(layout.expiries) + block * 16
        return unsafe BlockExpiry(
            processing: UInt64(littleEndian: row.loadUnaligned(as: UInt64.self)),
            event: UInt64(littleEndian: row.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }

    @inline(__always)
    private func end(_ block: Int) -> UInt32 {
        let ends = unsafe payload + Int(layout.blockEnds)
        return unsafe UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: block &* 4, as: UInt32.self))
    }
}
