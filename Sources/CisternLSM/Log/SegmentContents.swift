// The bytes of a log segment in memory, for a replay. Owned by one thread.

internal import CisternFileSystem

/// A segment's bytes, or its first ones, read straight into memory that goes with this object.
@safe final class SegmentContents {
    let bytes: UnsafeRawBufferPointer

    init(_ path: String, fileSystem: any FileSystem, limit: Int) throws(EngineError) {
        unsafe bytes = try SegmentContents.read(path, fileSystem) { size throws(FileError) in
            guard size <= UInt64(limit) else {
                throw FileError(operation: "read", path: path, reason: .tooLarge(limit: limit))
            }
            return Int(size)
        }
    }

    /// Fewer when the file is shorter.
    init(_ path: String, fileSystem: any FileSystem, firstBytes: Int) throws(EngineError) {
        unsafe bytes = try SegmentContents.read(path, fileSystem) { size throws(FileError) in
            Int(min(size, UInt64(firstBytes)))
        }
    }

    deinit { unsafe bytes.deallocate() }

    /// nil when it was not written whole, or is of another version.
    var header: LogSegmentHeader? {
        if case .header(let header) = unsafe LogFormat.decodeHeader(bytes) { return header }
        return nil
    }

    private static func read(
        _ path: String, _ fileSystem: any FileSystem, count: (UInt64) throws(FileError) -> Int
    ) throws(EngineError) -> UnsafeRawBufferPointer {
        do throws(FileError) {
            let file = try fileSystem.openRead(path)
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: try count(file.size), alignment: 16)
            do throws(FileError) {
                unsafe try file.read(at: 0, into: buffer)
            } catch {
                unsafe buffer.deallocate()
                throw error
            }
            return UnsafeRawBufferPointer(buffer)
        } catch {
            throw .file(error)
        }
    }
}
