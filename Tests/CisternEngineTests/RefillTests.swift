import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// What a compaction leaves in the block cache.
@Suite struct RefillTests {
    private static let keysPerGroup = 40

    /// A tree of eight runs over all key groups.
    private func made(cacheBytes: Int, seed: UInt64, disk: MemoryFileSystem = MemoryFileSystem()) throws
        -> (EngineHarness, Tree)
    {
        var options = smallOptions()
        options.log = .off
        options.blockCacheBytes = cacheBytes
        options.memtableBytes = 1 << 20
        options.table.blockSizeBytes = 1024
        options.table.blocksPerPartition = 8
        options.compaction.levelZeroTrigger = 100
        options.compaction.levelZeroStop = 200
        options.compaction.restPercent = 0
        options.compaction.targetFileBytes = 100 << 10
        options.compaction.partBytes = 100 << 10
        let harness = try EngineHarness(options, fileSystem: disk, seed: seed)
        let tree = try harness.create(wholeRange)
        let value = String(repeating: "v", count: 60)
        for run in 0..<8 {
            for group in UInt16(0)..<128 {
                let entries = stride(from: run, to: RefillTests.keysPerGroup, by: 8).map { put(key(group, $0), value) }
                try harness.writeDurably(tree, OwnedBatch(entries))
            }
            // Without a log a snapshot flushes.
            let info = try harness.snapshot(tree, UInt64(run + 1))
            _ = harness.engine.releaseSnapshots([info.handle])
        }
        #expect(tree.statistics.runs == 8)
        return (harness, tree)
    }

    private func compact(_ harness: EngineHarness, _ tree: Tree) throws {
        try harness.wait { done in tree.compact(completion: done) } as Void
        harness.scheduler.runUntilIdle()
        #expect(tree.statistics.runs == 1)
    }

    private func key(_ group: UInt16, _ number: Int) -> [UInt8] { makeKey(group, "key-\(100 + number)") }

    private func read(_ harness: EngineHarness, _ tree: Tree, groups: Range<UInt16>) throws {
        for group in groups {
            for number in 0..<RefillTests.keysPerGroup {
                #expect(try harness.get(tree, key(group, number)) != nil)
            }
        }
    }

    private func misses(_ harness: EngineHarness, _ body: () throws -> Void) rethrows -> UInt64 {
        let before = harness.engine.cacheStatistics.misses
        try body()
        return harness.engine.cacheStatistics.misses - before
    }

    @Test func whatIsReadIsInTheCacheAfterACompaction() throws {
        let (harness, tree) = try made(cacheBytes: 4 << 20, seed: 1)
        for _ in 0..<3 { try read(harness, tree, groups: 20..<40) }
        #expect(try misses(harness) { try read(harness, tree, groups: 20..<40) } == 0)
        try compact(harness, tree)
        let hot = try misses(harness) { try read(harness, tree, groups: 20..<40) }
        let cold = try misses(harness) { try read(harness, tree, groups: 60..<80) }
        print("misses after a compaction: \(hot) where it was read before, \(cold) elsewhere")
        #expect(cold > 40)
        #expect(hot <= cold / 10)
    }

    @Test func whatNobodyReadsAgainDoesNotTakeTheCache() throws {
        let (harness, tree) = try made(cacheBytes: 4 << 20, seed: 2)
        // A block each, loaded and not found there.
        for group in stride(from: UInt16(0), to: 128, by: 8) { #expect(try harness.get(tree, key(group, 0)) != nil) }
        #expect(harness.engine.cacheStatistics.usedBytes > harness.engine.cacheStatistics.metadataBytes)
        try compact(harness, tree)
        #expect(harness.engine.cacheStatistics.usedBytes == harness.engine.cacheStatistics.metadataBytes)
    }

    @Test func aSmallCacheKeepsItsBudget() throws {
        let (harness, tree) = try made(cacheBytes: 128 << 10, seed: 3)
        for _ in 0..<3 { try read(harness, tree, groups: 0..<128) }
        try compact(harness, tree)
        #expect(harness.engine.cacheStatistics.usedBytes <= 128 << 10)
        try read(harness, tree, groups: 0..<128)
        #expect(harness.engine.cacheStatistics.usedBytes <= 128 << 10)
    }

    @Test func aCompactionThatFailsGivesItsBlocksBack() throws {
        let disk = MemoryFileSystem()
        let (harness, tree) = try made(cacheBytes: 4 << 20, seed: 4, disk: disk)
        for _ in 0..<3 { try read(harness, tree, groups: 0..<128) }
        for operation in [MemoryFileSystem.Operation.append, .sync] {
            disk.inject(.init([operation], skip: 1, count: 2) { $0.contains(".sst") })
        }
        try compact(harness, tree)
        #expect(tree.statistics.failures > 0)
        let misses = try misses(harness) { try read(harness, tree, groups: 0..<128) }
        #expect(misses < 100)
        // The cache counts its blocks when it ends, and traps when one is lost.
        try harness.close(tree)
        harness.engine.close()
    }
}
