// The bytes of a journal: segments of one size, each a header and records one after the other. `proto-spec/journal.md`.
//
// A record's checksum begins with the segment's number, so that what a file held in an earlier life never looks like a record of
// this one; and it carries the checksum of the record before, so that a record that is there, and follows on another one, is
// not taken for the next.

package import CisternLogProtocol
internal import CisternPrimitives

package enum JournalFormat {
    package static let version: UInt32 = 1
    package static let headerBytes = 64
    static let magic: UInt64 = 0x4C4E_524A_4E54_5343  // "CSTNJRNL"
    /// Before a record's payload: length, checksum, checksum of the record before, kind.
    package static let recordHeadBytes = 16
    /// Records begin at multiples of this.
    package static let alignment = 8
    /// Ledger, entry and last add confirmed in front of a body.
    static let addHeadBytes = 24
    /// Bound of a body, so that a damaged length asks for no more.
    package static let bodyBytesMax = 16 << 20

    enum Kind: UInt8 {
        case add = 1
        case fence = 2
        case lac = 3
        case delete = 4
        case limbo = 5
        case repaired = 6
        /// All of the segment before this offset is durable: what does not verify there is damage, not a torn tail.
        case mark = 7
    }

    static func aligned(_ count: Int) -> Int { (count + alignment - 1) & ~(alignment - 1) }

    /// Bytes of the record in a segment.
    package static func bytes(of record: JournalRecord) -> Int {
        switch record {
        case .add(_, _, _, let body): aligned(recordHeadBytes + addHeadBytes + body.count)
        case .lac: recordHeadBytes + 16
        case .fence, .delete, .limbo, .repaired: recordHeadBytes + 8
        }
    }

    static let markBytes = recordHeadBytes + 8

    /// An id that somebody may have given out, or none; nil for others, with which arithmetic would overflow.
    static func entry(_ id: Int64) -> EntryID? { (-1...Int64.max >> 1).contains(id) ? EntryID(id) : nil }
}

/// The first bytes of a segment.
package struct SegmentHeader: Equatable, Sendable {
    package var node: LogNodeID
    package var cluster: UInt64
    package var segment: UInt64
    /// Where the segment before ended; 0 for the first one.
    package var sealedBytes: UInt64
    /// The checksum of its last record.
    package var sealedChecksum: UInt32

    package init(node: LogNodeID, cluster: UInt64, segment: UInt64, sealedBytes: UInt64, sealedChecksum: UInt32) {
        self.node = node
        self.cluster = cluster
        self.segment = segment
        self.sealedBytes = sealedBytes
        self.sealedChecksum = sealedChecksum
    }

    package func encoded() -> [UInt8] {
        var writer = ByteWriter(capacity: JournalFormat.headerBytes)
        writer.writeInteger(JournalFormat.magic)
        writer.writeInteger(JournalFormat.version)
        writer.writeInteger(UInt32(0))
        writer.writeInteger(node.rawValue)
        writer.writeInteger(cluster)
        writer.writeInteger(segment)
        writer.writeInteger(sealedBytes)
        writer.writeInteger(sealedChecksum)
        writer.writeBytes(repeatElement(0, count: JournalFormat.headerBytes - writer.count))
        writer.patchInteger(CRC32C.checksum(writer.bytes), at: 12)
        return writer.bytes
    }

    /// nil when the bytes are no header: a file that was prepared and not begun, or damage.
    package static func decode(_ bytes: [UInt8]) -> SegmentHeader? {
        guard bytes.count >= JournalFormat.headerBytes else { return nil }
        var head = Array(bytes[..<JournalFormat.headerBytes])
        let stored = head[12..<16].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        for index in 12..<16 { head[index] = 0 }
        guard CRC32C.checksum(head) == stored else { return nil }
        return unsafe head.withUnsafeBytes { raw in
            var reader = unsafe ByteReader(raw)
            guard reader.readInteger(as: UInt64.self) == JournalFormat.magic,
                reader.readInteger(as: UInt32.self) == JournalFormat.version, reader.skip(4),
                let node = reader.readInteger(as: UInt64.self), let cluster = reader.readInteger(as: UInt64.self),
                let segment = reader.readInteger(as: UInt64.self),
                let sealedBytes = reader.readInteger(as: UInt64.self),
                let sealedChecksum = reader.readInteger(as: UInt32.self)
            else { return nil }
            return SegmentHeader(
                node: LogNodeID(node), cluster: cluster, segment: segment, sealedBytes: sealedBytes,
                sealedChecksum: sealedChecksum)
        }
    }
}

