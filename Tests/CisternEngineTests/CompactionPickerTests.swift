import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// A file of 1000 bytes between two keys of one key group each.
private func file(
    _ number: UInt64, _ first: UInt16, _ last: UInt16, bytes: UInt64 = 1000, deletes: UInt64 = 0,
    expiry: UInt64? = nil, window: KeyGroupRange? = nil
) -> FileRecord {
    var summary = TableSummary()
    summary.entryCount = 10
    summary.deleteCount = deletes
    summary.neverExpiringCount = expiry == nil ? 10 - deletes : 0
    summary.maxExpiryProcessing = expiry ?? 0
    summary.keyGroups = KeyGroupRange(first: first, last: last)
    summary.smallestKey = makeKey(first, "a")
    summary.largestKey = makeKey(last, "z")
    summary.fileBytes = bytes
    return FileRecord(number: number, window: window ?? KeyGroupRange(first: 0, last: 127), summary: summary)
}

private func levels(_ files: [Int: [FileRecord]]) -> [[FileRecord]] {
    (0..<TreeState.levelCount).map { files[$0] ?? [] }
}

@Suite struct CompactionPickerTests {
    let clock = ExpiryClock(processing: 1000, event: 1000)
    var options: CompactionOptions {
        var options = CompactionOptions()
        options.levelZeroTrigger = 3
        return options
    }
    var picker: CompactionPicker { CompactionPicker(options: options) }

    private func pick(
        _ levels: [[FileRecord]], running: [CompactionPlan] = [], ages: [UInt64: UInt64] = [:]
    ) -> CompactionPlan? {
        var conditions = CompactionConditions(clock: clock)
        conditions.running = running
        conditions.deleteAges = ages
        return picker.pick(levels, &conditions)
    }

    private func numbers(_ plan: CompactionPlan?) -> [UInt64] { plan?.inputs.map(\.file.number) ?? [] }

    @Test func nothingToDoIsNothing() {
        #expect(pick(levels([:])) == nil)
        #expect(pick(levels([0: [file(2, 0, 9), file(1, 0, 9)], 6: [file(3, 0, 9)]])) == nil)
    }

    // MARK: Values

    private func pointing(_ file: FileRecord, to values: [UInt64: UInt64], of fileBytes: UInt64 = 1064) -> FileRecord {
        var summary = file.summary
        summary.values = values.keys.sorted().map {
            ValueFileUse(number: $0, fileBytes: fileBytes, entryCount: 1, recordBytes: values[$0] ?? 0)
        }
        return FileRecord(number: file.number, window: file.window, summary: summary)
    }

    @Test func filesThatPointToGarbageAreRewrittenWhereTheyAre() throws {
        let files = levels([
            5: [pointing(file(5, 0, 9), to: [90: 100])],
            6: [
                pointing(file(1, 0, 9, bytes: 1_000_000), to: [90: 300, 91: 900]),
                pointing(file(2, 10, 19, bytes: 1_000_000), to: [91: 10]),
            ],
        ])
        #expect(pick(files) == nil)
        var conditions = CompactionConditions(clock: clock)
        conditions.garbageValues = [90]
        let first = try #require(picker.pick(files, &conditions))
        #expect(numbers(first) == [5] && first.kind == .merge && first.outputLevel == 5 && !first.isBottommost)
        #expect(first.priority == .cleanup)
        conditions.running = [first]
        #expect(picker.pick(files, &conditions) == nil)
        let rest = levels([6: files[6]])
        conditions.running = []
        let second = try #require(picker.pick(rest, &conditions))
        #expect(numbers(second) == [1] && second.outputLevel == 6 && second.isBottommost)
    }

    @Test func whatATreeUsesOfAValueFileIsTheSumOverItsFiles() {
        let usage = [
            pointing(file(5, 0, 9), to: [90: 100]), pointing(file(1, 0, 9), to: [90: 300, 91: 1000]),
            // A window on one of ten key groups.
            pointing(file(2, 10, 19, window: KeyGroupRange(first: 12, last: 12)), to: [92: 500]),
        ].valueUsage
        #expect(usage[90]?.liveBytes == 400 && usage[90]?.deadBytes == 600 && usage[90]?.totalBytes == 1000)
        #expect(usage[91]?.liveBytes == 1000 && usage[91]?.deadBytes == 0)
        #expect(usage[92]?.liveBytes == 50)
        #expect([file(1, 0, 9)].valueUsage.isEmpty)
    }

