// A tree's memtables from its log: what a restart finds is what was acknowledged.
//
// Records must continue each other without a gap, from the manifest's progress on; segments must name their predecessor. So a
// manifest or a segment that lost its end to damage is noticed, even where its own bytes look whole.

internal import CisternFileSystem
internal import CisternPrimitives

/// A memtable that takes no more writes.
struct SealedMemtable: Sendable {
    let memtable: Memtable
    /// Everything up to here is in this memtable or older ones.
    let progress: WriteProgress
    /// When this memtable is flushed, segments below are not needed.
    let nextSegment: UInt64
    /// It holds what the manifest refers to in logs of other trees: when it is flushed they are not needed.
    let holdsForeignLogs: Bool
    /// Of the last batch in it: with a replicated log, it is flushed when that is durable.
    var ticket: UInt64 = 0
}

struct RecoveredLog: Sendable {
    /// Oldest first.
    var sealed: [SealedMemtable] = []
    var active: Memtable
    /// What the memtables were made with.
    var pointStates: PointStates
    var progress: WriteProgress
    /// `active` holds what the manifest refers to in logs of other trees.
    var activeHoldsForeignLogs = false
    /// Segments that were begun whole, and how much of each is intact.
    var segments: [LogSegmentPart] = []
    /// Segments that are in no sealed memtable, all together.
    var unsealedBytes = 0
    /// The number the next segment gets.
    var nextSegment: UInt64
    var records = 0

    /// The last segment with a header, and its size; number 0 when there is none.
    var last: LogSegmentPart { segments.last ?? LogSegmentPart(number: 0, bytes: 0) }
}

struct LogReplay {
    let root: String
    let tree: TreeID
    let state: TreeState
    let memtables: MemtableSource
    /// A memtable is sealed when the segments it came from are this long.
    let logBytes: Int
    /// nil to look only: nothing on disk is changed.
    let logs: LogDirectory?
    let fileSystem: any FileSystem
    let wallMilliseconds: UInt64

    private var directory: String { DataDirectory.tree(root, tree) }

    func run() throws(EngineError) -> RecoveredLog {
        // What other trees wrote before this one was made comes first.
        let foreign = LogRestore(
            logs: state.logs, root: root, memtables: memtables, fileSystem: fileSystem,
            dead: LogRestore.dead(in: state, wallMilliseconds: wallMilliseconds))
        var recovered = RecoveredLog(
            active: try foreign.run(), pointStates: memtables.pointStates, progress: state.flushed,
            nextSegment: state.firstSegment)
        recovered.activeHoldsForeignLogs = !state.logs.isEmpty
        let segments = try neededSegments()
        let buffer = SegmentBuffer()
        for (index, segment) in segments.enumerated() {
            let durable =
                index + 1 < segments.count ? try durableBytes(of: segment, from: segments[index + 1], buffer) : 0
            let window = try SegmentWindow(
                path(segment), fileSystem: fileSystem, limit: LogFormat.segmentBytesMax, buffer: buffer)
            try replay(segment, window, durableBytes: durable, into: &recovered)
            recovered.nextSegment = segment + 1
            recovered.unsealedBytes += window.end
            if recovered.active.isFull || recovered.unsealedBytes >= logBytes { seal(&recovered) }
        }
        if let last = segments.last, logs != nil { try settle(last, recovered) }
        return recovered
    }

    private func path(_ segment: UInt64) -> String { directory + "/" + DataDirectory.segmentName(segment) }

    /// In order. Records of older ones are flushed, and those that nobody refers to are removed.
    private func neededSegments() throws(EngineError) -> [UInt64] {
        logs?.prune(tree, below: state.firstSegment)
        let names = try asEngineError { () throws(FileError) in try fileSystem.list(directory) }
        return names.compactMap { DataDirectory.segmentNumber(ofName: $0) }.filter { $0 >= state.firstSegment }.sorted()
    }

    /// What the header of the segment behind it says about a segment.
    private func durableBytes(
        of segment: UInt64, from next: UInt64, _ buffer: SegmentBuffer
    ) throws(EngineError) -> UInt64 {
        let start = try SegmentWindow(
            path(next), fileSystem: fileSystem, firstBytes: UInt64(LogFormat.headerBytes), buffer: buffer)
        guard let header = try start.header(), header.previousSegment == segment else { return 0 }
        return header.previousBytes
    }

    private func replay(
        _ segment: UInt64, _ window: SegmentWindow, durableBytes: UInt64, into recovered: inout RecoveredLog
    ) throws(EngineError) {
        let reader = LogSegmentReader(path: path(segment), tree: tree.number, segment: segment)
        try checkPredecessor(of: segment, try window.header(), recovered)
        var progress = recovered.progress
        let memtable = recovered.active
        let end = try reader.read(window, durableBytes: durableBytes) { record, offset throws(EngineError) in
            try advance(&progress, with: record, path: reader.path, offset: offset)
            memtable.apply(record.columns)
        }
        recovered.progress = progress
        recovered.records += end.records
        if end.header != nil {
            recovered.segments.append(LogSegmentPart(number: segment, bytes: end.validBytes))
        }
    }

    private func checkPredecessor(
        of segment: UInt64, _ header: LogSegmentHeader?, _ recovered: RecoveredLog
    ) throws(EngineError) {
        guard let header, header.previousSegment >= state.firstSegment else { return }
        if header.previousSegment != recovered.last.number {
            throw corruption(
                path(segment), 24,
                "log segment \(header.previousSegment) comes before this one and is missing; acknowledged writes are "
                    + "lost: restore from a snapshot")
        }
    }

    private func advance(
        _ progress: inout WriteProgress, with record: LogRecord, path: String, offset: UInt64
    ) throws(EngineError) {
        if record.epoch > state.epoch {
            throw corruption(path, offset, "a record of epoch \(record.epoch), and the manifest knows \(state.epoch)")
        }
        let continues =
            record.epoch == progress.epoch
            ? record.sequence == progress.sequence + 1 : record.epoch > progress.epoch && record.sequence == 1
        if !continues {
            throw corruption(
                path, offset,
                "batch \(record.sequence) of epoch \(record.epoch) follows batch \(progress.sequence) of epoch "
                    + "\(progress.epoch); acknowledged writes are lost: restore from a snapshot")
        }
        progress.epoch = record.epoch
        progress.sequence = record.sequence
        progress.watermark = max(progress.watermark, record.watermark)
    }

    private func seal(_ recovered: inout RecoveredLog) {
        recovered.active.seal()
        recovered.sealed.append(
            SealedMemtable(
                memtable: recovered.active, progress: recovered.progress, nextSegment: recovered.nextSegment,
                holdsForeignLogs: recovered.activeHoldsForeignLogs))
        recovered.activeHoldsForeignLogs = false
        recovered.active = memtables.make()
        recovered.unsealedBytes = 0
    }

    /// Cuts the torn tail and makes what was replayed durable, so that the next segment can vouch for it.
    private func settle(_ last: UInt64, _ recovered: RecoveredLog) throws(EngineError) {
        try asEngineError { () throws(FileError) in
            if recovered.last.number == last {
                try fileSystem.truncate(path(last), to: recovered.last.bytes)
            } else {
                try fileSystem.remove(path(last))
            }
        }
    }
}
