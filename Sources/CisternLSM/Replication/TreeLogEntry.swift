// What a tree's records are in a replicated log, which outlives the tree's disk. Specification and vectors: proto-spec/tree-log.md.
//
//   entry     u32 CRC-32C of what follows · u8 kind · u8 flags (1: first part, 2: last part) · u16 version · body
//   records   records as in a log segment, whole ones in the parts together (proto-spec/wal.md)
//   rules     the expiry rules that the records behind are stored by
//   snapshot  u64 checkpoint · u64 epoch · u64 sequence · u64 watermark · u64 created, in milliseconds since 1970
//             varint length · handle: the tree as it was at that position
//
// Values, any thread.

internal import CisternPrimitives

/// One thing in a tree's replicated log.
package enum TreeLogItem: Equatable, Sendable {
    /// Whole records of a log segment.
    case records([UInt8])
    case rules(ExpiryRules)
    case snapshot(ReplicatedSnapshot)
}

/// A snapshot that was taken of the tree: the log says where, so that it can be made again where its files are not.
package struct ReplicatedSnapshot: Equatable, Sendable {
    package let handle: String
    package let checkpoint: UInt64
    package let progress: WriteProgress
    package let createdMilliseconds: UInt64

    package init(handle: String, checkpoint: UInt64, progress: WriteProgress, createdMilliseconds: UInt64) {
        self.handle = handle
        self.checkpoint = checkpoint
        self.progress = progress
        self.createdMilliseconds = createdMilliseconds
    }
}

package enum TreeLogFormat {
    // Stored: never change.
    package static let version: UInt16 = 1
    package static let headBytes = 8
    static let firstFlag: UInt8 = 1
    static let lastFlag: UInt8 = 2
    static let handleBytesMax = 1024

    /// Bytes of an item in one entry; a longer one is cut. Below what a log node takes, and small enough that the parts of a large
    /// batch are on their way while the next are cut.
    package static let partBytesMax = 1 << 20

    fileprivate enum Kind: UInt8 {
        case records = 1
        case rules = 2
        case snapshot = 3
    }

    package static func encode(_ item: TreeLogItem, partBytesMax: Int = partBytesMax) -> [[UInt8]] {
        switch item {
        case .records(let bytes): return parts(.records, bytes, partBytesMax)
        case .rules(let rules):
            var body = ByteWriter()
            rules.encode(into: &body)
            return parts(.rules, body.bytes, partBytesMax)
        case .snapshot(let snapshot):
            var body = ByteWriter()
            body.writeInteger(snapshot.checkpoint)
            snapshot.progress.encode(into: &body)
            body.writeInteger(snapshot.createdMilliseconds)
            body.writeLengthPrefixed(Array(snapshot.handle.utf8))
            return parts(.snapshot, body.bytes, partBytesMax)
        }
    }

    private static func parts(_ kind: Kind, _ body: [UInt8], _ partBytesMax: Int) -> [[UInt8]] {
        var entries: [[UInt8]] = []
        var start = 0
        repeat {
            let end = min(start + partBytesMax, body.count)
            var writer = ByteWriter(capacity: headBytes + end - start)
            writer.writeInteger(UInt32(0))
            writer.writeUInt8(kind.rawValue)
            writer.writeUInt8((start == 0 ? firstFlag : 0) | (end == body.count ? lastFlag : 0))
            writer.writeInteger(version)
            writer.writeBytes(body[start..<end])
            var entry = writer.bytes
            let sum = unsafe entry.withUnsafeBytes {
                unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[4...]))
            }
            for byte in 0..<4 { entry[byte] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * byte)) }
            entries.append(entry)
            start = end
        } while start < body.count
        return entries
    }
}

extension TreeLogItem {
    /// The last batch of records; nil where there are none. Looks at their heads only.
    package var lastPosition: LogPosition? {
        guard case .records(let bytes) = self else { return nil }
        return unsafe bytes.withUnsafeBytes { bytes -> LogPosition? in
            var last: LogPosition?
            var offset = 0
            while offset + LogFormat.recordHeaderBytes <= bytes.count {
                last = unsafe LogPosition(
                    epoch: bytes.loadUnaligned(fromByteOffset: offset + 24, as: UInt64.self).littleEndian,
                    sequence: bytes.loadUnaligned(fromByteOffset: offset + 32, as: UInt64.self).littleEndian)
                offset += unsafe 8 + Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self).littleEndian)
            }
            return last
        }
    }
}

