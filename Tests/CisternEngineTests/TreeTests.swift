import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

let wholeRange = TreeIdentity(store: "orders", keyGroups: KeyGroupRange(first: 0, last: 127), keyGroupCount: 128)

func makeKey(_ group: UInt16, _ text: String) -> [UInt8] {
    [UInt8(group >> 8), UInt8(group & 0xFF), 0, 1] + Array(text.utf8)
}

func smallOptions() -> EngineOptions {
    var options = EngineOptions(directory: "/data")
    options.memtableBytes = 16 << 10
    options.blockCacheBytes = 1 << 20
    options.table.blockSizeBytes = 256
    options.compaction.targetFileBytes = 8 << 10
    options.compaction.partBytes = 16 << 10
    return options
}

func put(_ key: [UInt8], _ value: String, expiry: Expiry = .never) -> OwnedEntry {
    OwnedEntry(key, .put, Array(value.utf8), expiry: expiry)
}

@Suite struct TreeTests {
    @Test func aWriteIsReadAndSurvivesTheProcess() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange)
        try harness.writeDurably(
            tree, OwnedBatch([put(makeKey(3, "a"), "1"), put(makeKey(4, "b"), "2")]), watermark: 77)
        #expect(try harness.get(tree, makeKey(3, "a"))?.value == Array("1".utf8))
        #expect(try harness.get(tree, makeKey(3, "b")) == nil)
        harness.engine.close()

        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        let info = try #require(harness.engine.treeInfos().first)
        #expect(info.identity == wholeRange)
        tree = try harness.open(info.id)
        #expect(tree.lastSequence == 1)
        #expect(tree.epoch == 1)
        #expect(tree.writer == "w")
        #expect(tree.watermark == 77)
        #expect(try harness.get(tree, makeKey(4, "b"))?.value == Array("2".utf8))
        #expect(tree.statistics.recoveredBatches == 1)
    }

    @Test func aClosedTreeComesBackWithoutItsLog() throws {
        let disk = MemoryFileSystem()
        for mode in LogMode.allCases {
            var options = smallOptions()
            options.directory = "/data-\(mode.rawValue)"
            options.log = mode
            var harness = try EngineHarness(options, fileSystem: disk, seed: 1)
            var tree = try harness.create(wholeRange)
            for number in 0..<50 { try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k\(number)"), "v")])) }
            let id = tree.id
            try harness.close(tree)
            harness.engine.close()
            harness = try EngineHarness(options, fileSystem: disk, seed: 2)
            tree = try harness.open(id)
            #expect(tree.lastSequence == 50)
            #expect(tree.statistics.recoveredBatches == 0)
            #expect(try harness.scan(tree).count == 50)
            try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "more"), "v")]))
            #expect(try harness.scan(tree).count == 51)
            harness.engine.close()
        }
    }

    @Test func fullMemtablesBecomeFilesAndFilesAreCompacted() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 3)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        var random = SeededRandom(seed: 4)
        for _ in 0..<1500 {
            let key = makeKey(.random(in: 0...127, using: &random), "key-\(Int.random(in: 0..<9, using: &random))")
            let batch = OwnedBatch([put(key, String(repeating: "v", count: .random(in: 0...300, using: &random)))])
            model.apply(batch)
            try harness.writeDurably(tree, batch)
        }
        harness.scheduler.runUntilIdle()
        let statistics = tree.statistics
        #expect(statistics.flushes > 3)
        #expect(statistics.compactions > 0)
        #expect(statistics.levels[0].files < smallOptions().compaction.levelZeroTrigger)
        #expect(statistics.readOnlyCause == nil)
        let found = try harness.scan(tree, pageEntries: 7)
        let expected = model.scan(harness.clock(tree))
        #expect(found.map(\.key) == expected.map(\.key))
        #expect(found.map(\.stored) == expected.map(\.stored))
        harness.engine.close()
    }

    @Test func filesThatNobodyRefersToAreDeleted() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 5)
        let tree = try harness.create(wholeRange)
        for number in 0..<400 {
            let batch = OwnedBatch([put(makeKey(UInt16(number % 128), "k"), String(repeating: "x", count: 400))])
            try harness.writeDurably(tree, batch)
        }
        harness.scheduler.runUntilIdle()
        let files = disk.paths.filter { $0.hasSuffix(".sst") }.count
        #expect(files == tree.statistics.levels.reduce(0) { $0 + $1.files })
        try harness.retire(tree.id)
        harness.scheduler.runUntilIdle()
        #expect(disk.paths.filter { $0.hasSuffix(".sst") }.isEmpty)
        #expect(harness.engine.treeInfos().isEmpty)
        #expect(throws: EngineError.self) {
            try harness.write(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        }
        harness.engine.close()
    }
}

