// Reading a snapshot where it lies, forking a store from one, and references that stay few.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

private func identity(_ first: UInt16, _ last: UInt16, store: String = "orders") -> TreeIdentity {
    TreeIdentity(store: store, keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: 128)
}

/// Rounds of appends and deletes over every group of the tree.
private func fill(
    _ harness: EngineHarness, _ tree: Tree, rounds: Int, tag: String, into model: inout ModelStore
) throws {
    let groups = tree.identity.keyGroups
    for round in 0..<rounds {
        let batch = OwnedBatch(
            (groups.first...groups.last).map { group in
                round % 5 == 4
                    ? OwnedEntry(makeKey(group, "k\(round % 3)"), .delete)
                    : OwnedEntry(makeKey(group, "k\(round % 3)"), .append, Array("\(tag)\(round),".utf8))
            })
        model.apply(batch)
        try harness.writeDurably(tree, batch)
    }
}

private func expect(_ view: SnapshotView, _ model: ModelStore) throws {
    var found: [(key: [UInt8], stored: ModelStore.Stored)] = []
    try view.scan(clock: view.clock) { entry in
        found.append((Array(entry.key), ModelStore.Stored(value: Array(entry.value), expiry: entry.expiry)))
        return true
    }
    let expected = model.scan(view.clock)
    #expect(found.map(\.key) == expected.map(\.key))
    #expect(found.map(\.stored) == expected.map(\.stored))
    var result = LookupResult()
    for (index, entry) in expected.enumerated() where index % 7 == 0 {
        let isFound = try entry.key.withUnsafeBytes { try view.get($0, clock: view.clock, into: &result) }
        #expect(isFound && result.finish(view.clock).map { Array($0.value) } == entry.stored.value)
    }
    let absent = makeKey(view.info.identity.keyGroups.first, "absent")
    #expect(try absent.withUnsafeBytes { try view.get($0, clock: view.clock, into: &result) } == false)
}

private func expect(_ harness: EngineHarness, _ tree: Tree, _ model: ModelStore) throws {
    let found = try harness.scan(tree)
    let expected = model.scan(harness.clock(tree))
    #expect(found.map(\.key) == expected.map(\.key))
    #expect(found.map(\.stored) == expected.map(\.stored))
}

