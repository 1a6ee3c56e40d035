// Flush and compaction as functions: immutable sources in, new table files out. They run on their lanes, see no tree, and
// own the files they made until the caller publishes or releases them.

internal import CisternFileSystem
package import CisternPrimitives
internal import Synchronization

/// Tells running jobs to give up. Relaxed ordering: only the flag itself is communicated.
final class Cancellation: Sendable {
    private let flag = Atomic<Bool>(false)
    /// What this one is a part of.
    private let whole: Cancellation?

    init(partOf whole: Cancellation? = nil) { self.whole = whole }

    func cancel() { flag.store(true, ordering: .relaxed) }
    var isCancelled: Bool { flag.load(ordering: .relaxed) || whole?.isCancelled ?? false }
}

/// Where jobs write tables.
struct TableOutput: Sendable {
    let tables: TableDirectory
    let options: TableOptions
    let cache: BlockCache
    /// The tree's range: the window of every new file.
    let keyGroups: KeyGroupRange
    /// A file is ended at this size.
    let targetFileBytes: UInt64
    let pace: BackgroundPace
    /// The job's thread helps it.
    let memoryLane: HelpedLane
    let cancellation: Cancellation
    /// What becomes of values.
    var values: ValuePlan
    /// Tells which values expire together.
    let clock: ExpiryClock

    /// Entries between two looks at the cancellation.
    private static let cancellationInterval = 1024

    /// Writes what the input yields. On return the files are synced and open, and their directory entries are synced; the
    /// caller owns them. On an error nothing is left.
    func write(_ input: some TableInput) throws(EngineError) -> [FileRecord] {
        var files: [FileRecord] = []
        memoryLane.join()
        defer { memoryLane.leave() }
        do throws(EngineError) {
            while let first = try input.next() { files.append(try writeFile(first, input)) }
            if !files.isEmpty { try tables.syncEntries() }
            tables.openAhead(files.map(\.number))
            return files
        } catch {
            tables.release(files.map(\.number))
            throw error
        }
    }

    private func writeFile(_ first: EntryView, _ input: some TableInput) throws(EngineError) -> FileRecord {
        let (number, file) = try tables.create()
        defer { file.close() }
        let separation =
            values.isNeeded
            ? ValueSeparation(values, clock: clock, tables: tables, valueBytesMax: options.valueBytesMax) : nil
        do throws(EngineError) {
            let writer = TableWriter(file: file, options: options, number: number, cache: cache)
            try writer.add(separation?.stored(first, path: file.path) ?? first, isHot: input.isHot)
            var count = 0
            var paidBytes: UInt64 = 0
            while writer.fileBytes < targetFileBytes, let entry = try input.next() {
                if let separation {
                    try writer.add(try separation.stored(entry, path: file.path), isHot: input.isHot)
                } else {
                    try writer.add(entry, isHot: input.isHot)
                }
                count &+= 1
                if count % TableOutput.cancellationInterval == 0 {
                    let bytes = max(writer.fileBytes + (separation?.writtenBytes ?? 0), paidBytes)
                    pace.wrote(bytes - paidBytes, cancellation)
                    paidBytes = bytes
                    memoryLane.help()
                    if cancellation.isCancelled { throw .closed(tree: "background job") }
                }
            }
            // The disk is waited for.
            memoryLane.leave()
            defer { memoryLane.join() }
            // Values first: nothing durable points to what is not.
            let uses = try separation?.finish() ?? []
            let summary = try writer.finish(values: uses)
            tables.note(summary, of: number)
            if let separation { tables.releaseValueFiles(separation.createdNumbers) }
            return FileRecord(number: number, window: keyGroups, summary: summary)
        } catch {
            separation?.abandon()
            if let separation { tables.releaseValueFiles(separation.createdNumbers) }
            tables.release([number])
            throw error
        }
    }
}

/// Where the entries of new tables come from, in key order, as they are to be written.
protocol TableInput: AnyObject {
    /// Valid until the next call; nil at the end and from then on.
    func next() throws(EngineError) -> EntryView?
    /// Of the entry that `next` returned: it stands in a block that the cache has for those who read it.
    var isHot: Bool { get }
}

extension RunMerge: TableInput {}

/// A memtable as it is to be written. Owned by one thread.
package final class FlushInput: TableInput {
    private let cursor: MemtableCursor
    private let retention: Retention
    private var isStarted = false
    /// What is read of a memtable is not known.
    var isHot: Bool { false }

    /// - Parameter bottommost: no table holds older entries of the memtable's keys.
    package init(
        _ memtable: Memtable, clock: ExpiryClock, rules: ExpiryRules = ExpiryRules(), bottommost: Bool
    ) {
        cursor = memtable.cursor()
        retention = Retention(clock: clock, rules: rules, isBottommost: bottommost)
    }

    package func next() throws(EngineError) -> EntryView? {
        while true {
            guard isStarted ? cursor.next() : cursor.seekToFirst() else { return nil }
            isStarted = true
            let entry = cursor.entry
            let isOpen = entry.kind == .append
            if let kept = unsafe retention.kept(entry, value: entry.value, isOpen: isOpen) { return kept }
        }
    }
}

enum FlushJob {
    /// One level-0 file of a sealed memtable, or none when nothing in it is worth keeping.
    static func run(
        _ memtable: Memtable, clock: ExpiryClock, rules: ExpiryRules, isBottommost: Bool, output: TableOutput
    ) throws(EngineError) -> FileRecord? {
        let files = try output.write(FlushInput(memtable, clock: clock, rules: rules, bottommost: isBottommost))
        invariant(files.count <= 1, "a flush wrote \(files.count) files")
        return files.first
    }
}

enum CompactionJob {
    /// The files of `plan.outputLevel` that replace the plan's inputs.
    static func run(
        _ plan: CompactionPlan, tables: [TableFile], clock: ExpiryClock, rules: ExpiryRules, output: TableOutput
    ) throws(EngineError) -> [FileRecord] {
        var runs: [(level: Int, windows: [TableWindow])] = []
        for (input, table) in zip(plan.inputs, tables) {
            let window = TableWindow(try table.reader(), keyGroups: input.file.window)
            // Files of one level below level 0 do not overlap and stand in key order, so they are one run.
            if input.level > 0, let last = runs.last, last.level == input.level {
                runs[runs.count - 1].windows.append(window)
            } else {
                runs.append((input.level, [window]))
            }
        }
        return try output.write(
            RunMerge(runs.map(\.windows), clock: clock, rules: rules, bottommost: plan.isBottommost))
    }
}