@Suite struct SessionTests {
    @Test func batchesAreAppliedOnceAndInOrder() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        let batch = OwnedBatch([OwnedEntry(makeKey(1, "list"), .append, [1])])
        try harness.writeDurably(tree, batch)
        let again = try harness.write(tree, batch, sequence: 1)
        #expect(again.outcome == .duplicate)
        #expect(again.durable.value != nil)
        #expect(try harness.get(tree, makeKey(1, "list"))?.value == [1])
        #expect(throws: EngineError.sequenceGap(expected: 2, found: 3)) {
            try harness.write(tree, batch, sequence: 3)
        }
        // A duplicate of a batch that is not durable yet is acknowledged with it, not before.
        let first = try harness.write(tree, batch, sequence: 2)
        let second = try harness.write(tree, batch, sequence: 2)
        #expect(second.outcome == .duplicate)
        #expect(first.durable.value == nil && second.durable.value == nil)
        harness.scheduler.runUntilIdle()
        #expect(first.durable.value != nil && second.durable.value != nil)
        harness.engine.close()
    }

    @Test func aFencedWriterCannotWrite() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange, epoch: 3, writer: "old")
        let batch = OwnedBatch([put(makeKey(1, "k"), "v")])
        try harness.writeDurably(tree, batch)
        let announced = Answer<Result<Void, EngineError>>()
        tree.setEpoch(5, writer: "new") { announced.set($0) }
        // Fenced from the call on, before the new epoch is durable.
        #expect(throws: EngineError.fenced(current: 5, found: 3)) { try harness.write(tree, batch) }
        #expect(harness.scheduler.run { announced.value != nil })
        #expect(tree.epoch == 5 && tree.writer == "new" && tree.lastSequence == 0)
        let columns = { (epoch: UInt64) throws -> WriteOutcome in
            try batch.withColumns { try tree.write($0, epoch: epoch, sequence: 1, watermark: 0, durable: { _ in }) }
        }
        #expect(throws: EngineError.fenced(current: 5, found: 3)) { try columns(3) }
        #expect(throws: EngineError.fenced(current: 5, found: 6)) { try columns(6) }
        #expect(try columns(5) == .applied)
        #expect(throws: EngineError.fenced(current: 5, found: 5)) { try harness.setEpoch(tree, 5, writer: "other") }
        #expect(throws: EngineError.fenced(current: 5, found: 4)) { try harness.setEpoch(tree, 4, writer: "new") }
        try harness.setEpoch(tree, 5, writer: "new")
        harness.scheduler.runUntilIdle()
        let id = tree.id
        harness.engine.close()

        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        tree = try harness.open(id)
        #expect(tree.epoch == 5 && tree.writer == "new" && tree.lastSequence == 1)
        harness.engine.close()
    }

    @Test func entriesOutsideTheLimitsAreRefusedWhole() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let range = TreeIdentity(store: "s", keyGroups: KeyGroupRange(first: 4, last: 5), keyGroupCount: 8)
        let tree = try harness.create(range)
        let good = put(makeKey(4, "k"), "v")
        for bad in [
            put(makeKey(3, "k"), "v"), put(makeKey(6, "k"), "v"), put([0, 4, 1], "v"),
            OwnedEntry(makeKey(4, "") + [UInt8](repeating: 1, count: EngineLimits.keyBytesMax), .put),
        ] {
            #expect(throws: EngineError.self) { try harness.write(tree, OwnedBatch([good, bad])) }
        }
        #expect(tree.lastSequence == 0)
        #expect(try harness.get(tree, good.key) == nil)
        harness.engine.close()
    }

    @Test func aTreeMovesToAnotherExecutorWithItsPendingWork() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 9)
        let tree = try harness.create(wholeRange)
        let other = harness.scheduler.makeExecutor()
        let before = try harness.write(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        let moved = Answer<Bool>()
        tree.handOver(to: other) { _ in moved.set(true) }
        #expect(harness.scheduler.run { moved.value != nil && before.durable.value != nil })
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "l"), "w")]))
        #expect(try harness.scan(tree).count == 2)
        harness.engine.close()
    }
}
