// Every knob of the engine, with unit, default and bounds.

internal import CisternPrimitives

package struct EngineOptions: Sendable {
    /// Where everything is kept; created when it does not exist.
    package var directory: String
    /// A tree's memtable is sealed at this size.
    package var memtableBytes = 64 << 20
    /// Sealed memtables of a tree that may wait for their flush before writes are answered busy.
    package var sealedMemtablesMax = 3
    /// One budget for the blocks of all trees.
    package var blockCacheBytes = 256 << 20
    /// Everything that grows with use: the block cache, and what memtables, flushes and queues take beside it. Beyond it the
    /// largest memtables are flushed early, then the block cache becomes smaller, and at last writes are answered busy. nil:
    /// the block cache and `memoryBytesBesideCache`.
    package var memoryBytes: Int?
    package var log = LogMode.synced
    /// Log bytes of a tree that may wait to be written before writes are answered busy.
    package var queuedLogBytesMax = 64 << 20
    /// A tree's memtable is also sealed when the log of what it took is this long: values replaced in place never fill a
    /// memtable. nil: twice the memtable, within `logSegmentBytesRange`.
    package var logSegmentBytes: Int?
    /// What appends to one key may add up to. A longer list would not fit a table in the end, and nobody could read it.
    package var foldedValueBytesMax = EngineLimits.foldedValueBytesMax
    package var table = TableOptions()
    package var values = ValueOptions()
    package var compaction = CompactionOptions()
    /// A failed tree tries to become writable after the first delay, then after twice as long, up to the last.
    package var retryFirstMilliseconds: UInt64 = 100
    package var retryLastMilliseconds: UInt64 = 10_000
    /// How often a tree without writes looks for files whose every entry has expired.
    package var expiryCheckMilliseconds: UInt64 = 60_000
    /// What compactions may write a second while trees are written to, all together; 0 is no limit. Flushes and compactions of
    /// level 0 count and never wait.
    package var backgroundBytesPerSecond: UInt64 = 0
    /// Hint that goes with a busy answer.
    package var busyRetryMilliseconds: UInt64 = 20

    package init(directory: String) { self.directory = directory }

    package func validate() throws(EngineError) {
        try table.validate()
        guard !directory.isEmpty else { throw .unsupported(detail: "the data directory has no name") }
        try check("memtableBytes", memtableBytes, EngineOptions.memtableBytesRange)
        try check("sealedMemtablesMax", sealedMemtablesMax, 1...64)
        try check("blockCacheBytes", blockCacheBytes, 0...Int.max)
        try check(
            "memoryBytes", memoryBytesLimit - blockCacheBytes, EngineOptions.memtableBytesRange.lowerBound...Int.max)
        try check("queuedLogBytesMax", queuedLogBytesMax, 1...Int.max)
        try check("logSegmentBytes", logSegmentBytesLimit, 1...EngineOptions.logSegmentBytesRange.upperBound)
        try check(
            "foldedValueBytesMax", foldedValueBytesMax, 1...min(EngineLimits.foldedValueBytesMax, table.valueBytesMax))
        // Parts of a list that are shorter than a long one are not counted in files: at most one a run.
        let runs = compaction.levelZeroStop + sealedMemtablesMax + TreeState.levelCount
        try OptionCheck().rule(
            (sealedMemtablesMax + 2) * foldedValueBytesMax + runs * longListBytes <= table.valueBytesMax,
            "foldedValueBytesMax \(foldedValueBytesMax) with \(runs) runs leaves lists room to grow beyond the "
                + "\(table.valueBytesMax) bytes that a table takes")
        try compaction.validate(OptionCheck())
        try values.validate(OptionCheck())
        let milliseconds = 1...EngineOptions.millisecondsMax
        try check("retryFirstMilliseconds", Int(clamping: retryFirstMilliseconds), milliseconds)
        try check("retryLastMilliseconds", Int(clamping: retryLastMilliseconds), milliseconds)
        guard retryLastMilliseconds >= retryFirstMilliseconds else {
            throw .unsupported(
                detail: "retryLastMilliseconds \(retryLastMilliseconds) is below retryFirstMilliseconds "
                    + "\(retryFirstMilliseconds)")
        }
        try check("expiryCheckMilliseconds", Int(clamping: expiryCheckMilliseconds), milliseconds)
        // Below a megabyte a second a single memtable would be merged for minutes.
        if backgroundBytesPerSecond != 0 {
            try check("backgroundBytesPerSecond", Int(clamping: backgroundBytesPerSecond), 1 << 20...Int.max)
        }
        try check("busyRetryMilliseconds", Int(clamping: busyRetryMilliseconds), milliseconds)
    }

    /// A part of a list of this size is counted with the other parts of its list.
    var longListBytes: Int { max(foldedValueBytesMax / EngineOptions.longListShare, 1) }
    private static let longListShare = 128

    package static let memtableBytesRange = 4096...(1 << 31)
    package static let memoryBytesBesideCache = 1 << 30
    /// Free memory up to one part in so many of the whole is kept for the next memtable.
    static let poolShare = 4
    /// When memory is short the block cache becomes smaller, down to one part in so many.
    static let cacheShareMin = 4
    /// It does so in steps of one part in so many.
    static let cacheSteps = 16

    package var memoryBytesLimit: Int {
        let (sum, isTooLarge) = blockCacheBytes.addingReportingOverflow(EngineOptions.memoryBytesBesideCache)
        return memoryBytes ?? (isTooLarge ? .max : sum)
    }

    /// A minute; a client whose batch is not answered for longer takes the connection for broken.
    package static let writeDelayMax = 60_000
    /// A day.
    package static let millisecondsMax = 86_400_000
    /// The lower bound keeps small memtables from being sealed early, the upper one keeps a segment far below
    /// `LogFormat.segmentBytesMax`, whatever the last batch adds.
    package static let logSegmentBytesRange = (64 << 20)...(1 << 30)

    var logSegmentBytesLimit: Int {
        if let logSegmentBytes { return logSegmentBytes }
        let range = EngineOptions.logSegmentBytesRange
        return min(max(2 * memtableBytes, range.lowerBound), range.upperBound)
    }

    private func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws(EngineError) {
        guard range.contains(value) else { throw .unsupported(detail: "\(name) \(value) is outside \(range)") }
    }
}

/// Bounds of what a tree takes. The wire has the same or smaller ones.
package enum EngineLimits {
    /// A store key begins with key group and state id.
    package static let keyBytesMin = 4
    package static let keyBytesMax = 32 << 10
    package static let valueBytesMax = 16 << 20
    /// A list's part in one memtable. Well below the longest value of a table, which merges may fold such parts to.
    package static let foldedValueBytesMax = 64 << 20
    package static let batchBytesMax = 32 << 20
    package static let batchEntriesMax = 65_536
    package static let storeNameBytesMax = 512
    package static let writerNameBytesMax = 512
    /// Numbers of files, trees, segments and batches that are read from a disk: counting on from a larger one could overflow.
    package static let numberMax: UInt64 = 999_999_999_999_999_999
}
