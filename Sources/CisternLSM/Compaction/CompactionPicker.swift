// What to compact next. Pure: the files of a tree, the knobs, the clock and what runs in, at most one plan out; no I/O.
//
//   expired files ─► dropped without being read, where nothing older could show through
//   level 0       ─► all runs that overlap each other become one run, in the deepest level that is free above what is older;
//                    smaller or supernumerary upper runs come along
//   upper levels  ─► sink without being read into free levels below; when their garbage is a share of the last level, file by
//                    file into the last level, the cheapest first
//   clean-up      ─► files full of deletes, with old deletes, with long expired entries, hidden by their window, or that point
//                    into value files with much garbage
//   rest          ─► what nothing forces, while nobody writes or because reads pay for runs: see RestPicker
//
// That is lazy levelling: levels 1 to 5 hold one run each, which are written once, and only the last level, with most of the
// data, is merged in place. A key is in one run of each level at most.
//
// Invariant of every plan: for each key, what stays above the output is newer than the output, and what stays below is older.
// So the inputs hold, with a file, everything it overlaps in the levels between it and the output.

package import CisternPrimitives

/// What the picker goes by besides the files, and what it remembers from pick to pick.
package struct CompactionConditions: Sendable {
    package var clock: ExpiryClock
    /// What stored expiries mean.
    package var rules: ExpiryRules
    package var running: [CompactionPlan] = []
    package var feedback = CompactionFeedback()
    /// By file number: how long the tree has known the file, in milliseconds. Files with deletes only.
    package var deleteAges: [UInt64: UInt64] = [:]
    /// Value files of which so much is dead that they are to be rewritten.
    package var garbageValues: Set<UInt64> = []

    package init(clock: ExpiryClock, rules: ExpiryRules = ExpiryRules()) {
        self.clock = clock
        self.rules = rules
    }
}

/// What compactions into the last level have shown.
package struct CompactionFeedback: Equatable, Sendable {
    /// Entries that vanished in them for each entry that came from above: 1 when all replaced an older one, 0 when all were
    /// new. Only merging tells, because a run that is put together above the last level does not meet what it replaces.
    package private(set) var garbageShare = 1.0
    /// Files of upper levels up to a number go down one after the other, until none is left or there is no garbage.
    var sweep: Sweep?

    struct Sweep: Equatable, Sendable {
        let newestFile: UInt64
        /// Bytes of the upper levels by bytes of the last one when it began.
        let upperShare: Double
    }

    package init() {}

    /// Below the lowest share a tree of new keys would hardly be merged at all, and a change of its habits not be seen.
    private static let shareRange = 0.5...2.0

    package mutating func merged(upperEntries: UInt64, inputEntries: UInt64, outputEntries: UInt64) {
        guard upperEntries > 0 else { return }
        let vanished = Double(inputEntries) - Double(min(outputEntries, inputEntries))
        let share = (garbageShare + vanished / Double(upperEntries)) / 2
        garbageShare = min(
            max(share, CompactionFeedback.shareRange.lowerBound), CompactionFeedback.shareRange.upperBound)
    }
}

