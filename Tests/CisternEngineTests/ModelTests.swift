// Random operations with random options against a dictionary, on a stepped scheduler: the same seed is the same run.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// Batches for one store: puts, deletes, appends, with and without expiry.
///
/// Folding leaves one thing open, and the generator stays clear of it: whether an older part that has expired is still there
/// below a living append. So an append never outlives what it is appended to.
struct BatchGenerator {
    var random: SeededRandom
    var keysPerGroup: Int
    var valueBytesMax: Int

    mutating func batch(in groups: KeyGroupRange, model: ModelStore, clock: ExpiryClock) -> OwnedBatch {
        var entries: [[UInt8]: OwnedEntry] = [:]
        for _ in 0..<Int.random(in: 0...12, using: &random) {
            let group = UInt16.random(in: groups.first...groups.last, using: &random)
            let key = key(group, Int.random(in: 0..<keysPerGroup, using: &random))
            entries[key] = entry(key, model.entries[key], clock)
        }
        return OwnedBatch(entries.values.sorted { $0.key.lexicographicallyPrecedes($1.key) })
    }

    /// Keys of three states, so that a memtable keeps some in order and some not.
    func key(_ group: UInt16, _ number: Int) -> [UInt8] {
        var key = makeKey(group, "key-\(number)")
        key[3] = UInt8(1 + number % 3)
        return key
    }

    private mutating func entry(_ key: [UInt8], _ old: ModelStore.Stored?, _ clock: ExpiryClock) -> OwnedEntry {
        let value = (0..<Int.random(in: 0...valueBytesMax, using: &random)).map { _ in
            UInt8.random(in: 0...255, using: &random)
        }
        switch Int.random(in: 0..<10, using: &random) {
        case 0...1: return OwnedEntry(key, .delete)
        case 2...4:
            guard let old else { return OwnedEntry(key, .append, value) }
            if old.expiry == .never || !clock.isExpired(old.expiry) {
                return OwnedEntry(key, .append, value, expiry: old.expiry)
            }
            return OwnedEntry(key, .put, value)
        case 5...6:
            let later = UInt64.random(in: 1...400, using: &random)
            let expiry =
                Bool.random(using: &random)
                ? Expiry.processingTime(milliseconds: clock.processing + later)
                : Expiry.eventTime(milliseconds: clock.event + later)
            return OwnedEntry(key, .put, value, expiry: expiry)
        default: return OwnedEntry(key, .put, value)
        }
    }
}

func randomOptions(_ random: inout SeededRandom) -> EngineOptions {
    var options = EngineOptions(directory: "/data")
    options.memtableBytes = .random(in: 4096...40_000, using: &random)
    options.sealedMemtablesMax = .random(in: 1...4, using: &random)
    options.blockCacheBytes = [0, 10_000, 1 << 20].randomElement(using: &random)!
    options.log = LogMode.allCases.randomElement(using: &random)!
    options.queuedLogBytesMax = [2_000, 1 << 20].randomElement(using: &random)!
    options.table.blockSizeBytes = .random(in: 64...2048, using: &random)
    options.table.blocksPerPartition = .random(in: 1...8, using: &random)
    options.table.filterBitsPerKey = .random(in: 0...12, using: &random)
    options.values = randomValueOptions(&random)
    options.compaction.levelZeroTrigger = .random(in: 1...4, using: &random)
    options.compaction.levelZeroStop = options.compaction.levelZeroTrigger + .random(in: 1...6, using: &random)
    options.compaction.upperRunsMax = .random(in: 1...5, using: &random)
    options.compaction.garbagePercent = .random(in: 1...150, using: &random)
    options.compaction.deletePercent = .random(in: 1...100, using: &random)
    options.compaction.quietMilliseconds = [1, 50, 1000].randomElement(using: &random)!
    options.compaction.restPercent = [0, 100, 1000].randomElement(using: &random)!
    options.compaction.visiblePercent = .random(in: 0...100, using: &random)
    options.compaction.deleteAgeMilliseconds = [1, 1000, 3_600_000].randomElement(using: &random)!
    options.compaction.reclaimLagMilliseconds = [1, 1000, 3_600_000].randomElement(using: &random)!
    options.compaction.targetFileBytes = .random(in: 1_000...30_000, using: &random)
    options.compaction.partBytes = options.compaction.targetFileBytes + .random(in: 0...50_000, using: &random)
    return options
}

/// Value files in three runs of four: from values of a few bytes on, in files of a few values.
func randomValueOptions(_ random: inout SeededRandom) -> ValueOptions {
    var options = ValueOptions()
    options.thresholdBytes = Int.random(in: 0...3, using: &random) == 0 ? 0 : .random(in: 32...150, using: &random)
    options.livePercent = .random(in: 0...100, using: &random)
    options.fileBytesMax = .random(in: 200...20_000, using: &random)
    options.smallFileBytes = .random(in: 0...5_000, using: &random)
    return options
}

