// The manifest of a tree on disk, and the CURRENT file that names the valid one. Specification and vectors:
// proto-spec/manifest.md.
//
//   manifest = header (32 bytes) state-record edit-record*
//   header   0 u32 magic "CMAN" · 4 u16 version · 6 u16 zero · 8 u64 tree · 16 u64 manifest number · 24 u32 zero
//            28 u32 CRC-32C of bytes 0..<28
//   record   0 u32 length of what follows byte 8 · 4 u32 CRC-32C of bytes 0..<4 and 8..<end
//            8 u64 manifest number · 16 u8 kind (1 state, 2 edit) · body
//   CURRENT  0 u32 magic "CCUR" · 4 u16 version · 6 u16 zero · 8 u64 manifest number · 16 u32 zero · 20 u32 CRC-32C
//            of bytes 0..<20

internal import CisternFileSystem
internal import CisternPrimitives

package enum ManifestFormat {
    // On disk: never change.
    package static let magic: UInt32 = 0x4E41_4D43
    package static let currentMagic: UInt32 = 0x5255_4343
    package static let version: UInt16 = 1
    /// A manifest whose state refers to logs of other trees; all others stay readable for programs that know version 1 only.
    package static let versionWithLogs: UInt16 = 2
    /// A manifest with expiry rules.
    package static let versionWithRules: UInt16 = 3
    package static let headerBytes = 32
    package static let currentBytes = 24
    package static let stateKind: UInt8 = 1
    package static let editKind: UInt8 = 2

    static func version(of state: TreeState) -> UInt16 {
        if !state.expiryRules.isEmpty { return versionWithRules }
        return state.logs.isEmpty ? version : versionWithLogs
    }

    package static let manifestBytesMax = 1 << 30
    package static let nameBytesMax = 4096

    package static func encodeCurrent(_ number: UInt64) -> [UInt8] {
        var writer = ByteWriter(capacity: currentBytes)
        writer.writeInteger(currentMagic)
        writer.writeInteger(version)
        writer.writeInteger(UInt16(0))
        writer.writeInteger(number)
        writer.writeInteger(UInt32(0))
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    package static func decodeCurrent(_ bytes: [UInt8], path: String) throws(EngineError) -> UInt64 {
        guard bytes.count == currentBytes else {
            throw corruption(path, 0, "expected \(currentBytes) bytes, found \(bytes.count)")
        }
        let fields = unsafe bytes.withUnsafeBytes { unsafe decodeCurrentFields($0) }
        guard let fields else {
            throw corruption(path, 0, "the checksum, the magic number or the manifest number does not fit")
        }
        try checkVersion(fields.version, in: version...version, path: path)
        return fields.number
    }

    private static func decodeCurrentFields(_ bytes: UnsafeRawBufferPointer) -> (version: UInt16, number: UInt64)? {
        let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<20])
        guard unsafe CRC32C.checksum(covered) == bytes.loadUnaligned(fromByteOffset: 20, as: UInt32.self).littleEndian
        else {
            return nil
        }
        var reader = unsafe ByteReader(covered)
        guard reader.readInteger(as: UInt32.self) == currentMagic, let version = reader.readInteger(as: UInt16.self),
            reader.skip(2), let number = reader.readNumber()
        else { return nil }
        return (version, number)
    }

    /// - Parameter state: what the manifest begins with.
    package static func encodeHeader(tree: TreeID, number: UInt64, state: TreeState) -> [UInt8] {
        var writer = ByteWriter(capacity: headerBytes)
        writer.writeInteger(magic)
        writer.writeInteger(version(of: state))
        writer.writeInteger(UInt16(0))
        writer.writeInteger(tree.number)
        writer.writeInteger(number)
        writer.writeInteger(UInt32(0))
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    package static func encode(_ state: TreeState, number: UInt64) -> [UInt8] {
        record(number: number, kind: stateKind) { state.encode(into: &$0) }
    }

    package static func encode(_ edit: VersionEdit, number: UInt64) -> [UInt8] {
        record(number: number, kind: editKind) { edit.encode(into: &$0) }
    }

    private static func record(number: UInt64, kind: UInt8, _ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter(capacity: 256)
        writer.writeInteger(UInt32(0))
        writer.writeInteger(UInt32(0))
        writer.writeInteger(number)
        writer.writeUInt8(kind)
        body(&writer)
        writer.patchInteger(UInt32(writer.count - 8), at: 0)
        let sum = CRC32C.checksum(
            Array(writer.bytes[8...]), seed: CRC32C.checksum(Array(writer.bytes[..<4])))
        writer.patchInteger(sum, at: 4)
        return writer.bytes
    }

    /// Folds a manifest. A torn record at its end was never acknowledged and is left out; damage before it throws.
    package static func decode(
        _ bytes: [UInt8], path: String, tree: TreeID, number: UInt64
    ) throws(EngineError) -> TreeState {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
        defer { unsafe copy.deallocate() }
        unsafe copy.copyBytes(from: bytes)
        let whole = UnsafeRawBufferPointer(copy)
        let version = unsafe try checkHeader(whole, path: path, tree: tree, number: number)
        var offset = headerBytes
        var state: TreeState?
        while offset < whole.count {
            guard let record = unsafe intactRecord(whole, at: offset, number: number) else {
                unsafe try refuseDamage(whole, at: offset, path: path, number: number)
                break
            }
            unsafe try fold(record, of: version, into: &state, path: path, offset: UInt64(offset))
            offset += record.count + 8
        }
        guard let state else {
            // The state is synced before CURRENT names the manifest, so this is no torn tail.
            throw corruption(path, UInt64(headerBytes), "the tree's state is missing")
        }
        return state
    }

    /// Returns the version.
    private static func checkHeader(
        _ bytes: UnsafeRawBufferPointer, path: String, tree: TreeID, number: UInt64
    ) throws(EngineError) -> UInt16 {
        guard bytes.count >= headerBytes else { throw corruption(path, 0, "the header is cut short") }
        let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<28])
        guard unsafe CRC32C.checksum(covered) == bytes.loadUnaligned(fromByteOffset: 28, as: UInt32.self).littleEndian
        else {
            throw corruption(path, 0, "the header's checksum does not match")
        }
        var reader = unsafe ByteReader(covered)
        guard reader.readInteger(as: UInt32.self) == magic else { throw corruption(path, 0, "this is not a manifest") }
        let found: UInt16 = reader.readInteger() ?? 0
        try checkVersion(found, in: version...versionWithRules, path: path)
        guard reader.skip(2), reader.readInteger(as: UInt64.self) == tree.number,
            reader.readInteger(as: UInt64.self) == number
        else { throw corruption(path, 8, "the header names another tree or manifest; this file was exchanged") }
        return found
    }

    private static func checkVersion(
        _ found: UInt16, in known: ClosedRange<UInt16>, path: String
    ) throws(EngineError) {
        guard known.contains(found) else {
            throw .unsupported(
                detail: "\(path) has version \(found), and this program reads versions up to \(known.upperBound)")
        }
    }

    /// What follows the length and checksum of an intact record.
    private static func intactRecord(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, number: UInt64
    ) -> UnsafeRawBufferPointer? {
        var reader = unsafe ByteReader(UnsafeRawBufferPointer(rebasing: bytes[offset...]))
        guard let length = reader.readInteger(as: UInt32.self), let sum = reader.readInteger(as: UInt32.self),
            length >= 9, let body = unsafe reader.readBytes(Int(length))
        else { return nil }
        guard unsafe body.loadUnaligned(as: UInt64.self).littleEndian == number else { return nil }
        let seed = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + 4]))
        return unsafe CRC32C.checksum(body, seed: seed) == sum ? body : nil
    }

    private static func refuseDamage(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, path: String, number: UInt64
    ) throws(EngineError) {
        var position = offset + 1
        while position + 17 <= bytes.count {
            if unsafe bytes.loadUnaligned(fromByteOffset: position + 8, as: UInt64.self).littleEndian == number,
                unsafe intactRecord(bytes, at: position, number: number) != nil
            {
                throw corruption(path, UInt64(offset), "a record's checksum does not match, and intact records follow")
            }
            position += 1
        }
    }

    private static func fold(
        _ record: UnsafeRawBufferPointer, of version: UInt16, into state: inout TreeState?, path: String,
        offset: UInt64
    ) throws(EngineError) {
        var reader = unsafe ByteReader(record)
        guard reader.skip(8), let kind = reader.readUInt8() else { throw corruption(path, offset, "a record is short") }
        if kind == stateKind, state == nil {
            guard let decoded = TreeState.decode(&reader, version: version), reader.isAtEnd else {
                throw corruption(path, offset, "the tree's state cannot be read")
            }
            state = decoded
        } else if kind == editKind, var current = state {
            // The only owner while it is changed: else each edit would copy all files of the tree.
            state = nil
            guard let edit = VersionEdit.decode(&reader), reader.isAtEnd else {
                throw corruption(path, offset, "an edit cannot be read")
            }
            if let problem = current.apply(edit) { throw corruption(path, offset, problem) }
            state = current
        } else {
            throw corruption(path, offset, "a record of kind \(kind) is out of place")
        }
    }
}

func corruption(_ path: String, _ offset: UInt64, _ detail: String) -> EngineError {
    .corruption(CorruptionError(source: path, offset: offset, detail: detail))
}
