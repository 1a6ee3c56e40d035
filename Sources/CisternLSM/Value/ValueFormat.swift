// The value file: values that sorted files point to instead of holding them. Page: proto-spec/value-file.md.
//
//    ┌ header 32 ┐┌ record ─────────────────────────────────────────────────────────┐┌ record … ┐┌ footer 32 ┐
//                 │ value │ u64 Hash64 of the key │ u32 size of the value │ u32 CRC │
//
//    header  0 u64 magic │ 8 u32 version │ 12 u32 zero │ 16 u64 number of the file │ 24 u32 zero │ 28 u32 CRC-32C of 0 ..< 28
//    footer  0 u64 records │ 8 u64 file size │ 16 u32 version │ 20 u32 CRC-32C of 0 ..< 20 │ 24 u64 magic
//    CRC     CRC-32C of value ‖ hash ‖ size ‖ u64 offset of the record in the file ‖ u64 number of the file
//
//    pointer, the value of an entry of a sorted file: 0 u64 number of the value file │ 8 u64 offset │ 16 u32 size of the value
//
// The trailer stands behind the value, so that a value is read to where it stays and nothing moves. Offset and file number in
// the checksum make a record in the wrong place a damaged one; the hash makes one of another key no answer.
// Little-endian. On disk: never renumber, never reorder.

internal import CisternPrimitives

/// Where a value lies.
package struct ValuePointer: Equatable, Sendable {
    package var file: UInt64
    package var offset: UInt64
    /// Of the value alone.
    package var valueBytes: UInt32

    static let encodedBytes = 20

    /// What the record takes in its file.
    package var recordBytes: UInt64 { UInt64(valueBytes) + UInt64(ValueFormat.trailerBytes) }

    /// nil when the bytes are no pointer.
    @inline(__always)
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == ValuePointer.encodedBytes else { return nil }
        file = unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
        offset = unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        valueBytes = unsafe UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
        guard valueBytes <= UInt32(TableFormat.valueBytesMax), file <= EngineLimits.numberMax else { return nil }
    }

    init(file: UInt64, offset: UInt64, valueBytes: UInt32) {
        self.file = file
        self.offset = offset
        self.valueBytes = valueBytes
    }

    func encode(into output: inout GrowingBuffer) {
        output.appendInteger(file)
        output.appendInteger(offset)
        output.appendInteger(valueBytes)
    }
}

/// What a sorted file says of a value file that it points into; part of its properties.
package struct ValueFileUse: Equatable, Sendable {
    package let number: UInt64
    /// Size of the whole value file.
    package let fileBytes: UInt64
    /// Pointers to it, and what their records take.
    package var entryCount: UInt64 = 0
    package var recordBytes: UInt64 = 0

    package init(number: UInt64, fileBytes: UInt64, entryCount: UInt64 = 0, recordBytes: UInt64 = 0) {
        self.number = number
        self.fileBytes = fileBytes
        self.entryCount = entryCount
        self.recordBytes = recordBytes
    }

    mutating func count(_ pointer: ValuePointer) {
        entryCount += 1
        recordBytes += pointer.recordBytes
    }
}

