// A snapshot's files as they leave a data directory: what they are, how long, where, and kept until they have been read. How they
// travel is not the engine's matter; they come back in the layout of a data directory (`SnapshotImport.swift`).
//
// Threading: immutable, any thread.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// A file that a snapshot needs, named as in the data directory that has it.
package struct SnapshotFile: Hashable, Sendable {
    /// Stored: never renumber.
    package enum Kind: UInt8, Sendable, CaseIterable {
        case table = 1
        case values = 2
        /// A log segment. It may go on growing; what is meant is its front.
        case log = 3
    }

    package let kind: Kind
    /// Of a segment, else 0.
    package let tree: UInt64
    package let number: UInt64
    /// What is meant; immutable.
    package let bytes: UInt64

    package init(kind: Kind, tree: UInt64 = 0, number: UInt64, bytes: UInt64) {
        self.kind = kind
        self.tree = tree
        self.number = number
        self.bytes = bytes
    }

    /// Where the file lies in a data directory.
    package func path(_ root: String) -> String {
        switch kind {
        case .table: DataDirectory.tables(root) + "/" + DataDirectory.tableName(number)
        case .values: DataDirectory.tables(root) + "/" + DataDirectory.valueFileName(number)
        case .log: DataDirectory.segmentPath(root, SegmentID(tree: TreeID(tree), number: number))
        }
    }

    /// The directory that `path` is in.
    package func directory(_ root: String) -> String {
        kind == .log ? DataDirectory.tree(root, TreeID(tree)) : DataDirectory.tables(root)
    }
}

extension SnapshotRecord {
    /// Every file that the snapshot needs, each once: tables, value files, segments.
    package var files: [SnapshotFile] {
        var bytesOfTable: [UInt64: UInt64] = [:]
        var bytesOfValues: [UInt64: UInt64] = [:]
        for file in levels.joined() {
            bytesOfTable[file.number] = file.summary.fileBytes
            for use in file.summary.values { bytesOfValues[use.number] = use.fileBytes }
        }
        // Two references may end at different lengths of one segment.
        var bytesOfSegment: [SegmentID: UInt64] = [:]
        for log in logs {
            for part in log.segments {
                let segment = SegmentID(tree: log.tree, number: part.number)
                bytesOfSegment[segment] = max(bytesOfSegment[segment] ?? 0, part.bytes)
            }
        }
        let tables = bytesOfTable.sorted { $0.key < $1.key }.map {
            SnapshotFile(kind: .table, number: $0.key, bytes: $0.value)
        }
        let values = bytesOfValues.sorted { $0.key < $1.key }.map {
            SnapshotFile(kind: .values, number: $0.key, bytes: $0.value)
        }
        let segments = bytesOfSegment.sorted { ($0.key.tree, $0.key.number) < ($1.key.tree, $1.key.number) }.map {
            SnapshotFile(kind: .log, tree: $0.key.tree.number, number: $0.key.number, bytes: $0.value)
        }
        return tables + values + segments
    }
}

/// A snapshot whose files stay as long as this lives, also when it is released meanwhile.
package final class SnapshotExport: Sendable {
    package let record: SnapshotRecord
    package let files: [SnapshotFile]
    private let root: String
    private let version: Version
    private let segments: LogHold

    fileprivate init(_ record: SnapshotRecord, root: String, version: Version, segments: LogHold) {
        self.record = record
        self.files = record.files
        self.root = root
        self.version = version
        self.segments = segments
    }

    package func path(of file: SnapshotFile) -> String { file.path(root) }
}

extension Engine {
    /// Holds a snapshot for copying its files.
    /// - Parameter completion: on the metadata lane. `unsupported` when it is unknown.
    package func exportSnapshot(
        _ handle: String, completion: @escaping @Sendable (Result<SnapshotExport, EngineError>) -> Void
    ) {
        lanes.metadata.submit { [self] in
            // Releases end on this lane, so what is found here is owned until the hold is.
            guard let record = state.withLock({ $0.isClosed ? nil : $0.snapshots[handle]?.record }) else {
                return completion(.failure(.unknownSnapshot(handle)))
            }
            completion(
                .success(
                    SnapshotExport(
                        record, root: options.directory, version: Version(record.fileState, tables: tables),
                        segments: LogHold(logs, record.logs.segmentIDs))))
        }
    }

    package func snapshotRecord(_ handle: String) -> SnapshotRecord? { state.withLock { $0.snapshots[handle]?.record } }

    /// Handles of all snapshots, oldest first.
    package var snapshotHandles: [String] {
        state.withLock { state in
            state.snapshots.all.sorted { $0.number < $1.number }.map(\.record.handle)
        }
    }
}
