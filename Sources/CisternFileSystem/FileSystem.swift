// Every file system call of the product goes through these protocols. The Linux implementation is `PosixFileSystem`; tests
// use one in memory that loses unsynced bytes, tears writes and fails on demand.
//
// All calls block: never make them on an event loop, but for reads of tables and value files within `DiskWaits.collect`, which do
// not wait.

package protocol FileSystem: Sendable {
    /// Creates the directory and its parents, durably; fine when it exists.
    func createDirectory(_ path: String) throws(FileError)
    /// Names (not paths) in a directory, in no order.
    func list(_ path: String) throws(FileError) -> [String]
    /// False only when the file system says that nothing is there; a file that cannot be looked at is an error.
    func exists(_ path: String) throws(FileError) -> Bool
    func size(_ path: String) throws(FileError) -> UInt64
    /// A new empty file for appending; fails when it exists.
    func createAppend(_ path: String) throws(FileError) -> any AppendFile
    /// An existing file, to be written at any place within its size: what was written before a file is used again and again.
    func openWrite(_ path: String) throws(FileError) -> any PositionedFile
    /// A new file of zeros, to be written at any place; fails when it exists. It takes no room on the disk where it was not written.
    func createSized(_ path: String, bytes: UInt64) throws(FileError) -> any PositionedFile
    /// The file must keep its name while it is read: it may be closed and opened again between two reads.
    func openRead(_ path: String) throws(FileError) -> any RandomReadFile
    /// Reads a whole file; refuses more than `limit` bytes.
    func readAll(_ path: String, limit: Int) throws(FileError) -> [UInt8]
    func rename(_ from: String, to: String) throws(FileError)
    func remove(_ path: String) throws(FileError)
    /// Cuts the file to `size` bytes and syncs it.
    func truncate(_ path: String, to size: UInt64) throws(FileError)
    /// Makes creations, renames and removals in a directory durable.
    func syncDirectory(_ path: String) throws(FileError)
    /// Takes the lock file for this process until the returned object is released; fails at once when another holds it.
    func lock(_ path: String) throws(FileError) -> any DirectoryLock
    /// Bytes that this process may still write to the file system of a directory; nil when that is not known.
    func availableBytes(_ path: String) -> UInt64?
}

extension FileSystem {
    package func availableBytes(_ path: String) -> UInt64? { nil }
}

/// Append only. Owned by one thread at a time.
package protocol AppendFile: AnyObject, Sendable {
    var path: String { get }
    /// Bytes appended so far.
    var size: UInt64 { get }
    func append(_ bytes: UnsafeRawBufferPointer) throws(FileError)
    /// A hint: what was appended since the last hint may go to the disk now, so that a later `sync` finds little to do.
    func startWriteback()
    /// Data and size are durable when this returns. After a failure the file must not be used again.
    func sync() throws(FileError)
    /// Idempotent.
    func close()
}

extension AppendFile {
    package func startWriteback() {}
}

/// Written at any place within its size, which stays. Owned by one thread at a time.
package protocol PositionedFile: AnyObject, Sendable {
    var path: String { get }
    var size: UInt64 { get }
    /// Throws `endOfFile` when the bytes would reach beyond the file's size. After a power cut each sector of 512 bytes that was
    /// not synced is the old or the new one.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError)
    /// The data is durable when this returns. After a failure the file must not be used again.
    func sync() throws(FileError)
    /// Idempotent.
    func close()
}

/// Positioned reads from any thread.
package protocol RandomReadFile: AnyObject, Sendable {
    var path: String { get }
    var size: UInt64 { get }
    /// Fills `buffer` from `offset`; throws `FileError` with `endOfFile` when the file ends first, and with `wouldWait` when
    /// the thread collects what it would wait for (`DiskWaits`) and the bytes are not in memory.
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError)
    /// A hint: the range will be read soon. Waits for nothing.
    func startReading(at offset: UInt64, count: Int)
}

extension RandomReadFile {
    package func startReading(at offset: UInt64, count: Int) {}
}

package protocol DirectoryLock: AnyObject, Sendable {
    func release()
}

/// A file system call that failed: what was attempted, on what, and what was found.
public struct FileError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Reason: Equatable, Sendable {
        case errno(Int32)
        case endOfFile
        case tooLarge(limit: Int)
        case locked
        /// The bytes are on the disk only, and the caller does not wait for it.
        case wouldWait
        /// The bytes are in a snapshot store only, and could not be had from there.
        case notFetched(detail: String)
    }
    public let operation: String
    public let path: String
    public let reason: Reason

    public init(operation: String, path: String, reason: Reason) {
        self.operation = operation
        self.path = path
        self.reason = reason
    }
}
