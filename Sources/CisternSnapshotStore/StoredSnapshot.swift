// The manifest of a snapshot in a store. Specification and vectors: proto-spec/snapshot-store.md.
//
//   0 u32 magic "CSTO" · 4 u16 version · 6 u16 zero · 8 u32 length of the body · 12 u32 CRC-32C of bytes 0..<12 and the body
//   16 body: string handle · bytes snapshot record · bytes catalog of the store
//      varint count of files, for each: u8 kind · varint tree · varint number · varint bytes
//         varint count of pieces, in order, for each: string name · varint bytes · u32 CRC-32C
//
// The record is the file of proto-spec/snapshot.md, the catalog that of catalog.md with one store; both are bytes here.

internal import CisternPrimitives

/// A part of a file, and the object that has it.
package struct StoredPiece: Hashable, Sendable {
    /// In the namespace of the manifest.
    package let name: String
    package let bytes: UInt64
    package let checksum: UInt32

    package init(name: String, bytes: UInt64, checksum: UInt32) {
        self.name = name
        self.bytes = bytes
        self.checksum = checksum
    }

    /// More would have to be held in memory at once.
    package static let bytesMax: UInt64 = 16 << 20
}

/// A file of a data directory: names as there, and the pieces that make it up.
package struct StoredFile: Hashable, Sendable {
    /// 1 sorted file, 2 value file, 3 the front of a log segment. Stored: never renumber.
    package let kind: UInt8
    package let tree: UInt64
    package let number: UInt64
    package let bytes: UInt64
    package var pieces: [StoredPiece]

    package init(kind: UInt8, tree: UInt64, number: UInt64, bytes: UInt64, pieces: [StoredPiece]) {
        self.kind = kind
        self.tree = tree
        self.number = number
        self.bytes = bytes
        self.pieces = pieces
    }
}

package struct StoredSnapshot: Equatable, Sendable {
    package var handle: String
    package var record: [UInt8]
    package var catalog: [UInt8]
    package var files: [StoredFile]

    package init(handle: String, record: [UInt8], catalog: [UInt8], files: [StoredFile]) {
        self.handle = handle
        self.record = record
        self.catalog = catalog
        self.files = files
    }

    package var pieceNames: some Sequence<String> { files.lazy.flatMap(\.pieces).map(\.name) }
    package var bytes: UInt64 { files.reduce(0) { $0 + $1.bytes } }
}

/// Bytes that are not a manifest.
package struct StoredSnapshotDamage: Error, Equatable, Sendable {
    package let offset: Int
    package let detail: String
}

extension StoredSnapshot {
    // On disk: never change.
    package static let magic: UInt32 = 0x4F54_5343
    package static let version: UInt16 = 1
    package static let headerBytes = 16
    package static let bytesMax = 1 << 30

    package func encode() -> [UInt8] {
        var body = ByteWriter(capacity: 256 + record.count + catalog.count)
        body.writeLengthPrefixed(Array(handle.utf8))
        body.writeLengthPrefixed(record)
        body.writeLengthPrefixed(catalog)
        body.writeVarint(UInt64(files.count))
        for file in files { file.encode(into: &body) }
        var writer = ByteWriter(capacity: body.count + StoredSnapshot.headerBytes)
        writer.writeInteger(StoredSnapshot.magic)
        writer.writeInteger(StoredSnapshot.version)
        writer.writeInteger(UInt16(0))
        writer.writeInteger(UInt32(body.count))
        writer.writeInteger(CRC32C.checksum(body.bytes, seed: CRC32C.checksum(writer.bytes)))
        writer.writeBytes(body.bytes)
        return writer.bytes
    }

