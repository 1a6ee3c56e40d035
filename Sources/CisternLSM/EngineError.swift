// The typed error of the engine. Expected outcomes (absent, duplicate, busy) are return values, not errors.

public import CisternFileSystem
public import CisternPrimitives

public enum EngineError: Error, Equatable, Sendable {
    /// Bytes on disk that are not what was written.
    case corruption(CorruptionError)
    /// A file system call failed. A full disk is `reason == .errno(ENOSPC)`.
    case file(FileError)
    /// The tree takes no writes until its log and a flush work again; `cause` says why it stopped.
    case readOnly(tree: String, cause: String)
    /// A key, value or batch outside the named limits or the tree's key-group range.
    case invalidEntry(detail: String)
    /// The batch skips sequence numbers: batches were lost between writer and tree.
    case sequenceGap(expected: UInt64, found: UInt64)
    /// The writer's epoch is not the tree's newest.
    case fenced(current: UInt64, found: UInt64)
    case closed(tree: String)
    /// A format version this program does not know, or a setting that cannot work.
    case unsupported(detail: String)
    /// The replicated log takes nothing more: what was not acknowledged is in doubt, and the tree must be opened again.
    case logLost(detail: String)
}

extension EngineError {
    /// True when nothing is wrong but that a read would have waited for the disk: see `DiskWaits`.
    package var wouldWait: Bool {
        if case .file(let error) = self { return error.wouldWait }
        return false
    }
}
