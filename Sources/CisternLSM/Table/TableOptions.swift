// The knobs of a table. Stored in its properties; a reader needs none of them.

package struct TableOptions: Equatable, Sendable {
    /// What is written; a reader knows all. The engine takes it from the format of the data directory.
    package var formatVersion = TableFormat.versions.upperBound
    /// A data block is cut when the next entry would make it larger.
    package var blockSizeBytes = 4096
    /// Bits of filter an entry, 0 for none. 10 gives about 1 % false positives.
    package var filterBitsPerKey = 10
    /// Data blocks of one index partition and one filter partition.
    package var blocksPerPartition = 64
    /// The longest value that is written.
    package var valueBytesMax = TableFormat.valueBytesMax
    /// Values of this size and more are listed in the properties. The engine takes it from the limit of lists.
    package var longValueBytes = 512 << 10

    package static let blockSizeBytesRange = 64...(1 << 20)
    package static let filterBitsPerKeyRange = 0...32
    package static let blocksPerPartitionRange = 1...4096
    package static let valueBytesRange = 1...TableFormat.valueBytesMax

    package init() {}

    package func validate() throws(EngineError) {
        guard TableFormat.versions.contains(formatVersion) else {
            throw .unsupported(detail: "formatVersion \(formatVersion) is outside \(TableFormat.versions)")
        }
        guard TableOptions.blockSizeBytesRange.contains(blockSizeBytes) else {
            throw .unsupported(
                detail: "blockSizeBytes \(blockSizeBytes) is outside \(TableOptions.blockSizeBytesRange)")
        }
        guard TableOptions.filterBitsPerKeyRange.contains(filterBitsPerKey) else {
            throw .unsupported(
                detail: "filterBitsPerKey \(filterBitsPerKey) is outside \(TableOptions.filterBitsPerKeyRange)")
        }
        guard TableOptions.blocksPerPartitionRange.contains(blocksPerPartition) else {
            throw .unsupported(
                detail: "blocksPerPartition \(blocksPerPartition) is outside \(TableOptions.blocksPerPartitionRange)")
        }
        guard longValueBytes > 0 else {
            throw .unsupported(detail: "longValueBytes \(longValueBytes) is not above 0")
        }
        guard TableOptions.valueBytesRange.contains(valueBytesMax) else {
            throw .unsupported(detail: "valueBytesMax \(valueBytesMax) is outside \(TableOptions.valueBytesRange)")
        }
    }
}