package struct CompactionPicker: Sendable {
    package let options: CompactionOptions

    package init(options: CompactionOptions) { self.options = options }

    package func pick(_ levels: [[FileRecord]], _ conditions: inout CompactionConditions) -> CompactionPlan? {
        let busy = BusyFiles(conditions.running)
        if let drop = expiredFiles(levels, conditions, busy) { return drop }
        let running = conditions.running
        let isAllowed = { (plan: CompactionPlan) in !running.contains { $0.meets(plan) } }
        if let plan = planLevelZero(levels, busy, isAllowed) { return plan }
        if let plan = sink(levels, running, busy), isAllowed(plan) { return plan }
        guard running.count(where: { $0.priority != .levelZero }) < CompactionOptions.runningMax else { return nil }
        if let plan = sweep(levels, &conditions, busy, isAllowed) { return plan }
        if running.contains(where: { $0.priority == .cleanup }) { return nil }
        return cleanup(levels, conditions, busy, isAllowed)
    }

    // MARK: Level 0

    /// Groups of level-0 files that overlap each other, directly or through others; each in the order of the level.
    package static func levelZeroGroups(_ files: [FileRecord]) -> [[FileRecord]] {
        let order = files.indices.sorted { compareKeys(files[$0].smallestKey, files[$1].smallestKey) < 0 }
        var groups: [[Int]] = []
        var end: [UInt8] = []
        for index in order {
            let file = files[index]
            if groups.isEmpty || compareKeys(file.smallestKey, end) > 0 {
                groups.append([index])
                end = file.largestKey
            } else {
                groups[groups.count - 1].append(index)
                if compareKeys(file.largestKey, end) > 0 { end = file.largestKey }
            }
        }
        return groups.map { $0.sorted().map { files[$0] } }
    }

    /// Runs a read may have to look into in level 0, at most.
    package static func levelZeroDepth(_ files: [FileRecord]) -> Int {
        levelZeroGroups(files).reduce(0) { max($0, $1.count) }
    }

    private func weight(_ group: [FileRecord]) -> Int { group.reduce(0) { $0 + (isFullOfDeletes($1) ? 2 : 1) } }

    private func planLevelZero(
        _ levels: [[FileRecord]], _ busy: BusyFiles, _ isAllowed: (CompactionPlan) -> Bool
    ) -> CompactionPlan? {
        guard levels[0].count * 2 >= options.levelZeroTrigger else { return nil }
        let due = CompactionPicker.levelZeroGroups(levels[0]).filter { group in
            weight(group) >= options.levelZeroTrigger && !group.contains { busy.contains($0) }
        }
        for group in due.sorted(by: { $0.count > $1.count }) {
            if let plan = planLevelZero(group, levels, busy), isAllowed(plan) { return plan }
        }
        return nil
    }

    /// The group, and from the top down the levels that come along.
    private func planLevelZero(_ group: [FileRecord], _ levels: [[FileRecord]], _ busy: BusyFiles) -> CompactionPlan? {
        let bottom = levels.count - 1
        guard var bounds = KeyBounds(of: group) else { return nil }
        var inputs = group.map { CompactionPlan.Input(level: 0, file: $0) }
        var bytes = group.windowedBytes
        var upperRuns = (1..<bottom).count { !levels[$0].overlapping(bounds).isEmpty }
        var level = 1
        var outputLevel = 0
        while level <= bottom {
            let files = levels[level][levels[level].overlapping(bounds)]
            if files.isEmpty {
                outputLevel = level
                level += 1
                continue
            }
            let levelBytes = files.windowedBytes
            let isSupernumerary = level < bottom && upperRuns >= options.upperRunsMax
            let comesAlong = (levelBytes <= bytes || isSupernumerary || outputLevel == 0)
            if !comesAlong || files.contains(where: { busy.contains($0) }) { break }
            inputs += files.map { CompactionPlan.Input(level: level, file: $0) }
            for file in files { bounds.include(file) }
            bytes = bytes.saturatingAdding(levelBytes)
            if level < bottom { upperRuns -= 1 }
            outputLevel = level
            level += 1
        }
        // Level 1 is taken and busy.
        if outputLevel == 0 { return nil }
        return finish(inputs, to: outputLevel, levels, .levelZero)
    }

    // MARK: Debt

    /// What compactions that are due have to read.
    package func debtBytes(_ levels: [[FileRecord]], _ feedback: CompactionFeedback) -> UInt64 {
        var debt: UInt64 = 0
        for group in CompactionPicker.levelZeroGroups(levels[0]) where weight(group) >= options.levelZeroTrigger {
            debt = debt.saturatingAdding(group.windowedBytes)
        }
        guard let sweep = feedback.sweep else { return debt }
        let left = levels[1..<levels.count - 1].joined().lazy.filter { $0.number <= sweep.newestFile }.windowedBytes
        let read = Double(left) * (1 + 1 / max(sweep.upperShare, 0.001))
        return debt.saturatingAdding(read < 1e18 ? UInt64(read) : .max)
    }

    // MARK: Upper levels

    /// A whole level into the deepest free one below it, so that there is room for new runs above.
    private func sink(_ levels: [[FileRecord]], _ running: [CompactionPlan], _ busy: BusyFiles) -> CompactionPlan? {
        let bottom = levels.count - 1
        for level in stride(from: bottom - 2, through: 1, by: -1) where !levels[level].isEmpty {
            var target = level
            while target + 1 < bottom, levels[target + 1].isEmpty,
                !running.contains(where: { $0.outputLevel == target + 1 })
            {
                target += 1
            }
            if target == level || levels[level].contains(where: { busy.contains($0) }) { continue }
            if running.contains(where: { $0.outputLevel == level }) { continue }
            let inputs = levels[level].map { CompactionPlan.Input(level: level, file: $0) }
            return CompactionPlan(.move, inputs, to: target, isBottommost: false, priority: .deep)
        }
        return nil
    }

    private func sweep(
        _ levels: [[FileRecord]], _ conditions: inout CompactionConditions, _ busy: BusyFiles,
        _ isAllowed: (CompactionPlan) -> Bool
    ) -> CompactionPlan? {
        let bottom = levels.count - 1
        let limit = Double(options.garbagePercent) / 100
        let upper = levels[1..<bottom].joined()
        if let sweep = conditions.feedback.sweep,
            sweep.upperShare * conditions.feedback.garbageShare < limit
                || !upper.contains(where: { $0.number <= sweep.newestFile })
        {
            conditions.feedback.sweep = nil
        }
        if conditions.feedback.sweep == nil {
            let bytes = upper.windowedBytes
            if bytes == 0 { return nil }
            let share = Double(bytes) / Double(max(levels[bottom].windowedBytes, 1))
            guard share * conditions.feedback.garbageShare >= limit else { return nil }
            conditions.feedback.sweep = CompactionFeedback.Sweep(
                newestFile: upper.reduce(0) { max($0, $1.number) }, upperShare: share)
        }
        let newest = conditions.feedback.sweep?.newestFile ?? 0
        return cheapest(levels, busy, .deep, isAllowed) { $0.number <= newest ? .infinity : nil }
    }

    /// Of the files above the last level that qualify, the one whose way down rewrites the least of the last level for what
    /// it brings; deletes count more, because each takes something with it.
    /// - Parameter costMax: what a file's way down may read for each byte that it brings; nil for a file that may not go.
    func cheapest(
        _ levels: [[FileRecord]], _ busy: BusyFiles, _ priority: CompactionPriority,
        _ isAllowed: (CompactionPlan) -> Bool, costMax: (FileRecord) -> Double?
    ) -> CompactionPlan? {
        let bottom = levels.count - 1
        var best: (plan: CompactionPlan, cost: Double)?
        for level in 1..<bottom {
            for file in levels[level] {
                guard let costMax = costMax(file), let inputs = wayDown(level, file, levels, busy) else { continue }
                var brings = 0.0
                var total = 0.0
                for input in inputs {
                    let bytes = Double(max(input.file.windowedBytes, 1))
                    total += bytes
                    if input.level < bottom { brings += bytes * (1 + deleteShare(input.file)) }
                }
                let cost = total / brings
                if cost > min(costMax, best?.cost ?? .infinity) { continue }
                guard let plan = finish(inputs, to: bottom, levels, priority), isAllowed(plan) else { continue }
                best = (plan, cost)
            }
        }
        return best?.plan
    }

    /// The file with everything older that it overlaps; nil when some of that is busy.
    private func wayDown(
        _ level: Int, _ file: FileRecord, _ levels: [[FileRecord]], _ busy: BusyFiles
    ) -> [CompactionPlan.Input]? {
        if busy.contains(file) { return nil }
        var bounds = file.bounds
        var inputs = [CompactionPlan.Input(level: level, file: file)]
        for deeper in (level + 1)..<levels.count {
            for older in levels[deeper][levels[deeper].overlapping(bounds)] {
                if busy.contains(older) { return nil }
                inputs.append(CompactionPlan.Input(level: deeper, file: older))
            }
            for input in inputs.reversed() {
                if input.level != deeper { break }
                bounds.include(input.file)
            }
        }
        return inputs
    }

    func finish(
        _ inputs: [CompactionPlan.Input], to outputLevel: Int, _ levels: [[FileRecord]],
        _ priority: CompactionPriority
    ) -> CompactionPlan? {
        guard let bounds = KeyBounds(of: inputs.lazy.map(\.file)) else { return nil }
        let isBottommost = isNothingBelow(outputLevel, bounds, levels)
        // A file with deletes is rewritten when it arrives at the bottom: moving it would keep the deletes for ever.
        let mayMove = inputs.count == 1 && (!isBottommost || inputs[0].file.summary.deleteCount == 0)
        return CompactionPlan(
            mayMove ? .move : .merge, inputs, to: outputLevel, isBottommost: isBottommost, priority: priority)
    }

    private func isNothingBelow(_ level: Int, _ bounds: KeyBounds, _ levels: [[FileRecord]]) -> Bool {
        levels[(level + 1)...].allSatisfy { $0.overlapping(bounds).isEmpty }
    }

    // MARK: Clean-up

    private func cleanup(
        _ levels: [[FileRecord]], _ conditions: CompactionConditions, _ busy: BusyFiles,
        _ isAllowed: (CompactionPlan) -> Bool
    ) -> CompactionPlan? {
        let full = cheapest(levels, busy, .cleanup, isAllowed) { file in
            if hasOldDeletes(file, conditions) { return .infinity }
            return isFullOfDeletes(file) ? CompactionPicker.deletesCostMax : nil
        }
        if let full { return full }
        for group in CompactionPicker.levelZeroGroups(levels[0]) {
            guard group.contains(where: { hasOldDeletes($0, conditions) }),
                !group.contains(where: { busy.contains($0) }),
                let plan = planLevelZero(group, levels, busy), isAllowed(plan)
            else { continue }
            return plan
        }
        for level in 1..<levels.count {
            if let plan = rewrite(level, levels, busy, isAllowed, where: isMostlyHidden) { return plan }
            if conditions.garbageValues.isEmpty { continue }
            let pointsToGarbage = { (file: FileRecord) in
                file.summary.values.contains { conditions.garbageValues.contains($0.number) }
            }
            if let plan = rewrite(level, levels, busy, isAllowed, where: pointsToGarbage) { return plan }
        }
        return overdue(levels, conditions, busy, isAllowed)
    }

    /// One file of a level into the same level.
    func rewrite(
        _ level: Int, _ levels: [[FileRecord]], _ busy: BusyFiles, _ isAllowed: (CompactionPlan) -> Bool,
        _ priority: CompactionPriority = .cleanup, where qualifies: (FileRecord) -> Bool
    ) -> CompactionPlan? {
        for file in levels[level] where !busy.contains(file) && qualifies(file) {
            let input = CompactionPlan.Input(level: level, file: file)
            let isBottommost = isNothingBelow(level, file.bounds, levels)
            let plan = CompactionPlan(.merge, [input], to: level, isBottommost: isBottommost, priority: priority)
            if let plan, isAllowed(plan) { return plan }
        }
        return nil
    }

    /// Files with entries that expired longer ago than they may stay, the longest overdue first, and files of the last level of
    /// which so much has expired that rewriting them pays. One that hides older entries takes those along.
    private func overdue(
        _ levels: [[FileRecord]], _ conditions: CompactionConditions, _ busy: BusyFiles,
        _ isAllowed: (CompactionPlan) -> Bool
    ) -> CompactionPlan? {
        let isOverdue = { (file: FileRecord) in
            (file.expiredSince(conditions.clock, conditions.rules) ?? 0) > options.reclaimLagMilliseconds
        }
        let bottom = levels.count - 1
        let latest = levels[bottom].lazy.filter { !busy.contains($0) }.compactMap { file in
            file.expiredSince(conditions.clock, conditions.rules).map { (file: file, age: $0) }
        }.max { $0.age < $1.age }
        if let latest, latest.age > options.reclaimLagMilliseconds,
            let plan = rewrite(bottom, levels, busy, isAllowed, where: { $0.id == latest.file.id })
        {
            return plan
        }
        let isMostlyExpired = { (file: FileRecord) in
            file.expiredShare(conditions.clock, conditions.rules) * 100 >= Double(options.expiredPercent)
        }
        if let plan = rewrite(bottom, levels, busy, isAllowed, where: isMostlyExpired) { return plan }
        let plan = cheapest(levels, busy, .cleanup, isAllowed) { isOverdue($0) ? .infinity : nil }
        if let plan { return plan }
        let group = CompactionPicker.levelZeroGroups(levels[0]).first { group in
            group.contains(where: isOverdue) && !group.contains { busy.contains($0) }
        }
        guard let group, let plan = planLevelZero(group, levels, busy), isAllowed(plan) else { return nil }
        return plan
    }

    /// A file full of deletes that covers much more of the last level waits until there is more to go with it, or for its age.
    private static let deletesCostMax = 6.0

    private func deleteShare(_ file: FileRecord) -> Double {
        Double(file.summary.deleteCount) / Double(max(file.summary.entryCount, 1))
    }

    private func isFullOfDeletes(_ file: FileRecord) -> Bool {
        file.summary.deleteCount > 0 && deleteShare(file) * 100 >= Double(options.deletePercent)
    }

    private func hasOldDeletes(_ file: FileRecord, _ conditions: CompactionConditions) -> Bool {
        file.summary.deleteCount > 0 && conditions.deleteAges[file.number] ?? 0 >= options.deleteAgeMilliseconds
    }

    private func isMostlyHidden(_ file: FileRecord) -> Bool {
        file.isPartial
            && Double(file.windowedBytes) * 100 < Double(file.summary.fileBytes) * Double(options.visiblePercent)
    }

    // MARK: On demand

    /// Everything of a range of key groups into the bottom level; nil when nothing is to be gained. Files that reach beyond
    /// the range take with them what they overlap further down, so that no older entry ends above a newer one.
    package func fullPlan(_ levels: [[FileRecord]], keyGroups: KeyGroupRange) -> CompactionPlan? {
        let bottom = levels.count - 1
        var inputs: [CompactionPlan.Input] = []
        // Runs of level 0 overlap each other, so they go together.
        if levels[0].contains(where: { $0.shows(keyGroups) }) {
            inputs = levels[0].map { CompactionPlan.Input(level: 0, file: $0) }
        }
        for level in 1..<bottom {
            let bounds = KeyBounds(of: inputs.map(\.file))
            inputs += levels[level].filter { $0.shows(keyGroups) || $0.overlaps(bounds) }
                .map { CompactionPlan.Input(level: level, file: $0) }
        }
        let bounds = KeyBounds(of: inputs.map(\.file))
        inputs += levels[bottom].filter { $0.overlaps(bounds) || ($0.shows(keyGroups) && $0.hasDeadWeight) }
            .map { CompactionPlan.Input(level: bottom, file: $0) }
        return CompactionPlan(.merge, inputs, to: bottom, isBottommost: true, priority: .deep)
    }

    // MARK: Expiry

    /// Files without a living entry. An expired entry still hides older ones of its key, so a file may go only when every
    /// older file it overlaps goes with it.
    private func expiredFiles(
        _ levels: [[FileRecord]], _ conditions: CompactionConditions, _ busy: BusyFiles
    ) -> CompactionPlan? {
        let isExpired = { (file: FileRecord) in file.isExpired(conditions.clock, conditions.rules) }
        guard levels.joined().contains(where: isExpired) else { return nil }
        var dropped: [CompactionPlan.Input] = []
        /// What stays of each level below level 0, in key order.
        var staying = levels
        for level in stride(from: levels.count - 1, through: 1, by: -1) {
            staying[level] = levels[level].filter { file in
                if busy.contains(file) || !isExpired(file) { return true }
                let bounds = file.bounds
                if staying[(level + 1)...].contains(where: { !$0.overlapping(bounds).isEmpty }) { return true }
                dropped.append(.init(level: level, file: file))
                return false
            }
        }
        var older: [FileRecord] = []
        for file in levels[0].reversed() {
            let bounds = file.bounds
            if busy.contains(file) || !isExpired(file) || older.contains(where: { $0.overlaps(bounds) })
                || staying[1...].contains(where: { !$0.overlapping(bounds).isEmpty })
            {
                older.append(file)
            } else {
                dropped.append(.init(level: 0, file: file))
            }
        }
        return CompactionPlan(.drop, dropped, to: 0, isBottommost: true, priority: .cleanup)
    }
}

extension FileRecord {
    fileprivate func shows(_ keyGroups: KeyGroupRange) -> Bool {
        window.intersection(summary.keyGroups)?.overlaps(keyGroups) ?? false
    }

    fileprivate func overlaps(_ bounds: KeyBounds?) -> Bool { bounds.map { overlaps($0) } ?? false }

    /// At the bottom a rewrite of the file would leave something out.
    fileprivate var hasDeadWeight: Bool {
        isPartial || summary.deleteCount > 0 || summary.appendCount > 0
            || summary.neverExpiringCount < summary.entryCount
    }
}
