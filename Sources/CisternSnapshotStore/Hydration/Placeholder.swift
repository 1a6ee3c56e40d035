// What stands in a data directory for a file whose bytes are in a snapshot store still. Specification and vector: proto-spec/placeholder.md.
//
//   0 u32 magic "CPLH" · 4 u16 version · 6 u16 zero · 8 u32 length of the body · 12 u32 CRC-32C of bytes 0..<12 and the body
//   16 body: string namespace · the file as in a manifest (StoredSnapshot.swift)

internal import CisternPrimitives

package struct Placeholder: Equatable, Sendable {
    /// Whose pieces they are.
    package let namespace: String
    package let file: StoredFile

    package init(namespace: String, file: StoredFile) {
        self.namespace = namespace
        self.file = file
    }

    // On disk: never change.
    package static let magic: UInt32 = 0x484C_5043
    package static let version: UInt16 = 1
    package static let headerBytes = 16
    /// Larger ones are files themselves. A file of 256 GiB has 16,384 pieces of some 40 bytes.
    package static let bytesMax = 1 << 20

    package func encode() -> [UInt8] {
        var body = ByteWriter(capacity: 64 + file.pieces.count * 48)
        body.writeLengthPrefixed(Array(namespace.utf8))
        file.encode(into: &body)
        var writer = ByteWriter(capacity: body.count + Placeholder.headerBytes)
        writer.writeInteger(Placeholder.magic)
        writer.writeInteger(Placeholder.version)
        writer.writeInteger(UInt16(0))
        writer.writeInteger(UInt32(body.count))
        writer.writeInteger(CRC32C.checksum(body.bytes, seed: CRC32C.checksum(writer.bytes)))
        writer.writeBytes(body.bytes)
        return writer.bytes
    }

    /// Whether a file that begins so is meant to be one.
    package static func isPlaceholder(_ front: [UInt8]) -> Bool {
        front.count >= 4 && Array(front[..<4]) == [0x43, 0x50, 0x4C, 0x48]
    }

    /// Takes any bytes.
    package static func decode(_ bytes: [UInt8]) throws(StoredSnapshotDamage) -> Placeholder {
        func damage(_ offset: Int, _ detail: String) -> StoredSnapshotDamage {
            StoredSnapshotDamage(offset: offset, detail: detail)
        }
        guard bytes.count >= headerBytes else { throw damage(0, "the header is cut short") }
        guard isPlaceholder(bytes) else { throw damage(0, "this does not stand for a file of a snapshot store") }
        let sum = CRC32C.checksum(Array(bytes[headerBytes...]), seed: CRC32C.checksum(Array(bytes[..<12])))
        let fields = unsafe bytes.withUnsafeBytes { bytes -> (UInt16, UInt32, UInt32)? in
            var reader = unsafe ByteReader(bytes)
            guard reader.skip(4), let version = reader.readInteger(as: UInt16.self), reader.skip(2),
                let length = reader.readInteger(as: UInt32.self), let sum = reader.readInteger(as: UInt32.self)
            else { return nil }
            return (version, length, sum)
        }
        guard let fields, fields.2 == sum else { throw damage(12, "the checksum does not match") }
        guard fields.0 == version else {
            throw damage(4, "it has version \(fields.0), and this program reads version \(version): use a newer one")
        }
        guard Int(fields.1) == bytes.count - headerBytes else {
            throw damage(8, "the body has \(bytes.count - headerBytes) bytes, recorded are \(fields.1)")
        }
        let placeholder = unsafe bytes.withUnsafeBytes { bytes -> Placeholder? in
            var reader = unsafe ByteReader(bytes)
            guard reader.skip(headerBytes), let namespace = StoredFile.readText(&reader),
                StoreLayout.isNamespace(namespace), let file = StoredFile(from: &reader), reader.isAtEnd
            else { return nil }
            return Placeholder(namespace: namespace, file: file)
        }
        guard let placeholder else { throw damage(headerBytes, "the body cannot be read") }
        return placeholder
    }
}