    // MARK: Level 0

    @Test func levelZeroBecomesARunInTheDeepestFreeLevel() throws {
        let runs = [file(3, 0, 9), file(2, 5, 12), file(1, 0, 6)]
        let first = try #require(pick(levels([0: runs])))
        #expect(numbers(first) == [3, 2, 1])
        #expect(first.kind == .merge && first.outputLevel == 6 && first.isBottommost && first.priority == .levelZero)
        let above = try #require(pick(levels([0: runs, 6: [file(9, 0, 20, bytes: 50_000)]])))
        #expect(numbers(above) == [3, 2, 1])
        #expect(above.outputLevel == 5 && !above.isBottommost)
        let between = try #require(
            pick(levels([0: runs, 4: [file(8, 0, 20, bytes: 9000)], 6: [file(9, 0, 20, bytes: 50_000)]])))
        #expect(numbers(between) == [3, 2, 1])
        #expect(between.outputLevel == 3)
    }

    @Test func smallerRunsComeAlong() throws {
        let plan = try #require(
            pick(
                levels([
                    0: [file(3, 0, 9), file(2, 5, 12), file(1, 0, 6)],
                    4: [file(4, 0, 4, bytes: 300), file(5, 10, 20, bytes: 300), file(6, 21, 30, bytes: 300)],
                    5: [file(7, 12, 13, bytes: 4000)], 6: [file(8, 0, 99, bytes: 50_000)],
                ])))
        #expect(numbers(plan) == [3, 2, 1, 4, 5])
        #expect(plan.inputs.map(\.level) == [0, 0, 0, 4, 4])
        #expect(plan.outputLevel == 4)
        #expect(!plan.isBottommost)
    }

    @Test func supernumeraryRunsComeAlong() throws {
        let plan = try #require(
            pick(
                levels([
                    0: [file(3, 0, 9), file(2, 5, 12), file(1, 0, 6)],
                    3: [file(4, 0, 9, bytes: 7000)], 4: [file(5, 0, 9, bytes: 30_000)],
                    5: [file(6, 0, 9, bytes: 90_000)], 6: [file(8, 0, 9, bytes: 900_000)],
                ])))
        #expect(numbers(plan) == [3, 2, 1, 4])
        #expect(plan.outputLevel == 3)
    }

    @Test func runsThatDoNotOverlapAreNotDeep() throws {
        // The union of three trees: a read meets one run of each group.
        let apart = [file(3, 0, 9), file(2, 10, 19), file(1, 20, 29)]
        #expect(CompactionPicker.levelZeroDepth(apart) == 1)
        #expect(pick(levels([0: apart])) == nil)
        let deep = [file(5, 12, 13), file(4, 11, 13)] + apart
        #expect(CompactionPicker.levelZeroDepth(deep) == 3)
        #expect(numbers(pick(levels([0: deep]))) == [5, 4, 2])
    }

    @Test func newRunsWaitForTheOlderOnesOnTheirWay() throws {
        let runs = [file(3, 0, 9), file(2, 5, 12), file(1, 0, 6)]
        let running = try #require(pick(levels([0: runs])))
        let newer = [file(6, 0, 9), file(5, 0, 9), file(4, 0, 9)]
        #expect(pick(levels([0: newer + runs]), running: [running]) == nil)
        // Somewhere else they need not wait.
        let elsewhere = [file(6, 40, 49), file(5, 40, 49), file(4, 40, 49)]
        #expect(numbers(pick(levels([0: elsewhere + runs]), running: [running])) == [6, 5, 4])
    }

    @Test func levelZeroDoesNotWaitForADeepCompaction() throws {
        let old = levels([5: [file(1, 0, 9, bytes: 40_000)], 6: [file(2, 0, 9, bytes: 60_000)]])
        let deep = try #require(pick(old))
        #expect(deep.priority == .deep && numbers(deep) == [1, 2] && deep.outputLevel == 6)
        var busy = old
        busy[0] = [file(5, 0, 9), file(4, 0, 9), file(3, 0, 9)]
        let plan = try #require(pick(busy, running: [deep]))
        #expect(numbers(plan) == [5, 4, 3])
        #expect(plan.outputLevel == 4)
    }

    @Test func aRunFullOfDeletesCountsTwice() {
        #expect(numbers(pick(levels([0: [file(2, 0, 9, deletes: 8), file(1, 0, 9)]]))) == [2, 1])
    }

    // MARK: Upper levels

    @Test func levelsSinkWithoutBeingRead() throws {
        let plan = try #require(
            pick(levels([2: [file(1, 0, 9), file(2, 10, 19, deletes: 3)], 6: [file(3, 0, 30, bytes: 90_000)]])))
        #expect(plan.kind == .move && plan.outputLevel == 5)
        #expect(numbers(plan) == [1, 2])
    }

    @Test func garbageSendsTheFileDownThatRewritesLeast() throws {
        let files = levels([
            5: [file(1, 0, 9), file(2, 10, 19), file(3, 20, 29)],
            6: [file(4, 0, 9, bytes: 5000), file(5, 12, 13, bytes: 100), file(6, 20, 29, bytes: 300)],
        ])
        let plan = try #require(pick(files))
        #expect(numbers(plan) == [2, 5])
        #expect(plan.outputLevel == 6 && plan.kind == .merge && plan.isBottommost)
        // The next one goes beside it.
        let next = try #require(pick(files, running: [plan]))
        #expect(numbers(next) == [3, 6])
        #expect(pick(files, running: [plan, next]) == nil)
    }

    @Test func whatLiesBetweenGoesDownToo() throws {
        let plan = try #require(
            pick(
                levels([
                    4: [file(1, 0, 9, bytes: 30_000)], 5: [file(2, 8, 12), file(3, 13, 14)],
                    6: [file(4, 0, 3), file(5, 12, 13, bytes: 50_000)],
                ])))
        // Group 12 came in with file 2, so the file that holds its older entries must follow.
        #expect(numbers(plan) == [1, 2, 4, 5] || numbers(plan) == [3, 5])
        if plan.inputs[0].file.number == 1 { #expect(plan.outputLevel == 6) }
    }

    @Test func newKeysStayWhereTheyAre() {
        var conditions = CompactionConditions(clock: clock)
        let files = levels([5: [file(1, 0, 9, bytes: 500)], 6: [file(4, 0, 9)]])
        #expect(picker.pick(files, &conditions) != nil)
        conditions = CompactionConditions(clock: clock)
        for _ in 0..<4 { conditions.feedback.merged(upperEntries: 100, inputEntries: 300, outputEntries: 300) }
        #expect(picker.pick(files, &conditions) == nil)
        for _ in 0..<4 { conditions.feedback.merged(upperEntries: 100, inputEntries: 300, outputEntries: 200) }
        #expect(picker.pick(files, &conditions) != nil)
    }

    @Test func aFileWithNothingBelowMovesUnlessItsDeletesCanGo() throws {
        let plan = try #require(pick(levels([5: [file(1, 0, 9)]])))
        #expect(plan.kind == .move && plan.outputLevel == 6)
        #expect(pick(levels([5: [file(1, 0, 9, deletes: 4)]]))?.kind == .merge)
    }

    // MARK: Clean-up

    @Test func filesFullOfDeletesAreMergedDownWhereThatIsCheap() throws {
        let cheap = levels([5: [file(1, 0, 9, deletes: 6)], 6: [file(2, 0, 9, bytes: 7000)]])
        let plan = try #require(pick(cheap))
        #expect(numbers(plan) == [1, 2] && plan.priority == .cleanup)
        #expect(pick(levels([5: [file(1, 0, 9, deletes: 6)], 6: [file(2, 0, 9, bytes: 70_000)]])) == nil)
        #expect(pick(levels([5: [file(1, 0, 9, deletes: 4)], 6: [file(2, 0, 9, bytes: 7000)]])) == nil)
    }

    @Test func oldDeletesAreMergedDown() throws {
        let files = levels([5: [file(1, 0, 9, deletes: 1)], 6: [file(2, 0, 9, bytes: 70_000)]])
        #expect(pick(files, ages: [1: options.deleteAgeMilliseconds - 1]) == nil)
        #expect(numbers(pick(files, ages: [1: options.deleteAgeMilliseconds])) == [1, 2])
        let above = levels([0: [file(1, 0, 9, deletes: 1)], 6: [file(2, 0, 9, bytes: 70_000)]])
        let plan = try #require(pick(above, ages: [1: options.deleteAgeMilliseconds]))
        #expect(plan.outputLevel == 5)
    }

    @Test func aFileMostlyHiddenByItsWindowIsRewrittenInPlace() throws {
        let narrow = KeyGroupRange(first: 0, last: 9)
        let files = levels([6: [file(1, 0, 63, window: narrow), file(2, 64, 70)]])
        let plan = try #require(pick(files))
        #expect(numbers(plan) == [1] && plan.kind == .merge && plan.outputLevel == 6 && plan.priority == .cleanup)
        let wide = KeyGroupRange(first: 0, last: 40)
        #expect(pick(levels([6: [file(1, 0, 63, window: wide), file(2, 64, 70)]])) == nil)
    }

    @Test func windowsLimitOverlapAndSize() throws {
        let left = KeyGroupRange(first: 0, last: 31)
        let right = KeyGroupRange(first: 32, last: 63)
        // Both windows of one file, each half of it: together one file's bytes.
        let shared = [file(1, 0, 63, window: left), file(1, 0, 63, window: right), file(2, 64, 70)]
        #expect(shared.map(\.windowedBytes) == [500, 500, 1000])
        #expect(pick(levels([6: shared])) == nil)
        let bounds = KeyBounds(smallest: makeKey(40, "a"), largest: makeKey(41, "a"))
        #expect(!shared[0].overlaps(bounds))
        #expect(shared[1].overlaps(bounds))
        #expect(shared[0].clipped(to: right) == nil)
        #expect(shared[1].clipped(to: KeyGroupRange(first: 60, last: 90))?.window == KeyGroupRange(first: 60, last: 63))
    }

    // MARK: Expiry

    @Test func wholeFilesOfExpiredEntriesAreDropped() throws {
        let plan = try #require(pick(levels([1: [file(1, 0, 9, expiry: 1000), file(2, 10, 19, expiry: 1001)]])))
        #expect(plan.kind == .drop)
        #expect(numbers(plan) == [1])
    }

    @Test func anExpiredFileStaysWhileItHidesOlderEntries() throws {
        let hiding = levels([5: [file(1, 0, 9, bytes: 100, expiry: 900)], 6: [file(2, 5, 6)]])
        #expect(pick(hiding) == nil)
        // When the older file is as dead, both go; in level 0 age decides.
        let dead = levels([0: [file(4, 0, 9, expiry: 900), file(3, 0, 9)], 6: [file(2, 5, 6, expiry: 800)]])
        #expect(numbers(pick(dead)) == [2])
        let both = levels([0: [file(4, 0, 9), file(3, 0, 9, expiry: 900)], 6: [file(2, 5, 6, expiry: 800)]])
        #expect(numbers(pick(both)) == [2, 3])
    }

    @Test func anExpiredFileDoesNotGoFromUnderARunningCompaction() throws {
        let files = levels([5: [file(1, 0, 9, bytes: 9000)], 6: [file(2, 0, 9, expiry: 1001)]])
        let running = try #require(pick(files))
        #expect(numbers(running) == [1, 2])
        var later = CompactionConditions(clock: ExpiryClock(processing: 2000, event: 1000))
        later.running = [running]
        #expect(picker.pick(files, &later) == nil)
    }

    @Test func longExpiredFilesTakeAlongWhatTheyHide() throws {
        let files = levels([5: [file(1, 0, 9, bytes: 100, expiry: 900)], 6: [file(2, 5, 6)]])
        var conditions = CompactionConditions(clock: clock)
        conditions.clock.processing = 900 + options.reclaimLagMilliseconds
        #expect(picker.pick(files, &conditions) == nil)
        conditions.clock.processing += 1
        let plan = try #require(picker.pick(files, &conditions))
        #expect(numbers(plan) == [1, 2] && plan.priority == .cleanup)
    }

    // MARK: Parts

    @Test func partsCoverThePlanAndDoNotMeet() throws {
        let plan = try #require(pick(levels([0: [file(3, 0, 9), file(2, 5, 12), file(1, 3, 6)]])))
        let parts = plan.parts(bytes: 700, partsMax: 16)
        #expect(parts.count == 4)
        #expect(parts.allSatisfy { $0.outputLevel == plan.outputLevel && $0.isBottommost == plan.isBottommost })
        for group: UInt16 in 0...12 {
            let shown = parts.flatMap(\.inputs).filter {
                $0.file.window.contains(group) && $0.file.summary.keyGroups.contains(group)
            }
            let whole = plan.inputs.filter { $0.file.summary.keyGroups.contains(group) }
            #expect(shown.map(\.file.number) == whole.map(\.file.number))
        }
        #expect(plan.parts(bytes: 700, partsMax: 2).count == 2)
        #expect(plan.parts(bytes: 4000, partsMax: 16) == [plan])
    }
}
