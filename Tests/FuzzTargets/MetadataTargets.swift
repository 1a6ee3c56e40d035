// What the metadata store keeps: records, and the file of the embedded one. The first byte of a record chooses its kind.

import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit

extension FuzzTarget {
    static let metadata = [
        FuzzTarget(
            name: "metadata-record",
            seeds: {
                try ["ledger", "log", "node", "repair", "ledger-ids", "cluster", "cookie", "tree", "catalog"].map {
                    try GoldenFile.bytes("metadata-\($0)-v1.hex")
                }
            }, run: readRecord),
        FuzzTarget(
            name: "metadata-store", seeds: { [try GoldenFile.bytes("metadata-store-v1.hex")] }, run: readStore),
    ]
}

private func readRecord(_ input: [UInt8]) {
    guard input.count >= 6, let kind = MetadataRecordKind(rawValue: input[0]) else { return }
    var bytes = input
    setChecksum(&bytes, at: bytes.count - 4, of: 0..<(bytes.count - 4))
    switch kind {
    case .ledger: comeBack(LedgerMetadata.self, bytes)
    case .log: comeBack(LogMetadata.self, bytes)
    case .node: comeBack(LogNodeRegistration.self, bytes)
    case .repair: comeBack(RepairEntry.self, bytes)
    case .ledgerIDs: comeBack(LedgerIDCounter.self, bytes)
    case .cluster: comeBack(ClusterRecord.self, bytes)
    case .cookie: comeBack(CookieRecord.self, bytes)
    case .tree: comeBack(TreeRecord.self, bytes)
    case .catalog: comeBack(CatalogRecord.self, bytes)
    }
}

private func comeBack<Record: MetadataRecord>(_ type: Record.Type, _ bytes: [UInt8]) {
    guard let record = try? MetadataRecords.decode(type, bytes, source: "fuzz") else { return }
    // There is one way to write a record.
    guard MetadataRecords.encode(record) == bytes else { broken("a record is encoded otherwise than it was read") }
}

/// Frames: u32 checksum of the rest, u32 body bytes, u64 version, u8 type, body.
private func readStore(_ input: [UInt8]) {
    var bytes = input
    if bytes.count >= MetadataFileFormat.headerBytes { setChecksum(&bytes, at: 12, of: 0..<12) }
    var offset = MetadataFileFormat.headerBytes
    while offset + MetadataFileFormat.frameHeadBytes <= bytes.count {
        let end = offset + MetadataFileFormat.frameHeadBytes + number32(bytes, at: offset + 4)
        guard end <= bytes.count else { break }
        setChecksum(&bytes, at: offset, of: (offset + 4)..<end)
        offset = end
    }
    guard let contents = try? MetadataFileFormat.decode(bytes, source: "fuzz") else { return }
    let again = try? MetadataFileFormat.decode(MetadataFileFormat.encode(contents.tree), source: "again")
    guard let again, again.tree.version == contents.tree.version, again.tree.count == contents.tree.count else {
        broken("a store does not come back from its own encoding")
    }
}
