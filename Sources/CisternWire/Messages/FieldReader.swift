// Reads the fields of a protobuf message in place: any order, unknown fields skipped, every length checked against the
// input before use. The caller keeps the last occurrence of a field, as protobuf asks.
//
// Two things the general decoder takes are refused, because a column must be one slice of the input: a packed column
// cut into several fields, and elements that are not packed. No encoder in use writes either. Groups, which proto3 does
// not have, are refused too.

internal import CisternPrimitives

@safe struct FieldReader {
    @safe enum Payload {
        case varint(UInt64)
        case fixed64(UInt64)
        case fixed32(UInt32)
        case bytes(UnsafeRawBufferPointer)
    }

    private var reader: ByteReader
    private let message: StaticString
    private(set) var number: UInt64 = 0
    private var payload = Payload.varint(0)

    init(_ body: UnsafeRawBufferPointer, message: StaticString) {
        reader = unsafe ByteReader(body)
        self.message = message
    }

    /// Moves to the next field; false at the end of the message.
    mutating func next() throws(WireError) -> Bool {
        if reader.isAtEnd { return false }
        guard let tag = reader.readVarint(), tag <= UInt64(UInt32.max), tag >> 3 != 0 else {
            throw malformed("a field tag is not valid")
        }
        number = tag >> 3
        switch tag & 7 {
        case 0:
            guard let value = reader.readVarint() else { throw malformed("field \(number) ends inside its varint") }
            payload = .varint(value)
        case 1:
            guard let value = reader.readInteger(as: UInt64.self) else {
                throw malformed("field \(number) ends inside its 8 bytes")
            }
            payload = .fixed64(value)
        case 2:
            guard let slice = unsafe reader.readLengthPrefixed() else {
                throw malformed("field \(number) is longer than the \(reader.remaining) bytes that are left")
            }
            payload = unsafe .bytes(slice)
        case 5:
            guard let value = reader.readInteger(as: UInt32.self) else {
                throw malformed("field \(number) ends inside its 4 bytes")
            }
            payload = .fixed32(value)
        case let type:
            throw malformed("field \(number) has wire type \(type), which proto3 does not have")
        }
        return true
    }

    func fixed64() throws(WireError) -> UInt64 {
        guard case .fixed64(let value) = payload else { throw wrongType("fixed64") }
        return value
    }

    func fixed32() throws(WireError) -> UInt32 {
        guard case .fixed32(let value) = payload else { throw wrongType("fixed32") }
        return value
    }

    func bool() throws(WireError) -> Bool {
        guard case .varint(let value) = payload else { throw wrongType("bool") }
        return value != 0
    }

    func bytes() throws(WireError) -> UnsafeRawBufferPointer {
        guard case .bytes(let slice) = payload else { throw wrongType("bytes") }
        return unsafe slice
    }

    /// Replaces `column` by this field's packed elements.
    func packed(elementSize: Int, into column: inout UnsafeRawBufferPointer) throws(WireError) {
        guard case .bytes(let slice) = payload else {
            throw malformed("column \(number) is not packed: send it as one packed field")
        }
        guard slice.count % elementSize == 0 else {
            throw malformed("column \(number) of \(slice.count) bytes is not a whole number of \(elementSize)")
        }
        if unsafe slice.isEmpty { return }
        guard unsafe column.isEmpty else { throw malformed("column \(number) comes in pieces: send it as one field") }
        unsafe column = unsafe slice
    }

    func malformed(_ detail: String) -> WireError {
        .malformed(message: "\(message)", offset: reader.offset, detail: detail)
    }

    private func wrongType(_ expected: String) -> WireError {
        malformed("field \(number) has another wire type than \(expected)")
    }
}

/// No bytes: what a column is before it was seen.
var noBytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
