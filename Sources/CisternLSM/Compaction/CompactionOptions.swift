// The knobs of compaction, with unit, default and the rules they must keep together. docs/decisions/0040 has the measurements
// behind the defaults.

package struct CompactionOptions: Equatable, Sendable {
    /// Runs in level 0 that start a compaction; a run of which most entries are deletes counts twice.
    package var levelZeroTrigger = 4
    /// Runs in level 0 at which writes are answered busy.
    package var levelZeroStop = 24
    /// Runs between level 0 and the last level that a key may be found in. A compaction of level 0 takes the youngest of them
    /// along when there are as many.
    package var upperRunsMax = 3
    /// Replaced and deleted data above the last level may amount to this share of the last level before it is merged down.
    package var garbagePercent = 30
    /// A file above the last level is merged down when this share of its entries are deletes.
    package var deletePercent = 50
    /// A file above the last level is merged down when it has held a delete for this long.
    package var deleteAgeMilliseconds: UInt64 = 3_600_000
    /// A file of which a window shows less than this share is rewritten.
    package var visiblePercent = 50
    /// Expired entries are removed from files at the latest after this time, or as soon after it as compaction gets there. A file
    /// in which something expires all the time is rewritten once in so long.
    package var reclaimLagMilliseconds: UInt64 = 6 * 3_600_000
    /// A file of the last level is rewritten earlier when about this share of its entries has expired: what is reclaimed is worth
    /// what is rewritten.
    package var expiredPercent = 50
    /// A tree that took no batch for this long is quiet, and may go on merging until it is one run.
    package var quietMilliseconds: UInt64 = 1000
    /// Bytes that a quiet tree may merge, which nothing else would have merged, for a hundred bytes that were flushed. 0 also
    /// keeps reads and idle time from starting merges.
    package var restPercent = 125
    /// A compaction cuts its output into files of about this size.
    package var targetFileBytes: UInt64 = 32 << 20
    /// A compaction is split by key groups into parts that read about this much, which run side by side.
    package var partBytes: UInt64 = 128 << 20
    /// Writes are slowed down when compactions that are due have so much to read, and stop at the second number. Level 0 and
    /// memtables slow writes down on their own account.
    package var debtSlowBytes: UInt64 = 16 << 30
    package var debtStopBytes: UInt64 = 64 << 30
    /// Delay of a write shortly before writes stop.
    package var writeDelayMaxMilliseconds: UInt64 = 1000
    /// Threads for compactions of all trees. With two or more, one is kept free for compactions of level 0.
    package var threads = 2

    package init() {}

    /// Compactions of one tree that run at the same time, parts of one counted as one.
    static let runningMax = 2
    /// Parts of one compaction.
    static let partsMax = 16

    func validate(_ check: OptionCheck) throws(EngineError) {
        try check.range("levelZeroTrigger", levelZeroTrigger, 1...1000)
        try check.range("levelZeroStop", levelZeroStop, 2...10_000)
        try check.rule(
            levelZeroStop > levelZeroTrigger,
            "levelZeroStop \(levelZeroStop) must be above levelZeroTrigger \(levelZeroTrigger): writes would stop before a "
                + "compaction starts")
        try check.range("upperRunsMax", upperRunsMax, 1...TreeState.levelCount - 2)
        try check.range("garbagePercent", garbagePercent, 1...1000)
        try check.range("deletePercent", deletePercent, 1...100)
        try check.range("expiredPercent", expiredPercent, 1...100)
        try check.range("visiblePercent", visiblePercent, 0...100)
        let milliseconds = 1...EngineOptions.millisecondsMax * 366
        try check.range("deleteAgeMilliseconds", Int(clamping: deleteAgeMilliseconds), milliseconds)
        try check.range("reclaimLagMilliseconds", Int(clamping: reclaimLagMilliseconds), milliseconds)
        try check.range("quietMilliseconds", Int(clamping: quietMilliseconds), 1...EngineOptions.millisecondsMax)
        try check.range("restPercent", restPercent, 0...1000)
        try check.range("targetFileBytes", Int(clamping: targetFileBytes), 1...Int.max)
        try check.range("partBytes", Int(clamping: partBytes), 1...Int.max)
        try check.rule(
            partBytes >= targetFileBytes,
            "compaction partBytes \(partBytes) must be at least targetFileBytes \(targetFileBytes): each part ends a file"
        )
        try check.range("debtSlowBytes", Int(clamping: debtSlowBytes), 1...Int.max)
        try check.rule(
            debtStopBytes > debtSlowBytes,
            "debtStopBytes \(debtStopBytes) must be above debtSlowBytes \(debtSlowBytes): writes would stop without warning"
        )
        try check.range(
            "writeDelayMaxMilliseconds", Int(clamping: writeDelayMaxMilliseconds), 0...EngineOptions.writeDelayMax)
        try check.range("threads", threads, 1...64)
    }
}

/// Refuses options with the name or the rule that failed.
struct OptionCheck {
    func range(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws(EngineError) {
        guard range.contains(value) else { throw .unsupported(detail: "\(name) \(value) is outside \(range)") }
    }

    func rule(_ holds: Bool, _ sentence: @autoclosure () -> String) throws(EngineError) {
        guard holds else { throw .unsupported(detail: sentence()) }
    }
}
