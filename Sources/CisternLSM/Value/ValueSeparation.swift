// Between the source of a new sorted file and its writer: large values go to value files, and pointers to files that are
// mostly garbage are followed, so that their values end up in new files.
//
//   entry ─┬─ small, delete, append ──────────────────────► sorted file
//          ├─ large put ──────► value file of its expiry ──► pointer
//          └─ pointer ─┬─ to a file that stays ────────────► the same pointer
//                      └─ to one that is rewritten ► value ► as a put
//
// A value file holds values that expire about together, so that all of it is dead at about one time: a class is a doubling of
// the time that is left. Appends without a base stay in the sorted file; once they have become a put they are treated as one.
//
// Owned by the job that writes the sorted file.

internal import CisternFileSystem
internal import CisternPrimitives

/// What the values of new sorted files become.
struct ValuePlan: Sendable {
    let options: ValueOptions
    /// Of files that are rewritten.
    var rewritten: Set<UInt64> = []
    /// Sizes of the value files that inputs may point to.
    var fileBytes: [UInt64: UInt64] = [:]
    /// Where inputs' values are read, when not in the directory that is written to.
    var source: ValueFiles?

    init(_ options: ValueOptions) { self.options = options }

    /// Of a merge.
    init(_ options: ValueOptions, inputs: some Sequence<FileRecord>, rewritten: Set<UInt64>) {
        self.options = options
        for use in inputs.lazy.flatMap(\.summary.values) { fileBytes[use.number] = use.fileBytes }
        self.rewritten = rewritten.intersection(fileBytes.keys)
    }

    /// False when entries can go to the sorted file as they are.
    var isNeeded: Bool { options.thresholdBytes > 0 || !fileBytes.isEmpty }
}

/// For one sorted file.
final class ValueSeparation {
    private let plan: ValuePlan
    private let clock: ExpiryClock
    private let tables: TableDirectory
    /// By class of expiry.
    private var open: [Int: ValueWriter] = [:]
    private var created: [UInt64] = []
    private var uses: [UInt64: ValueFileUse] = [:]
    /// The last one, because neighbours often point into one file.
    private var lastUse: ValueFileUse?
    private var pointer = GrowingBuffer()
    private var value = GrowingBuffer()
    /// Of files that are ended.
    private var endedBytes: UInt64 = 0

    /// Longer ones go to the writer of the sorted file, which refuses them.
    private let valueBytesMax: Int

    init(_ plan: ValuePlan, clock: ExpiryClock, tables: TableDirectory, valueBytesMax: Int) {
        self.valueBytesMax = valueBytesMax
        self.plan = plan
        self.clock = clock
        self.tables = tables
    }

    /// Of all value files so far.
    var writtenBytes: UInt64 { open.values.reduce(endedBytes) { $0 + $1.fileBytes } }

    /// The entry as the sorted file gets it; valid until the next call.
    func stored(_ entry: EntryView, path: String) throws(EngineError) -> EntryView {
        if entry.isPointer { return try follow(entry, path) }
        let threshold = plan.options.thresholdBytes
        if threshold == 0 || entry.kind != .put { return entry }
        if unsafe entry.value.count < threshold || entry.value.count > valueBytesMax { return entry }
        return unsafe try separate(entry, Hash64.hash(entry.key))
    }

    private func follow(_ entry: EntryView, _ path: String) throws(EngineError) -> EntryView {
        guard let pointer = unsafe ValuePointer(entry.value), let fileBytes = plan.fileBytes[pointer.file] else {
            throw tableCorruption(path, 0, "an entry points to a value file that its sorted file does not name")
        }
        if plan.rewritten.contains(pointer.file) {
            value.reset()
            let hash = unsafe Hash64.hash(entry.key)
            try (plan.source ?? tables.values).file(pointer.file).read(pointer, hash: hash, into: &value)
            let put = unsafe EntryView(key: entry.key, kind: .put, expiry: entry.expiry, value: value.bytes)
            let threshold = plan.options.thresholdBytes
            return unsafe threshold > 0 && put.value.count >= threshold ? try separate(put, hash) : put
        }
        count(pointer, fileBytes)
        return entry
    }

    private func count(_ pointer: ValuePointer, _ fileBytes: UInt64) {
        if lastUse?.number != pointer.file {
            keepLastUse()
            lastUse = uses[pointer.file] ?? ValueFileUse(number: pointer.file, fileBytes: fileBytes)
        }
        lastUse?.count(pointer)
    }

    private func keepLastUse() {
        if let lastUse { uses[lastUse.number] = lastUse }
        lastUse = nil
    }

    private func separate(_ entry: EntryView, _ hash: UInt64) throws(EngineError) -> EntryView {
        let group = expiryClass(entry.expiry)
        let writer: ValueWriter
        if let known = open[group] {
            writer = known
        } else {
            let (number, file) = try tables.createValueFile()
            created.append(number)
            writer = ValueWriter(file, number: number)
            open[group] = writer
        }
        let place = unsafe try writer.add(entry.value, hash: hash)
        if writer.fileBytes >= plan.options.fileBytesMax {
            open[group] = nil
            try end(writer)
        }
        pointer.reset()
        place.encode(into: &pointer)
        return unsafe EntryView(
            key: entry.key, kind: .put, isPointer: true, expiry: entry.expiry, value: pointer.bytes)
    }

    private func end(_ writer: ValueWriter) throws(EngineError) {
        let use = try writer.finish()
        uses[use.number] = use
        endedBytes += use.fileBytes
    }

    /// Which doubling of the time that is left the expiry lies in, by the minute; 0 for never.
    private func expiryClass(_ expiry: Expiry) -> Int {
        if expiry == .never { return 0 }
        let now = expiry.isEventTime ? clock.event : clock.processing
        let minutes = (expiry.milliseconds - min(now, expiry.milliseconds)) / 60_000
        let doubling = min(UInt64.bitWidth - minutes.leadingZeroBitCount, ValueSeparation.doublingsMax)
        return 1 + 2 * doubling + (expiry.isEventTime ? 1 : 0)
    }

    /// From 11 days on, one class for all.
    private static let doublingsMax = 14

    /// Syncs and closes the value files.
    /// - Returns: all that the sorted file points into, by number.
    func finish() throws(EngineError) -> [ValueFileUse] {
        for writer in open.values { try end(writer) }
        open = [:]
        keepLastUse()
        return uses.values.sorted { $0.number < $1.number }
    }

    /// Files that were made, which the job owns until it lets go of them.
    var createdNumbers: [UInt64] { created }

    /// After an error.
    func abandon() {
        for writer in open.values { writer.abandon() }
        open = [:]
    }
}
