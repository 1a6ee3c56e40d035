/// Bytes that were read and are not what was written.
public struct CorruptionError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The file, or what stood in for one (a frame, a vector).
    public let source: String
    /// Offset in bytes at which the check failed.
    public let offset: UInt64
    /// What was expected and what was found, in one sentence.
    public let detail: String

    public init(source: String, offset: UInt64, detail: String) {
        self.source = source
        self.offset = offset
        self.detail = detail
    }

    public var description: String { "\(source) is damaged at byte \(offset): \(detail)" }
}
