// Reads the file of an embedded metadata store, whatever its bytes are.

internal import CisternLogProtocol
package import CisternPrimitives

package struct MetadataFileContents: Sendable {
    package let tree: MetadataTree
    /// Bytes behind the last whole change: one that was being written when the power went, and never answered.
    package let tornBytes: Int
    package let wasClosed: Bool
}

extension MetadataFileFormat {
    /// - Throws: damage, with the offset of the frame that does not verify. A version that is not known is refused with the
    ///   same error, at byte 8.
    package static func decode(_ bytes: [UInt8], source: String) throws(CorruptionError) -> MetadataFileContents {
        var reader = FileReader(bytes: bytes, source: source)
        return try reader.read()
    }
}

private struct FileFrame {
    let offset: Int
    let end: Int
    let version: MetadataVersion
    let type: UInt8
    let body: [UInt8]
}

private struct FileReader {
    let bytes: [UInt8]
    let source: String
    var offset = 0
    var tree = MetadataTree()
    var newestLease: Int64 = 0

    init(bytes: [UInt8], source: String) {
        self.bytes = bytes
        self.source = source
    }

    mutating func read() throws(CorruptionError) -> MetadataFileContents {
        try readHeader()
        try readSnapshot()
        while offset < bytes.count {
            guard let frame = frame(at: offset) else {
                try checkTail()
                return MetadataFileContents(tree: tree, tornBytes: bytes.count - offset, wasClosed: false)
            }
            guard frame.version == tree.version + 1 else {
                throw damaged("a change has version \(frame.version) after version \(tree.version)")
            }
            if frame.type == MetadataFileFormat.FrameType.closed.rawValue { return try readClosed(frame) }
            try apply(frame)
            offset = frame.end
        }
        return MetadataFileContents(tree: tree, tornBytes: 0, wasClosed: false)
    }

    private mutating func readHeader() throws(CorruptionError) {
        let size = MetadataFileFormat.headerBytes
        guard bytes.count >= size, Array(bytes[..<8]) == MetadataFileFormat.magic else {
            throw damaged("it does not begin with the magic CISTMETA")
        }
        guard CRC32C.checksum(Array(bytes[..<12])) == UInt32(number(at: 12, 4)) else {
            throw damaged("the header's checksum is not that of its bytes")
        }
        guard number(at: 8, 4) == UInt64(MetadataFileFormat.version) else {
            offset = 8
            let known = MetadataFileFormat.version
            throw damaged("version \(number(at: 8, 4)) is not supported, this program reads version \(known)")
        }
        offset = size
    }

    private mutating func readSnapshot() throws(CorruptionError) {
        var newest: MetadataVersion = 0
        var last: String?
        while true {
            guard let frame = frame(at: offset) else {
                throw damaged("the snapshot's frame ends early or has another checksum than its bytes")
            }
            let type = MetadataFileFormat.FrameType(rawValue: frame.type)
            switch type {
            case .lease where last == nil: try readLease(frame)
            case .value:
                last = try readValue(frame, after: last)
                newest = max(newest, frame.version)
            case .snapshotEnd: return try readSnapshotEnd(frame, newest: newest)
            default: throw damaged("a frame of type \(frame.type) in the snapshot")
            }
            offset = frame.end
        }
    }

    private mutating func readLease(_ frame: FileFrame) throws(CorruptionError) {
        let id = MetadataLeaseID(Int64(clamping: frame.version))
        guard id.rawValue > newestLease, frame.version <= UInt64(Int64.max) else {
            throw damaged("\(id) is out of order")
        }
        newestLease = id.rawValue
        let milliseconds = try fields(frame) { (fields: inout RecordFields) throws(CorruptionError) in
            try fields.integer("the lease's time", as: UInt64.self)
        }
        tree.restore(lease: id, milliseconds: milliseconds)
    }

    private mutating func readValue(_ frame: FileFrame, after last: String?) throws(CorruptionError) -> String {
        let put = try readPut(frame)
        guard last.map({ $0 < put.key }) ?? true else { throw damaged("\"\(put.key)\" is out of order") }
        if let lease = put.lease, tree.leases[lease] == nil { throw damaged("\"\(put.key)\" is bound to no \(lease)") }
        guard frame.version > 0 else { throw damaged("\"\(put.key)\" has version 0") }
        tree.restore(
            key: put.key, MetadataTree.Value(bytes: put.value, version: frame.version, lease: put.lease))
        return put.key
    }

    private mutating func readSnapshotEnd(
        _ frame: FileFrame, newest: MetadataVersion
    ) throws(CorruptionError) {
        let (leases, values) = try fields(frame) { (fields: inout RecordFields) throws(CorruptionError) in
            (try fields.integer("the leases", as: UInt64.self), try fields.integer("the values", as: UInt64.self))
        }
        guard leases == UInt64(tree.leases.count), values == UInt64(tree.count) else {
            throw damaged("\(leases) leases and \(values) values end where others were")
        }
        // The highest version is left free, so that one more can always be counted.
        guard frame.version >= max(newest, UInt64(newestLease)), frame.version < .max >> 1 else {
            throw damaged("the store's version is \(frame.version), older than what it holds or beyond counting")
        }
        tree.restore(version: frame.version)
        offset = frame.end
    }

