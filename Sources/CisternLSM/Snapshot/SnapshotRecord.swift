// A snapshot on disk: one file with the picture of a tree at a checkpoint. Specification and vectors: proto-spec/snapshot.md.
//
//   0 u32 magic "CSNP" · 4 u16 version · 6 u16 zero · 8 u32 length of the body · 12 u32 CRC-32C of bytes 0..<12 and the body
//   16 body: handle, identity, tree, checkpoint, progress, creation time, levels of file references
//      version 2: then references to log segments, which hold what is in no file · version 3: then expiry rules

internal import CisternFileSystem
internal import CisternPrimitives

/// What a snapshot is, for whoever lists or restores it.
package struct SnapshotInfo: Equatable, Sendable {
    /// Names the snapshot: `STORE/CHECKPOINT/FIRST-LAST/suffix`.
    package let handle: String
    package let identity: TreeIdentity
    package let tree: TreeID
    package let checkpoint: UInt64
    /// Writes up to here are in the snapshot.
    package let progress: WriteProgress
    package let createdMilliseconds: UInt64
    package let fileCount: Int
    /// Bytes of the files' visible parts and of the values they point to, an estimate where a window cuts a file, and of the
    /// log.
    package let bytes: UInt64
    /// Bytes of the log segments that hold what was not in files: what a restore reads at most.
    package let logBytes: UInt64
    /// The part of `bytes` that no earlier snapshot held: what this one added. 0 when it was taken before a restart.
    package internal(set) var newBytes: UInt64 = 0
}

/// Names a snapshot that a tree is to be made from.
package struct SnapshotReference: Hashable, Sendable {
    package let handle: String
    package init(handle: String) { self.handle = handle }
}

package struct SnapshotRecord: Equatable, Sendable {
    package var handle: String
    package var identity: TreeIdentity
    package var tree: TreeID
    package var checkpoint: UInt64
    package var progress: WriteProgress
    package var createdMilliseconds: UInt64
    package var levels: [[FileRecord]]
    /// What is not in the files, in the order of replay.
    package var logs: [LogReference]
    /// What stored expiries mean.
    package var expiryRules: ExpiryRules

    package init(
        handle: String, identity: TreeIdentity, tree: TreeID, checkpoint: UInt64, progress: WriteProgress,
        createdMilliseconds: UInt64, levels: [[FileRecord]], logs: [LogReference] = [],
        expiryRules: ExpiryRules = ExpiryRules()
    ) {
        self.handle = handle
        self.identity = identity
        self.tree = tree
        self.checkpoint = checkpoint
        self.progress = progress
        self.createdMilliseconds = createdMilliseconds
        self.levels = levels
        self.logs = logs
        self.expiryRules = expiryRules
    }

    package var info: SnapshotInfo {
        SnapshotInfo(
            handle: handle, identity: identity, tree: tree, checkpoint: checkpoint, progress: progress,
            createdMilliseconds: createdMilliseconds, fileCount: levels.reduce(0) { $0 + $1.count },
            bytes: levels.joined().windowedBytes.saturatingAdding(levels.joined().windowedValueBytes)
                .saturatingAdding(logs.logBytes), logBytes: logs.logBytes)
    }

    /// The number makes it unique in its directory, with the time among directories too.
    func makeHandle(_ number: UInt64) -> String {
        let suffix = String(number, radix: 16) + "-" + String(createdMilliseconds, radix: 16)
        return "\(identity.store)/\(checkpoint)/\(identity.keyGroups.first)-\(identity.keyGroups.last)/\(suffix)"
    }

    package var fileNumbers: [UInt64] { levels.joined().map(\.number) }

    /// The files as the state of a tree, for a version.
    var fileState: TreeState {
        var state = TreeState(identity: identity, epoch: progress.epoch, writer: "")
        state.levels = levels
        return state
    }
}

