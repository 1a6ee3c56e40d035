// Bounds-checked cursor over bytes that are not trusted yet: files, log records, frames.
//
// Every read returns nil when the input ends too early and leaves the cursor where it was, so a decoder can report the
// offset at which it stopped. No read allocates.

/// Reads little-endian integers, varints and length-prefixed slices from borrowed bytes.
///
/// The reader does not own the memory: it must not outlive the buffer it was made from.
@safe package struct ByteReader {
    package let bytes: UnsafeRawBufferPointer
    @usableFromInline var cursor: Int

    /// Where the next read starts.
    package var offset: Int { cursor }

    @inlinable
    package init(_ bytes: UnsafeRawBufferPointer) {
        unsafe self.bytes = bytes
        self.cursor = 0
    }

    @inlinable package var remaining: Int { unsafe bytes.count - cursor }
    @inlinable package var isAtEnd: Bool { remaining == 0 }

    package mutating func readUInt8() -> UInt8? {
        guard remaining >= 1 else { return nil }
        defer { cursor += 1 }
        return unsafe bytes[cursor]
    }

    // Its body is visible to other modules: a generic one that is not specialised costs more than the whole message.
    @inlinable
    package mutating func readInteger<T: FixedWidthInteger>(as: T.Type = T.self) -> T? {
        guard remaining >= MemoryLayout<T>.size else { return nil }
        let raw = unsafe bytes.loadUnaligned(fromByteOffset: cursor, as: T.self)
        cursor += MemoryLayout<T>.size
        return T(littleEndian: raw)
    }

    /// LEB128, at most 10 bytes; nil also when the number does not fit 64 bits.
    package mutating func readVarint() -> UInt64? {
        var result: UInt64 = 0
        var shift: UInt64 = 0
        var position = cursor
        let end = unsafe bytes.count
        while position < end {
            let byte = unsafe bytes[position]
            position += 1
            if shift == 63 && byte > 1 { return nil }
            result |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 {
                cursor = position
                return result
            }
            shift += 7
            if shift > 63 { return nil }
        }
        return nil
    }

    /// A slice of the input, valid as long as the input is.
    package mutating func readBytes(_ count: Int) -> UnsafeRawBufferPointer? {
        guard count >= 0, remaining >= count else { return nil }
        defer { cursor += count }
        return unsafe UnsafeRawBufferPointer(rebasing: bytes[cursor..<(cursor + count)])
    }

    /// A varint length, then that many bytes.
    package mutating func readLengthPrefixed() -> UnsafeRawBufferPointer? {
        let start = cursor
        guard let length = readVarint(), length <= UInt64(remaining), let slice = unsafe readBytes(Int(length)) else {
            cursor = start
            return nil
        }
        return unsafe slice
    }

    package mutating func skip(_ count: Int) -> Bool {
        guard count >= 0, remaining >= count else { return false }
        cursor += count
        return true
    }
}
