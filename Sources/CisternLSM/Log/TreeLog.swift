// The log of one tree while it is open: the owner appends records to a queue, the log lane writes what has queued.
//
//   owner: append ─► queue ─► log lane: one write, one fdatasync for all of it ─► deliver(.durable(ticket)) ─► owner
//
// There is no timer: while one group is being synced, the next one gathers. A failed write or sync stops the log: the file's
// state is unknown, so it takes nothing more until `restart` begins a new segment.
//
// With a replica a group goes there first, and to the segment when it is durable there: what is in segments is always the beginning
// of what the replica has. The segment is not synced then, except where a snapshot refers to it.
//
//   queue ─► replica ─► segment ─► deliver(.durable(ticket))

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

enum LogEvent: Sendable {
    /// Every record up to this ticket may be acknowledged.
    case durable(ticket: UInt64)
    /// Every record not acknowledged so far is in doubt, and the log is stopped.
    case failed(EngineError)
    /// A new segment is open after a failure.
    case restarted
}

/// `queue` is guarded by its mutex. `file`, `closed`, `openSegment`, `durableBytes` and `failure` belong to the log lane, which
/// runs one job at a time; the rest is immutable after init.
final class TreeLog: @unchecked Sendable {
    private struct Chunk {
        let segment: UInt64
        var records: ByteWriter
        var lastTicket: UInt64
        /// The last batch among the records.
        var position = LogPosition(epoch: 0, sequence: 0)
        /// For the replica only; then there are no records.
        var rules: ExpiryRules?
        /// Where it goes first; nil for what was queued before there was one, which the replica has already.
        var replica: (any LogReplica)?
    }

    private struct Queue {
        var chunks: [Chunk] = []
        var bytes = 0
        var lastTicket: UInt64 = 0
        /// Bytes that are on their way to the replica.
        var replicatingBytes = 0
        var isScheduled = false
        var replica: (any LogReplica)?
        /// The buffer of a group that was written, used again.
        var spare: ByteWriter?
    }

    private let directory: String
    private let tree: TreeID
    private let mode: LogMode
    private let logs: LogDirectory
    private let fileSystem: any FileSystem
    private let lane: any BackgroundLane
    private let deliver: @Sendable (LogEvent) -> Void
    private let queue = Mutex(Queue())

    private var file: (any AppendFile)?
    /// Segments that are complete and still needed, oldest first.
    private var closed: [LogSegmentPart] = []
    private var openSegment: UInt64 = 0
    private var durableBytes: UInt64 = 0
    private var failure: EngineError?
    /// On their way to the replica, oldest first, and who waits for it.
    private var replicating: [Chunk] = []
    private var marks: [(ticket: UInt64, work: () -> Void)] = []
    private var isClosed = false

    /// - Parameter previous: the segments that recovery read; their records are still needed, and durable.
    init(
        directory: String, tree: TreeID, mode: LogMode, logs: LogDirectory, fileSystem: any FileSystem,
        lane: any BackgroundLane, previous: [LogSegmentPart], deliver: @escaping @Sendable (LogEvent) -> Void
    ) {
        self.directory = directory
        self.tree = tree
        self.mode = mode
        self.logs = logs
        self.fileSystem = fileSystem
        self.lane = lane
        self.deliver = deliver
        closed = previous.dropLast()
        openSegment = previous.last?.number ?? 0
        durableBytes = previous.last?.bytes ?? 0
    }

    /// Bytes that wait to be written.
    var queuedBytes: Int { queue.withLock { $0.bytes + $0.replicatingBytes } }

    /// What is appended from here on is durable when the replica has it, also where what was appended before is still queued.
    func replicate(to replica: any LogReplica) { queue.withLock { $0.replica = replica } }

    /// Queues a record and returns its ticket and its size in the log. Called by the owner.
    func append(_ record: LogRecord, segment: UInt64) -> (ticket: UInt64, bytes: Int) {
        let (ticket, bytes, mustSchedule) = queue.withLock { queue in
            let newest = queue.chunks.last
            let continues =
                newest.map { $0.segment == segment && $0.rules == nil && $0.replica === queue.replica } ?? false
            if !continues {
                var records = queue.spare ?? ByteWriter()
                queue.spare = nil
                records.reset()
                queue.chunks.append(
                    Chunk(segment: segment, records: records, lastTicket: 0, replica: queue.replica))
            }
            let last = queue.chunks.count - 1
            queue.chunks[last].position = LogPosition(epoch: record.epoch, sequence: record.sequence)
            let before = queue.chunks[last].records.count
            LogFormat.encodeRecord(record, segment: segment, into: &queue.chunks[last].records)
            let bytes = queue.chunks[last].records.count - before
            queue.bytes += bytes
            queue.lastTicket += 1
            queue.chunks[last].lastTicket = queue.lastTicket
            let mustSchedule = !queue.isScheduled
            queue.isScheduled = true
            return (queue.lastTicket, bytes, mustSchedule)
        }
        if mustSchedule { lane.submit { [self] in drain() } }
        return (ticket, bytes)
    }

