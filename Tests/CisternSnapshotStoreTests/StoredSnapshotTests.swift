// The manifest of a snapshot in a store: golden bytes, and any bytes.

import CisternPrimitives
import CisternSnapshotStore
import CisternTestKit
import Testing

@Suite struct StoredSnapshotTests {
    private var snapshot: StoredSnapshot {
        StoredSnapshot(
            handle: "orders/12/0-127/5-18c", record: Array("record".utf8), catalog: Array("catalog".utf8),
            files: [
                StoredFile(
                    kind: 1, tree: 0, number: 12, bytes: 20_000_000,
                    pieces: [
                        StoredPiece(name: "t12.0a", bytes: 16 << 20, checksum: 0x0102_0304),
                        StoredPiece(name: "t12.0b", bytes: 20_000_000 - 16 << 20, checksum: 5),
                    ]),
                StoredFile(kind: 2, tree: 0, number: 13, bytes: 0, pieces: []),
                StoredFile(
                    kind: 3, tree: 7, number: 42, bytes: 300,
                    pieces: [StoredPiece(name: "l7.42.1", bytes: 300, checksum: 9)]),
            ])
    }

    @Test func aManifestHasItsGoldenBytes() throws {
        let bytes = snapshot.encode()
        var hex = AnnotatedHex(title: "A manifest of a snapshot store, version 1.\nproto-spec/snapshot-store.md")
        var rest = bytes[...]
        for (count, note) in [(4, "magic CSTO"), (2, "version"), (2, "zero"), (4, "length"), (4, "CRC-32C")] {
            hex.field(rest.prefix(count), note)
            rest = rest.dropFirst(count)
        }
        hex.section("body")
        for (count, note) in [(22, "handle"), (7, "record"), (8, "catalog"), (1, "files")] {
            hex.field(rest.prefix(count), note)
            rest = rest.dropFirst(count)
        }
        hex.field(rest, "a sorted file of two pieces, an empty value file, a segment of one piece")
        #expect(try GoldenFile.difference("stored-snapshot-v1.hex", from: hex.text) == nil)
        #expect(try StoredSnapshot.decode(try GoldenFile.bytes("stored-snapshot-v1.hex")) == snapshot)
    }

    @Test func aManifestThatIsCutOrChangedAnywhereIsRefused() throws {
        let bytes = snapshot.encode()
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 0x40
            #expect(throws: StoredSnapshotDamage.self, "byte \(index)") { try StoredSnapshot.decode(damaged) }
            #expect(throws: StoredSnapshotDamage.self) { try StoredSnapshot.decode(Array(bytes[..<index])) }
        }
        #expect(throws: StoredSnapshotDamage.self) { try StoredSnapshot.decode(bytes + [0]) }
    }

    /// With a right checksum, so that the body is read.
    @Test func aBodyOfAnyBytesNeverTraps() throws {
        var random = SeededRandom(seed: 4)
        let good = Array(snapshot.encode()[StoredSnapshot.headerBytes...])
        for _ in 0..<5000 {
            var body = good
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                body[.random(in: body.indices, using: &random)] = .random(in: 0...255, using: &random)
            }
            body.removeLast(.random(in: 0...3, using: &random))
            var writer = ByteWriter()
            writer.writeInteger(StoredSnapshot.magic)
            writer.writeInteger(StoredSnapshot.version)
            writer.writeInteger(UInt16(0))
            writer.writeInteger(UInt32(body.count))
            writer.writeInteger(CRC32C.checksum(body, seed: CRC32C.checksum(writer.bytes)))
            writer.writeBytes(body)
            if let decoded = try? StoredSnapshot.decode(writer.bytes) {
                #expect(decoded.files.allSatisfy { file in file.pieces.reduce(0) { $0 + $1.bytes } == file.bytes })
            }
        }
    }
}
