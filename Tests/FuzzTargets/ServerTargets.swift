// The server's own files.

import CisternDaemon
import CisternPrimitives
import CisternServer
import CisternSnapshotStore
import CisternTestKit

extension FuzzTarget {
    static let server = [
        FuzzTarget(name: "catalog", seeds: { [try GoldenFile.bytes("catalog-v1.hex")] }, run: readCatalog),
        FuzzTarget(
            name: "stored-snapshot", seeds: { [try GoldenFile.bytes("stored-snapshot-v1.hex")] },
            run: readStoredSnapshot),
        FuzzTarget(
            name: "placeholder", seeds: { [try GoldenFile.bytes("placeholder-v1.hex")] }, run: readPlaceholder),
        FuzzTarget(
            name: "configuration",
            seeds: { [Array("listen = 127.0.0.1:7070\ndata = /tmp/x # where\nmemory = 64 MiB\n".utf8)] },
            run: readConfiguration),
    ]
}

/// Records: u32 checksum of the rest, u32 payload bytes, u8 type, payload.
private func readCatalog(_ input: [UInt8]) {
    var bytes = input
    if bytes.count >= 16 { setChecksum(&bytes, at: 12, of: 0..<12) }
    var offset = 16
    while offset + 9 <= bytes.count {
        let end = offset + 9 + number32(bytes, at: offset + 4)
        guard end <= bytes.count else { break }
        setChecksum(&bytes, at: offset, of: (offset + 4)..<end)
        offset = end
    }
    guard let state = try? CatalogFormat.decode(bytes, source: "fuzz") else { return }
    guard (try? CatalogFormat.decode(CatalogFormat.encode(state), source: "again")) == state else {
        broken("a catalog does not come back from its own encoding")
    }
}

/// Header of 16 bytes with the body's length and a checksum of both.
/// Both formats of the snapshot store: u32 magic, u16 version, u16 zero, u32 bytes of the body, u32 checksum, body.
private func withLengthAndChecksum(_ input: [UInt8]) -> [UInt8] {
    var bytes = input
    guard bytes.count >= 16 else { return bytes }
    let length = UInt32(bytes.count - 16)
    for index in 0..<4 { bytes[8 + index] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(index))) }
    let sum = CRC32C.checksum(Array(bytes[16...]), seed: CRC32C.checksum(Array(bytes[..<12])))
    for index in 0..<4 { bytes[12 + index] = UInt8(truncatingIfNeeded: sum >> (8 * UInt32(index))) }
    return bytes
}

private func readPlaceholder(_ input: [UInt8]) {
    guard let placeholder = try? Placeholder.decode(withLengthAndChecksum(input)) else { return }
    guard (try? Placeholder.decode(placeholder.encode())) == placeholder else {
        broken("a placeholder does not come back from its own encoding")
    }
}

private func readStoredSnapshot(_ input: [UInt8]) {
    let bytes = withLengthAndChecksum(input)
    guard let manifest = try? StoredSnapshot.decode(bytes) else { return }
    guard (try? StoredSnapshot.decode(manifest.encode())) == manifest else {
        broken("a manifest does not come back from its own encoding")
    }
}

private func readConfiguration(_ input: [UInt8]) {
    let text = String(decoding: input, as: UTF8.self)
    _ = try? ConfigurationLoader.load(flags: [], environment: [:], file: (name: "fuzz", text: text))
}
