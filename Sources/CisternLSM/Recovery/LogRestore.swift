// The records that snapshots of other trees left in their logs, on the way into a tree that was made from them.
//
//   references, oldest first ─► records inside position and window ─► memtable
//                                                     memtable full ─► handed out, and a new one begun
//
// A part that was durable when the snapshot was taken must be there whole, and its records must lead without a gap from the
// reference's first position to its last: anything else is damage.

internal import CisternFileSystem
internal import CisternPrimitives

struct LogRestore {
    let logs: [LogReference]
    let root: String
    let memtables: MemtableSource
    let fileSystem: any FileSystem
    /// What is dead by this clock is left out, as a flush would. nil where all is wanted, or something older may lie below
    /// that the dead have to hide.
    var dead: ExpiryClock?

    /// The clock for a tree's first memtable, if nothing lies below it: stored expiries up to it are over in all states.
    static func dead(in state: TreeState, wallMilliseconds: UInt64) -> ExpiryClock? {
        guard state.levels.allSatisfy(\.isEmpty) else { return nil }
        let clock = ExpiryClock(processing: wallMilliseconds, event: state.flushed.watermark)
        return state.expiryRules.over(in: state.identity.keyGroups, clock)
    }

    /// Everything in one memtable, whatever its size: for a tree whose making had it in one.
    func run() throws(EngineError) -> Memtable {
        let memtable = memtables.make()
        let buffer = SegmentBuffer()
        for log in logs {
            try replay(log, buffer) { record throws(EngineError) in
                memtable.apply(record.columns, within: log.window, leavingOut: dead)
            }
        }
        return memtable
    }

    /// In as many memtables as it takes. All but the last have been given to `spill`, oldest first.
    func run(spill: (Memtable) throws(EngineError) -> Void) throws(EngineError) -> Memtable {
        var memtable = memtables.make()
        var dead = dead
        let buffer = SegmentBuffer()
        for log in logs {
            try replay(log, buffer) { record throws(EngineError) in
                if memtable.isFull {
                    memtable.seal()
                    try spill(memtable)
                    memtable = memtables.make()
                    // From here on there is something below.
                    dead = nil
                }
                memtable.apply(record.columns, within: log.window, leavingOut: dead)
            }
        }
        return memtable
    }

    /// Reads and checks everything; returns the number of batches.
    func verify() throws(EngineError) -> Int {
        var batches = 0
        let buffer = SegmentBuffer()
        for log in logs { try replay(log, buffer) { _ throws(EngineError) in batches += 1 } }
        return batches
    }

    private func replay(
        _ log: LogReference, _ buffer: SegmentBuffer, visit: (LogRecord) throws(EngineError) -> Void
    ) throws(EngineError) {
        var position = log.after
        for part in log.segments {
            let path = DataDirectory.segmentPath(root, SegmentID(tree: log.tree, number: part.number))
            // Bytes behind the part may be being written at this moment.
            let window = try SegmentWindow(path, fileSystem: fileSystem, firstBytes: part.bytes, buffer: buffer)
            let reader = LogSegmentReader(path: path, tree: log.tree.number, segment: part.number)
            _ = try reader.read(window, durableBytes: part.bytes) { record, offset throws(EngineError) in
                let found = LogPosition(epoch: record.epoch, sequence: record.sequence)
                if found > log.through { return }
                try check(found, follows: position, path, offset)
                position = found
                try visit(record)
            }
        }
        // A new epoch without a batch ends the reference with its sequence 0, which no record has.
        let isComplete = position == log.through || log.through.sequence == 0 && position.epoch < log.through.epoch
        guard isComplete else {
            let last = log.segments.last ?? LogSegmentPart(number: 0, bytes: 0)
            throw corruption(
                DataDirectory.segmentPath(root, SegmentID(tree: log.tree, number: last.number)), last.bytes,
                "the log ends with batch \(position.sequence) of epoch \(position.epoch), and batch "
                    + "\(log.through.sequence) of epoch \(log.through.epoch) is referred to; restore from another snapshot"
            )
        }
    }

    private func check(
        _ found: LogPosition, follows position: LogPosition, _ path: String, _ offset: UInt64
    ) throws(EngineError) {
        let continues =
            found.epoch == position.epoch
            ? found.sequence == position.sequence + 1 : found.epoch > position.epoch && found.sequence == 1
        if continues { return }
        throw corruption(
            path, offset,
            "batch \(found.sequence) of epoch \(found.epoch) follows batch \(position.sequence) of epoch "
                + "\(position.epoch); restore from another snapshot")
    }
}
