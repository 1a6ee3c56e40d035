// The file of an embedded metadata store: a snapshot, then the changes since. Specification: proto-spec/metadata-store.md.
//
//     file     = header, snapshot, change *
//     header   = "CISTMETA" (8) ‖ u32 version ‖ u32 CRC-32C of the 12 bytes before
//     snapshot = lease frame *, value frame *, end frame
//     frame    = u32 CRC-32C of the rest of the frame ‖ u32 body bytes ‖ u64 version ‖ u8 type ‖ body
//
// The header and the snapshot are durable before the file gets its name: damage in them is damage. A change is durable before
// the next one is written, so only the last one can be torn: what does not verify and has a later change behind it is damage.

package import CisternLogProtocol
internal import CisternPrimitives

package enum MetadataFileFormat {
    package static let magic: [UInt8] = Array("CISTMETA".utf8)
    /// On disk: never renumber.
    package static let version: UInt32 = 1
    package static let headerBytes = 16
    package static let frameHeadBytes = 17
    /// A put of the longest key and value.
    package static let bodyBytesMax = 8 + 2 + MetadataLimits.keyBytesMax + MetadataLimits.valueBytesMax

    /// On disk: never renumber.
    package enum FrameType: UInt8, Sendable {
        // Of the snapshot.
        case lease = 1
        case value = 2
        case snapshotEnd = 3
        // Changes.
        case put = 16
        case delete = 17
        case leaseBegan = 18
        case leaseEnded = 19
        /// The store was closed: nothing follows, and nothing of what is before can be torn.
        case closed = 20
    }

    /// A whole file without changes.
    package static func encode(_ tree: MetadataTree) -> [UInt8] {
        var out = ByteWriter(capacity: headerBytes + tree.liveBytes + 64)
        out.writeBytes(magic)
        out.writeInteger(version)
        out.writeInteger(CRC32C.checksum(out.bytes))
        for (id, lease) in tree.leases.sorted(by: { $0.key < $1.key }) {
            write(.lease, UInt64(id.rawValue), into: &out) { $0.writeInteger(lease.milliseconds) }
        }
        for key in tree.sortedKeys {
            guard let value = tree[key] else { continue }
            write(.value, value.version, into: &out) { writePut(key, value.bytes, value.lease, into: &$0) }
        }
        write(.snapshotEnd, tree.version, into: &out) {
            $0.writeInteger(UInt64(tree.leases.count))
            $0.writeInteger(UInt64(tree.count))
        }
        return out.bytes
    }

    package static func encode(_ change: StoredChange, version: MetadataVersion) -> [UInt8] {
        var out = ByteWriter()
        switch change {
        case .put(let key, let value, let lease):
            write(.put, version, into: &out) { writePut(key, value, lease, into: &$0) }
        case .delete(let key): write(.delete, version, into: &out) { $0.writeText(key) }
        case .leaseBegan(let milliseconds):
            write(.leaseBegan, version, into: &out) { $0.writeInteger(milliseconds) }
        case .leaseEnded(let lease): write(.leaseEnded, version, into: &out) { $0.writeInteger(lease.rawValue) }
        }
        return out.bytes
    }

    package static func encodeClosed(version: MetadataVersion) -> [UInt8] {
        var out = ByteWriter()
        write(.closed, version, into: &out) { _ in }
        return out.bytes
    }

    private static func write(
        _ type: FrameType, _ version: MetadataVersion, into out: inout ByteWriter,
        body: (inout ByteWriter) -> Void
    ) {
        var frame = ByteWriter()
        frame.writeInteger(UInt32(0))
        frame.writeInteger(version)
        frame.writeUInt8(type.rawValue)
        body(&frame)
        let bodyStart = frameHeadBytes - 4
        frame.patchInteger(UInt32(frame.count - bodyStart), at: 0)
        out.writeInteger(CRC32C.checksum(frame.bytes))
        out.writeBytes(frame.bytes)
    }

    /// i64 lease, 0 for none ‖ u16 key length ‖ key ‖ value
    private static func writePut(
        _ key: String, _ value: [UInt8], _ lease: MetadataLeaseID?, into out: inout ByteWriter
    ) {
        out.writeInteger(lease?.rawValue ?? 0)
        out.writeText(key)
        out.writeBytes(value)
    }
}
