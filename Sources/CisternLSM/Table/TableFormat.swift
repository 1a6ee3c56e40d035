// The sorted file (SST): its frame. Blocks inside are specified where they are coded: DataBlock, IndexPartition, TopIndex,
// FilterPartition, TableSummary. Page: proto-spec/sst.md.
//
//    ┌ header 16 ┐┌ partition 0 ───────────────────────────────┐┌ partition 1 … ┐┌ top index ┐┌ properties ┐┌ footer 64 ┐
//                 │ data block × 1…64 │ filter │ index         │
//
//    block = payload ‖ u8 type ‖ u32 CRC-32C of payload ‖ type ‖ u64 offset of the block in the file
//
// The offset inside the checksum makes a block that was read from, or written to, the wrong place a damaged one.
// Little-endian. On disk: never renumber, never reorder.

internal import CisternFileSystem
internal import CisternPrimitives

enum TableBlockType: UInt8 {
    case data = 1
    case index = 2
    case filter = 3
    case topIndex = 4
    case properties = 5

    var name: String {
        switch self {
        case .data: "data block"
        case .index: "index partition"
        case .filter: "filter partition"
        case .topIndex: "top index"
        case .properties: "properties"
        }
    }
}

enum TableFormat {
    /// "CISTSST1" read as bytes.
    static let magic: UInt64 = 0x3154_5353_5453_4943
    /// What is no table, and may stand where one will be: proto-spec/placeholder.md.
    static let placeholderMagic: [UInt8] = [0x43, 0x50, 0x4C, 0x48]
    /// On disk: never renumber. Version 2: filters know map prefixes, properties the earliest expiries. Version 3: values may
    /// be in value files. Version 4: properties tell of states and long values.
    static let versions: ClosedRange<UInt32> = 1...4
    /// From this one on.
    static let versionWithPrefixes: UInt32 = 2
    static let versionWithValueFiles: UInt32 = 3
    static let versionWithDetails: UInt32 = 4
    static let headerBytes = 16
    static let footerBytes = 64
    /// Type and checksum behind each payload.
    static let trailerBytes = 5
    /// A key's longest form that the format holds; the product's own limits are lower.
    static let keyBytesMax = 65_535
    /// A folded list may be longer than one entry of a batch; this bounds what a reader allocates for a block.
    static let valueBytesMax = 1 << 30
    /// A partition's blocks are addressed by u32 from its first: it is cut before it grows beyond this.
    static let partitionBytesMax = 1 << 30
    static let blockPayloadBytesMax = valueBytesMax + (4 << 20)

    static func header(version: UInt32) -> [UInt8] {
        var writer = ByteWriter(capacity: headerBytes)
        writer.writeInteger(magic)
        writer.writeInteger(version)
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    static func checksum(
        payload: UnsafeRawBufferPointer, type: TableBlockType, offset: UInt64
    ) -> UInt32 {
        var tail: InlineArray<9, UInt8> = .init(repeating: 0)
        tail[0] = type.rawValue
        for index in 0..<8 { tail[1 + index] = UInt8(truncatingIfNeeded: offset >> UInt64(8 * index)) }
        var span = tail.mutableSpan
        let crc = unsafe CRC32C.checksum(payload)
        return unsafe span.withUnsafeMutableBytes { unsafe CRC32C.checksum(UnsafeRawBufferPointer($0), seed: crc) }
    }
}

/// Where a block's payload lies.
struct BlockHandle: Equatable, Sendable {
    var offset: UInt64 = 0
    var payloadBytes: UInt32 = 0

    var end: UInt64 { offset + UInt64(payloadBytes) + UInt64(TableFormat.trailerBytes) }
}

/// The last 64 bytes of a file, in every version.
///
///     0 u64 top index offset │ 8 u64 properties offset │ 16 u32 top index size │ 20 u32 properties size
///     24 u64 file size │ 32 16 zero bytes │ 48 u32 version │ 52 u32 CRC-32C of bytes 0 ..< 52 │ 56 u64 magic
struct TableFooter {
    var topIndex: BlockHandle
    var properties: BlockHandle
    var fileBytes: UInt64
    var version: UInt32

    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: TableFormat.footerBytes)
        writer.writeInteger(topIndex.offset)
        writer.writeInteger(properties.offset)
        writer.writeInteger(topIndex.payloadBytes)
        writer.writeInteger(properties.payloadBytes)
        writer.writeInteger(fileBytes)
        writer.writeBytes([UInt8](repeating: 0, count: 16))
        writer.writeInteger(version)
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        writer.writeInteger(TableFormat.magic)
        return writer.bytes
    }

    static func decode(_ bytes: UnsafeRawBufferPointer, path: String, fileBytes: UInt64) throws(EngineError)
        -> TableFooter
    {
        let start = fileBytes - UInt64(TableFormat.footerBytes)
        var reader = unsafe ByteReader(bytes)
        guard let topOffset: UInt64 = reader.readInteger(), let propertiesOffset: UInt64 = reader.readInteger(),
            let topBytes: UInt32 = reader.readInteger(), let propertiesBytes: UInt32 = reader.readInteger(),
            let recordedBytes: UInt64 = reader.readInteger(), reader.skip(16),
            let version: UInt32 = reader.readInteger(), let crc: UInt32 = reader.readInteger(),
            let magic: UInt64 = reader.readInteger()
        else { throw tableCorruption(path, start, "the footer has \(bytes.count) bytes") }
        guard magic == TableFormat.magic else {
            throw tableCorruption(path, start + 56, "the footer ends with \(magic), not the magic of a table")
        }
        let found = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[..<52]))
        guard found == crc else {
            throw tableCorruption(path, start + 52, "the footer's checksum is \(found), recorded is \(crc)")
        }
        guard TableFormat.versions.contains(version) else {
            throw .unsupported(
                detail:
                    "\(path) has table format \(version); this program reads \(TableFormat.versions): use a newer one")
        }
        guard recordedBytes == fileBytes else {
            throw tableCorruption(path, start + 24, "the file has \(fileBytes) bytes, the footer says \(recordedBytes)")
        }
        let footer = TableFooter(
            topIndex: BlockHandle(offset: topOffset, payloadBytes: topBytes),
            properties: BlockHandle(offset: propertiesOffset, payloadBytes: propertiesBytes), fileBytes: fileBytes,
            version: version)
        for handle in [footer.topIndex, footer.properties] where handle.offset > start || handle.end > start {
            throw tableCorruption(path, start, "a block at \(handle.offset) runs into the footer")
        }
        return footer
    }
}

func tableCorruption(_ path: String, _ offset: UInt64, _ detail: String) -> EngineError {
    .corruption(CorruptionError(source: path, offset: offset, detail: detail))
}
