// Replay of a tree's log segments in order, and the place where a torn tail is told from damage.
//
//   records ──ok──► replayed        first bad record at offset o:
//                                     a later record of the segment, or the next segment's header, says that o was
//                                     durable ─► damage: an error with file and offset
//                                     otherwise ─► torn tail: the segment ends at o

internal import CisternFileSystem
internal import CisternPrimitives

/// Reads one segment. Pure: bytes in, records out.
package struct LogSegmentReader {
    package let path: String
    package let tree: UInt64
    package let segment: UInt64

    package init(path: String, tree: UInt64, segment: UInt64) {
        self.path = path
        self.tree = tree
        self.segment = segment
    }

    /// Where the intact records end.
    package struct End: Equatable {
        /// Bytes up to the end of the last whole record.
        package var validBytes: UInt64
        package var records: Int
        package var header: LogSegmentHeader?
    }

    /// Calls `visit` for each whole record from the start, and returns where the segment ends. A record's columns are valid
    /// during the call.
    /// - Parameter durableBytes: what the following segment's header says about this one; 0 when nothing follows.
    package func read(
        _ window: SegmentWindow, durableBytes: UInt64,
        visit: (LogRecord, _ offset: UInt64) throws(EngineError) -> Void
    ) throws(EngineError) -> End {
        let header: LogSegmentHeader
        switch unsafe LogFormat.decodeHeader(try window.bytes(at: 0, LogFormat.headerBytes)) {
        case .header(let found): header = found
        case .unknownVersion(let version):
            throw .unsupported(
                detail: "\(path) is a log of version \(version), and this program reads version \(LogFormat.version)")
        case .damaged(let detail):
            // A header is synced before the first record: when no record follows, the segment was never used.
            try refuseDamage(window, at: 0, durableBytes: durableBytes, detail)
            return End(validBytes: 0, records: 0, header: nil)
        }
        guard header.tree == tree, header.segment == segment else {
            throw damage(0, "the header is of tree \(header.tree), segment \(header.segment); this file was exchanged")
        }
        var offset = LogFormat.headerBytes
        var records = 0
        while offset < window.end {
            guard let (record, size) = try record(window, at: offset) else {
                try refuseDamage(window, at: offset, durableBytes: durableBytes, "a record's checksum does not match")
                break
            }
            try visit(record, UInt64(offset))
            offset += size
            records += 1
        }
        if UInt64(offset) < durableBytes {
            throw damage(UInt64(offset), "the segment ends here, and \(durableBytes) bytes were made durable")
        }
        return End(validBytes: UInt64(offset), records: records, header: header)
    }

    /// nil when no whole, intact record of the segment starts there.
    private func record(
        _ window: SegmentWindow, at offset: Int
    ) throws(EngineError) -> (record: LogRecord, size: Int)? {
        let head = unsafe try window.bytes(at: offset, LogFormat.recordHeaderBytes)
        guard let size = unsafe LogFormat.recordSize(head, segment: segment) else { return nil }
        return unsafe LogFormat.decodeRecord(try window.bytes(at: offset, size), segment: segment)
    }

    /// Throws when something after `offset` proves that the bytes at `offset` were durable once.
    private func refuseDamage(
        _ window: SegmentWindow, at offset: Int, durableBytes: UInt64, _ detail: String
    ) throws(EngineError) {
        if durableBytes > UInt64(offset) { throw damage(UInt64(offset), detail) }
        var position = offset + 1
        while position + LogFormat.recordHeaderBytes <= window.end {
            // The segment number is compared first, so that a checksum is computed only where a record may begin.
            if let (record, _) = try record(window, at: position), record.durableBytes > UInt64(offset) {
                throw damage(UInt64(offset), detail + ", and intact records follow")
            }
            position += 1
        }
    }

    private func damage(_ offset: UInt64, _ detail: String) -> EngineError {
        .corruption(
            CorruptionError(
                source: path, offset: offset, detail: detail + "; acknowledged writes are lost: restore from a snapshot"
            ))
    }
}