@Suite struct TimeTravelTests {
    @Test(arguments: LogMode.allCases) func everySnapshotShowsItsOwnMoment(mode: LogMode) throws {
        let disk = MemoryFileSystem()
        var options = smallOptions()
        options.log = mode
        var harness = try EngineHarness(options, fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        var moments: [(handle: String, model: ModelStore)] = []
        for checkpoint in UInt64(1)...5 {
            try fill(harness, tree, rounds: 6, tag: "\(checkpoint)-", into: &model)
            moments.append((try harness.snapshot(tree, checkpoint).handle, model))
        }
        harness.scheduler.runUntilIdle()
        for moment in moments { try expect(try harness.openSnapshot(moment.handle), moment.model) }
        #expect(throws: EngineError.self) { try harness.openSnapshot("orders/9/0-127/x") }

        // A view outlives the release, and what it held goes with it.
        let handle = moments[0].handle
        var view: SnapshotView? = try harness.openSnapshot(handle)
        harness.engine.releaseSnapshots(moments.map(\.handle))
        try harness.retire(tree.id)
        harness.scheduler.runUntilIdle()
        try expect(try #require(view), moments[0].model)
        view = nil
        harness.scheduler.runUntilIdle()
        #expect(disk.paths.filter { $0.hasSuffix(".sst") || $0.hasSuffix(".log") }.isEmpty)
        harness.engine.close()
        harness = try EngineHarness(options, fileSystem: disk, seed: 2)
        #expect(throws: EngineError.self) { try harness.openSnapshot(handle) }
        harness.engine.close()
    }

    /// What has expired since is shown as it was.
    @Test func timeIsThatOfTheSnapshot() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        let now = harness.scheduler.time.wallMilliseconds
        let soon = Expiry.processingTime(milliseconds: now + 50)
        let late = Expiry.eventTime(milliseconds: 500)
        try harness.writeDurably(
            tree, OwnedBatch([put(makeKey(1, "a"), "x", expiry: soon), put(makeKey(1, "b"), "y", expiry: late)]),
            watermark: 100)
        let handle = try harness.snapshot(tree, 1).handle
        harness.scheduler.advance(milliseconds: 100)
        try harness.writeDurably(tree, OwnedBatch([]), watermark: 1000)
        #expect(try harness.scan(tree).isEmpty)
        let view = try harness.openSnapshot(handle)
        var keys: [[UInt8]] = []
        try view.scan(clock: view.clock) { entry in
            keys.append(Array(entry.key))
            return true
        }
        #expect(keys == [makeKey(1, "a"), makeKey(1, "b")])
        keys = []
        try view.scan(from: makeKey(1, "b"), clock: ExpiryClock(processing: now, event: 0)) { entry in
            keys.append(Array(entry.key))
            return false
        }
        #expect(keys == [makeKey(1, "b")])
        harness.engine.close()
    }

    @Test func aDirectoryThatNobodyHasOpenIsReadAndNotChanged() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, rounds: 30, tag: "a", into: &model)
        let info = try harness.snapshot(tree, 1)
        let cut = model
        try fill(harness, tree, rounds: 9, tag: "b", into: &model)
        harness.engine.close()
        let before = disk.paths.map { ($0, disk.contents($0)) }
        let offline = try OfflineSnapshots("/data", fileSystem: disk)
        #expect(offline.infos.map(\.handle) == [info.handle] && offline.faults.isEmpty)
        try expect(try offline.open(info.handle), cut)
        #expect(throws: EngineError.self) { try offline.open("nothing") }
        #expect(disk.paths == before.map(\.0))
        for (path, contents) in before { #expect(disk.contents(path) == contents) }
        disk.setContents("/data/snapshots/000007.snap", [1, 2, 3])
        #expect(try OfflineSnapshots("/data", fileSystem: disk).faults.count == 1)
    }
}

@Suite struct ForkTests {
    @Test(arguments: [LogMode.synced, .off]) func aForkAndItsOriginGoTheirOwnWays(mode: LogMode) throws {
        let disk = MemoryFileSystem()
        var options = smallOptions()
        options.log = mode
        var harness = try EngineHarness(options, fileSystem: disk, seed: 1)
        let origin = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, origin, rounds: 25, tag: "a", into: &model)
        let handle = try harness.snapshot(origin, 1).handle
        // Another parallelism, and another name.
        let forks = [
            try harness.fork(identity(0, 50, store: "what-if"), of: "orders", from: [handle]),
            try harness.fork(identity(51, 127, store: "what-if"), of: "orders", from: [handle]),
        ]
        var forked = model
        try fill(harness, origin, rounds: 5, tag: "o", into: &model)
        for fork in forks { try fill(harness, fork, rounds: 5, tag: "f", into: &forked) }
        harness.engine.releaseSnapshots([handle])
        harness.scheduler.runUntilIdle()
        try expect(harness, origin, model)
        for fork in forks { try expect(harness, fork, forked.clipped(to: fork.identity.keyGroups)) }
        // A snapshot of a fork is the fork's, and not the origin's.
        let second = try forks.map { try harness.snapshot($0, 1).handle }
        #expect(second.allSatisfy { $0.hasPrefix("what-if/") })
        #expect(throws: EngineError.self) { try harness.create(wholeRange, epoch: 2, from: second) }
        #expect(throws: EngineError.self) {
            try harness.fork(identity(0, 127, store: "x"), of: "orders", from: second)
        }
        try harness.retire(origin.id)
        harness.scheduler.runUntilIdle()
        for tree in forks { try harness.close(tree) }
        let ids = forks.map(\.id)
        harness.engine.close()
        harness = try EngineHarness(options, fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.isEmpty)
        for id in ids {
            let fork = try harness.open(id)
            try expect(harness, fork, forked.clipped(to: fork.identity.keyGroups))
        }
        let whole = try harness.create(identity(0, 127, store: "what-if"), epoch: 2, from: second, replacing: ids)
        try expect(harness, whole, forked)
        harness.engine.close()
    }
}

