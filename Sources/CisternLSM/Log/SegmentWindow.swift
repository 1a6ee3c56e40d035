// The bytes of a log segment on the way through a replay, a piece at a time: a segment is as long as what a memtable took, and
// memory of that length would cost more to touch for the first time than its records cost to read (decision 0020).
//
//   file      ───────────[·········┊·········]──────────────────────
//   buffer               └ start   ┊ offset  └ start + filled       what lies before the offset asked for makes room
//
// Owned by one thread.

package import CisternFileSystem
internal import CisternPrimitives

/// Memory for windows, one after the other.
@safe package final class SegmentBuffer {
    package init() {}

    fileprivate var memory = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)

    deinit { unsafe memory.deallocate() }

    /// - Parameter kept: bytes at the front that must survive.
    fileprivate func reserve(_ count: Int, keeping kept: Int) {
        if unsafe memory.count >= count { return }
        let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
        if kept > 0 { unsafe larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[..<kept])) }
        unsafe memory.deallocate()
        unsafe memory = larger
    }
}

@safe package final class SegmentWindow {
    /// Small enough for the processor's cache, large enough that a read's fixed cost does not show.
    package static let pieceBytes = 1 << 20

    /// Where the segment ends, or what of it is meant.
    package let end: Int
    /// nil when all of it is in the buffer.
    private let file: (any RandomReadFile)?
    private let buffer: SegmentBuffer
    private var start = 0
    private var filled = 0

    /// - Parameter limit: a longer segment is refused.
    package init(_ path: String, fileSystem: any FileSystem, limit: Int, buffer: SegmentBuffer) throws(EngineError) {
        let file = try asEngineError { () throws(FileError) in try fileSystem.openRead(path) }
        guard file.size <= UInt64(limit) else {
            throw .file(FileError(operation: "read", path: path, reason: .tooLarge(limit: limit)))
        }
        self.file = file
        self.buffer = buffer
        end = Int(file.size)
    }

    /// The first bytes of a segment: fewer when the file is shorter.
    init(_ path: String, fileSystem: any FileSystem, firstBytes: UInt64, buffer: SegmentBuffer) throws(EngineError) {
        let file = try asEngineError { () throws(FileError) in try fileSystem.openRead(path) }
        self.file = file
        self.buffer = buffer
        end = Int(min(file.size, firstBytes))
    }

    package init(copying bytes: [UInt8]) {
        file = nil
        buffer = SegmentBuffer()
        end = bytes.count
        buffer.reserve(bytes.count, keeping: 0)
        unsafe buffer.memory.copyBytes(from: bytes)
        filled = bytes.count
    }

    /// The bytes from `offset` on: at least `count` of them unless the segment ends before. Valid until the next call.
    /// - Precondition: `offset` is not beyond the end.
    func bytes(at offset: Int, _ count: Int) throws(EngineError) -> UnsafeRawBufferPointer {
        invariant(offset >= 0 && offset <= end, "offset \(offset) of a segment of \(end) bytes")
        let wanted = min(count, end - offset)
        if offset < start || offset + wanted > start + filled { try fill(from: offset, wanted) }
        return unsafe UnsafeRawBufferPointer(rebasing: buffer.memory[(offset - start)..<filled])
    }

    private func fill(from offset: Int, _ wanted: Int) throws(EngineError) {
        guard let file else { invariantFailed("a segment in memory has a hole", file: #fileID, line: #line) }
        let known = offset >= start && offset < start + filled ? start + filled - offset : 0
        if known > 0, offset > start {
            let base = unsafe buffer.memory.baseAddress!
            unsafe base.copyMemory(from: base + (offset - start), byteCount: known)
        }
        (start, filled) = (offset, known)
        buffer.reserve(max(wanted, min(SegmentWindow.pieceBytes, end - offset)), keeping: known)
        let target = unsafe min(buffer.memory.count, end - offset)
        let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.memory[known..<target])
        try asEngineError { () throws(FileError) in
            unsafe try file.read(at: UInt64(offset + known), into: rest)
        }
        filled = target
    }

    /// nil when it was not written whole, or is of another version.
    func header() throws(EngineError) -> LogSegmentHeader? {
        if case .header(let header) = unsafe LogFormat.decodeHeader(try bytes(at: 0, LogFormat.headerBytes)) {
            return header
        }
        return nil
    }
}
