// Collects the blocks of a partition and lays out its index. Layout: `IndexPartition`. Reused from partition to partition.

internal import CisternPrimitives

@safe struct IndexPartitionBuilder: ~Copyable {
    private(set) var count = 0
    private(set) var firstOffset: UInt64 = 0
    private var separators = GrowingBuffer(capacity: 4096)
    private var separatorEnds = GrowingBuffer(capacity: 512)
    private var blockEnds = GrowingBuffer(capacity: 512)
    private var expiries = GrowingBuffer(capacity: 2048)
    private var hasExpiries = false
    private var firstSeparatorBytes = 0

    /// The separator of the partition: that of its first block. Valid until the next call that changes the builder.
    var firstSeparator: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(rebasing: separators.bytes[..<firstSeparatorBytes])
    }

    /// Announces a block; its separator is wanted before it is written, because the key it is cut from does not stay.
    mutating func begin(separator: UnsafeRawBufferPointer) {
        unsafe separators.append(separator)
        separatorEnds.appendInteger(UInt32(truncatingIfNeeded: separators.count))
        if count == 0 { firstSeparatorBytes = separators.count }
    }

    /// The announced block was written.
    mutating func end(_ handle: BlockHandle, expiry: BlockExpiry) {
        if count == 0 { firstOffset = handle.offset }
        blockEnds.appendInteger(UInt32(handle.end - firstOffset))
        expiries.appendInteger(expiry.processing)
        expiries.appendInteger(expiry.event)
        if expiry != BlockExpiry(processing: IndexFormat.neverExpires, event: 0) { hasExpiries = true }
        count += 1
    }

    /// Appends the payload.
    func encode(into output: inout GrowingBuffer) {
        unsafe output.append(separators.bytes)
        unsafe output.append(separatorEnds.bytes)
        unsafe output.append(blockEnds.bytes)
        if hasExpiries { unsafe output.append(expiries.bytes) }
        output.appendInteger(UInt32(count))
        output.appendInteger(UInt32(separators.count))
        output.appendInteger(firstOffset)
        output.appendInteger(hasExpiries ? IndexFormat.expiriesFlag : 0)
        output.appendInteger(UInt32(0))
        output.appendInteger(UInt64(0))
    }

    mutating func reset() {
        count = 0
        separators.reset()
        separatorEnds.reset()
        blockEnds.reset()
        expiries.reset()
        hasExpiries = false
    }
}
