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
}

struct RecoveredLog: Sendable {
    /// Oldest first.
    var sealed: [SealedMemtable] = []
    var active: Memtable
    var progress: WriteProgress
    /// The last segment with records, and its size; number 0 when there is none.
    var lastSegment: UInt64 = 0
    var lastBytes: UInt64 = 0
    /// The number the next segment gets.
    var nextSegment: UInt64
    var records = 0
}

struct LogReplay {
    let directory: String
    let tree: TreeID
    let state: TreeState
    let memtableBytes: Int
    let fileSystem: any FileSystem

    func run() throws(EngineError) -> RecoveredLog {
        var recovered = RecoveredLog(
            active: Memtable(budgetBytes: memtableBytes), progress: state.flushed, nextSegment: state.firstSegment)
        let segments = try neededSegments()
        var contents: [[UInt8]] = []
        for segment in segments {
            contents.append(
                try asEngineError { () throws(FileError) in
                    try fileSystem.readAll(path(segment), limit: LogFormat.segmentBytesMax)
                })
        }
        for (index, segment) in segments.enumerated() {
            let durable = index + 1 < segments.count ? durableBytes(of: segment, from: contents[index + 1]) : 0
            try replay(segment, contents[index], durableBytes: durable, into: &recovered)
            contents[index] = []
            recovered.nextSegment = segment + 1
            if recovered.active.isFull { seal(&recovered) }
        }
        if let last = segments.last { try settle(last, recovered) }
        return recovered
    }

    private func path(_ segment: UInt64) -> String { directory + "/" + DataDirectory.segmentName(segment) }

    /// In order; older ones are removed, their records are flushed.
    private func neededSegments() throws(EngineError) -> [UInt64] {
        var needed: [UInt64] = []
        let names = try asEngineError { () throws(FileError) in try fileSystem.list(directory) }
        for name in names {
            guard let segment = DataDirectory.segmentNumber(ofName: name) else { continue }
            if segment >= state.firstSegment {
                needed.append(segment)
            } else {
                // What cannot be removed is removed at the next start.
                do throws(FileError) { try fileSystem.remove(directory + "/" + name) } catch { continue }
            }
        }
        return needed.sorted()
    }

    private func durableBytes(of segment: UInt64, from next: [UInt8]) -> UInt64 {
        unsafe next.withUnsafeBytes { bytes in
            guard case .header(let header) = unsafe LogFormat.decodeHeader(bytes), header.previousSegment == segment
            else {
                return 0
            }
            return header.previousBytes
        }
    }

    private func replay(
        _ segment: UInt64, _ bytes: [UInt8], durableBytes: UInt64, into recovered: inout RecoveredLog
    ) throws(EngineError) {
        let reader = LogSegmentReader(path: path(segment), tree: tree.number, segment: segment)
        try checkPredecessor(of: segment, bytes, recovered)
        var progress = recovered.progress
        let memtable = recovered.active
        let end = try reader.read(bytes, durableBytes: durableBytes) { record, offset throws(EngineError) in
            try advance(&progress, with: record, path: reader.path, offset: offset)
            for index in 0..<record.columns.count { memtable.apply(record.columns[index]) }
        }
        recovered.progress = progress
        recovered.records += end.records
        if end.header != nil {
            recovered.lastSegment = segment
            recovered.lastBytes = end.validBytes
        }
    }

    private func checkPredecessor(of segment: UInt64, _ bytes: [UInt8], _ recovered: RecoveredLog) throws(EngineError) {
        let header = unsafe bytes.withUnsafeBytes { bytes -> LogSegmentHeader? in
            if case .header(let header) = unsafe LogFormat.decodeHeader(bytes) { return header }
            return nil
        }
        guard let header, header.previousSegment >= state.firstSegment else { return }
        if header.previousSegment != recovered.lastSegment {
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
                memtable: recovered.active, progress: recovered.progress, nextSegment: recovered.nextSegment))
        recovered.active = Memtable(budgetBytes: memtableBytes)
    }

    /// Cuts the torn tail and makes what was replayed durable, so that the next segment can vouch for it.
    private func settle(_ last: UInt64, _ recovered: RecoveredLog) throws(EngineError) {
        try asEngineError { () throws(FileError) in
            if recovered.lastSegment == last {
                try fileSystem.truncate(path(last), to: recovered.lastBytes)
            } else {
                try fileSystem.remove(path(last))
            }
        }
    }
}