/// A store that is rescaled, restored and restarted while it is written to.
private final class ModelRun {
    struct Part {
        var tree: Tree
        /// What every write so far amounts to.
        var model: ModelStore
        /// What the tree began this epoch with in this process, and the batches since, to find the state after a crash.
        var base: ModelStore
        var baseSequence: UInt64
        var batches: [OwnedBatch] = []
    }
    struct Checkpoint {
        let handles: [String]
        let model: ModelStore
    }

    let seed: UInt64
    let options: EngineOptions
    let disk: MemoryFileSystem
    var random: SeededRandom
    var generator: BatchGenerator
    var harness: EngineHarness
    var parts: [Part] = []
    var checkpoints: [Checkpoint] = []
    var nextCheckpoint: UInt64 = 1
    var epoch: UInt64 = 1
    var watermark: UInt64 = 1000

    static let groups = KeyGroupRange(first: 0, last: 31)

    init(seed: UInt64) throws {
        self.seed = seed
        random = SeededRandom(seed: seed)
        options = randomOptions(&random)
        disk = MemoryFileSystem(seed: seed)
        generator = BatchGenerator(
            random: SeededRandom(seed: seed ^ 0xABCD), keysPerGroup: .random(in: 1...20, using: &random),
            valueBytesMax: .random(in: 1...200, using: &random))
        harness = try EngineHarness(options, fileSystem: disk, seed: seed)
        harness.pointStates = randomPointStates()
        try rescale(from: nil)
    }

    func run(operations: Int) throws {
        for _ in 0..<operations { try operate() }
        try verify()
        try leaveNothing()
        harness.engine.close()
    }

    /// What is on the disk is sound, and goes with the last that refers to it.
    private func leaveNothing() throws {
        harness.scheduler.runUntilIdle()
        let found = try DirectoryVerification.run("/data", deep: true, fileSystem: disk)
        #expect(found.faults.isEmpty, "seed \(seed): \(found.faults)")
        while !checkpoints.isEmpty { release() }
        let ids = parts.map(\.tree.id)
        parts = []
        for id in ids { try harness.retire(id) }
        harness.scheduler.runUntilIdle()
        #expect(disk.paths.filter { $0.hasPrefix("/data/tables/") } == [], "seed \(seed)")
    }

