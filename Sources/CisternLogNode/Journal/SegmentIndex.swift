// What a sealed segment holds, without the bodies: written beside it once, so that a start reads a fiftieth of the journal.
// `proto-spec/journal.md`. It can be made from the segment at any time, so damage of it costs a scan and nothing else.

package import CisternLogProtocol
internal import CisternPrimitives

package struct SegmentIndex: Equatable, Sendable {
    /// A record without its body, and where it is.
    package struct Item: Equatable, Sendable {
        /// Bodies are empty.
        package var record: JournalRecord
        package var offset: UInt32
        /// Without padding.
        package var length: UInt32

        package init(record: JournalRecord, offset: UInt32, length: UInt32) {
            self.record = record
            self.offset = offset
            self.length = length
        }
    }

    package var segment: UInt64
    /// End of the last record.
    package var bytes: UInt64
    /// Of the last record.
    package var checksum: UInt32
    package var items: [Item]

    package init(segment: UInt64, bytes: UInt64, checksum: UInt32, items: [Item]) {
        self.segment = segment
        self.bytes = bytes
        self.checksum = checksum
        self.items = items
    }

    static let magic: UInt64 = 0x5844_494C_4E54_5343  // "CSTNLIDX"
    private static let headBytes = 40
    private static let itemBytes = 36

    package func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: SegmentIndex.headBytes + items.count * SegmentIndex.itemBytes + 4)
        writer.writeInteger(SegmentIndex.magic)
        writer.writeInteger(JournalFormat.version)
        writer.writeInteger(checksum)
        writer.writeInteger(segment)
        writer.writeInteger(bytes)
        writer.writeInteger(UInt64(items.count))
        for item in items {
            let (kind, ledger, entry, lac) = SegmentIndex.parts(item.record)
            writer.writeInteger(UInt32(kind.rawValue))
            writer.writeInteger(ledger.rawValue)
            writer.writeInteger(entry.rawValue)
            writer.writeInteger(lac.rawValue)
            writer.writeInteger(item.offset)
            writer.writeInteger(item.length)
        }
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    private static func parts(_ record: JournalRecord) -> (JournalFormat.Kind, LedgerID, EntryID, EntryID) {
        switch record {
        case .add(let ledger, let entry, let lac, _): (.add, ledger, entry, lac)
        case .fence(let ledger): (.fence, ledger, .none, .none)
        case .lac(let ledger, let lac): (.lac, ledger, .none, lac)
        case .delete(let ledger): (.delete, ledger, .none, .none)
        case .limbo(let ledger): (.limbo, ledger, .none, .none)
        case .repaired(let ledger): (.repaired, ledger, .none, .none)
        }
    }

    /// nil when the bytes are no index of this version, or damaged.
    package static func decode(_ encoded: [UInt8]) -> SegmentIndex? {
        guard encoded.count >= headBytes + 4 else { return nil }
        return unsafe encoded.withUnsafeBytes { raw in
            let body = unsafe UnsafeRawBufferPointer(rebasing: raw[..<(raw.count - 4)])
            let stored = unsafe UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: raw.count - 4, as: UInt32.self))
            guard unsafe CRC32C.checksum(body) == stored else { return nil }
            var reader = unsafe ByteReader(body)
            guard reader.readInteger(as: UInt64.self) == magic,
                reader.readInteger(as: UInt32.self) == JournalFormat.version,
                let checksum = reader.readInteger(as: UInt32.self), let segment = reader.readInteger(as: UInt64.self),
                let bytes = reader.readInteger(as: UInt64.self), let count = reader.readInteger(as: UInt64.self),
                count == UInt64(reader.remaining / itemBytes), reader.remaining % itemBytes == 0
            else { return nil }
            var items: [Item] = []
            items.reserveCapacity(Int(count))
            for _ in 0..<count {
                guard let item = item(&reader) else { return nil }
                items.append(item)
            }
            return SegmentIndex(segment: segment, bytes: bytes, checksum: checksum, items: items)
        }
    }

    private static func item(_ reader: inout ByteReader) -> Item? {
        guard let kind = reader.readInteger(as: UInt32.self), kind <= 255,
            let kind = JournalFormat.Kind(rawValue: UInt8(kind)), let id = reader.readInteger(as: UInt64.self),
            id <= UInt64(Int64.max), let entry = reader.readInteger(as: Int64.self).flatMap(JournalFormat.entry),
            let lac = reader.readInteger(as: Int64.self).flatMap(JournalFormat.entry),
            let offset = reader.readInteger(as: UInt32.self),
            let length = reader.readInteger(as: UInt32.self)
        else { return nil }
        let ledger = LedgerID(id)
        let record: JournalRecord
        switch kind {
        case .add:
            guard entry >= .first else { return nil }
            record = .add(ledger, entry, lac: lac, body: [])
        case .fence: record = .fence(ledger)
        case .lac: record = .lac(ledger, lac)
        case .delete: record = .delete(ledger)
        case .limbo: record = .limbo(through: ledger)
        case .repaired: record = .repaired(ledger)
        case .mark: return nil
        }
        return Item(record: record, offset: offset, length: length)
    }
}
