// What to compact next. Pure: the files of a tree, the knobs and the clock in, at most one plan out; no I/O, no state.
//
//   expired files  ─► dropped without being read, where nothing older could show through
//   level 0        ─► all its runs and what they overlap in level 1, when it has `levelZeroTrigger` runs
//   level n        ─► the file that overlaps the least of level n + 1, when the level is above its target
//
// Targets: level 1 `levelOneBytes`, each deeper level ten times more.

package import CisternPrimitives

package struct CompactionOptions: Equatable, Sendable {
    /// Runs in level 0 that start a compaction.
    package var levelZeroTrigger = 4
    /// Runs in level 0 at which writes are answered busy.
    package var levelZeroStop = 24
    package var levelOneBytes: UInt64 = 256 << 20
    package var levelMultiplier: UInt64 = 10
    /// A compaction cuts its output into files of about this size.
    package var targetFileBytes: UInt64 = 32 << 20

    package init() {}
}

package struct CompactionPlan: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// Merge the inputs into new files of the output level.
        case merge
        /// The one input changes its level; nothing is read.
        case move
        /// The inputs go; nothing is read.
        case drop
    }
    package struct Input: Equatable, Sendable {
        package let level: Int
        package let file: FileRecord
    }

    package let kind: Kind
    /// Newest first: level 0 in its order, then deeper levels.
    package let inputs: [Input]
    package let outputLevel: Int
    /// True when nothing below the output can hold an older entry for a key of the inputs, so deletes may go.
    package let isBottommost: Bool
}

package struct CompactionPicker: Sendable {
    package let options: CompactionOptions

    package init(options: CompactionOptions) { self.options = options }

    package func pick(_ levels: [[FileRecord]], clock: ExpiryClock) -> CompactionPlan? {
        if let drop = expiredFiles(levels, clock: clock) { return drop }
        var best: (level: Int, score: Double)?
        for level in 0..<(levels.count - 1) {
            let score = score(level, levels[level])
            if score >= 1, score > best?.score ?? 0 { best = (level, score) }
        }
        guard let best else { return nil }
        return best.level == 0 ? planLevelZero(levels) : plan(level: best.level, levels)
    }

    /// At 1 and above a level needs compaction.
    package func score(_ level: Int, _ files: [FileRecord]) -> Double {
        if level == 0 { return Double(files.count) / Double(options.levelZeroTrigger) }
        let bytes = files.windowedBytes
        return Double(bytes) / Double(targetBytes(level)) * (bytes > targetBytes(level) ? 1 : 0)
    }

    package func targetBytes(_ level: Int) -> UInt64 {
        var target = options.levelOneBytes
        for _ in 1..<max(level, 1) {
            target = target.multipliedReportingOverflow(by: options.levelMultiplier).partialValue
        }
        return target
    }

    // MARK: Plans

    /// All of level 0, because its runs overlap and an older run must not stay above a newer one.
    private func planLevelZero(_ levels: [[FileRecord]]) -> CompactionPlan? {
        guard let bounds = KeyBounds(of: levels[0]) else { return nil }
        let below = levels[1].filter { $0.overlaps(bounds) }
        let top = levels[0].map { CompactionPlan.Input(level: 0, file: $0) }
        return finish(top, below, level: 0, levels)
    }

    private func plan(level: Int, _ levels: [[FileRecord]]) -> CompactionPlan? {
        var best: (file: FileRecord, below: [FileRecord], cost: Double)?
        for file in levels[level] {
            let bounds = KeyBounds(smallest: file.smallestKey, largest: file.largestKey)
            let below = levels[level + 1].filter { $0.overlaps(bounds) }
            let bytes = below.windowedBytes
            let cost = Double(bytes) / Double(max(file.windowedBytes, 1))
            if best == nil || cost < best!.cost { best = (file, below, cost) }
        }
        guard let best else { return nil }
        return finish([CompactionPlan.Input(level: level, file: best.file)], best.below, level: level, levels)
    }

    private func finish(
        _ top: [CompactionPlan.Input], _ below: [FileRecord], level: Int, _ levels: [[FileRecord]]
    ) -> CompactionPlan? {
        let inputs = top + below.map { CompactionPlan.Input(level: level + 1, file: $0) }
        guard let bounds = KeyBounds(of: inputs.map(\.file)) else { return nil }
        let isBottommost = !levels[(level + 2)...].joined().contains { $0.overlaps(bounds) }
        // A file with deletes is rewritten when it arrives at the bottom: moving it would keep the deletes for ever.
        let mayMove = top.count == 1 && below.isEmpty && (!isBottommost || top[0].file.summary.deleteCount == 0)
        return CompactionPlan(
            kind: mayMove ? .move : .merge, inputs: inputs, outputLevel: level + 1, isBottommost: isBottommost)
    }

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
        if inputs.isEmpty { return nil }
        return CompactionPlan(kind: .merge, inputs: inputs, outputLevel: bottom, isBottommost: true)
    }

    // MARK: Expiry

    /// Files without a living entry. An expired entry still hides older ones of its key, so a file may go only when every
    /// older file it overlaps goes with it.
    private func expiredFiles(_ levels: [[FileRecord]], clock: ExpiryClock) -> CompactionPlan? {
        var dropped: [CompactionPlan.Input] = []
        var staying: [FileRecord] = []
        for level in stride(from: levels.count - 1, through: 1, by: -1) {
            let older = staying
            for file in levels[level] {
                if isDead(file, clock: clock, older: older) {
                    dropped.append(.init(level: level, file: file))
                } else {
                    staying.append(file)
                }
            }
        }
        for file in levels[0].reversed() {
            if isDead(file, clock: clock, older: staying) {
                dropped.append(.init(level: 0, file: file))
            } else {
                staying.append(file)
            }
        }
        if dropped.isEmpty { return nil }
        return CompactionPlan(kind: .drop, inputs: dropped, outputLevel: 0, isBottommost: true)
    }

    private func isDead(_ file: FileRecord, clock: ExpiryClock, older: [FileRecord]) -> Bool {
        guard file.summary.isExpired(clock) else { return false }
        let bounds = KeyBounds(smallest: file.smallestKey, largest: file.largestKey)
        return !older.contains { $0.overlaps(bounds) }
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
