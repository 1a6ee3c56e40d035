// The knobs of value files, and how much of a value file a tree still uses. Pure.

package struct ValueOptions: Equatable, Sendable {
    /// Values from this size on go to value files when a sorted file is written; 0: none does.
    package var thresholdBytes = 0
    /// A value file of which the tree uses less than this share is rewritten: by merges that come across it, and by clean-up.
    package var livePercent = 50
    /// A value file is ended at this size.
    package var fileBytesMax: UInt64 = 256 << 20
    /// Merges put the values of smaller files together.
    package var smallFileBytes: UInt64 = 1 << 20

    package init() {}

    /// A pointer should be shorter than what it stands for.
    static let thresholdBytesRange = 32...TableFormat.valueBytesMax

    func validate(_ check: OptionCheck) throws(EngineError) {
        if thresholdBytes != 0 {
            try check.range("values.thresholdBytes", thresholdBytes, ValueOptions.thresholdBytesRange)
        }
        try check.range("values.livePercent", livePercent, 0...100)
        try check.range("values.fileBytesMax", Int(clamping: fileBytesMax), 1...Int.max)
        try check.range("values.smallFileBytes", Int(clamping: smallFileBytes), 0...Int.max)
    }
}

/// What a tree uses of a value file.
package struct ValueUsage: Equatable, Sendable {
    /// Of all records in the file.
    package let totalBytes: UInt64
    /// Of those that the tree's sorted files point to; estimated where a window cuts one of them.
    package fileprivate(set) var liveBytes: UInt64 = 0

    package var deadBytes: UInt64 { totalBytes - min(liveBytes, totalBytes) }
}

extension Sequence<FileRecord> {
    /// By the number of the value file. Exact for files that are shown as a whole, because a sorted file knows what it points
    /// to: what a compaction leaves out of its outputs is dead from the edit on that takes its inputs away.
    package var valueUsage: [UInt64: ValueUsage] {
        var usage: [UInt64: ValueUsage] = [:]
        for file in self where !file.summary.values.isEmpty {
            for use in file.summary.values {
                let live = file.windowed(use.recordBytes)
                let total = use.fileBytes - ValueFormat.frameBytes
                usage[use.number, default: ValueUsage(totalBytes: total)].liveBytes.add(live)
            }
        }
        return usage
    }
}

extension UInt64 {
    fileprivate mutating func add(_ other: UInt64) { self = saturatingAdding(other) }
}

extension [UInt64: ValueUsage] {
    /// Files that are worth being rewritten for themselves.
    func garbage(_ options: ValueOptions) -> Set<UInt64> {
        Set(
            lazy.filter { _, usage in
                Double(usage.liveBytes) * 100 < Double(usage.totalBytes) * Double(options.livePercent)
            }.map(\.key))
    }

    /// Files that are rewritten by whatever comes across them.
    func rewritten(_ options: ValueOptions) -> Set<UInt64> {
        Set(lazy.filter { _, usage in usage.totalBytes < options.smallFileBytes }.map(\.key)).union(garbage(options))
    }
}
