// How much merging a tree may do that nothing forces it to: what is merged because reads pay for runs, or because nobody
// writes. Pure: counts in, bytes out; the owner's executor calls it.
//
//   written, and quiet  ─► about a byte for each byte flushed: bursts cost at most a little more than one more write of what
//                          they brought
//   read                ─► for each run a read passed without finding: merging never costs more than the reads did that
//                          suffered from not having merged (the ski rental argument: at most twice the best one could do)
//   quiet for long      ─► the tree's own size once a day
//
// A merge takes its input bytes from the credit when it begins, and gets none back when it is interrupted.

/// What a plan may read.
package struct RestBudget: Equatable, Sendable {
    /// When it leaves its keys in one run.
    package var whole: UInt64
    /// When it leaves fewer runs than there were.
    package var partial: UInt64

    package init(whole: UInt64, partial: UInt64) {
        self.whole = whole
        self.partial = partial
    }

    package static let unlimited = RestBudget(whole: .max, partial: .max)
}

package struct RestCredit: Equatable, Sendable {
    /// What reads have paid for; may be spent at any time.
    private(set) var read = 0.0
    /// What writes and time have; may be spent while the tree is quiet.
    private(set) var quiet = 0.0

    package init() {}

    /// Passing a run takes about a tenth of a microsecond, merging a byte a little more than a nanosecond
    /// (docs/decisions/0080 has both).
    static let bytesPerPass = 64.0
    /// A scan positions itself in each run, and compares with it at each step.
    static let passesPerScan = 16
    /// In this time an idle tree may rewrite itself once.
    static let idleRewriteMilliseconds = 86_400_000.0

    /// - Parameters:
    ///   - percent: bytes of merging for a hundred bytes that were flushed.
    ///   - treeBytes: no more is kept than merging all of them takes, with some room for what sizes differ by.
    package mutating func flushed(_ bytes: UInt64, percent: Int, treeBytes: UInt64) {
        quiet = min(quiet + Double(bytes) * Double(percent) / 100, RestCredit.most(treeBytes))
    }

    private static func most(_ treeBytes: UInt64) -> Double { Double(treeBytes) * 1.25 }

    package mutating func passed(_ runs: UInt64, treeBytes: UInt64) {
        read = min(read + Double(runs) * RestCredit.bytesPerPass, RestCredit.most(treeBytes))
    }

    package mutating func idled(milliseconds: UInt64, treeBytes: UInt64) {
        let share = Double(milliseconds) / RestCredit.idleRewriteMilliseconds
        quiet = min(quiet + share * Double(treeBytes), RestCredit.most(treeBytes))
    }

    package func budget(isQuiet: Bool) -> RestBudget {
        RestBudget(whole: UInt64(min(isQuiet ? read + quiet : read, 1e18)), partial: UInt64(min(read, 1e18)))
    }

    package mutating func spend(_ bytes: UInt64) {
        let rest = max(Double(bytes) - read, 0)
        read = max(read - Double(bytes), 0)
        quiet = max(quiet - rest, 0)
    }
}
