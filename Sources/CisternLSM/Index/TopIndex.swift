// The top of a table's index: one row a partition. Read at open and kept by the reader for its life.
//
//    separators │ separator ends u32 × n │ rows 28 × n │ footer 16
//
//    row       0 u64 index partition's offset │ 8 u64 filter partition's offset │ 16 u32 index size │ 20 u32 filter size, 0 none
//              24 u32 entries in the partition
//    footer    0 u32 n │ 4 u32 separators' size │ 8 8 zero bytes

internal import CisternPrimitives

struct TopIndexRow: Equatable {
    var index: BlockHandle
    var filter: BlockHandle
    var entryCount: UInt32
}

enum TopIndexFormat {
    static let rowBytes = 28
    static let footerBytes = 16
}

struct TopIndexBuilder {
    private var separators: [UInt8] = []
    private var separatorEnds: [UInt32] = []
    private var rows: [TopIndexRow] = []

    mutating func add(separator: UnsafeRawBufferPointer, row: TopIndexRow) {
        unsafe separators.append(contentsOf: separator)
        separatorEnds.append(UInt32(separators.count))
        rows.append(row)
    }

    /// Of its memory.
    var byteCount: Int {
        separators.capacity + separatorEnds.capacity * 4 + rows.capacity * MemoryLayout<TopIndexRow>.stride
    }

    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: separators.count + rows.count * 32 + TopIndexFormat.footerBytes)
        writer.writeBytes(separators)
        for end in separatorEnds { writer.writeInteger(end) }
        for row in rows {
            writer.writeInteger(row.index.offset)
            writer.writeInteger(row.filter.offset)
            writer.writeInteger(row.index.payloadBytes)
            writer.writeInteger(row.filter.payloadBytes)
            writer.writeInteger(row.entryCount)
        }
        writer.writeInteger(UInt32(rows.count))
        writer.writeInteger(UInt32(separators.count))
        writer.writeInteger(UInt64(0))
        return writer.bytes
    }
}

/// The top index in memory of its own, with the heads of its separators. Borrowed by everything it hands out; whoever parsed
/// it calls `deallocate`.
@safe struct TopIndex {
    let count: Int
    /// Of its memory.
    let byteCount: Int
    private let separators: KeyColumn
    private let rows: UnsafeRawPointer
    private let memory: UnsafeMutableRawPointer

    /// - Parameter limit: where the last partition must have ended.
    static func parse(_ payload: UnsafeRawBufferPointer, limit: UInt64) -> Result<TopIndex, LayoutFault> {
        var reader = unsafe ByteReader(payload)
        guard reader.skip(payload.count - TopIndexFormat.footerBytes), let count: UInt32 = reader.readInteger(),
            let separatorBytes: UInt32 = reader.readInteger(), count > 0, let source = payload.baseAddress
        else { return .failure("the footer of a top index is malformed") }
        let n = Int(count)
        let columns = Int(separatorBytes) + n * (4 + TopIndexFormat.rowBytes) + TopIndexFormat.footerBytes
        guard columns == payload.count else {
            return .failure("a top index of \(n) partitions takes \(columns) bytes, found \(payload.count)")
        }
        guard
            unsafe KeyColumn.validate(ends: source + Int(separatorBytes), count: n, byteCount: Int(separatorBytes))
        else { return .failure("the separators of a top index do not fill their column") }
        let headsOffset = (payload.count + 7) & ~7
        let byteCount = headsOffset + n * 8
        let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
        unsafe memory.copyMemory(from: source, byteCount: payload.count)
        let heads = unsafe (memory + headsOffset).bindMemory(to: UInt64.self, capacity: n)
        let ends = unsafe memory + Int(separatorBytes)
        guard let prefixCount = unsafe KeyColumn.fillHeads(heads, count: n, bytes: memory, ends: ends) else {
            unsafe memory.deallocate()
            return .failure("the separators of a top index do not ascend")
        }
        let separators = unsafe KeyColumn(
            count: n, prefixCount: prefixCount, bytes: memory, ends: ends, heads: heads)
        let top = unsafe TopIndex(
            count: n, byteCount: byteCount, separators: separators, rows: ends + n * 4, memory: memory)
        for partition in 0..<n {
            let row = top.row(partition)
            for handle in [row.index, row.filter] where handle.offset > limit || handle.end > limit {
                top.deallocate()
                return .failure("partition \(partition) has a block at \(handle.offset), behind \(limit)")
            }
        }
        return .success(top)
    }

    func deallocate() { unsafe memory.deallocate() }

    /// The one partition that may hold `key`, or nil when the key lies before the table.
    @inline(__always)
    func partition(for key: UnsafeRawBufferPointer) -> Int? {
        let behind = unsafe separators.countNotGreater(than: key)
        return behind == 0 ? nil : behind &- 1
    }

    func separator(_ partition: Int) -> UnsafeRawBufferPointer { unsafe separators[partition] }

    /// - Precondition: `partition` is in `0..<count`.
    func row(_ partition: Int) -> TopIndexRow {
        let base = unsafe rows + partition &* TopIndexFormat.rowBytes
        return unsafe TopIndexRow(
            index: BlockHandle(offset: load64(base, 0), payloadBytes: load32(base, 16)),
            filter: BlockHandle(offset: load64(base, 8), payloadBytes: load32(base, 20)), entryCount: load32(base, 24))
    }

    @inline(__always)
    private func load64(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    @inline(__always)
    private func load32(_ base: UnsafeRawPointer, _ offset: Int) -> UInt32 {
        unsafe UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}