    /// Queues rules for the replica and returns their ticket: records behind are stored by them. Called by the owner.
    func append(_ rules: ExpiryRules, segment: UInt64) -> UInt64 {
        let (ticket, mustSchedule) = queue.withLock { queue in
            queue.lastTicket += 1
            queue.chunks.append(
                Chunk(
                    segment: segment, records: ByteWriter(), lastTicket: queue.lastTicket, rules: rules,
                    replica: queue.replica))
            let mustSchedule = !queue.isScheduled
            queue.isScheduled = true
            return (queue.lastTicket, mustSchedule)
        }
        if mustSchedule { lane.submit { [self] in drain() } }
        return ticket
    }

    /// Begins a new segment after a failure. Everything queued before is dropped: its writers were told.
    func restart(at segment: UInt64) {
        lane.submit { [self] in
            queue.withLock { queue in
                queue.chunks = []
                queue.bytes = 0
            }
            failure = nil
            closed = []
            // The records of the failed segment are flushed by now, so the new one depends on none.
            openSegment = 0
            durableBytes = 0
            file?.close()
            file = nil
            do throws(EngineError) {
                try roll(to: segment)
                deliver(.restarted)
            } catch {
                failure = error
                deliver(.failed(error))
            }
        }
    }

    /// Makes everything appended so far durable and says where it is: those of `segments` that have records. The last may hold
    /// later records too.
    /// - Parameter completion: on the log lane. Fails when the log has failed, which the owner is told as well.
    func mark(
        _ segments: ClosedRange<UInt64>,
        completion: @escaping @Sendable (Result<[LogSegmentPart], EngineError>) -> Void
    ) {
        // Jobs of a lane run in order, so what was appended before is written by now, or is on its way to the replica.
        lane.submit { [self] in
            guard failure == nil, let last = replicating.last else { return markNow(segments, completion) }
            marks.append((last.lastTicket, { [self] in markNow(segments, completion) }))
        }
    }

    private func markNow(
        _ segments: ClosedRange<UInt64>,
        _ completion: @escaping @Sendable (Result<[LogSegmentPart], EngineError>) -> Void
    ) {
        if let failure { return completion(.failure(failure)) }
        do throws(EngineError) {
            try syncBuffered()
        } catch {
            failure = error
            deliver(.failed(error))
            return completion(.failure(error))
        }
        let parts = closed + [LogSegmentPart(number: openSegment, bytes: durableBytes)]
        completion(
            .success(parts.filter { segments.contains($0.number) && $0.bytes > UInt64(LogFormat.headerBytes) }))
    }

    private func syncBuffered() throws(EngineError) {
        guard let file, durableBytes < file.size else { return }
        try asEngineError { () throws(FileError) in try file.sync() }
        durableBytes = file.size
    }

    /// Removes the segments below `segment`, whose records are in table files. The next segment is begun first and names its
    /// predecessor, so that a manifest that lost its last edit is told from one that never had it.
    func prune(below segment: UInt64) {
        lane.submit { [self] in
            guard failure == nil else { return }
            do throws(EngineError) {
                if openSegment < segment { try roll(to: segment) }
            } catch {
                failure = error
                return deliver(.failed(error))
            }
            closed.removeAll { $0.number < segment }
            logs.prune(tree, below: segment)
        }
    }

    /// Closes the file after what is queued was written; nothing may be appended afterwards.
    func close(_ completion: @escaping @Sendable () -> Void) {
        lane.submit { [self] in
            isClosed = true
            file?.close()
            file = nil
            completion()
        }
    }

    // MARK: Log lane

    private func drain() {
        let chunks = queue.withLock { queue in
            let chunks = queue.chunks
            queue.chunks = []
            queue.bytes = 0
            queue.isScheduled = false
            return chunks
        }
        guard failure == nil else { return }
        do throws(EngineError) {
            var written: UInt64?
            for chunk in chunks where chunk.replica == nil {
                try write(chunk)
                written = chunk.lastTicket
            }
            if let written { deliver(.durable(ticket: written)) }
            for chunk in chunks { if let replica = chunk.replica { send(chunk, to: replica) } }
        } catch {
            failure = error
            deliver(.failed(error))
        }
    }

