// A log node's journal, which is its only storage.
//
//   append ─► encoded behind what waits ─► (the writer is free) one write, one sync ─► `synced`
//                                              └─ a segment is full: sealed, indexed, the next one begins
//   deleted ledgers ─► segments that hold nothing of others ─► prepared for later ones, or removed
//
// Group commit without a timer: what comes while a sync runs is the next batch. Each batch ends with a mark that says how far the
// segment was durable before it, and when nothing follows a batch, a mark of its own is written; so a start tells a torn tail, which
// nobody was told of, from damage.
//
// Threading: everything here is the owner's lane, which is the node's; the lanes of `JournalLanes` do what waits for the disk.

internal import CisternFileSystem
package import CisternLogProtocol
package import CisternPrimitives

/// What the journal tells its owner, on the owner's lane.
package protocol JournalOwner: AnyObject, Sendable {
    /// All records up to `sequence` are durable.
    func synced(through sequence: JournalSequence)
    /// What reached the disk of the last batch is unknown; the journal takes nothing any more.
    func journalFailed(_ error: JournalError)
    /// Whether there is room for writers: false when no segment can be prepared.
    func roomChanged(_ hasRoom: Bool)
    /// These entries are on the disk and wrong.
    func entriesDamaged(_ ledger: LedgerID, _ entries: [EntryID])
    /// What the node knows of a ledger beside its entries, as records.
    func facts(of ledger: LedgerID) -> [JournalRecord]
    var deletedLedgers: [ClosedRange<LedgerID>] { get }
}

/// Closures of the owner's lane on their way through the writer's, which does not look at them.
private struct AfterSync: @unchecked Sendable {
    let work: [() -> Void]
    init(_ work: [() -> Void]) { self.work = work }
}

