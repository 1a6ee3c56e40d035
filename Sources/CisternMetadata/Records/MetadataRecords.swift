// The values that the changelog service keeps in a metadata store. Specification: proto-spec/metadata-records.md.
//
//     record = u8 kind ‖ u8 version ‖ body ‖ u32 CRC-32C of all before
//
// Little-endian. A record of another kind or version is refused: no field is guessed.

internal import CisternLogProtocol
package import CisternPrimitives

/// Stored: never renumber.
package enum MetadataRecordKind: UInt8, Sendable, CaseIterable {
    case ledger = 1
    case log = 2
    case node = 3
    case repair = 4
    case ledgerIDs = 5
    case cluster = 6
    case cookie = 7
    case tree = 8
    case catalog = 9
}

/// A value with a layout of its own. One way to write each value, so that equal values have equal bytes.
package protocol MetadataRecord: Hashable, Sendable {
    static var kind: MetadataRecordKind { get }
    static var version: UInt8 { get }
    func writeBody(into out: inout ByteWriter)
    static func read(_ bytes: MetadataRecordBody) throws(CorruptionError) -> Self
}

/// What is between a record's head and its checksum.
package struct MetadataRecordBody: Sendable {
    let bytes: [UInt8]
    let source: String

    func decode<Value>(
        _ body: (inout RecordFields) throws(CorruptionError) -> Value
    ) throws(CorruptionError) -> Value { try RecordFields.decode(bytes, source: source, body) }
}

package enum MetadataRecords {
    package static let headBytes = 2
    package static let checksumBytes = 4
    /// Highest entry id: so that arithmetic on ids has room.
    package static let entryIDMax = Int64.max >> 1

    package static func encode(_ record: some MetadataRecord) -> [UInt8] {
        var out = ByteWriter()
        out.writeUInt8(type(of: record).kind.rawValue)
        out.writeUInt8(type(of: record).version)
        record.writeBody(into: &out)
        out.writeInteger(CRC32C.checksum(out.bytes))
        return out.bytes
    }

    /// Takes any bytes. Offsets of errors count from the body, which begins at byte 2.
    package static func decode<Record: MetadataRecord>(
        _ type: Record.Type, _ bytes: [UInt8], source: String
    ) throws(CorruptionError) -> Record {
        guard bytes.count >= headBytes + checksumBytes else {
            throw CorruptionError(source: source, offset: UInt64(bytes.count), detail: "it ends within its head")
        }
        let end = bytes.count - checksumBytes
        let stored = bytes[end...].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        let computed = CRC32C.checksum(Array(bytes[..<end]))
        guard stored == computed else {
            throw CorruptionError(
                source: source, offset: UInt64(end), detail: "the checksum is \(stored), that of the bytes \(computed)")
        }
        guard bytes[0] == Record.kind.rawValue, bytes[1] == Record.version else {
            let expected = "kind \(Record.kind.rawValue) version \(Record.version)"
            throw CorruptionError(
                source: source, offset: 0,
                detail: "kind \(bytes[0]) version \(bytes[1]) where this program reads \(expected)")
        }
        return try Record.read(MetadataRecordBody(bytes: Array(bytes[headBytes..<end]), source: source))
    }
}

extension RecordFields {
    mutating func entry(_ field: String) throws(CorruptionError) -> EntryID {
        let value = try integer(field, as: Int64.self)
        guard value >= -1, value <= MetadataRecords.entryIDMax else { throw damaged("\(field) is \(value)") }
        return EntryID(value)
    }

    mutating func ledger(_ field: String) throws(CorruptionError) -> LedgerID { LedgerID(try integer(field)) }

    /// A count of items of `bytes` each, which are all there.
    mutating func count(_ field: String, of bytes: Int) throws(CorruptionError) -> Int {
        let count = Int(try integer(field, as: UInt32.self))
        guard count <= remaining / bytes else { throw damaged("\(field) is \(count), more than its bytes hold") }
        return count
    }
}
