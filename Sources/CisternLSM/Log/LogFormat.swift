// The write-ahead log of a tree: segments of records. Specification and vectors: proto-spec/wal.md.
//
//   segment = header (48 bytes) record*
//   header    0 u32 magic "CWAL" · 4 u16 version · 6 u16 zero · 8 u64 tree · 16 u64 segment number
//             24 u64 previous segment (0: none needed) · 32 u64 durable bytes of the previous segment · 40 u32 zero
//             44 u32 CRC-32C of bytes 0..<44
//   record    0 u32 length of what follows byte 8 · 4 u32 CRC-32C of bytes 0..<4 and 8..<end
//             8 u64 segment number · 16 u64 durable bytes of this segment when the record was written
//             24 u64 epoch · 32 u64 sequence · 40 u64 watermark · 48 u32 entries · 52 u32 key bytes · 56 u32 value bytes
//             60 u32 flags (1: expiries present)
//             then the columns: kinds, key ends (u32), value ends (u32), [expiries (u64)], keys, values
//
// The segment number in every record tells a record of this segment from bytes that an earlier file left on the disk.
// `durable bytes` tells a torn tail from damage: a bad record below a durable offset that a later record (or the next
// segment's header) knows of was whole once, so it is damage; one above it was never acknowledged and is cut.

package import CisternPrimitives