    private mutating func apply(_ frame: FileFrame) throws(CorruptionError) {
        let change: StoredChange
        switch MetadataFileFormat.FrameType(rawValue: frame.type) {
        case .put:
            let put = try readPut(frame)
            change = .put(key: put.key, value: put.value, lease: put.lease)
        case .delete:
            change = try fields(frame) { (fields: inout RecordFields) throws(CorruptionError) in
                .delete(key: try fields.text("the key", max: MetadataLimits.keyBytesMax))
            }
        case .leaseBegan:
            change = try fields(frame) { (fields: inout RecordFields) throws(CorruptionError) in
                .leaseBegan(milliseconds: try fields.integer("the lease's time"))
            }
        case .leaseEnded:
            change = try fields(frame) { (fields: inout RecordFields) throws(CorruptionError) in
                .leaseEnded(MetadataLeaseID(try fields.integer("the lease")))
            }
        default: throw damaged("a frame of type \(frame.type) among the changes")
        }
        if let objection = tree.objection(to: change) { throw damaged(objection) }
        _ = tree.apply(change)
    }

    private func readClosed(_ frame: FileFrame) throws(CorruptionError) -> MetadataFileContents {
        guard frame.body.isEmpty, frame.end == bytes.count else {
            throw damaged("\(bytes.count - frame.end) bytes follow the frame that closed the store")
        }
        return MetadataFileContents(tree: tree, tornBytes: 0, wasClosed: true)
    }

    // MARK: Frames

    private func readPut(
        _ frame: FileFrame
    ) throws(CorruptionError) -> (key: String, value: [UInt8], lease: MetadataLeaseID?) {
        try fields(frame) { (fields: inout RecordFields) throws(CorruptionError) in
            let lease = try fields.integer("the lease", as: Int64.self)
            let key = try fields.text("the key", max: MetadataLimits.keyBytesMax)
            guard fields.remaining <= MetadataLimits.valueBytesMax else {
                throw fields.damaged("a value of \(fields.remaining) bytes")
            }
            return (key, try fields.bytes(fields.remaining, "the value"), lease == 0 ? nil : MetadataLeaseID(lease))
        }
    }

    private func fields<Value>(
        _ frame: FileFrame, _ body: (inout RecordFields) throws(CorruptionError) -> Value
    ) throws(CorruptionError) -> Value {
        do throws(CorruptionError) {
            return try RecordFields.decode(frame.body, source: source, body)
        } catch {
            throw CorruptionError(
                source: source, offset: UInt64(frame.offset),
                detail: "byte \(error.offset) of its body: \(error.detail)")
        }
    }

    /// The frame at `start`, if it is all there and verifies.
    private func frame(at start: Int, versions: ClosedRange<MetadataVersion>? = nil) -> FileFrame? {
        guard bytes.count - start >= MetadataFileFormat.frameHeadBytes else { return nil }
        let count = Int(number(at: start + 4, 4))
        let bodyStart = start + MetadataFileFormat.frameHeadBytes
        guard count <= MetadataFileFormat.bodyBytesMax, count <= bytes.count - bodyStart else { return nil }
        let version = number(at: start + 8, 8)
        if let versions, !versions.contains(version) { return nil }
        let end = bodyStart + count
        guard UInt32(number(at: start, 4)) == CRC32C.checksum(Array(bytes[(start + 4)..<end])) else { return nil }
        return FileFrame(
            offset: start, end: end, version: version, type: bytes[start + 16], body: Array(bytes[bodyStart..<end]))
    }

    /// What does not verify is the last change, torn; anything else is damage.
    private func checkTail() throws(CorruptionError) {
        let rest = bytes.count - offset
        guard rest <= MetadataFileFormat.frameHeadBytes + MetadataFileFormat.bodyBytesMax else {
            throw damaged("a change ends early or has another checksum than its bytes, and \(rest) bytes follow")
        }
        // At least one frame's head is between this change and the next.
        let later = (tree.version + 1)...(tree.version + 1 + UInt64(rest / MetadataFileFormat.frameHeadBytes))
        for start in (offset + 1)..<bytes.count where frame(at: start, versions: later) != nil {
            throw damaged(
                "a change ends early or has another checksum than its bytes, and a later one is at byte \(start)")
        }
    }

    /// - Precondition: the bytes are there.
    private func number(at start: Int, _ count: Int) -> UInt64 {
        bytes[start..<(start + count)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private func damaged(_ detail: String) -> CorruptionError {
        CorruptionError(source: source, offset: UInt64(offset), detail: detail)
    }
}