/// `@unchecked Sendable`: used on the owner's lane only, to which all lanes report.
@safe package final class Journal: @unchecked Sendable {
    package let options: JournalOptions
    let fileSystem: any FileSystem
    let lanes: JournalLanes
    let ownerLane: any BackgroundLane
    package weak var owner: (any JournalOwner)?

    let stock: SegmentStock
    private let writer: JournalWriter
    let reader: JournalReader

    private var encoder: RecordEncoder
    /// Offset in the segment at which the encoder's bytes begin.
    private var encodedFrom = JournalFormat.headerBytes
    /// Finished parts of segments that are full, before what is in the encoder.
    private var waiting: [JournalChunk] = []
    private var waitingBytes = 0
    /// The last record that the owner gave.
    private var appended = JournalSequence.zero
    private var isWriting = false
    private(set) var hasFailed = false
    /// The current segment is durable up to here.
    private var durableBytes = 0

    var index: EntryIndex
    /// By segment: what it holds, for its index; the current one included.
    var items: [UInt64: [SegmentIndex.Item]]
    /// By segment: bytes of each ledger.
    var held: [UInt64: [LedgerID: Int]]
    /// Segments with the record that put the node into limbo: they stay, because what follows on it must be replayed in order.
    var pinned: Set<UInt64>
    var sealed: [UInt64: (bytes: UInt64, checksum: UInt32)]
    /// Sealed segments whose end is not durable yet.
    private var unsyncedSeals: [UInt64] = []
    var trim: JournalTrim
    var rewriting: UInt64?
    var isKeeping = false

    /// Run when what was appended before them is durable.
    private var afterSync: [() -> Void] = []

    package internal(set) var metrics = JournalMetrics()

    init(
        options: JournalOptions, fileSystem: any FileSystem, lanes: JournalLanes, ownerLane: any BackgroundLane,
        stock: SegmentStock, found: FoundJournal
    ) {
        self.options = options
        self.fileSystem = fileSystem
        self.lanes = lanes
        self.ownerLane = ownerLane
        self.stock = stock
        index = found.index
        items = found.items
        held = found.held
        pinned = found.pinned
        sealed = found.sealed
        trim = JournalTrim(stores: 1, mark: 0)
        reader = JournalReader(directory: options.directory, fileSystem: fileSystem)
        writer = JournalWriter(stock: stock, after: found.lastSegment)
        encoder = RecordEncoder(segment: found.lastSegment, previous: found.lastChecksum)
        begin(after: found.lastSegment, bytes: found.lastBytes, checksum: found.lastChecksum)
    }

    /// Segments that hold something, the one that is written included.
    package var segmentCount: Int { sealed.count + 1 }
    package var preparedSegmentCount: Int { stock.count }
    /// Bytes of segments that are full.
    package var sealedBytes: UInt64 { sealed.values.reduce(0) { $0 + $1.bytes } }

    // MARK: Writing

    /// Takes a record; written with `commit`.
    /// - Parameter sequence: what `synced` will say; nil for a copy that the journal makes of what it has.
    package func append(_ record: JournalRecord, _ sequence: JournalSequence?) {
        guard !hasFailed else { return }
        let bytes = JournalFormat.bytes(of: record)
        // Room stays for the mark at the end of the batch and the one after it.
        if position + bytes + 2 * JournalFormat.markBytes > options.segmentBytes { roll() }
        let offset = position
        encoder.append(record)
        note(record, offset)
        if let sequence { appended = sequence }
        metrics.records += 1
        metrics.bytes += UInt64(bytes)
    }

    private var position: Int { encodedFrom + encoder.writer.count }

    private func note(_ record: JournalRecord, _ offset: Int) {
        let segment = encoder.segment
        var head = record
        var length = JournalFormat.bytes(of: record)
        if case .add(let ledger, let entry, let lac, let body) = record {
            length = JournalFormat.recordHeadBytes + JournalFormat.addHeadBytes + body.count
            head = .add(ledger, entry, lac: lac, body: [])
            index.insert(ledger, entry, EntryPlace(segment: segment, offset: offset, length: length))
        }
        if let ledger = record.contents { held[segment, default: [:]][ledger, default: 0] += length }
        if case .limbo = record { pinned.insert(segment) }
        items[segment, default: []].append(
            SegmentIndex.Item(record: head, offset: UInt32(offset), length: UInt32(length)))
    }

    private func begin(after segment: UInt64, bytes: UInt64, checksum: UInt32) {
        let next = segment + 1
        let header = SegmentHeader(
            node: options.node, cluster: options.cluster, segment: next, sealedBytes: bytes, sealedChecksum: checksum)
        waiting.append(JournalChunk(segment: next, offset: 0, bytes: header.encoded()))
        encoder = RecordEncoder(segment: next, previous: checksum)
        encodedFrom = JournalFormat.headerBytes
        durableBytes = 0
        items[next] = []
        held[next] = [:]
    }

    private func roll() {
        let full = encoder.segment
        let end = UInt64(position)
        finishChunk()
        sealed[full] = (end, encoder.checksum)
        unsyncedSeals.append(full)
        begin(after: full, bytes: end, checksum: encoder.checksum)
    }

    private func finishChunk() {
        let bytes = encoder.take().bytes
        guard !bytes.isEmpty else { return }
        waiting.append(JournalChunk(segment: encoder.segment, offset: encodedFrom, bytes: bytes))
        encodedFrom += bytes.count
    }

    /// Starts to write what was appended, unless a write is on its way, which is followed by this one.
    package func commit() {
        guard !isWriting, !hasFailed, !waiting.isEmpty || encoder.writer.count > 0 else { return }
        if encoder.writer.count > 0 { encoder.appendMark(durableBytes: UInt64(durableBytes)) }
        finishChunk()
        submit(sync: true)
    }

    private func submit(sync: Bool) {
        isWriting = true
        let chunks = waiting
        waiting = []
        let sequence = appended
        let segment = encoder.segment
        let end = encodedFrom
        let seals = unsyncedSeals
        unsyncedSeals = []
        let after = AfterSync(sync ? afterSync : [])
        if sync { afterSync = [] }
        lanes.writer.submit { [self] in
            let started = SystemTime().monotonicNanoseconds
            let failure: FileError?
            do throws(FileError) {
                try writer.write(chunks, sync: sync)
                failure = nil
            } catch {
                failure = error
            }
            let took = SystemTime().monotonicNanoseconds - started
            ownerLane.submit { [self] in
                isWriting = false
                if let failure { return fail(.file(failure)) }
                if sync {
                    metrics.noteSync(nanoseconds: took)
                    written(through: sequence, segment, end, seals)
                    for work in after.work { work() }
                } else {
                    commit()
                }
            }
        }
    }

    private func written(through sequence: JournalSequence, _ segment: UInt64, _ end: Int, _ seals: [UInt64]) {
        if segment == encoder.segment { durableBytes = end }
        for segment in seals { keep(segment) }
        owner?.synced(through: sequence)
        guard !isWriting, !hasFailed else { return }
        if !waiting.isEmpty || encoder.writer.count > 0 { return commit() }
        // Nothing follows that would tell how far this segment is durable.
        encoder.appendMark(durableBytes: UInt64(durableBytes))
        finishChunk()
        submit(sync: false)
    }

    func whenSynced(_ work: @escaping () -> Void) { afterSync.append(work) }

    private func fail(_ error: JournalError) {
        guard !hasFailed else { return }
        hasFailed = true
        owner?.journalFailed(error)
    }

    // MARK: Reading

    /// - Parameter completion: on the owner's lane, a result for each entry of a prefix as `LogNodeAction.read` says.
    package func read(
        _ ledger: LedgerID, _ entries: [EntryID], bytesMax: Int, completion: @escaping @Sendable ([JournalRead]) -> Void
    ) {
        let wanted = entries.map { WantedEntry(ledger: ledger, entry: $0, place: index.place(of: $0, in: ledger)) }
        lanes.reader.submit { [self] in
            let result = reader.read(wanted, bytesMax: bytesMax)
            ownerLane.submit { [self] in
                if !result.damaged.isEmpty { damaged(ledger, result.damaged, wanted) }
                completion(result.reads)
            }
        }
    }

    /// Only what has not been written anew meanwhile.
    func damaged(_ ledger: LedgerID, _ entries: [EntryID], _ wanted: [WantedEntry]) {
        let stale = Set(
            wanted.filter { $0.place != index.place(of: $0.entry, in: ledger) }.map(\.entry))
        metrics.damagedEntries += UInt64(entries.count)
        owner?.entriesDamaged(ledger, entries.filter { !stale.contains($0) })
    }

    /// The ledger is durably deleted.
    package func discard(_ ledger: LedgerID) {
        index.remove(ledger)
        for segment in held.keys { held[segment]?[ledger] = nil }
        trim.deleted(ledger)
        lookForWork()
    }

    /// Waits for what is on its way and ends. The owner gives nothing more.
    package func close() {
        lanes.writer.drain()
        lanes.stop()
        writer.close()
    }
}

package struct JournalMetrics: Sendable {
    package var records: UInt64 = 0
    package var bytes: UInt64 = 0
    package var syncs: UInt64 = 0
    /// Of writes with their syncs.
    package var syncNanoseconds: UInt64 = 0
    /// How many of them took less than 2^n microseconds and no less than half of that; the last one has the rest.
    package var syncLatency = [UInt64](repeating: 0, count: JournalMetrics.latencyBuckets + 1)
    package var damagedEntries: UInt64 = 0
    package var segmentsRemoved: UInt64 = 0
    package var recordsRewritten: UInt64 = 0
    /// Times that everything stored was read.
    package var scrubs: UInt64 = 0
    /// Entries that were read to see whether they are sound.
    package var scrubbedEntries: UInt64 = 0

    /// Up to 2^23 microseconds, about 8 s.
    package static let latencyBuckets = 24

    package init() {}

    mutating func noteSync(nanoseconds: UInt64) {
        syncs += 1
        syncNanoseconds += nanoseconds
        let microseconds = nanoseconds / 1000
        syncLatency[min(64 - microseconds.leadingZeroBitCount, JournalMetrics.latencyBuckets)] += 1
    }
}