package enum SnapshotFormat {
    // On disk: never change.
    package static let magic: UInt32 = 0x504E_5343
    package static let version: UInt16 = 1
    /// A snapshot that refers to log segments; all others stay readable for programs that know version 1 only.
    package static let versionWithLogs: UInt16 = 2
    /// A snapshot with expiry rules.
    package static let versionWithRules: UInt16 = 3
    package static let headerBytes = 16
    package static let snapshotBytesMax = 1 << 30

    package static func encode(_ record: SnapshotRecord) -> [UInt8] {
        var body = ByteWriter(capacity: 256)
        body.writeLengthPrefixed(Array(record.handle.utf8))
        record.identity.encode(into: &body)
        body.writeVarint(record.tree.number)
        body.writeInteger(record.checkpoint)
        record.progress.encode(into: &body)
        body.writeInteger(record.createdMilliseconds)
        FileRecord.encode(levels: record.levels, into: &body)
        let recordVersion = version(of: record)
        if recordVersion >= versionWithLogs { LogReference.encode(record.logs, into: &body) }
        if recordVersion >= versionWithRules { record.expiryRules.encode(into: &body) }
        var writer = ByteWriter(capacity: body.count + headerBytes)
        writer.writeInteger(magic)
        writer.writeInteger(recordVersion)
        writer.writeInteger(UInt16(0))
        writer.writeInteger(UInt32(body.count))
        writer.writeInteger(CRC32C.checksum(body.bytes, seed: CRC32C.checksum(writer.bytes)))
        writer.writeBytes(body.bytes)
        return writer.bytes
    }

    private static func version(of record: SnapshotRecord) -> UInt16 {
        if !record.expiryRules.isEmpty { return versionWithRules }
        return record.logs.isEmpty ? version : versionWithLogs
    }

    package static func decode(_ bytes: [UInt8], path: String) throws(EngineError) -> SnapshotRecord {
        guard bytes.count >= headerBytes else { throw corruption(path, 0, "the header is cut short") }
        let sum = CRC32C.checksum(Array(bytes[headerBytes...]), seed: CRC32C.checksum(Array(bytes[..<12])))
        let fields = unsafe bytes.withUnsafeBytes { unsafe header($0) }
        guard let fields, fields.magic == magic else { throw corruption(path, 0, "this is not a snapshot") }
        guard fields.sum == sum else { throw corruption(path, 0, "the checksum does not match") }
        guard (version...versionWithRules).contains(fields.version) else {
            throw .unsupported(
                detail:
                    "\(path) has version \(fields.version), and this program reads versions up to \(versionWithRules)")
        }
        guard fields.length == bytes.count - headerBytes else {
            throw corruption(path, 8, "the body has \(bytes.count - headerBytes) bytes, recorded are \(fields.length)")
        }
        guard let record = unsafe bytes.withUnsafeBytes({ unsafe decodeBody($0, version: fields.version) }) else {
            throw corruption(path, UInt64(headerBytes), "the body cannot be read")
        }
        return record
    }

    private static func header(
        _ bytes: UnsafeRawBufferPointer
    ) -> (magic: UInt32, version: UInt16, length: Int, sum: UInt32)? {
        var reader = unsafe ByteReader(bytes)
        guard let magic = reader.readInteger(as: UInt32.self), let version = reader.readInteger(as: UInt16.self),
            reader.skip(2), let length = reader.readInteger(as: UInt32.self),
            let sum = reader.readInteger(as: UInt32.self)
        else { return nil }
        return (magic, version, Int(length), sum)
    }

    private static func decodeBody(_ bytes: UnsafeRawBufferPointer, version: UInt16) -> SnapshotRecord? {
        var reader = unsafe ByteReader(bytes)
        guard reader.skip(headerBytes), let handle = readName(&reader), let identity = TreeIdentity.decode(&reader),
            let tree = reader.readVarint(), tree <= EngineLimits.numberMax,
            let checkpoint = reader.readInteger(as: UInt64.self),
            let progress = WriteProgress.decode(&reader), let created = reader.readInteger(as: UInt64.self),
            let levels = FileRecord.decodeLevels(&reader),
            let logs = version >= versionWithLogs ? LogReference.decodeAll(&reader) : [],
            let rules = version >= versionWithRules ? ExpiryRules.decode(&reader) : ExpiryRules(), reader.isAtEnd
        else { return nil }
        return SnapshotRecord(
            handle: handle, identity: identity, tree: TreeID(tree), checkpoint: checkpoint, progress: progress,
            createdMilliseconds: created, levels: levels, logs: logs, expiryRules: rules)
    }
}
