internal import Glibc

extension FileError {
    public var description: String {
        switch reason {
        case .errno(let code):
            "cannot \(operation) \(path): \(unsafe String(cString: strerror(code))) (errno \(code))"
        case .endOfFile: "cannot \(operation) \(path): the file ends before the bytes that were asked for"
        case .tooLarge(let limit): "cannot \(operation) \(path): the file is larger than the limit of \(limit) bytes"
        case .locked: "cannot \(operation) \(path): another process holds it; stop that process first"
        case .wouldWait: "cannot \(operation) \(path) at once: the bytes have to come from the disk first"
        case .notFetched(let detail): "cannot \(operation) \(path), which is in a snapshot store still: \(detail)"
        }
    }

    /// True when the file or directory is not there.
    public var isNotFound: Bool { reason == .errno(ENOENT) }

    /// True when a file is where a directory was expected.
    public var isNotDirectory: Bool { reason == .errno(ENOTDIR) }

    /// True when nothing is wrong but that the disk would have been waited for.
    public var wouldWait: Bool { reason == .wouldWait }

    /// True when the disk is full or a quota is reached.
    public var isOutOfSpace: Bool { reason == .errno(ENOSPC) || reason == .errno(EDQUOT) }
}