/// Builds records of one segment.
package struct RecordEncoder {
    let segment: UInt64
    private(set) var writer = ByteWriter()
    /// Of the last record.
    package private(set) var checksum: UInt32

    package init(segment: UInt64, previous: UInt32) {
        self.segment = segment
        checksum = previous
    }

    mutating func take() -> ByteWriter {
        defer { writer = ByteWriter(capacity: writer.count) }
        return writer
    }

    package var bytes: [UInt8] { writer.bytes }

    package mutating func append(_ record: JournalRecord) {
        switch record {
        case .add(let ledger, let entry, let lac, let body):
            let start = begin(.add, payload: JournalFormat.addHeadBytes + body.count)
            writer.writeInteger(ledger.rawValue)
            writer.writeInteger(entry.rawValue)
            writer.writeInteger(lac.rawValue)
            writer.writeBytes(body)
            end(start)
        case .lac(let ledger, let lac):
            let start = begin(.lac, payload: 16)
            writer.writeInteger(ledger.rawValue)
            writer.writeInteger(lac.rawValue)
            end(start)
        case .fence(let ledger): append(.fence, ledger.rawValue)
        case .delete(let ledger): append(.delete, ledger.rawValue)
        case .limbo(let ledger): append(.limbo, ledger.rawValue)
        case .repaired(let ledger): append(.repaired, ledger.rawValue)
        }
    }

    package mutating func appendMark(durableBytes: UInt64) { append(.mark, durableBytes) }

    private mutating func append(_ kind: JournalFormat.Kind, _ value: UInt64) {
        let start = begin(kind, payload: 8)
        writer.writeInteger(value)
        end(start)
    }

    private mutating func begin(_ kind: JournalFormat.Kind, payload: Int) -> Int {
        let start = writer.count
        writer.writeInteger(UInt32(payload))
        writer.writeInteger(UInt32(0))
        writer.writeInteger(checksum)
        writer.writeInteger(UInt32(kind.rawValue))
        return start
    }

    private mutating func end(_ start: Int) {
        let sum = unsafe writer.bytes.withUnsafeBytes { raw in
            unsafe RecordDecoder.checksum(
                UnsafeRawBufferPointer(rebasing: raw[start...]),
                payload: raw.count - start - JournalFormat.recordHeadBytes,
                segment: segment)
        }
        writer.patchInteger(sum, at: start + 4)
        checksum = sum
        let padding = JournalFormat.aligned(writer.count - start) - (writer.count - start)
        if padding > 0 { writer.writeBytes(repeatElement(0, count: padding)) }
    }
}

/// A record as it lies in a segment.
struct FoundRecord {
    enum Content {
        case record(JournalRecord)
        case mark(UInt64)
    }

    let content: Content
    /// Without padding.
    let length: Int
    let checksum: UInt32
    let previous: UInt32
}

enum RecordDecoder {
    /// Over length, checksum of the record before, kind and payload; begins with the segment's number.
    static func checksum(_ record: UnsafeRawBufferPointer, payload: Int, segment: UInt64) -> UInt32 {
        let seed = UInt32(truncatingIfNeeded: segment &* 0x9E37_79B9_7F4A_7C15 >> 32)
        let length = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: record[..<4]), seed: seed)
        return unsafe CRC32C.checksum(
            UnsafeRawBufferPointer(rebasing: record[8..<JournalFormat.recordHeadBytes + payload]), seed: length)
    }

    /// The record that begins the bytes; nil when none does.
    static func decode(_ bytes: UnsafeRawBufferPointer, segment: UInt64) -> FoundRecord? {
        var reader = unsafe ByteReader(bytes)
        guard let payload = reader.readInteger(as: UInt32.self), let sum = reader.readInteger(as: UInt32.self),
            let previous = reader.readInteger(as: UInt32.self), let kind = reader.readInteger(as: UInt32.self),
            payload >= 8, payload <= JournalFormat.bodyBytesMax + JournalFormat.addHeadBytes,
            Int(payload) <= reader.remaining, kind <= 255, let kind = JournalFormat.Kind(rawValue: UInt8(kind)),
            unsafe checksum(bytes, payload: Int(payload), segment: segment) == sum,
            let content = content(kind, &reader, Int(payload))
        else { return nil }
        return FoundRecord(
            content: content, length: JournalFormat.recordHeadBytes + Int(payload), checksum: sum, previous: previous)
    }

    private static func content(
        _ kind: JournalFormat.Kind, _ reader: inout ByteReader, _ payload: Int
    ) -> FoundRecord.Content? {
        guard let first = reader.readInteger(as: UInt64.self) else { return nil }
        if kind == .mark { return payload == 8 ? .mark(first) : nil }
        // Larger ids are none that anybody gave out, and the set of deleted ledgers cannot hold them.
        guard first <= UInt64(Int64.max) else { return nil }
        let ledger = LedgerID(first)
        switch kind {
        case .add:
            guard payload >= JournalFormat.addHeadBytes,
                let entry = reader.readInteger(as: Int64.self).flatMap(JournalFormat.entry), entry >= .first,
                let lac = reader.readInteger(as: Int64.self).flatMap(JournalFormat.entry),
                let body = unsafe reader.readBytes(payload - JournalFormat.addHeadBytes)
            else { return nil }
            return .record(.add(ledger, entry, lac: lac, body: unsafe Array(body)))
        case .lac:
            guard payload == 16, let lac = reader.readInteger(as: Int64.self).flatMap(JournalFormat.entry) else {
                return nil
            }
            return .record(.lac(ledger, lac))
        case .fence: return payload == 8 ? .record(.fence(ledger)) : nil
        case .delete: return payload == 8 ? .record(.delete(ledger)) : nil
        case .limbo: return payload == 8 ? .record(.limbo(through: ledger)) : nil
        case .repaired: return payload == 8 ? .record(.repaired(ledger)) : nil
        case .mark: return nil
        }
    }
}
