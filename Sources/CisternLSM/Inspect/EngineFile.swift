// The files of a data directory for people: what each part is, where it lies, whether its checksum holds. Takes any bytes.
// Reads nothing but the one file, and through the same decoders as the engine.

package import CisternFileSystem
internal import CisternPrimitives

/// A piece of a file, in the order of the file where it is intact.
package struct InspectedPart: Equatable, Sendable {
    package let range: Range<UInt64>
    package let name: String
    package let detail: String

    package init(_ range: Range<UInt64>, _ name: String, _ detail: String) {
        self.range = range
        self.name = name
        self.detail = detail
    }
}

package enum EngineFile: String, Sendable, CaseIterable {
    case table
    case valueFile
    case log
    case manifest
    case current
    case snapshot
    case directoryFormat

    /// The file whose lock says that a process has the directory open. It is empty.
    package static let lockName = DataDirectory.lockName

    package var title: String {
        switch self {
        case .table: "sorted table"
        case .valueFile: "value file"
        case .log: "log segment"
        case .manifest: "manifest"
        case .current: "current-manifest pointer"
        case .snapshot: "snapshot record"
        case .directoryFormat: "directory format"
        }
    }

    /// By its name, as the engine finds it; by its first bytes when it was renamed.
    package init?(name: String, firstBytes: [UInt8]) {
        if DataDirectory.tableNumber(ofName: name) != nil {
            self = .table
        } else if DataDirectory.valueFileNumber(ofName: name) != nil {
            self = .valueFile
        } else if DataDirectory.segmentNumber(ofName: name) != nil {
            self = .log
        } else if DataDirectory.manifestNumber(ofName: name) != nil {
            self = .manifest
        } else if DataDirectory.snapshotNumber(ofName: name) != nil {
            self = .snapshot
        } else if name == DataDirectory.currentName {
            self = .current
        } else if name == DataDirectory.formatName {
            self = .directoryFormat
        } else if let found = EngineFile.magics.first(where: { firstBytes.starts(with: $0.bytes) }) {
            self = found.kind
        } else {
            return nil
        }
    }

    private static let magics: [(kind: EngineFile, bytes: [UInt8])] = [
        (.table, Array("CISTSST1".utf8)), (.valueFile, Array("CISTVAL1".utf8)), (.log, Array("CWAL".utf8)),
        (.manifest, Array("CMAN".utf8)),
        (.current, Array("CCUR".utf8)), (.snapshot, Array("CSNP".utf8)),
    ]

    /// Visits every part of the file, in order, until the first damage.
    /// - Throws: `corruption` with the offset of the damage; `unsupported` for another version; `file`.
    package func inspect(
        _ path: String, fileSystem: any FileSystem, visit: (InspectedPart) -> Void
    ) throws(EngineError) {
        if self == .table { return try inspectTable(path, fileSystem: fileSystem, visit: visit) }
        if self == .valueFile { return try inspectValueFile(path, fileSystem: fileSystem, visit: visit) }
        let bytes = try asEngineError { () throws(FileError) in
            try fileSystem.readAll(path, limit: LogFormat.segmentBytesMax)
        }
        switch self {
        case .log: try inspectLog(bytes, path: path, visit: visit)
        case .manifest: try inspectManifest(bytes, path: path, visit: visit)
        case .current:
            let number = try ManifestFormat.decodeCurrent(bytes, path: path)
            visit(InspectedPart(0..<UInt64(bytes.count), "pointer", "manifest \(number)"))
        case .snapshot: try inspectSnapshot(bytes, path: path, visit: visit)
        case .table, .valueFile, .directoryFormat:
            let format = try DirectoryRecovery.checkFormat(bytes, path: path)
            visit(InspectedPart(0..<UInt64(bytes.count), "format", "version \(format)"))
        }
    }
}

private func inspectSnapshot(
    _ bytes: [UInt8], path: String, visit: (InspectedPart) -> Void
) throws(EngineError) {
    let record = try SnapshotFormat.decode(bytes, path: path)
    let headerEnd = UInt64(SnapshotFormat.headerBytes)
    let version = UInt16(bytes[4]) | UInt16(bytes[5]) << 8
    visit(InspectedPart(0..<headerEnd, "header", "version \(version)"))
    let info = record.info
    visit(
        InspectedPart(
            headerEnd..<UInt64(bytes.count), "snapshot",
            "\(info.handle) of \(info.tree), epoch \(info.progress.epoch) sequence \(info.progress.sequence), "
                + describe(record.levels) + describe(record.logs) + describe(record.expiryRules)))
}

/// What is meant of the logs of trees; empty without any.
func describe(_ logs: [LogReference]) -> String {
    logs.map { log in
        "; log of \(log.tree) [\(log.window)] after \(log.after) through \(log.through): "
            + log.segments.map { "\($0.number) (\($0.bytes) bytes)" }.joined(separator: " ")
    }.joined()
}

/// What stored expiries mean; empty where they are the current ones.
func describe(_ rules: ExpiryRules) -> String {
    rules.all.map { rule in
        let ttl = rule.ttl == 0 ? "none" : "\(rule.ttl) ms"
        return "; state \(rule.state) [\(rule.keyGroups)] time to live \(ttl), stored by \(rule.storedTTL) ms"
            + (rule.isEventTime ? ", event time" : "")
    }.joined()
}

/// Files by level: what a manifest or snapshot refers to.
func describe(_ levels: [[FileRecord]]) -> String {
    let shown = levels.enumerated().filter { !$0.element.isEmpty }.map { level, files in
        "level \(level): " + files.map { "\($0.number) [\($0.window)]" }.joined(separator: " ")
    }
    return shown.isEmpty ? "no files" : shown.joined(separator: "; ")
}
