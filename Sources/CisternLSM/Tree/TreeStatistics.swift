// Counters and gauges of a tree.

internal import CisternPrimitives

struct TreeCounters {
    var batches: UInt64 = 0
    var entries: UInt64 = 0
    var duplicates: UInt64 = 0
    var busyAnswers: UInt64 = 0
    var gets: UInt64 = 0
    var scans: UInt64 = 0
    var flushes = 0
    var flushedBytes: UInt64 = 0
    var compactions = 0
    var restCompactions = 0
    var compactedBytes: UInt64 = 0
    var compactionWrittenBytes: UInt64 = 0
    var valueWrittenBytes: UInt64 = 0
    var movedFiles = 0
    var droppedFiles = 0
    var snapshots = 0
    var earlySeals = 0
    var failures = 0
    var recoveredBatches = 0
    var openMicroseconds: UInt64 = 0
}

package struct TreeStatistics: Equatable, Sendable {
    package struct Level: Equatable, Sendable {
        package var files = 0
        package var bytes: UInt64 = 0

        package init() {}

        init(files: Int, bytes: UInt64) {
            self.files = files
            self.bytes = bytes
        }
    }
    package var memtableBytes = 0
    package var memtableEntries = 0
    package var sealedMemtables = 0
    package var queuedLogBytes = 0
    package var levels: [Level] = []
    /// Runs of level 0 a read may have to look into; files of level 0 that do not overlap are one.
    package var levelZeroDepth = 0
    /// Runs that a read may have to look into, those of level 0 with the others.
    package var runs = 0
    /// Bytes of files that the tree refers to and whose windows hide them: space it takes and has no use of.
    package var hiddenBytes: UInt64 = 0
    package var deletes: UInt64 = 0
    package var runningCompactions = 0
    /// What compactions that are due have to read.
    package var debtBytes: UInt64 = 0
    /// What the answer to a write waits for compaction, and when writes would stop if level 0 goes on growing as over the
    /// last flushes; nil while it does not grow.
    package var writeDelayMilliseconds: UInt64 = 0
    package var millisecondsToStall: UInt64?
    /// How long ago the oldest expired entries that still take space expired, by their clock, as far as the files tell. 0
    /// while there are none. Bounded by the option `reclaimLagMilliseconds` and the time a compaction takes.
    package var reclaimLagMilliseconds: UInt64 = 0
    /// The same by state, of states that have some and where the files tell of them.
    package var reclaimLagByState: [UInt16: UInt64] = [:]
    /// Changes of times to live that what is stored has followed.
    package var timeToLiveChanges: UInt64 = 0
    /// Entries of memtables and files, each version of a key counted: an upper bound of what is alive.
    package var approximateEntries: UInt64 = 0
    package var batches: UInt64 = 0
    package var entries: UInt64 = 0
    package var duplicates: UInt64 = 0
    package var busyAnswers: UInt64 = 0
    package var gets: UInt64 = 0
    package var scans: UInt64 = 0
    package var flushes = 0
    package var flushedBytes: UInt64 = 0
    package var compactions = 0
    /// Of those, the ones that nothing forced: begun because the tree was quiet, or because reads paid for them.
    package var restCompactions = 0
    /// Bytes that merges read and wrote.
    package var compactedBytes: UInt64 = 0
    package var compactionWrittenBytes: UInt64 = 0
    /// Bytes of value files that flushes and merges wrote, beside the above.
    package var valueWrittenBytes: UInt64 = 0
    /// Value files that the tree's files point into, what they hold, and what of it is dead.
    package var valueFiles = 0
    package var valueBytes: UInt64 = 0
    package var deadValueBytes: UInt64 = 0
    /// Files that changed their level, or went because everything in them had expired, without being read.
    package var movedFiles = 0
    package var droppedFiles = 0
    package var snapshots = 0
    /// Memtables that were sealed before they were full, because memory ran short.
    package var earlySeals = 0
    /// Failures of the disk so far; `readOnlyCause` is set while one keeps writes out.
    package var failures = 0
    package var readOnlyCause: String?
    /// Set while a list that is longer than a table's values may be keeps files from being merged.
    package var compactionBlockedCause: String?
    /// Batches that the log gave back when the tree was opened.
    package var recoveredBatches = 0
    /// From the call that opened or made the tree to its delivery: the time of a restore or of a recovery.
    package var openMicroseconds: UInt64 = 0
}

extension Tree {
    /// Asks the tree's owner for its statistics. Any thread may call; `completion` runs on the owner.
    package func statistics(completion: @escaping @Sendable (TreeStatistics) -> Void) {
        mailbox.post(to: self) { completion($0.statistics) }
    }

    package var statistics: TreeStatistics {
        var result = TreeStatistics()
        result.memtableBytes = active.byteCount
        result.memtableEntries = active.entryCount
        result.sealedMemtables = sealed.count
        result.queuedLogBytes = log?.queuedBytes ?? 0
        result.levels = state.levels.map { level in
            TreeStatistics.Level(files: level.count, bytes: level.windowedBytes)
        }
        result.levelZeroDepth = levelZeroDepth
        result.runs = runs
        result.runningCompactions = compactions.count
        result.debtBytes = debtBytes
        result.writeDelayMilliseconds = writeDelayMilliseconds
        result.millisecondsToStall = stallForecast.millisecondsToStall(stop: options.compaction.levelZeroStop)
        let clock = self.clock
        for file in state.files {
            result.hiddenBytes = result.hiddenBytes.saturatingAdding(file.summary.fileBytes - file.windowedBytes)
            result.deletes = result.deletes.saturatingAdding(file.summary.deleteCount)
            let age = file.expiredSince(clock, state.expiryRules) ?? 0
            result.reclaimLagMilliseconds = max(result.reclaimLagMilliseconds, age)
            if age == 0 { continue }
            file.expiredSinceByState(clock, state.expiryRules) { state, age in
                result.reclaimLagByState[state] = max(result.reclaimLagByState[state] ?? 0, age)
            }
        }
        for usage in state.files.valueUsage.values {
            result.valueFiles += 1
            result.valueBytes = result.valueBytes.saturatingAdding(usage.totalBytes)
            result.deadValueBytes = result.deadValueBytes.saturatingAdding(usage.deadBytes)
        }
        result.timeToLiveChanges = timeToLiveChanges
        let memtableEntries = sealed.reduce(active.entryCount) { $0 + $1.memtable.entryCount }
        result.approximateEntries = state.files.windowedEntries.saturatingAdding(UInt64(memtableEntries))
        result.batches = counters.batches
        result.entries = counters.entries
        result.duplicates = counters.duplicates
        result.busyAnswers = counters.busyAnswers
        result.gets = counters.gets
        result.scans = counters.scans
        result.flushes = counters.flushes
        result.flushedBytes = counters.flushedBytes
        result.compactions = counters.compactions
        result.restCompactions = counters.restCompactions
        result.compactedBytes = counters.compactedBytes
        result.compactionWrittenBytes = counters.compactionWrittenBytes
        result.valueWrittenBytes = counters.valueWrittenBytes
        result.movedFiles = counters.movedFiles
        result.droppedFiles = counters.droppedFiles
        result.snapshots = counters.snapshots
        result.earlySeals = counters.earlySeals
        result.failures = counters.failures
        result.readOnlyCause = failures.cause
        result.compactionBlockedCause = failures.compactionBlock?.cause
        result.recoveredBatches = counters.recoveredBatches
        result.openMicroseconds = counters.openMicroseconds
        return result
    }
}
