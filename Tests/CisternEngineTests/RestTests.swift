import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

private func file(
    _ number: UInt64, _ first: UInt16, _ last: UInt16, bytes: UInt64 = 1000,
    expiries: (never: UInt64, earliest: UInt64, latest: UInt64)? = nil
) -> FileRecord {
    var summary = TableSummary()
    summary.entryCount = 10
    summary.neverExpiringCount = expiries?.never ?? 10
    summary.minExpiryProcessing = expiries?.earliest ?? 0
    summary.maxExpiryProcessing = expiries?.latest ?? 0
    summary.keyGroups = KeyGroupRange(first: first, last: last)
    summary.smallestKey = makeKey(first, "a")
    summary.largestKey = makeKey(last, "z")
    summary.fileBytes = bytes
    return FileRecord(number: number, window: KeyGroupRange(first: 0, last: 127), summary: summary)
}

private func levels(_ files: [Int: [FileRecord]]) -> [[FileRecord]] {
    (0..<TreeState.levelCount).map { files[$0] ?? [] }
}

/// What is picked when nothing is due.
@Suite struct RestPickerTests {
    let picker = CompactionPicker(options: CompactionOptions())
    let clock = ExpiryClock(processing: 1000, event: 0)

    /// - Parameter budget: paid for by writes and time; `read` by reads.
    private func plan(_ levels: [[FileRecord]], budget: UInt64 = .max, read: UInt64 = 0) -> CompactionPlan? {
        picker.restPlan(levels, clock: clock, budget: RestBudget(whole: budget, partial: read))
    }

    private func numbers(_ plan: CompactionPlan?) -> [UInt64] { plan?.inputs.map(\.file.number) ?? [] }

    @Test func oneRunIsLeftAlone() {
        #expect(plan(levels([:])) == nil)
        #expect(plan(levels([0: [file(1, 0, 9)]])) == nil)
        #expect(plan(levels([6: [file(1, 0, 9), file(2, 10, 19)]])) == nil)
        // Trees united side by side: a key is in one file.
        #expect(plan(levels([0: [file(2, 20, 29)], 6: [file(1, 0, 9)]])) == nil)
    }

    @Test func allRunsBecomeOneWhenTheBudgetHasThem() throws {
        let files = levels([
            0: [file(4, 0, 9), file(3, 5, 12)], 5: [file(2, 0, 12, bytes: 3000)], 6: [file(1, 0, 20, bytes: 9000)],
        ])
        let all = try #require(plan(files, budget: 14_000))
        #expect(numbers(all) == [4, 3, 2, 1] && all.outputLevel == 6 && all.isBottommost && all.priority == .rest)
    }

    @Test func readsPayForAPartOfTheWay() throws {
        let files = levels([
            0: [file(4, 0, 9), file(3, 5, 12)], 5: [file(2, 0, 12, bytes: 3000)], 6: [file(1, 0, 20, bytes: 9000)],
        ])
        let three = try #require(plan(files, budget: 13_999, read: 13_999))
        #expect(numbers(three) == [4, 3, 2] && three.outputLevel == 5 && !three.isBottommost)
        let two = try #require(plan(files, budget: 13_999, read: 4999))
        #expect(numbers(two) == [4, 3] && two.outputLevel == 4)
        #expect(plan(files, budget: 1999, read: 1999) == nil)
    }

    @Test func writesPayForTheWholeWayOnly() {
        let files = levels([0: [file(4, 0, 9), file(3, 5, 12)], 6: [file(1, 0, 20, bytes: 9000)]])
        #expect(plan(files, budget: 10_999) == nil)
        #expect(numbers(plan(files, budget: 11_000)) == [4, 3, 1])
    }

    @Test func aLoneRunWaitsUntilItsWayDownIsPaid() throws {
        let files = levels([0: [file(2, 0, 9)], 6: [file(1, 0, 20, bytes: 9000)]])
        #expect(plan(files, budget: 9999) == nil)
        #expect(numbers(plan(files, budget: 10_000)) == [2, 1])
    }

    @Test func upperFilesGoDownOneByOneTheCheapestFirst() throws {
        let files = levels([
            5: [file(5, 0, 9), file(4, 10, 19), file(3, 30, 39)],
            6: [file(2, 0, 9, bytes: 9000), file(1, 10, 19, bytes: 5000)],
        ])
        let moved = try #require(plan(files, budget: 0))
        #expect(numbers(moved) == [3] && moved.kind == .move && moved.outputLevel == 6)
        let rest = levels([5: [file(5, 0, 9), file(4, 10, 19)], 6: files[6]])
        #expect(numbers(plan(rest)) == [4, 1])
        #expect(plan(rest, budget: 5999) == nil)
    }