package enum ValueFormat {
    /// "CISTVAL1" read as bytes.
    static let magic: UInt64 = 0x314C_4156_5453_4943
    /// On disk: never renumber.
    package static let version: UInt32 = 1
    package static let headerBytes = 32
    package static let footerBytes = 32
    package static let trailerBytes = 16
    /// The byte of a sorted file's kind column that says that a put's value is a pointer.
    static let pointerKind: UInt8 = 4

    /// Everything that a file of so many bytes has but records.
    static var frameBytes: UInt64 { UInt64(headerBytes + footerBytes) }

    static func header(number: UInt64) -> [UInt8] {
        var writer = ByteWriter(capacity: headerBytes)
        writer.writeInteger(magic)
        writer.writeInteger(version)
        writer.writeInteger(UInt32(0))
        writer.writeInteger(number)
        writer.writeInteger(UInt32(0))
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    /// The number of the file.
    static func decodeHeader(_ bytes: UnsafeRawBufferPointer, path: String) throws(EngineError) -> UInt64 {
        var reader = unsafe ByteReader(bytes)
        guard let magic: UInt64 = reader.readInteger(), let version: UInt32 = reader.readInteger(), reader.skip(4),
            let number = reader.readNumber(), reader.skip(4), let crc: UInt32 = reader.readInteger()
        else { throw tableCorruption(path, 0, "the header is cut short or its number is too large") }
        guard magic == ValueFormat.magic else { throw tableCorruption(path, 0, "this is not a value file") }
        let found = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[..<28]))
        guard found == crc else {
            throw tableCorruption(path, 28, "the header's checksum is \(found), recorded is \(crc)")
        }
        try check(version, path)
        return number
    }

    static func footer(records: UInt64, fileBytes: UInt64) -> [UInt8] {
        var writer = ByteWriter(capacity: footerBytes)
        writer.writeInteger(records)
        writer.writeInteger(fileBytes)
        writer.writeInteger(version)
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        writer.writeInteger(magic)
        return writer.bytes
    }

    /// The number of records.
    static func decodeFooter(
        _ bytes: UnsafeRawBufferPointer, path: String, fileBytes: UInt64
    ) throws(EngineError) -> UInt64 {
        let start = fileBytes - UInt64(footerBytes)
        var reader = unsafe ByteReader(bytes)
        guard let records: UInt64 = reader.readInteger(), let recordedBytes: UInt64 = reader.readInteger(),
            let version: UInt32 = reader.readInteger(), let crc: UInt32 = reader.readInteger(),
            let magic: UInt64 = reader.readInteger()
        else { throw tableCorruption(path, start, "the footer has \(bytes.count) bytes") }
        guard magic == ValueFormat.magic else {
            throw tableCorruption(path, start + 24, "the file does not end with the magic of a value file")
        }
        let found = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[..<20]))
        guard found == crc else {
            throw tableCorruption(path, start + 20, "the footer's checksum is \(found), recorded is \(crc)")
        }
        try check(version, path)
        guard recordedBytes == fileBytes else {
            throw tableCorruption(path, start + 8, "the file has \(fileBytes) bytes, the footer says \(recordedBytes)")
        }
        return records
    }

    private static func check(_ found: UInt32, _ path: String) throws(EngineError) {
        guard found == version else {
            throw .unsupported(
                detail: "\(path) has value file format \(found); this program reads \(version): use a newer one")
        }
    }

    /// Of a record whose value, hash and size lie at `start`, one behind the other.
    static func checksum(
        _ start: UnsafeRawPointer, valueBytes: Int, offset: UInt64, file: UInt64
    ) -> UInt32 {
        var place: InlineArray<2, UInt64> = [offset.littleEndian, file.littleEndian]
        let crc = unsafe CRC32C.checksum(UnsafeRawBufferPointer(start: start, count: valueBytes + 12))
        var span = place.mutableSpan
        return unsafe span.withUnsafeMutableBytes { unsafe CRC32C.checksum(UnsafeRawBufferPointer($0), seed: crc) }
    }

    /// Writes the record of a value behind `output`, which begins at `offset` of the file.
    static func append(
        _ value: UnsafeRawBufferPointer, hash: UInt64, at offset: UInt64, file: UInt64, to output: inout GrowingBuffer
    ) {
        let start = output.count
        unsafe output.append(value)
        output.appendInteger(hash)
        output.appendInteger(UInt32(value.count))
        output.appendInteger(
            unsafe checksum(output.base + start, valueBytes: value.count, offset: offset, file: file))
    }

    /// What is wrong with the record at `start`, or nil.
    /// - Parameter hash: of the key; nil: of any.
    static func fault(
        of start: UnsafeRawPointer, _ pointer: ValuePointer, hash: UInt64?
    ) -> String? {
        let size = Int(pointer.valueBytes)
        let recorded = unsafe UInt32(
            littleEndian: start.loadUnaligned(fromByteOffset: size + 12, as: UInt32.self))
        let computed = unsafe checksum(start, valueBytes: size, offset: pointer.offset, file: pointer.file)
        guard recorded == computed else {
            return "the checksum of a value of \(size) bytes is \(computed), recorded is \(recorded)"
        }
        let recordedSize = unsafe UInt32(
            littleEndian: start.loadUnaligned(fromByteOffset: size + 8, as: UInt32.self))
        guard recordedSize == pointer.valueBytes else {
            return "a value of \(recordedSize) bytes is where one of \(size) is expected"
        }
        let recordedHash = unsafe UInt64(
            littleEndian: start.loadUnaligned(fromByteOffset: size, as: UInt64.self))
        if let hash, hash != recordedHash { return "the value is that of another key" }
        return nil
    }
}

extension [ValueFileUse] {
    func encode(into writer: inout ByteWriter) {
        writer.writeVarint(UInt64(count))
        for use in self {
            writer.writeVarint(use.number)
            writer.writeVarint(use.fileBytes)
            writer.writeVarint(use.entryCount)
            writer.writeVarint(use.recordBytes)
        }
    }

    /// nil unless they are by ascending number, and each has an entry and fits its file.
    static func decode(_ reader: inout ByteReader) -> [ValueFileUse]? {
        guard let count = reader.readVarint(), count <= UInt64(reader.remaining) else { return nil }
        var uses: [ValueFileUse] = []
        for _ in 0..<count {
            guard let number = reader.readVarint(), number <= EngineLimits.numberMax,
                number > uses.last?.number ?? 0 || uses.isEmpty, let fileBytes = reader.readVarint(),
                let entryCount = reader.readVarint(), entryCount > 0, let recordBytes = reader.readVarint(),
                fileBytes >= ValueFormat.frameBytes, recordBytes <= fileBytes - ValueFormat.frameBytes
            else { return nil }
            uses.append(
                ValueFileUse(number: number, fileBytes: fileBytes, entryCount: entryCount, recordBytes: recordBytes))
        }
        return uses
    }
}
