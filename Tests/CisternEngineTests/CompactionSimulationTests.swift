import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// A tree of key numbers without values: flushes and plans are applied as the engine applies them, jobs end in an order chosen
/// by a seed, and every read is checked against the newest write of its key.
private struct TreeSimulation {
    let picker: CompactionPicker
    var random: SeededRandom
    var state = TreeState(identity: wholeRange, epoch: 1, writer: "w")
    var feedback = CompactionFeedback()
    var running: [CompactionPlan] = []
    /// Keys of each file, ascending, with the time of the write; a negative time is a delete.
    var contents: [UInt64: [(key: Int, time: Int)]] = [:]
    var newest: [Int: Int] = [:]
    var nextFile: UInt64 = 1
    var time = 0
    var written = 0
    var flushed = 0
    var plans = 0

    static let entryBytes = 100
    static let keysPerGroup = 1000

    init(_ options: CompactionOptions, seed: UInt64) {
        picker = CompactionPicker(options: options)
        random = SeededRandom(seed: seed)
    }

    mutating func flush(_ keys: [Int], deletes: Bool = false) throws {
        time += 1
        for key in keys { newest[key] = deletes ? -time : time }
        let entries = Set(keys).sorted().map { (key: $0, time: newest[$0]!) }
        flushed += entries.count
        var edit = VersionEdit()
        edit.added = [.init(level: 0, file: makeFile(entries))]
        try #require(state.apply(edit) == nil)
    }

    private mutating func makeFile(_ entries: [(key: Int, time: Int)]) -> FileRecord {
        var summary = TableSummary()
        summary.entryCount = UInt64(entries.count)
        summary.deleteCount = UInt64(entries.count { $0.time < 0 })
        summary.neverExpiringCount = summary.entryCount - summary.deleteCount
        summary.fileBytes = UInt64(entries.count * TreeSimulation.entryBytes)
        summary.smallestKey = bytes(entries[0].key)
        summary.largestKey = bytes(entries[entries.count - 1].key)
        summary.keyGroups = KeyGroupRange(first: group(entries[0].key), last: group(entries[entries.count - 1].key))
        written += entries.count
        contents[nextFile] = entries
        nextFile += 1
        return FileRecord(number: nextFile - 1, window: wholeRange.keyGroups, summary: summary)
    }

    private func group(_ key: Int) -> UInt16 { UInt16(key / TreeSimulation.keysPerGroup) }

    private func bytes(_ key: Int) -> [UInt8] {
        let text = String(key % TreeSimulation.keysPerGroup)
        return makeKey(group(key), String(repeating: "0", count: 4 - text.count) + text)
    }

    /// Starts what may start, and ends one running plan; false when nothing runs.
    mutating func step(fileEntries: Int) throws -> Bool {
        while true {
            var conditions = CompactionConditions(clock: ExpiryClock(processing: 0, event: 0))
            conditions.running = running
            conditions.feedback = feedback
            guard let plan = picker.pick(state.levels, &conditions) else { break }
            feedback = conditions.feedback
            running.append(plan)
            try #require(running.count < 50)
        }
        guard let index = running.indices.randomElement(using: &random) else { return false }
        try apply(running.remove(at: index), fileEntries)
        return true
    }

    private mutating func apply(_ plan: CompactionPlan, _ fileEntries: Int) throws {
        plans += 1
        var edit = VersionEdit()
        edit.removed = plan.inputs.map { .init(level: $0.level, file: $0.file.id) }
        if plan.kind == .move {
            edit.added = plan.inputs.map { .init(level: plan.outputLevel, file: $0.file) }
        } else {
            var merged: [Int: Int] = [:]
            for input in plan.inputs.reversed() {
                for entry in contents[input.file.number]! { merged[entry.key] = entry.time }
            }
            let kept = merged.sorted { $0.key < $1.key }.filter { !plan.isBottommost || $0.value > 0 }
            for start in stride(from: 0, to: kept.count, by: fileEntries) {
                let part = kept[start..<min(start + fileEntries, kept.count)].map { (key: $0.key, time: $0.value) }
                edit.added.append(.init(level: plan.outputLevel, file: makeFile(part)))
            }
            if plan.outputLevel == state.levels.count - 1 {
                let upper = plan.inputs.filter { $0.level < plan.outputLevel }.map(\.file)
                feedback.merged(
                    upperEntries: upper.windowedEntries, inputEntries: plan.inputs.map(\.file).windowedEntries,
                    outputEntries: edit.added.map(\.file).windowedEntries)
            }
        }
        try #require(state.apply(edit) == nil)
    }

