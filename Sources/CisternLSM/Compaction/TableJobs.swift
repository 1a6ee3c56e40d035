// Flush and compaction as functions: immutable sources in, new table files out. They run on their lanes, see no tree, and
// own the files they made until the caller publishes or releases them.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// Tells running jobs to give up. Relaxed ordering: only the flag itself is communicated.
final class Cancellation: Sendable {
    private let flag = Atomic<Bool>(false)
    func cancel() { flag.store(true, ordering: .relaxed) }
    var isCancelled: Bool { flag.load(ordering: .relaxed) }
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
    let cancellation: Cancellation

    /// Entries between two looks at the cancellation.
    private static let cancellationInterval = 1024

    /// Writes what the cursor yields. On return the files are synced, and so are their directory entries; the caller owns
    /// them. On an error nothing is left.
    func write(_ cursor: MergingCursor) throws(EngineError) -> [FileRecord] {
        var files: [FileRecord] = []
        do throws(EngineError) {
            var isPositioned = try cursor.seekToFirst()
            while isPositioned { files.append(try writeFile(cursor, &isPositioned)) }
            if !files.isEmpty { try tables.syncEntries() }
            return files
        } catch {
            tables.release(files.map(\.number))
            throw error
        }
    }

    private func writeFile(_ cursor: MergingCursor, _ isPositioned: inout Bool) throws(EngineError) -> FileRecord {
        let (number, file) = try tables.create()
        defer { file.close() }
        do throws(EngineError) {
            let writer = TableWriter(file: file, options: options, number: number, cache: cache)
            var count = 0
            repeat {
                try writer.add(cursor.entry)
                isPositioned = try cursor.next()
                count += 1
                if count % TableOutput.cancellationInterval == 0, cancellation.isCancelled {
                    throw .closed(tree: "background job")
                }
            } while isPositioned && writer.fileBytes < targetFileBytes
            return FileRecord(number: number, window: keyGroups, summary: try writer.finish())
        } catch {
            tables.release([number])
            throw error
        }
    }
}

enum FlushJob {
    /// One level-0 file of a sealed memtable, or none when nothing in it is worth keeping.
    static func run(
        _ memtable: Memtable, clock: ExpiryClock, isBottommost: Bool, output: TableOutput
    ) throws(EngineError) -> FileRecord? {
        let cursor = MergingCursor(
            [.memtable(memtable.cursor())], clock: clock, bottommost: isBottommost, mode: .compaction)
        let files = try output.write(cursor)
        invariant(files.count <= 1, "a flush wrote \(files.count) files")
        return files.first
    }
}

enum CompactionJob {
    /// The files of `plan.outputLevel` that replace the plan's inputs.
    static func run(
        _ plan: CompactionPlan, tables: [TableFile], clock: ExpiryClock, output: TableOutput
    ) throws(EngineError) -> [FileRecord] {
        var cursors: [EntryCursor] = []
        var run: [TableWindow] = []
        for (input, table) in zip(plan.inputs, tables) {
            let window = TableWindow(try table.reader(), keyGroups: input.file.window)
            if input.level < plan.outputLevel {
                cursors.append(.level(LevelCursor([window], policy: .stream)))
            } else {
                // The output level's own files do not overlap and come last, so they are one run.
                run.append(window)
            }
        }
        if !run.isEmpty { cursors.append(.level(LevelCursor(run, policy: .stream))) }
        let cursor = MergingCursor(cursors, clock: clock, bottommost: plan.isBottommost, mode: .compaction)
        return try output.write(cursor)
    }
}