    private func send(_ chunk: Chunk, to replica: any LogReplica) {
        var records = chunk.records.bytes
        // What is known to be durable now is when the records are in their segment.
        let durable = chunk.segment == openSegment ? durableBytes : 0
        unsafe records.withUnsafeMutableBytes { unsafe LogFormat.finish($0, durableBytes: durable) }
        replicating.append(chunk)
        queue.withLock { $0.replicatingBytes += records.count }
        let count = records.count
        replica.append(
            chunk.rules.map { .rules($0) } ?? .records(records), through: chunk.rules == nil ? chunk.position : nil
        ) { [self] result in
            lane.submit { [self] in replicated(result, count) }
        }
    }

    /// The oldest chunk on its way to the replica is there, or never will be.
    private func replicated(_ result: Result<Void, EngineError>, _ bytes: Int) {
        queue.withLock { $0.replicatingBytes -= bytes }
        guard failure == nil, !isClosed, !replicating.isEmpty else { return }
        let chunk = replicating.removeFirst()
        do throws(EngineError) {
            try result.get()
            if chunk.rules == nil { try write(chunk) }
            deliver(.durable(ticket: chunk.lastTicket))
            while let mark = marks.first, mark.ticket <= chunk.lastTicket {
                marks.removeFirst()
                mark.work()
            }
        } catch {
            failure = error
            deliver(.failed(error))
            let left = marks
            marks = []
            for mark in left { mark.work() }
        }
    }

    private func write(_ chunk: Chunk) throws(EngineError) {
        if chunk.segment != openSegment || file == nil { try roll(to: chunk.segment) }
        guard let file else { return }
        var bytes = chunk.records.bytes
        let durable = durableBytes
        let syncs = mode == .synced && chunk.replica == nil
        let outcome: Result<Void, FileError> = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe LogFormat.finish(buffer, durableBytes: durable)
            do throws(FileError) {
                unsafe try file.append(UnsafeRawBufferPointer(buffer))
                if syncs { try file.sync() }
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try asEngineError { () throws(FileError) in try outcome.get() }
        if syncs { durableBytes = file.size }
        queue.withLock { queue in
            if chunk.records.count <= TreeLog.spareBytesMax { queue.spare = chunk.records }
        }
    }

    /// A larger buffer is given back to the allocator instead of being kept for the next group.
    private static let spareBytesMax = 4 << 20

    private func roll(to segment: UInt64) throws(EngineError) {
        let header = LogSegmentHeader(
            tree: tree.number, segment: segment, previousSegment: openSegment,
            previousBytes: try closeSegment())
        let path = directory + "/" + DataDirectory.segmentName(segment)
        let created = try asEngineError { () throws(FileError) in
            let created = try fileSystem.createAppend(path)
            do throws(FileError) {
                try created.append(LogFormat.encodeHeader(header))
                try created.sync()
                try fileSystem.syncDirectory(directory)
                return created
            } catch {
                // No record is in it. The next attempt takes another number.
                created.close()
                fileSystem.removeLeftover(path)
                throw error
            }
        }
        file = created
        if openSegment != 0 { closed.append(LogSegmentPart(number: openSegment, bytes: header.previousBytes)) }
        openSegment = segment
        durableBytes = UInt64(LogFormat.headerBytes)
    }

    /// Makes the open segment durable as a whole, so that the next one's header can vouch for it. Returns its size.
    private func closeSegment() throws(EngineError) -> UInt64 {
        guard let file else { return durableBytes }
        try asEngineError { () throws(FileError) in try file.sync() }
        let size = file.size
        file.close()
        self.file = nil
        return size
    }
}

/// When a write is acknowledged.
package enum LogMode: String, Sendable, CaseIterable {
    /// At once; a crash loses what was not flushed, and the writer replays from its checkpoint.
    case off
    /// When the log was written to the operating system: survives the process, not the machine.
    case buffered
    /// When the log was synced: survives the machine.
    case synced
}

/// Runs file calls and turns their error into the engine's.
func asEngineError<Value>(_ body: () throws(FileError) -> Value) throws(EngineError) -> Value {
    do {
        return try body()
    } catch {
        throw .file(error)
    }
}
