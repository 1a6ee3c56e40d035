// How a program's values become bytes and come back. The bytes are stored for years: a serializer is a format.

/// Turns values of one type into bytes and back. Both closures are called on the worker's task.
public struct StateSerializer<Value>: Sendable {
    /// Appends the value's bytes.
    public let encode: @Sendable (Value, inout [UInt8]) -> Void
    /// Makes a value from exactly the bytes `encode` appended. Mind that a slice's first index is `startIndex`, not 0, and
    /// that keeping the slice keeps the memory it is cut from.
    public let decode: @Sendable (ArraySlice<UInt8>) throws -> Value

    public init(
        encode: @escaping @Sendable (Value, inout [UInt8]) -> Void,
        decode: @escaping @Sendable (ArraySlice<UInt8>) throws -> Value
    ) {
        self.encode = encode
        self.decode = decode
    }
}

/// The bytes are not what the serializer makes.
public struct SerializerError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }
}

extension StateSerializer where Value == Int64 {
    /// 8 bytes, little-endian.
    public static let int64 = StateSerializer<Int64>(
        encode: { value, output in appendInteger(UInt64(bitPattern: value), to: &output) },
        decode: { bytes throws in Int64(bitPattern: try readInteger(bytes, of: "Int64")) })
}

extension StateSerializer where Value == UInt64 {
    /// 8 bytes, little-endian.
    public static let uint64 = StateSerializer<UInt64>(
        encode: { value, output in appendInteger(value, to: &output) },
        decode: { bytes throws in try readInteger(bytes, of: "UInt64") })
}

extension StateSerializer where Value == Double {
    /// 8 bytes, little-endian IEEE 754.
    public static let double = StateSerializer<Double>(
        encode: { value, output in appendInteger(value.bitPattern, to: &output) },
        decode: { bytes throws in Double(bitPattern: try readInteger(bytes, of: "Double")) })
}

extension StateSerializer where Value == String {
    /// UTF-8. Bytes that are not UTF-8 are an error, not repaired.
    public static let string = StateSerializer<String>(
        encode: { value, output in output.append(contentsOf: value.utf8) },
        decode: { bytes throws in
            guard let string = String(validating: bytes, as: UTF8.self) else {
                throw SerializerError("\(bytes.count) bytes are not UTF-8")
            }
            return string
        })
}

extension StateSerializer where Value == [UInt8] {
    /// The bytes themselves.
    public static let bytes = StateSerializer<[UInt8]>(
        encode: { value, output in output.append(contentsOf: value) },
        decode: { bytes in Array(bytes) })
}

private func appendInteger(_ value: UInt64, to output: inout [UInt8]) {
    for shift in stride(from: UInt64(0), to: 64, by: 8) { output.append(UInt8(truncatingIfNeeded: value >> shift)) }
}

private func readInteger(_ bytes: ArraySlice<UInt8>, of type: String) throws -> UInt64 {
    guard bytes.count == 8 else { throw SerializerError("\(bytes.count) bytes for a value of \(type), expected 8") }
    return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}