@Suite struct ReferenceTests {
    private func record(
        _ first: UInt16, _ last: UInt16, levelZero: [(number: UInt64, first: UInt16, last: UInt16)]
    ) -> SnapshotRecord {
        var levels = TreeState(identity: wholeRange, epoch: 1, writer: "w").levels
        levels[0] = levelZero.map { number, first, last in
            var summary = TableSummary()
            summary.keyGroups = wholeRange.keyGroups
            summary.smallestKey = makeKey(0, "a")
            summary.largestKey = makeKey(127, "z")
            return FileRecord(number: number, window: KeyGroupRange(first: first, last: last), summary: summary)
        }
        return SnapshotRecord(
            handle: "h\(first)", identity: identity(first, last), tree: TreeID(1), checkpoint: 1,
            progress: WriteProgress(epoch: 1, sequence: 1, watermark: 0), createdMilliseconds: 0, levels: levels)
    }

    private func united(_ records: [SnapshotRecord]) throws -> [String] {
        try SnapshotUnion.state(identity: wholeRange, epoch: 2, writer: "w", of: "orders", from: records).levels[0]
            .map { "\($0.number):\($0.window.first)-\($0.window.last)" }
    }

    @Test func filesOfLevelZeroThatASplitToreApartAreOneAgain() throws {
        let left = record(0, 63, levelZero: [(9, 0, 63), (5, 0, 63), (4, 0, 63)])
        let right = record(64, 127, levelZero: [(8, 64, 127), (5, 64, 127), (7, 64, 127), (4, 64, 127)])
        #expect(try united([right, left]) == ["8:64-127", "9:0-63", "5:0-127", "7:64-127", "4:0-127"])
        // Orders that contradict each other are both kept, by not joining.
        let other = record(64, 127, levelZero: [(4, 64, 127), (5, 64, 127)])
        #expect(try united([left, other]) == ["9:0-63", "5:0-63", "4:0-63", "4:64-127", "5:64-127"])
        // Windows that do not meet stay apart.
        let gap = record(64, 127, levelZero: [(5, 70, 127)])
        #expect(try united([left, gap]) == ["9:0-63", "5:0-63", "4:0-63", "5:70-127"])
    }

    /// Split and union of many files at many cuts: never more references than files, and the same state.
    @Test func repeatedSplitAndUnionDoesNotMultiplyFiles() throws {
        var options = smallOptions()
        options.log = .off
        options.compaction.levelZeroTrigger = 100
        options.compaction.levelZeroStop = 200
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        var trees = [try harness.create(wholeRange)]
        var model = ModelStore()
        for round in 0..<4 {
            try fill(harness, trees[0], rounds: 2, tag: "\(round)", into: &model)
            _ = try harness.snapshot(trees[0], UInt64(1000 + round))
        }
        let files = trees[0].statistics.levels.reduce(0) { $0 + $1.files }
        #expect(files >= 4)
        for round in UInt64(1)...10 {
            let cut = UInt16(round * 11)
            let next = round % 2 == 1 ? [identity(0, cut), identity(cut + 1, 127)] : [wholeRange]
            let handles = try trees.map { try harness.snapshot($0, round).handle }
            let old = trees.map(\.id)
            trees = try next.enumerated().map { index, range in
                try harness.create(range, epoch: round + 1, from: handles, replacing: index == 0 ? old : [])
            }
            for tree in trees {
                #expect(tree.statistics.levels.reduce(0) { $0 + $1.files } <= files)
                try expect(harness, tree, model.clipped(to: tree.identity.keyGroups))
            }
        }
        harness.engine.close()
    }
}