    @Test func aTreeLargerThanAPlanGoesDownInPieces() throws {
        let large: UInt64 = 3 << 30
        let files = levels([0: [file(3, 0, 9)], 5: [file(2, 0, 9, bytes: large)], 6: [file(1, 0, 9, bytes: large)]])
        let first = try #require(plan(files))
        #expect(numbers(first) == [3] && first.kind == .move && first.outputLevel == 4)
        let moved = levels([4: files[0], 5: files[5], 6: files[6]])
        #expect(numbers(plan(moved)).contains(2))
    }

    @Test func filesOfWhichMuchHasExpiredAreRewritten() {
        // Half of the entries never expire; the others do between 500 and 1500, and it is 1000.
        let some = file(1, 0, 9, expiries: (never: 5, earliest: 500, latest: 1500))
        #expect(plan(levels([6: [some]])) == nil)
        let most = file(1, 0, 9, expiries: (never: 1, earliest: 500, latest: 1500))
        #expect(numbers(plan(levels([6: [most]]))) == [1])
        let gone = file(1, 0, 9, expiries: (never: 5, earliest: 500, latest: 900))
        #expect(numbers(plan(levels([6: [gone]]))) == [1])
        #expect(plan(levels([6: [gone]]), budget: 999) == nil)
    }
}

@Suite struct RestCreditTests {
    @Test func writesPayOnlyWhileItIsQuiet() {
        var credit = RestCredit()
        credit.flushed(1000, percent: 100, treeBytes: 10_000)
        #expect(credit.budget(isQuiet: false).whole == 0)
        #expect(credit.budget(isQuiet: true).whole == 1000)
        credit.spend(800)
        #expect(credit.budget(isQuiet: true).whole == 200)
    }

    @Test func aBurstNeverPaysForMoreThanItsOwnBytes() {
        var credit = RestCredit()
        var spent: UInt64 = 0
        var flushed: UInt64 = 0
        for burst in 0..<100 {
            flushed += 64
            credit.flushed(64, percent: 100, treeBytes: 5000)
            // Whatever is merged, greedily.
            let budget = credit.budget(isQuiet: true).whole
            if burst % 3 == 0 {
                credit.spend(budget)
                spent += budget
            }
            #expect(spent <= flushed)
        }
    }

    @Test func noMoreIsKeptThanTheTreeTakes() {
        var credit = RestCredit()
        for _ in 0..<1000 { credit.flushed(1000, percent: 100, treeBytes: 5000) }
        #expect(credit.budget(isQuiet: true).whole == 6250)
        credit.passed(1_000_000, treeBytes: 5000)
        #expect(credit.budget(isQuiet: false) == RestBudget(whole: 6250, partial: 6250))
    }

    @Test func readsPayAtAnyTimeForTheRunsTheyPassed() {
        var credit = RestCredit()
        credit.passed(100, treeBytes: 1 << 30)
        let paid = credit.budget(isQuiet: false).whole
        #expect(paid > 0)
        credit.passed(100, treeBytes: 1 << 30)
        #expect(credit.budget(isQuiet: false).whole == 2 * paid)
        credit.spend(2 * paid)
        #expect(credit.budget(isQuiet: true).whole == 0)
    }

    @Test func anIdleDayPaysForAllOfTheTree() {
        var credit = RestCredit()
        for _ in 0..<24 { credit.idled(milliseconds: 3_600_000, treeBytes: 1000) }
        #expect(credit.budget(isQuiet: true).whole >= 999)
        #expect(credit.budget(isQuiet: false).whole == 0)
    }
}

/// The same in a tree.
@Suite struct RestTests {
    /// Small memtables, so that a few hundred writes make several runs.
    private func fill(
        _ harness: EngineHarness, _ tree: Tree, _ model: inout ModelStore, keys: Int, writes: Int, seed: UInt64
    ) throws {
        var random = SeededRandom(seed: seed)
        for _ in 0..<writes {
            let key = makeKey(.random(in: 0...127, using: &random), "key-\(Int.random(in: 0..<keys, using: &random))")
            let entry = put(key, String(repeating: "v", count: .random(in: 50...200, using: &random)))
            model.apply(entry)
            try harness.writeDurably(tree, OwnedBatch([entry]))
        }
    }

    private func settle(_ harness: EngineHarness, _ tree: Tree) {
        let idle = Answer<Bool>()
        tree.whenIdle { idle.set(true) }
        #expect(harness.scheduler.run { idle.value != nil })
    }

