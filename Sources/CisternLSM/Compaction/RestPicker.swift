// What to merge when nothing is due, until every key is in one run: first level 0 with what is below, in one pass; then files
// of the upper levels one by one into the last; at last files of the last level of which much has expired. Pure, like the rest
// of the picker, and under its invariant.
//
// What writes and time pay for is spent on the whole way down only: merging a little of level 0 after each burst would cost
// more than its bytes, because the runs that follow are merged in other company.
//
// It ends: every plan leaves fewer files in level 0 or fewer bytes above the last level, and a rewrite for expiry leaves
// nothing expired.

package import CisternPrimitives

extension CompactionPicker {
    /// More is not merged at once: until a plan has ended, what it merges takes its space twice.
    static let restPlanBytesMax: UInt64 = 1 << 30

    /// - Returns: nil when nothing is left to gain, or not for this budget.
    package func restPlan(
        _ levels: [[FileRecord]], clock: ExpiryClock, rules: ExpiryRules = ExpiryRules(), budget: RestBudget
    ) -> CompactionPlan? {
        for group in CompactionPicker.levelZeroGroups(levels[0]) {
            if let plan = mergeDown(group, levels, budget) { return plan }
        }
        let nothing = BusyFiles([])
        let isPaid = { (plan: CompactionPlan) in plan.kind != .merge || plan.inputBytes <= budget.whole }
        if let plan = cheapest(levels, nothing, .rest, isPaid, costMax: { _ in .infinity }) { return plan }
        return rewrite(levels.count - 1, levels, nothing, isPaid, .rest) { file in
            file.expiredShare(clock, rules) * 100 >= Double(options.garbagePercent)
        }
    }

    /// Overlapping files of level 0 with what they overlap below, all the way down if that is paid for, else as far as reads
    /// pay. A single file that can take nothing along changes its level, where the way down goes on file by file.
    private func mergeDown(_ group: [FileRecord], _ levels: [[FileRecord]], _ budget: RestBudget) -> CompactionPlan? {
        let (all, last, bytes) = wayDown(group, levels, bytesMax: .max)
        // A file over nothing is a run already.
        if all.count == 1 { return nil }
        if bytes <= min(budget.whole, CompactionPicker.restPlanBytesMax) { return finish(all, to: last, levels, .rest) }
        let bytesMax = bytes <= budget.whole ? CompactionPicker.restPlanBytesMax : budget.partial
        let (some, level, someBytes) = wayDown(group, levels, bytesMax: bytesMax)
        if level == 0 { return nil }
        if some.count == 1 { return bytes <= budget.whole ? finish(some, to: level, levels, .rest) : nil }
        return someBytes <= bytesMax ? finish(some, to: level, levels, .rest) : nil
    }

    /// The group with levels below it from the top down, until one would exceed `bytesMax`.
    /// - Returns: the level where that can go, 0 when there is none.
    private func wayDown(
        _ group: [FileRecord], _ levels: [[FileRecord]], bytesMax: UInt64
    ) -> (inputs: [CompactionPlan.Input], level: Int, bytes: UInt64) {
        var inputs = group.map { CompactionPlan.Input(level: 0, file: $0) }
        var bytes = group.windowedBytes
        guard var bounds = KeyBounds(of: group) else { return (inputs, 0, bytes) }
        for level in 1..<levels.count {
            let files = levels[level][levels[level].overlapping(bounds)]
            let sum = bytes.saturatingAdding(files.windowedBytes)
            if !files.isEmpty && sum > bytesMax { return (inputs, level - 1, bytes) }
            bytes = sum
            inputs += files.map { CompactionPlan.Input(level: level, file: $0) }
            for file in files { bounds.include(file) }
        }
        return (inputs, levels.count - 1, bytes)
    }
}
