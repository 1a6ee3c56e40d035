// Bodies of manifest and snapshot records. Each `encode` stands next to its `decode`; a decoder takes any bytes, returns nil
// for what it cannot read, and reserves no more memory than the input justifies. Specification: proto-spec/manifest.md.

package import CisternPrimitives

extension TreeState {
    package func encode(into output: inout ByteWriter) {
        identity.encode(into: &output)
        output.writeVarint(UInt64(replaces.count))
        for tree in replaces { output.writeVarint(tree.number) }
        output.writeInteger(epoch)
        output.writeLengthPrefixed(Array(writer.utf8))
        flushed.encode(into: &output)
        output.writeInteger(firstSegment)
        FileRecord.encode(levels: levels, into: &output)
        let version = ManifestFormat.version(of: self)
        if version >= ManifestFormat.versionWithLogs { LogReference.encode(logs, into: &output) }
        if version >= ManifestFormat.versionWithRules { expiryRules.encode(into: &output) }
    }

    /// - Parameter version: of the manifest.
    package static func decode(_ reader: inout ByteReader, version: UInt16 = 1) -> TreeState? {
        guard let identity = TreeIdentity.decode(&reader), let replacedCount = reader.readVarint(),
            replacedCount <= UInt64(reader.remaining)
        else { return nil }
        var replaces: [TreeID] = []
        for _ in 0..<replacedCount {
            guard let number = reader.readVarint(), number <= EngineLimits.numberMax else { return nil }
            replaces.append(TreeID(number))
        }
        guard let epoch = reader.readInteger(as: UInt64.self), let writer = readName(&reader),
            let flushed = WriteProgress.decode(&reader), let firstSegment = reader.readNumber(),
            let levels = FileRecord.decodeLevels(&reader)
        else { return nil }
        var state = TreeState(identity: identity, epoch: epoch, writer: writer)
        state.replaces = replaces
        state.flushed = flushed
        state.firstSegment = firstSegment
        state.levels = levels
        if version >= ManifestFormat.versionWithLogs {
            guard let logs = LogReference.decodeAll(&reader) else { return nil }
            state.logs = logs
        }
        if version >= ManifestFormat.versionWithRules {
            guard let rules = ExpiryRules.decode(&reader) else { return nil }
            state.expiryRules = rules
        }
        return state
    }
}

extension VersionEdit {
    private static let sessionFlag: UInt8 = 1
    private static let flushedFlag: UInt8 = 2
    private static let segmentFlag: UInt8 = 4
    private static let logsFlag: UInt8 = 8
    private static let rulesFlag: UInt8 = 16

    package func encode(into writer: inout ByteWriter) {
        var flags: UInt8 = 0
        if session != nil { flags |= VersionEdit.sessionFlag }
        if flushed != nil { flags |= VersionEdit.flushedFlag }
        if firstSegment != nil { flags |= VersionEdit.segmentFlag }
        if dropsLogs { flags |= VersionEdit.logsFlag }
        if expiryRules != nil { flags |= VersionEdit.rulesFlag }
        writer.writeUInt8(flags)
        if let session {
            writer.writeInteger(session.epoch)
            writer.writeLengthPrefixed(Array(session.writer.utf8))
        }
        flushed?.encode(into: &writer)
        if let firstSegment { writer.writeInteger(firstSegment) }
        expiryRules?.encode(into: &writer)
        writer.writeVarint(UInt64(removed.count))
        for removal in removed {
            writer.writeUInt8(UInt8(removal.level))
            writer.writeVarint(removal.file.number)
            writer.writeInteger(removal.file.firstGroup)
        }
        writer.writeVarint(UInt64(added.count))
        for addition in added {
            writer.writeUInt8(UInt8(addition.level))
            addition.file.encode(into: &writer)
        }
    }