    /// What a quiet tree does: as much as the credit allows.
    mutating func rest(_ credit: inout RestCredit, fileEntries: Int) throws {
        let clock = ExpiryClock(processing: 0, event: 0)
        while true {
            let budget = credit.budget(isQuiet: true)
            guard let plan = picker.restPlan(state.levels, clock: clock, budget: budget) else { return }
            if plan.kind == .merge { credit.spend(plan.inputBytes) }
            try apply(plan, fileEntries)
            while try step(fileEntries: fileEntries) {}
        }
    }

    /// Runs a reader may have to look into.
    var depth: Int {
        CompactionPicker.levelZeroDepth(state.levels[0]) + state.levels.dropFirst().count { !$0.isEmpty }
    }

    /// No key could be in two files.
    var isApart: Bool {
        let files = state.levels.joined().sorted { $0.smallestKey.lexicographicallyPrecedes($1.smallestKey) }
        return zip(files, files.dropFirst()).allSatisfy { $0.largestKey.lexicographicallyPrecedes($1.smallestKey) }
    }

    var entries: Int { state.levels.joined().reduce(0) { $0 + Int($1.summary.entryCount) } }

    /// What a reader would find first is the newest write of each key.
    func check() throws {
        var found: [Int: Int] = [:]
        for file in state.levels.joined().reversed() {
            for entry in contents[file.number]! { found[entry.key] = entry.time }
        }
        // Level 0 is newest first and deeper levels are apart, so what was set last is what is found first.
        for (key, time) in newest {
            if time > 0 { try #require(found[key] == time) } else { try #require(found[key] ?? -1 < 0) }
        }
    }
}

@Suite struct CompactionSimulationTests {
    private static let memtable = 400
    private static let fileEntries = 200

    private func options() -> CompactionOptions {
        var options = CompactionOptions()
        options.targetFileBytes = UInt64(CompactionSimulationTests.fileEntries * TreeSimulation.entryBytes)
        return options
    }

    /// Write, space and read amplification while a store of `units` memtables of keys is filled and then overwritten. The
    /// bounds are what docs/decisions/0040 found, with some room; levelled compaction with a factor of ten and the same
    /// trigger wrote 3.3, 5.3 and 8.2 entries for one while filling, and 4.7, 6.8 and 10.4 while overwriting.
    @Test(arguments: [(12, 3.0, 5.0), (32, 4.4, 6.0), (100, 5.6, 7.4)])
    func amplificationIsBounded(units: Int, fillMax: Double, overwriteMax: Double) throws {
        var tree = TreeSimulation(options(), seed: UInt64(units))
        let memtable = CompactionSimulationTests.memtable
        let keys = (0..<units * memtable).shuffled(using: &tree.random)
        for unit in 0..<units {
            try tree.flush(Array(keys[unit * memtable..<(unit + 1) * memtable]))
            while try tree.step(fileEntries: CompactionSimulationTests.fileEntries) {}
        }
        let fill = Double(tree.written) / Double(tree.flushed)
        let (writtenBefore, flushedBefore) = (tree.written, tree.flushed)
        var space = 0.0
        var depth = 0
        for _ in 0..<3 * units {
            try tree.flush((0..<memtable).map { _ in keys.randomElement(using: &tree.random)! })
            while try tree.step(fileEntries: CompactionSimulationTests.fileEntries) {}
            space += Double(tree.entries) / Double(keys.count) / Double(3 * units)
            depth = max(depth, tree.depth)
        }
        try tree.check()
        let overwrite = Double(tree.written - writtenBefore) / Double(tree.flushed - flushedBefore)
        print("units \(units): write \(fill), then \(overwrite); space \(space); runs \(depth)")
        #expect(fill <= fillMax)
        #expect(overwrite <= overwriteMax)
        #expect(space <= 1.4)
        #expect(depth <= 8)
    }

