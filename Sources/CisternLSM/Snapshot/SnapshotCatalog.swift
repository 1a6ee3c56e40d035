// The snapshots of an engine, by handle and by what they are a picture of. A value; the engine's mutex guards it. Every question
// is answered in time that does not depend on how many snapshots there are.

/// A snapshot whose record is on disk.
struct StoredSnapshot: Sendable {
    /// Of the record's file.
    let number: UInt64
    let epoch: UInt64
    let record: SnapshotRecord
    /// Of the files and logs that no snapshot held before; known until the next start.
    var newBytes: UInt64 = 0

    var info: SnapshotInfo {
        var info = record.info
        info.newBytes = newBytes
        return info
    }

    fileprivate var cut: SnapshotCatalog.Cut {
        SnapshotCatalog.Cut(tree: record.tree, epoch: epoch, checkpoint: record.checkpoint)
    }
}

struct SnapshotCatalog: Sendable {
    fileprivate struct Cut: Hashable {
        let tree: TreeID
        let epoch: UInt64
        let checkpoint: UInt64
    }

    private var byHandle: [String: StoredSnapshot] = [:]
    private var byCut: [Cut: String] = [:]
    /// How many snapshots refer to a table file, or have one that points into a value file.
    private var holders: [UInt64: Int] = [:]
    /// The same for segments, with the bytes of the longest part.
    private var segmentHolders: [SegmentID: (count: Int, bytes: UInt64)] = [:]

    subscript(handle: String) -> StoredSnapshot? { byHandle[handle] }

    var all: some Sequence<StoredSnapshot> { byHandle.values }

    var count: Int { byHandle.count }

    func taken(of tree: TreeID, epoch: UInt64, checkpoint: UInt64) -> StoredSnapshot? {
        byCut[Cut(tree: tree, epoch: epoch, checkpoint: checkpoint)].flatMap { byHandle[$0] }
    }

    /// Bytes of a record's files and logs that no snapshot here refers to.
    func newBytes(of record: SnapshotRecord) -> UInt64 {
        var bytes = record.levels.joined().filter { holders[$0.number] == nil }.windowedBytes
        for file in record.levels.joined() {
            for use in file.summary.values where holders[use.number] == nil {
                bytes = bytes.saturatingAdding(file.windowed(use.recordBytes))
            }
        }
        for log in record.logs {
            for part in log.segments {
                let known = segmentHolders[SegmentID(tree: log.tree, number: part.number)]?.bytes ?? 0
                if part.bytes > known { bytes = bytes.saturatingAdding(part.bytes - known) }
            }
        }
        return bytes
    }

    mutating func add(_ snapshot: StoredSnapshot) {
        for number in snapshot.record.heldNumbers { holders[number, default: 0] += 1 }
        for log in snapshot.record.logs {
            for part in log.segments {
                let segment = SegmentID(tree: log.tree, number: part.number)
                let known = segmentHolders[segment] ?? (0, 0)
                segmentHolders[segment] = (known.count + 1, max(known.bytes, part.bytes))
            }
        }
        byHandle[snapshot.record.handle] = snapshot
        byCut[snapshot.cut] = snapshot.record.handle
    }

    mutating func remove(_ handle: String) -> StoredSnapshot? {
        guard let removed = byHandle.removeValue(forKey: handle) else { return nil }
        if byCut[removed.cut] == handle { byCut[removed.cut] = nil }
        for number in removed.record.heldNumbers {
            let count = (holders[number] ?? 1) - 1
            holders[number] = count == 0 ? nil : count
        }
        for segment in removed.record.logs.segmentIDs {
            guard let known = segmentHolders[segment] else { continue }
            segmentHolders[segment] = known.count == 1 ? nil : (known.count - 1, known.bytes)
        }
        return removed
    }
}

extension SnapshotRecord {
    /// Of table files and value files, which are numbered together; once for each reference.
    fileprivate var heldNumbers: [UInt64] { fileNumbers + levels.joined().flatMap(\.summary.values).map(\.number) }
}