    private func operate() throws {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<60: try write()
        case 60..<75: for _ in 0..<Int.random(in: 1...20, using: &random) { harness.scheduler.step() }
        case 75..<83: harness.scheduler.advance(milliseconds: .random(in: 1...100, using: &random))
        case 83..<89: watermark += .random(in: 1...100, using: &random)
        case 89..<93: try verify()
        case 93..<95: try checkpoint()
        case 95: try rescale(from: nil)
        case 96: if let checkpoint = checkpoints.randomElement(using: &random) { try rescale(from: checkpoint) }
        case 97: Bool.random(using: &random) ? release() : declare()
        case 98: try restart(cleanly: true)
        default: try restart(cleanly: false)
        }
    }

    private func write() throws {
        let index = Int.random(in: parts.indices, using: &random)
        let tree = parts[index].tree
        let clock = harness.clock(tree)
        let batch = generator.batch(in: tree.identity.keyGroups, model: parts[index].model, clock: clock)
        try harness.writeDurably(tree, batch, watermark: watermark)
        parts[index].model.apply(batch)
        parts[index].batches.append(batch)
    }

    /// States become point states, or stop being it, while there are entries of them.
    private func declare() {
        harness.pointStates = randomPointStates()
        for part in parts { part.tree.declare(pointStates: harness.pointStates) }
    }

    private func randomPointStates() -> PointStates {
        PointStates((1...3).filter { _ in Bool.random(using: &random) })
    }

    /// The watermark of a tree that comes back may be older than what it showed before; a writer sends it first of all.
    private func refreshWatermark(_ index: Int) throws {
        let empty = OwnedBatch([])
        try harness.writeDurably(parts[index].tree, empty, watermark: watermark)
        parts[index].batches.append(empty)
    }

    private func verify() throws {
        for part in parts {
            let clock = harness.clock(part.tree)
            let expected = part.model.scan(clock)
            let found = try harness.scan(part.tree, pageEntries: .random(in: 1...50, using: &random))
            #expect(found.map(\.key) == expected.map(\.key), "seed \(seed)")
            #expect(found.map(\.stored) == expected.map(\.stored), "seed \(seed)")
            for _ in 0..<20 {
                let groups = part.tree.identity.keyGroups
                let key = generator.key(
                    .random(in: groups.first...groups.last, using: &random),
                    .random(in: 0..<(generator.keysPerGroup + 2), using: &random))
                #expect(try harness.get(part.tree, key) == part.model.get(key, clock), "seed \(seed)")
            }
            try verifyMultiGet(part, clock)
            #expect(part.tree.statistics.readOnlyCause == nil)
        }
    }

    /// Keys of the tree, of its neighbours and of nobody, some of them twice.
    private func verifyMultiGet(_ part: Part, _ clock: ExpiryClock) throws {
        let wanted = (0..<Int.random(in: 0...100, using: &random)).map { _ in
            makeKey(
                .random(in: ModelRun.groups.first...ModelRun.groups.last, using: &random),
                "key-\(Int.random(in: 0..<(generator.keysPerGroup + 2), using: &random))")
        }
        let keys = OwnedKeys(wanted)
        let groups = part.tree.identity.keyGroups
        var result = LookupResult()
        var next = 0
        try part.tree.multiGet(
            count: keys.count, clock: clock, scratch: &result, key: { keys[$0] },
            visit: { index, value, expiry in
                #expect(index == next, "seed \(seed)")
                next += 1
                let key = wanted[index]
                let isOurs = groups.contains(UInt16(key[0]) << 8 | UInt16(key[1]))
                let expected = isOurs ? part.model.get(key, clock) : nil
                #expect(value.map { Array($0) } == expected?.value, "seed \(seed)")
                #expect(expected == nil || expiry == expected?.expiry, "seed \(seed)")
                return true
            })
        #expect(next == keys.count, "seed \(seed)")
    }

    private func checkpoint() throws {
        var handles: [String] = []
        var model = ModelStore()
        let number = nextCheckpoint
        nextCheckpoint += 1
        // Asked for in one go, answered in any order, with writes in between that must not be in it.
        let answers = parts.map { part in
            let answer = Answer<Result<SnapshotInfo, EngineError>>()
            part.tree.snapshot(checkpoint: number) { answer.set($0) }
            model.merge(part.model)
            return answer
        }
        for _ in 0..<3 { try write() }
        for answer in answers {
            #expect(harness.scheduler.run { answer.value != nil })
            handles.append(try #require(answer.value).get().handle)
        }
        let again = try harness.snapshot(parts[0].tree, number)
        #expect(again.handle == handles[0], "a checkpoint asked for twice is one snapshot, seed \(seed)")
        checkpoints.append(Checkpoint(handles: handles, model: model))
    }

    private func release() {
        guard !checkpoints.isEmpty else { return }
        let released = checkpoints.remove(at: .random(in: checkpoints.indices, using: &random))
        #expect(harness.engine.releaseSnapshots(released.handles) == released.handles.count)
        #expect(harness.engine.releaseSnapshots(released.handles) == 0)
    }

    /// Replaces all trees by others, cut at random key groups.
    private func rescale(from restored: Checkpoint?) throws {
        var source = restored
        if source == nil && !parts.isEmpty {
            try checkpoint()
            source = checkpoints.last
        }
        epoch += 1
        let cuts = Set(
            (0..<Int.random(in: 0...3, using: &random)).map { _ in UInt16.random(in: 1...31, using: &random) })
        let firsts = [0] + cuts.sorted()
        var next: [Part] = []
        for (index, first) in firsts.enumerated() {
            let last = index + 1 < firsts.count ? firsts[index + 1] - 1 : ModelRun.groups.last
            let groups = KeyGroupRange(first: first, last: last)
            let identity = TreeIdentity(store: "model", keyGroups: groups, keyGroupCount: 32)
            let tree = try harness.create(
                identity, epoch: epoch, from: source?.handles ?? [],
                replacing: index == 0 ? parts.map(\.tree.id) : [])
            let model = source?.model.clipped(to: groups) ?? ModelStore()
            next.append(Part(tree: tree, model: model, base: model, baseSequence: 0))
        }
        parts = next
        for index in parts.indices { try refreshWatermark(index) }
    }

    private func restart(cleanly: Bool) throws {
        if cleanly { for part in parts { try harness.close(part.tree) } }
        harness.engine.close()
        let now = harness.scheduler.time.wallMilliseconds
        let ids = parts.map(\.tree.id)
        harness = try EngineHarness(
            options, fileSystem: disk, seed: random.next(), wallMilliseconds: now)
        harness.pointStates = randomPointStates()
        #expect(harness.engine.treeInfos().map(\.id) == ids.sorted(), "seed \(seed)")
        #expect(harness.engine.damagedParts.isEmpty)
        for index in parts.indices {
            let tree = try harness.open(ids[index])
            let lost = parts[index].baseSequence + UInt64(parts[index].batches.count) - tree.lastSequence
            // The process died, the machine did not: only a store without a log may have lost writes.
            if cleanly || options.log != .off { #expect(lost == 0, "seed \(seed)") }
            parts[index].batches.removeLast(Int(lost))
            var model = parts[index].base
            for batch in parts[index].batches { model.apply(batch) }
            parts[index].model = model
            parts[index].base = model
            parts[index].baseSequence = tree.lastSequence
            parts[index].batches = []
            parts[index].tree = tree
            try refreshWatermark(index)
        }
    }
}

@Suite struct ModelTests {
    @Test(arguments: Seeds.seeds(count: 30)) func aTreeBehavesLikeADictionary(seed: UInt64) throws {
        Seeds.announce("aTreeBehavesLikeADictionary", seed)
        try ModelRun(seed: seed).run(operations: 400)
    }
}
