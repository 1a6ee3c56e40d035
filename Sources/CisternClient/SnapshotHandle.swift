/// Names one snapshot of one tree. Keep it with the engine's checkpoint; the server keeps the files until it is released.
public struct SnapshotHandle: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// `STORE/CHECKPOINT/FIRST-LAST` and a unique suffix; opaque to programs.
    public let rawValue: String

    public init(rawValue: String) { self.rawValue = rawValue }

    public var description: String { rawValue }
}