/// Puts the entries of a tree's log together. Takes any bytes.
package struct TreeLogReader: Sendable {
    /// Parts of an item whose last one has not come.
    private var kind: UInt8 = 0
    private var parts: [UInt8] = []
    private var isWithin = false
    /// An item that is longer is refused: nobody wrote it.
    private let itemBytesMax: Int

    package init(itemBytesMax: Int = 1 << 30) { self.itemBytesMax = itemBytesMax }

    /// The item that this entry ends, nil when it is not the last part. What an owner of before has left without its last part was
    /// never acknowledged, and is dropped.
    /// - Parameter source: where the entry is, for an error.
    package mutating func add(_ entry: [UInt8], source: String) throws(EngineError) -> TreeLogItem? {
        func damaged(_ offset: UInt64, _ detail: String) -> EngineError { corruption(source, offset, detail) }
        guard entry.count >= TreeLogFormat.headBytes else { throw damaged(0, "an entry of \(entry.count) bytes") }
        let (stored, sum, version) = unsafe entry.withUnsafeBytes { bytes in
            unsafe (
                bytes.loadUnaligned(as: UInt32.self).littleEndian,
                CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[4...])),
                bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self).littleEndian
            )
        }
        guard stored == sum else { throw damaged(0, "the checksum is \(stored), and that of the bytes \(sum)") }
        guard version == TreeLogFormat.version else {
            throw .unsupported(
                detail: "\(source) is an entry of version \(version), and this program reads \(TreeLogFormat.version): "
                    + "use the program that wrote it, or a newer one")
        }
        let flags = entry[5]
        if flags & TreeLogFormat.firstFlag != 0 {
            parts = []
            kind = entry[4]
            isWithin = true
        } else if !isWithin || kind != entry[4] {
            throw damaged(5, "the part of an item that did not begin")
        }
        guard parts.count + entry.count <= itemBytesMax else {
            throw damaged(0, "an item of more than \(itemBytesMax) bytes")
        }
        parts += entry[TreeLogFormat.headBytes...]
        guard flags & TreeLogFormat.lastFlag != 0 else { return nil }
        isWithin = false
        defer { parts = [] }
        return try item(damaged)
    }

    private func item(_ damaged: (UInt64, String) -> EngineError) throws(EngineError) -> TreeLogItem {
        switch TreeLogFormat.Kind(rawValue: kind) {
        case .records: return .records(parts)
        case .rules:
            let rules = unsafe parts.withUnsafeBytes { bytes -> ExpiryRules? in
                var reader = unsafe ByteReader(bytes)
                let rules = ExpiryRules.decode(&reader)
                return reader.isAtEnd ? rules : nil
            }
            guard let rules else { throw damaged(8, "these are not expiry rules") }
            return .rules(rules)
        case .snapshot:
            let snapshot = unsafe parts.withUnsafeBytes { bytes -> ReplicatedSnapshot? in
                var reader = unsafe ByteReader(bytes)
                guard let checkpoint = reader.readInteger(as: UInt64.self),
                    let progress = WriteProgress.decode(&reader),
                    let created = reader.readInteger(as: UInt64.self), let name = unsafe reader.readLengthPrefixed(),
                    name.count <= TreeLogFormat.handleBytesMax, reader.isAtEnd,
                    let handle = unsafe String(validating: name, as: UTF8.self)
                else { return nil }
                return ReplicatedSnapshot(
                    handle: handle, checkpoint: checkpoint, progress: progress, createdMilliseconds: created)
            }
            guard let snapshot else { throw damaged(8, "this is not a snapshot") }
            return .snapshot(snapshot)
        case nil: throw damaged(4, "an item of kind \(kind), which this program does not know")
        }
    }
}