    /// A tree that is quiet after every memtable merges as much as that pays for and not more.
    @Test(arguments: [12, 32]) func burstsAreNotMergedOverAndOver(units: Int) throws {
        let memtable = CompactionSimulationTests.memtable
        let fileEntries = CompactionSimulationTests.fileEntries
        var written: [Double] = []
        for rests in [false, true] {
            var tree = TreeSimulation(options(), seed: UInt64(units))
            var credit = RestCredit()
            let keys = (0..<units * memtable).shuffled(using: &tree.random)
            for unit in 0..<units * 3 {
                let start = unit % units * memtable
                try tree.flush(Array(keys[start..<start + memtable]))
                while try tree.step(fileEntries: fileEntries) {}
                let bytes = UInt64(memtable * TreeSimulation.entryBytes)
                credit.flushed(
                    bytes, percent: tree.picker.options.restPercent, treeBytes: tree.state.files.windowedBytes)
                if rests { try tree.rest(&credit, fileEntries: fileEntries) }
            }
            try tree.check()
            written.append(Double(tree.written) / Double(tree.flushed))
        }
        print("units \(units): write \(written[0]), with rests \(written[1])")
        #expect(written[1] <= written[0] * 1.5)
    }

    /// With all the credit there is, whatever was written ends in one run, by a bounded number of plans.
    @Test(arguments: Seeds.seeds(count: 16)) func restIsReached(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var tree = TreeSimulation(options(), seed: seed)
        let keys = Int.random(in: 100...20_000, using: &random)
        for _ in 0..<40 {
            let start = Int.random(in: 0..<keys, using: &random)
            let span = Int.random(in: 1...keys, using: &random)
            let written = (0..<Int.random(in: 1...400, using: &random)).map { _ in
                (start + Int.random(in: 0..<span, using: &random)) % keys
            }
            try tree.flush(written, deletes: Int.random(in: 0..<3, using: &random) == 0)
            while try tree.step(fileEntries: 50) {}
        }
        var credit = RestCredit()
        credit.idled(milliseconds: .max, treeBytes: 1 << 40)
        let before = tree.plans
        try tree.rest(&credit, fileEntries: 50)
        try #require(tree.plans - before < 2000)
        try tree.check()
        #expect(tree.depth <= 1 || tree.isApart)
        #expect(
            tree.picker.restPlan(tree.state.levels, clock: ExpiryClock(processing: 0, event: 0), budget: .unlimited)
                == nil)
    }

    /// Whatever runs beside whatever, reads find the newest write, and without writes the work comes to an end.
    @Test(arguments: Seeds.seeds(count: 16)) func debtDrainsAndOrderIsKept(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var options = options()
        options.levelZeroTrigger = .random(in: 1...6, using: &random)
        options.levelZeroStop = options.levelZeroTrigger + 1
        options.upperRunsMax = .random(in: 1...5, using: &random)
        options.garbagePercent = .random(in: 1...200, using: &random)
        options.deletePercent = .random(in: 1...100, using: &random)
        var tree = TreeSimulation(options, seed: seed)
        let keys = Int.random(in: 100...20_000, using: &random)
        for _ in 0..<60 {
            let start = Int.random(in: 0..<keys, using: &random)
            let span = Int.random(in: 1...keys, using: &random)
            let written = (0..<Int.random(in: 1...400, using: &random)).map { _ in
                (start + Int.random(in: 0..<span, using: &random)) % keys
            }
            try tree.flush(written, deletes: Int.random(in: 0..<3, using: &random) == 0)
            for _ in 0..<Int.random(in: 0...4, using: &random) { _ = try tree.step(fileEntries: 50) }
        }
        try tree.check()
        let before = tree.plans
        while try tree.step(fileEntries: 50) { try #require(tree.plans - before < 20_000) }
        try tree.check()
        #expect(tree.running.isEmpty)
        #expect(CompactionPicker.levelZeroDepth(tree.state.levels[0]) < options.levelZeroTrigger)
    }
}
