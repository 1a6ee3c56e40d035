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
    var picker: CompactionPicker {
        var options = CompactionOptions()
        options.levelZeroTrigger = 3
        options.levelOneBytes = 2000
        options.levelMultiplier = 10
        return CompactionPicker(options: options)
    }

    @Test func nothingToDoIsNothing() {
        #expect(picker.pick(levels([:]), clock: clock) == nil)
        #expect(picker.pick(levels([0: [file(2, 0, 9), file(1, 0, 9)], 1: [file(3, 0, 9)]]), clock: clock) == nil)
    }

    @Test func levelZeroGoesAsAWholeWithWhatItOverlaps() throws {
        let plan = try #require(
            picker.pick(
                levels([
                    0: [file(3, 0, 9), file(2, 5, 12), file(1, 0, 3)],
                    1: [file(4, 0, 4, bytes: 300), file(5, 10, 20, bytes: 300), file(6, 21, 30, bytes: 300)],
                    2: [file(7, 12, 13)],
                ]), clock: clock))
        #expect(plan.kind == .merge)
        #expect(plan.inputs.map(\.file.number) == [3, 2, 1, 4, 5])
        #expect(plan.inputs.map(\.level) == [0, 0, 0, 1, 1])
        #expect(plan.outputLevel == 1)
        #expect(!plan.isBottommost)
    }

    @Test func theMergeIsBottommostWhenNothingDeeperOverlaps() throws {
        let plan = try #require(
            picker.pick(
                levels([0: [file(3, 0, 9), file(2, 0, 9), file(1, 0, 9)], 2: [file(7, 10, 13)], 6: [file(8, 20, 30)]]),
                clock: clock))
        #expect(plan.isBottommost)
    }

    @Test func anOverfullLevelGivesTheFileThatOverlapsLeast() throws {
        let plan = try #require(
            picker.pick(
                levels([
                    1: [file(1, 0, 9), file(2, 10, 19), file(3, 20, 29)],
                    2: [file(4, 0, 9, bytes: 5000), file(5, 12, 13, bytes: 100), file(6, 20, 29, bytes: 300)],
                ]), clock: clock))
        #expect(plan.inputs.map(\.file.number) == [2, 5])
        #expect(plan.outputLevel == 2)
        #expect(plan.kind == .merge)
    }

    @Test func aFileWithNothingBelowMovesUnlessItsDeletesCanGo() throws {
        let moving = levels([
            1: [file(1, 0, 9), file(2, 10, 19), file(3, 20, 29)], 2: [file(4, 0, 9), file(6, 20, 29)],
        ])
        let plan = try #require(picker.pick(moving, clock: clock))
        #expect(plan.kind == .move)
        #expect(plan.inputs.map(\.file.number) == [2])
        var rewriting = moving
        rewriting[1][1] = file(2, 10, 19, deletes: 4)
        #expect(picker.pick(rewriting, clock: clock)?.kind == .merge)
        // With older files below the target the deletes must stay, so moving loses nothing.
        rewriting[3] = [file(9, 15, 16)]
        #expect(picker.pick(rewriting, clock: clock)?.kind == .move)
    }

    @Test func windowsLimitOverlapAndSize() throws {
        let left = KeyGroupRange(first: 0, last: 31)
        let right = KeyGroupRange(first: 32, last: 63)
        // Both windows of one file, each half of it: together one file's bytes.
        let shared = [file(1, 0, 63, window: left), file(1, 0, 63, window: right), file(2, 64, 70)]
        #expect(shared.map(\.windowedBytes) == [500, 500, 1000])
        #expect(picker.pick(levels([1: shared]), clock: clock) == nil)
        let bounds = KeyBounds(smallest: makeKey(40, "a"), largest: makeKey(41, "a"))
        #expect(!shared[0].overlaps(bounds))
        #expect(shared[1].overlaps(bounds))
        #expect(shared[0].clipped(to: right) == nil)
        #expect(shared[1].clipped(to: KeyGroupRange(first: 60, last: 90))?.window == KeyGroupRange(first: 60, last: 63))
    }

    @Test func wholeFilesOfExpiredEntriesAreDropped() throws {
        let plan = try #require(
            picker.pick(levels([1: [file(1, 0, 9, expiry: 1000), file(2, 10, 19, expiry: 1001)]]), clock: clock))
        #expect(plan.kind == .drop)
        #expect(plan.inputs.map(\.file.number) == [1])
    }

    @Test func anExpiredFileStaysWhileItHidesOlderEntries() throws {
        let hiding = levels([1: [file(1, 0, 9, expiry: 900)], 3: [file(2, 5, 6)]])
        #expect(picker.pick(hiding, clock: clock) == nil)
        // When the older file is as dead, both go; in level 0 age decides.
        let dead = levels([0: [file(4, 0, 9, expiry: 900), file(3, 0, 9)], 3: [file(2, 5, 6, expiry: 800)]])
        #expect(picker.pick(dead, clock: clock)?.inputs.map(\.file.number) == [2])
        let both = levels([0: [file(4, 0, 9), file(3, 0, 9, expiry: 900)], 3: [file(2, 5, 6, expiry: 800)]])
        #expect(picker.pick(both, clock: clock)?.inputs.map(\.file.number) == [2, 3])
    }

    /// Whatever is picked, applying it keeps levels sorted and apart, and picking comes to an end.
    @Test(arguments: Seeds.seeds(count: 24)) func picksConverge(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var state = TreeState(identity: wholeRange, epoch: 1, writer: "w")
        var next: UInt64 = 1
        for _ in 0..<20 {
            var edit = VersionEdit()
            let first = UInt16.random(in: 0...100, using: &random)
            edit.added = [.init(level: 0, file: file(next, first, first + .random(in: 0...20, using: &random)))]
            next += 1
            #expect(state.apply(edit) == nil)
            var picks = 0
            while let plan = picker.pick(state.levels, clock: clock) {
                picks += 1
                try #require(picks < 1000)
                var edit = VersionEdit()
                edit.removed = plan.inputs.map { .init(level: $0.level, file: $0.file.id) }
                switch plan.kind {
                case .drop: break
                case .move: edit.added = plan.inputs.map { .init(level: plan.outputLevel, file: $0.file) }
                case .merge:
                    // One output file a key group, as small as a merge may make them.
                    let groups = Set(
                        plan.inputs.flatMap { Array($0.file.summary.keyGroups.first...$0.file.summary.keyGroups.last) })
                    for group in groups.sorted() {
                        edit.added.append(.init(level: plan.outputLevel, file: file(next, group, group, bytes: 90)))
                        next += 1
                    }
                }
                try #require(state.apply(edit) == nil)
            }
        }
    }
}