    package static func decode(_ reader: inout ByteReader) -> VersionEdit? {
        var edit = VersionEdit()
        guard let flags = reader.readUInt8(), flags <= 31 else { return nil }
        if flags & sessionFlag != 0 {
            guard let epoch = reader.readInteger(as: UInt64.self), let writer = readName(&reader) else { return nil }
            edit.session = Session(epoch: epoch, writer: writer)
        }
        if flags & flushedFlag != 0 {
            guard let progress = WriteProgress.decode(&reader) else { return nil }
            edit.flushed = progress
        }
        if flags & segmentFlag != 0 {
            guard let segment = reader.readNumber() else { return nil }
            edit.firstSegment = segment
        }
        edit.dropsLogs = flags & logsFlag != 0
        if flags & rulesFlag != 0 {
            guard let rules = ExpiryRules.decode(&reader) else { return nil }
            edit.expiryRules = rules
        }
        guard let removedCount = reader.readVarint(), removedCount <= UInt64(reader.remaining) else { return nil }
        for _ in 0..<removedCount {
            guard let level = reader.readUInt8(), let number = reader.readVarint(),
                let group = reader.readInteger(as: UInt16.self)
            else { return nil }
            edit.removed.append(
                Removal(level: Int(level), file: FileRecordID(number: number, firstGroup: group)))
        }
        guard let addedCount = reader.readVarint(), addedCount <= UInt64(reader.remaining) else { return nil }
        for _ in 0..<addedCount {
            guard let level = reader.readUInt8(), let file = FileRecord.decode(&reader) else { return nil }
            edit.added.append(Addition(level: Int(level), file: file))
        }
        return edit
    }
}

extension FileRecord {
    func encode(into writer: inout ByteWriter) {
        writer.writeVarint(number)
        writer.writeInteger(window.first)
        writer.writeInteger(window.last)
        writer.writeInteger(summary.fileBytes)
        writer.writeLengthPrefixed(summary.encode())
    }

    static func decode(_ reader: inout ByteReader) -> FileRecord? {
        guard let number = reader.readVarint(), number <= EngineLimits.numberMax,
            let first = reader.readInteger(as: UInt16.self),
            let last = reader.readInteger(as: UInt16.self), first <= last,
            let fileBytes = reader.readInteger(as: UInt64.self), let properties = unsafe reader.readLengthPrefixed(),
            let summary = unsafe TableSummary.decode(properties, fileBytes: fileBytes)
        else { return nil }
        return FileRecord(number: number, window: KeyGroupRange(first: first, last: last), summary: summary)
    }

    static func encode(levels: [[FileRecord]], into writer: inout ByteWriter) {
        writer.writeUInt8(UInt8(levels.count))
        for level in levels {
            writer.writeVarint(UInt64(level.count))
            for file in level { file.encode(into: &writer) }
        }
    }

    static func decodeLevels(_ reader: inout ByteReader) -> [[FileRecord]]? {
        guard let count = reader.readUInt8(), Int(count) == TreeState.levelCount else { return nil }
        var levels: [[FileRecord]] = []
        for _ in 0..<count {
            guard let files = reader.readVarint(), files <= UInt64(reader.remaining) else { return nil }
            var level: [FileRecord] = []
            for _ in 0..<files {
                guard let file = FileRecord.decode(&reader) else { return nil }
                level.append(file)
            }
            levels.append(level)
        }
        return levels
    }
}

extension TreeIdentity {
    func encode(into writer: inout ByteWriter) {
        writer.writeLengthPrefixed(Array(store.utf8))
        writer.writeInteger(keyGroups.first)
        writer.writeInteger(keyGroups.last)
        writer.writeInteger(UInt32(keyGroupCount))
    }

    static func decode(_ reader: inout ByteReader) -> TreeIdentity? {
        guard let store = readName(&reader), let first = reader.readInteger(as: UInt16.self),
            let last = reader.readInteger(as: UInt16.self), first <= last,
            let count = reader.readInteger(as: UInt32.self), count <= UInt32(KeyGroup.countMax), count > UInt32(last)
        else { return nil }
        return TreeIdentity(
            store: store, keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: Int(count))
    }
}

extension WriteProgress {
    func encode(into writer: inout ByteWriter) {
        writer.writeInteger(epoch)
        writer.writeInteger(sequence)
        writer.writeInteger(watermark)
    }

    static func decode(_ reader: inout ByteReader) -> WriteProgress? {
        guard let epoch = reader.readInteger(as: UInt64.self), let sequence = reader.readNumber(),
            let watermark = reader.readInteger(as: UInt64.self)
        else { return nil }
        return WriteProgress(epoch: epoch, sequence: sequence, watermark: watermark)
    }
}

extension ByteReader {
    /// A number that is counted on from.
    mutating func readNumber() -> UInt64? {
        guard let number = readInteger(as: UInt64.self), number <= EngineLimits.numberMax else { return nil }
        return number
    }
}

/// A length-prefixed UTF-8 name of bounded length.
func readName(_ reader: inout ByteReader) -> String? {
    guard let bytes = unsafe reader.readLengthPrefixed(), bytes.count <= ManifestFormat.nameBytesMax else { return nil }
    return unsafe String(validating: bytes, as: UTF8.self)
}
