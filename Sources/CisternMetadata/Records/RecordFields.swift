// Fields of records, read from bytes that are not trusted.

internal import CisternPrimitives

@safe struct RecordFields {
    private let source: String
    private var reader: ByteReader

    init(_ bytes: UnsafeRawBufferPointer, source: String) {
        self.source = source
        unsafe reader = ByteReader(bytes)
    }

    /// Runs `body` over all of `bytes`; what it leaves unread is damage.
    static func decode<Value>(
        _ bytes: [UInt8], source: String, _ body: (inout RecordFields) throws(CorruptionError) -> Value
    ) throws(CorruptionError) -> Value {
        let outcome: Result<Value, CorruptionError> = unsafe bytes.withUnsafeBytes { buffer in
            var fields = unsafe RecordFields(buffer, source: source)
            do throws(CorruptionError) {
                let value = try body(&fields)
                return .success(try fields.finish(value))
            } catch {
                return .failure(error)
            }
        }
        return try outcome.get()
    }

    var remaining: Int { reader.remaining }

    mutating func integer<T: FixedWidthInteger>(_ field: String, as type: T.Type = T.self) throws(CorruptionError) -> T
    {
        guard let value = reader.readInteger(as: type) else { throw damaged("it ends within \(field)") }
        return value
    }

    mutating func bytes(_ count: Int, _ field: String) throws(CorruptionError) -> [UInt8] {
        guard let slice = unsafe reader.readBytes(count) else { throw damaged("it ends within \(field)") }
        return unsafe [UInt8](slice)
    }

    /// A `u16` length, then so many bytes of visible ASCII.
    mutating func text(_ field: String, max: Int) throws(CorruptionError) -> String {
        let count = Int(try integer("the length of \(field)", as: UInt16.self))
        guard count >= 1, count <= max else { throw damaged("\(field) has \(count) bytes, not 1 to \(max)") }
        let bytes = try bytes(count, field)
        guard bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw damaged("\(field) is not visible ASCII")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    func damaged(_ detail: String) -> CorruptionError {
        CorruptionError(source: source, offset: UInt64(reader.offset), detail: detail)
    }

    private func finish<Value>(_ value: Value) throws(CorruptionError) -> Value {
        guard reader.isAtEnd else { throw damaged("\(reader.remaining) bytes follow its end") }
        return value
    }
}

extension ByteWriter {
    /// - Precondition: visible ASCII of 1 to 65,535 bytes.
    mutating func writeText(_ text: String) {
        writeInteger(UInt16(text.utf8.count))
        writeBytes(text.utf8)
    }
}