package enum LogFormat {
    // On disk: never change.
    package static let magic: UInt32 = 0x4C41_5743
    package static let version: UInt16 = 1
    package static let headerBytes = 48
    package static let recordHeaderBytes = 64
    package static let expiriesFlag: UInt32 = 1

    /// A record is at most one batch, and the wire bounds a batch; the engine's own callers may come near this.
    package static let recordBytesMax = 64 << 20
    /// A segment holds what one memtable took, which `EngineOptions.logSegmentBytesRange` keeps far below this.
    package static let segmentBytesMax = 2 << 30

    package static func encodeHeader(_ header: LogSegmentHeader) -> [UInt8] {
        var writer = ByteWriter(capacity: headerBytes)
        writer.writeInteger(magic)
        writer.writeInteger(version)
        writer.writeInteger(UInt16(0))
        writer.writeInteger(header.tree)
        writer.writeInteger(header.segment)
        writer.writeInteger(header.previousSegment)
        writer.writeInteger(header.previousBytes)
        writer.writeInteger(UInt32(0))
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    /// nil when the bytes are not a header that was written whole.
    package static func decodeHeader(_ bytes: UnsafeRawBufferPointer) -> LogHeaderDecoding {
        guard bytes.count >= headerBytes else { return .damaged("the header is cut short") }
        let sum = unsafe bytes.loadUnaligned(fromByteOffset: 44, as: UInt32.self).littleEndian
        let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[0..<44])
        guard unsafe CRC32C.checksum(covered) == sum else { return .damaged("the header's checksum does not match") }
        var reader = unsafe ByteReader(covered)
        guard reader.readInteger(as: UInt32.self) == magic else { return .damaged("this is not a log segment") }
        guard let found = reader.readInteger(as: UInt16.self), found == version else {
            return unsafe .unknownVersion(bytes.loadUnaligned(fromByteOffset: 4, as: UInt16.self).littleEndian)
        }
        guard reader.skip(2), let tree = reader.readInteger(as: UInt64.self),
            let segment = reader.readInteger(as: UInt64.self), let previous = reader.readInteger(as: UInt64.self),
            let previousBytes = reader.readInteger(as: UInt64.self)
        else { return .damaged("the header is cut short") }
        return .header(
            LogSegmentHeader(
                tree: tree, segment: segment, previousSegment: previous, previousBytes: previousBytes))
    }

    /// Appends a record whose checksum and durable offset are still blank; `finish` fills them in.
    package static func encodeRecord(_ record: LogRecord, segment: UInt64, into writer: inout ByteWriter) {
        let columns = record.columns
        let bodyBytes =
            unsafe recordHeaderBytes - 8 + columns.kinds.count + columns.keyEnds.count + columns.valueEnds.count
            + columns.expiries.count + columns.keys.count + columns.values.count
        writer.writeInteger(UInt32(bodyBytes))
        writer.writeInteger(UInt32(0))
        writer.writeInteger(segment)
        writer.writeInteger(UInt64(0))
        writer.writeInteger(record.epoch)
        writer.writeInteger(record.sequence)
        writer.writeInteger(record.watermark)
        writer.writeInteger(UInt32(columns.count))
        unsafe writer.writeInteger(UInt32(columns.keys.count))
        unsafe writer.writeInteger(UInt32(columns.values.count))
        unsafe writer.writeInteger(columns.expiries.isEmpty ? UInt32(0) : expiriesFlag)
        unsafe writer.writeBytes(columns.kinds)
        unsafe writer.writeBytes(columns.keyEnds)
        unsafe writer.writeBytes(columns.valueEnds)
        unsafe writer.writeBytes(columns.expiries)
        unsafe writer.writeBytes(columns.keys)
        unsafe writer.writeBytes(columns.values)
    }

    /// Fills in durable offset and checksum of each record in `bytes`, which hold whole records from `encodeRecord`.
    package static func finish(_ bytes: UnsafeMutableRawBufferPointer, durableBytes: UInt64) {
        var offset = 0
        while offset < bytes.count {
            let length = unsafe Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self).littleEndian)
            unsafe bytes.storeBytes(of: durableBytes.littleEndian, toByteOffset: offset + 16, as: UInt64.self)
            let record = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + 8 + length)])
            unsafe bytes.storeBytes(of: checksum(record).littleEndian, toByteOffset: offset + 4, as: UInt32.self)
            offset += 8 + length
        }
    }

    /// How long the record at the front of `bytes` says it is; nil when none of `segment` starts there.
    package static func recordSize(_ bytes: UnsafeRawBufferPointer, segment: UInt64) -> Int? {
        guard bytes.count >= recordHeaderBytes,
            unsafe bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self).littleEndian == segment
        else { return nil }
        let size = unsafe Int(bytes.loadUnaligned(as: UInt32.self).littleEndian) + 8
        return size >= recordHeaderBytes && size <= recordBytesMax ? size : nil
    }

    /// Reads the record at the front of `bytes`; nil when no whole, intact record of `segment` starts there.
    package static func decodeRecord(_ bytes: UnsafeRawBufferPointer, segment: UInt64) -> (
        record: LogRecord, size: Int
    )? {
        guard let size = unsafe recordSize(bytes, segment: segment), size <= bytes.count else { return nil }
        let whole = unsafe UnsafeRawBufferPointer(rebasing: bytes[0..<size])
        guard unsafe checksum(whole) == whole.loadUnaligned(fromByteOffset: 4, as: UInt32.self).littleEndian else {
            return nil
        }
        return unsafe decodeBody(whole).map { ($0, size) }
    }

    /// The same for a record of whatever segment.
    package static func decodeRecord(_ bytes: UnsafeRawBufferPointer) -> (record: LogRecord, size: Int)? {
        guard bytes.count >= recordHeaderBytes else { return nil }
        return unsafe decodeRecord(
            bytes, segment: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self).littleEndian)
    }

    private static func decodeBody(_ whole: UnsafeRawBufferPointer) -> LogRecord? {
        var reader = unsafe ByteReader(whole)
        guard reader.skip(16), let durableBytes = reader.readInteger(as: UInt64.self),
            let epoch = reader.readInteger(as: UInt64.self), let sequence = reader.readNumber(),
            let watermark = reader.readInteger(as: UInt64.self), let count = reader.readInteger(as: UInt32.self),
            let keyBytes = reader.readInteger(as: UInt32.self), let valueBytes = reader.readInteger(as: UInt32.self),
            let flags = reader.readInteger(as: UInt32.self), flags <= expiriesFlag
        else { return nil }
        let entries = Int(count)
        guard let kinds = unsafe reader.readBytes(entries), let keyEnds = unsafe reader.readBytes(entries * 4),
            let valueEnds = unsafe reader.readBytes(entries * 4),
            let expiries = unsafe reader.readBytes(flags & expiriesFlag == 0 ? 0 : entries * 8),
            let keys = unsafe reader.readBytes(Int(keyBytes)), let values = unsafe reader.readBytes(Int(valueBytes)),
            reader.isAtEnd,
            let columns = unsafe EntryColumns(
                keyEnds: keyEnds, valueEnds: valueEnds, kinds: kinds, expiries: expiries, keys: keys, values: values)
        else { return nil }
        return LogRecord(
            epoch: epoch, sequence: sequence, watermark: watermark, columns: columns, durableBytes: durableBytes)
    }

    private static func checksum(_ record: UnsafeRawBufferPointer) -> UInt32 {
        let length = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: record[0..<4]))
        return unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: record[8...]), seed: length)
    }
}

package struct LogSegmentHeader: Equatable {
    package let tree: UInt64
    package let segment: UInt64
    /// The segment whose records come before this one's and are still needed; 0 when there is none.
    package let previousSegment: UInt64
    package let previousBytes: UInt64

    package init(tree: UInt64, segment: UInt64, previousSegment: UInt64, previousBytes: UInt64) {
        self.tree = tree
        self.segment = segment
        self.previousSegment = previousSegment
        self.previousBytes = previousBytes
    }
}

package enum LogHeaderDecoding {
    case header(LogSegmentHeader)
    case unknownVersion(UInt16)
    case damaged(String)
}

/// One batch in the log. The columns borrow the bytes they were decoded from or are written from.
package struct LogRecord {
    package let epoch: UInt64
    package let sequence: UInt64
    package let watermark: UInt64
    package let columns: EntryColumns
    package let durableBytes: UInt64

    package init(epoch: UInt64, sequence: UInt64, watermark: UInt64, columns: EntryColumns, durableBytes: UInt64 = 0) {
        self.epoch = epoch
        self.sequence = sequence
        self.watermark = watermark
        self.columns = columns
        self.durableBytes = durableBytes
    }
}