    /// A tree of several runs without a look that has fired.
    private func made(_ seed: UInt64, _ change: (inout EngineOptions) -> Void = { _ in }) throws
        -> (EngineHarness, Tree, ModelStore)
    {
        var options = smallOptions()
        options.compaction.quietMilliseconds = 1000
        change(&options)
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: seed)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        var random = SeededRandom(seed: seed)
        while tree.statistics.runs < 3 || tree.statistics.flushes < 12 {
            try fill(harness, tree, &model, keys: 20, writes: 50, seed: random.next())
            settle(harness, tree)
        }
        return (harness, tree, model)
    }

    private func get(
        _ key: [UInt8], _ tree: Tree, _ harness: EngineHarness, _ result: inout LookupResult
    ) throws -> Bool {
        let clock = harness.clock(tree)
        return try key.withUnsafeBytes { try tree.get($0, clock: clock, into: &result) }
    }

    private func rest(_ harness: EngineHarness, milliseconds: UInt64) {
        harness.scheduler.advance(milliseconds: milliseconds)
        harness.scheduler.runUntilIdle()
    }

    @Test(arguments: Seeds.seeds(count: 4)) func aQuietTreeBecomesOneRunAndStaysAsItIs(seed: UInt64) throws {
        let (harness, tree, model) = try made(seed)
        for _ in 0..<20 { rest(harness, milliseconds: 1000) }
        #expect(tree.statistics.runs == 1)
        #expect(tree.statistics.restCompactions > 0)
        #expect(try harness.scan(tree).map(\.key) == model.scan(harness.clock(tree)).map(\.key))
        let compactions = tree.statistics.compactions
        for _ in 0..<100 { rest(harness, milliseconds: 3_600_000) }
        #expect(tree.statistics.compactions == compactions)
        #expect(try harness.scan(tree).map(\.key) == model.scan(harness.clock(tree)).map(\.key))
    }

    @Test func theSameSeedMergesTheSame() throws {
        let runs = try (0..<2).map { _ in
            let (harness, tree, _) = try made(77)
            for _ in 0..<20 { rest(harness, milliseconds: 700) }
            return tree.statistics
        }
        var (first, second) = (runs[0], runs[1])
        first.openMicroseconds = 0
        second.openMicroseconds = 0
        #expect(first == second)
    }

    @Test func idleDoesNotWaitForAMergeThatHasNotBegun() throws {
        let (harness, tree, _) = try made(3)
        #expect(tree.isIdle)
        #expect(tree.statistics.runs > 1)
        for _ in 0..<20 { rest(harness, milliseconds: 1000) }
        #expect(tree.isIdle)
        #expect(tree.statistics.runs == 1)
    }

    @Test func aTreeThatIsWrittenToIsNotQuiet() throws {
        let (harness, tree, start) = try made(4)
        var model = start
        let before = tree.statistics.restCompactions
        for round in 0..<30 {
            try fill(harness, tree, &model, keys: 20, writes: 1, seed: UInt64(round))
            rest(harness, milliseconds: 900)
        }
        #expect(tree.statistics.restCompactions == before)
    }

    @Test func noneIsDoneWithoutCreditForIt() throws {
        let (harness, tree, _) = try made(5) { $0.compaction.restPercent = 0 }
        for _ in 0..<100 { rest(harness, milliseconds: 10_000) }
        #expect(tree.statistics.restCompactions == 0)
    }

    /// Reads of a key that is not there, until they pay for a merge, which is done when this returns.
    private func readMuch(_ harness: EngineHarness, _ tree: Tree) throws {
        var result = LookupResult()
        let key = makeKey(5, "nowhere")
        var found = 0
        for _ in 0..<300_000 where try get(key, tree, harness, &result) { found += 1 }
        #expect(found == 0)
        harness.scheduler.runUntilIdle()
    }

    @Test func manyReadsMergeATreeThatIsNotQuiet() throws {
        let (harness, tree, _) = try made(6)
        try readMuch(harness, tree)
        #expect(tree.statistics.restCompactions > 0)
        #expect(tree.statistics.runs == 1)
    }

    @Test(arguments: Seeds.seeds(count: 8)) func levelZeroAndRequestsGoFirst(seed: UInt64) throws {
        let (harness, tree, start) = try made(seed)
        var model = start
        // The look has fired and the merge waits for its thread.
        harness.scheduler.advance(milliseconds: 1000)
        #expect(harness.scheduler.run { tree.statistics.restCompactions > 0 })
        try fill(harness, tree, &model, keys: 40, writes: 700, seed: seed)
        try harness.wait { done in tree.compact(completion: done) } as Void
        settle(harness, tree)
        #expect(tree.statistics.readOnlyCause == nil && tree.statistics.failures == 0)
        #expect(try harness.scan(tree).map(\.key) == model.scan(harness.clock(tree)).map(\.key))
    }

    @Test func aReopenedTreeIsMergedWhenReadsPay() throws {
        let disk = MemoryFileSystem()
        var options = smallOptions()
        options.compaction.levelZeroTrigger = 100
        options.compaction.levelZeroStop = 200
        var harness = try EngineHarness(options, fileSystem: disk, seed: 8)
        var tree = try harness.create(wholeRange)
        var model = ModelStore()
        while tree.statistics.runs < 4 { try fill(harness, tree, &model, keys: 20, writes: 50, seed: 8) }
        harness.engine.close()
        harness = try EngineHarness(options, fileSystem: disk, seed: 9)
        tree = try harness.open(tree.id)
        rest(harness, milliseconds: 5000)
        #expect(tree.statistics.restCompactions == 0)
        try readMuch(harness, tree)
        #expect(tree.statistics.runs == 1)
    }
}