    /// Takes any bytes.
    package static func decode(_ bytes: [UInt8]) throws(StoredSnapshotDamage) -> StoredSnapshot {
        guard bytes.count >= headerBytes else { throw damage(0, "the header is cut short") }
        let sum = CRC32C.checksum(Array(bytes[headerBytes...]), seed: CRC32C.checksum(Array(bytes[..<12])))
        let fields = unsafe bytes.withUnsafeBytes { bytes -> (UInt32, UInt16, UInt32, UInt32)? in
            var reader = unsafe ByteReader(bytes)
            guard let magic = reader.readInteger(as: UInt32.self), let version = reader.readInteger(as: UInt16.self),
                reader.skip(2), let length = reader.readInteger(as: UInt32.self),
                let sum = reader.readInteger(as: UInt32.self)
            else { return nil }
            return (magic, version, length, sum)
        }
        guard let fields, fields.0 == magic else { throw damage(0, "this is not a manifest of a snapshot store") }
        guard fields.3 == sum else { throw damage(12, "the checksum does not match") }
        guard fields.1 == version else {
            throw damage(4, "it has version \(fields.1), and this program reads version \(version): use a newer one")
        }
        guard Int(fields.2) == bytes.count - headerBytes else {
            throw damage(8, "the body has \(bytes.count - headerBytes) bytes, recorded are \(fields.2)")
        }
        guard let manifest = unsafe bytes.withUnsafeBytes({ unsafe decodeBody($0) }) else {
            throw damage(headerBytes, "the body cannot be read")
        }
        return manifest
    }

    private static func damage(_ offset: Int, _ detail: String) -> StoredSnapshotDamage {
        StoredSnapshotDamage(offset: offset, detail: detail)
    }

    private static func decodeBody(_ bytes: UnsafeRawBufferPointer) -> StoredSnapshot? {
        var reader = unsafe ByteReader(bytes)
        guard reader.skip(headerBytes), let handle = StoredFile.readText(&reader),
            let record = unsafe reader.readLengthPrefixed(), let catalog = unsafe reader.readLengthPrefixed(),
            let count = reader.readVarint(), count <= UInt64(reader.remaining)
        else { return nil }
        var files: [StoredFile] = []
        for _ in 0..<count {
            guard let file = StoredFile(from: &reader) else { return nil }
            files.append(file)
        }
        guard reader.isAtEnd else { return nil }
        return unsafe StoredSnapshot(handle: handle, record: Array(record), catalog: Array(catalog), files: files)
    }
}

// MARK: Files

extension StoredFile {
    /// As a manifest has it.
    func encode(into writer: inout ByteWriter) {
        writer.writeUInt8(kind)
        writer.writeVarint(tree)
        writer.writeVarint(number)
        writer.writeVarint(bytes)
        writer.writeVarint(UInt64(pieces.count))
        for piece in pieces {
            writer.writeLengthPrefixed(Array(piece.name.utf8))
            writer.writeVarint(piece.bytes)
            writer.writeInteger(piece.checksum)
        }
    }

    /// Pieces fill the file, and their names are names of one part.
    init?(from reader: inout ByteReader) {
        guard let kind = reader.readUInt8(), let tree = reader.readVarint(), let number = reader.readVarint(),
            tree <= StoredFile.numberMax, number <= StoredFile.numberMax, let bytes = reader.readVarint(),
            bytes <= UInt64(Int.max), let count = reader.readVarint(), count <= UInt64(reader.remaining)
        else { return nil }
        var pieces: [StoredPiece] = []
        var sum: UInt64 = 0
        for _ in 0..<count {
            guard let name = StoredFile.readText(&reader), !name.contains("/"), StoreName.isValid(name),
                let size = reader.readVarint(), size <= StoredPiece.bytesMax,
                let checksum = reader.readInteger(as: UInt32.self)
            else { return nil }
            sum += size
            pieces.append(StoredPiece(name: name, bytes: size, checksum: checksum))
        }
        guard sum == bytes else { return nil }
        self.init(kind: kind, tree: tree, number: number, bytes: bytes, pieces: pieces)
    }

    /// As in a data directory, whose names have 18 digits at most.
    private static let numberMax: UInt64 = 999_999_999_999_999_999

    static func readText(_ reader: inout ByteReader) -> String? {
        guard let bytes = unsafe reader.readLengthPrefixed() else { return nil }
        return unsafe String(validating: bytes, as: UTF8.self)
    }
}
