import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct MaintenanceTests {
    private func fill(_ harness: EngineHarness, _ tree: Tree, _ model: inout ModelStore, seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for _ in 0..<600 {
            let key = makeKey(.random(in: 0...127, using: &random), "key-\(Int.random(in: 0..<4, using: &random))")
            let entry =
                Int.random(in: 0..<4, using: &random) == 0
                ? OwnedEntry(key, .delete, [])
                : put(key, String(repeating: "v", count: .random(in: 0...200, using: &random)))
            model.apply(entry)
            try harness.writeDurably(tree, OwnedBatch([entry]))
        }
    }

    @Test func aFullCompactionLeavesLivingEntriesInTheBottomLevelOnly() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        for round in 0..<3 {
            try fill(harness, tree, &model, seed: UInt64(round))
            try harness.wait { done in tree.compact(completion: done) } as Void
            let levels = tree.statistics.levels
            #expect(levels.dropLast().allSatisfy { $0.files == 0 })
            let living = try harness.scan(tree)
            #expect(Int(tree.statistics.approximateEntries) == living.count)
            #expect(living.map(\.key) == model.scan(harness.clock(tree)).map(\.key))
        }
        let compactions = tree.statistics.compactions
        try harness.wait { done in tree.compact(completion: done) } as Void
        #expect(tree.statistics.compactions == compactions)
    }

    @Test func aCompactionOfARangeLeavesTheRestWhereItIs() throws {
        var options = smallOptions()
        options.compaction.levelZeroTrigger = 100
        options.compaction.levelZeroStop = 200
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 2)
        let tree = try harness.create(wholeRange)
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "a"), "1")]))
        try harness.wait { done in tree.compact(completion: done) } as Void
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(2, "a"), "1")]))
        try harness.wait { done in tree.compact(KeyGroupRange(first: 5, last: 9), completion: done) } as Void
        #expect(tree.statistics.levels.map(\.files) == [1, 0, 0, 0, 0, 0, 1])
        try harness.wait { done in tree.compact(KeyGroupRange(first: 2, last: 2), completion: done) } as Void
        #expect(tree.statistics.levels.map(\.files) == [0, 0, 0, 0, 0, 0, 2])
    }

    @Test func idleComesWhenFlushesAndCompactionsHaveEnded() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 3)
        let tree = try harness.create(wholeRange)
        let atOnce = Answer<Bool>()
        tree.whenIdle { atOnce.set(true) }
        #expect(atOnce.value == true)
        var model = ModelStore()
        try fill(harness, tree, &model, seed: 9)
        let taken = Answer<Bool>()
        tree.compact { _ in }
        #expect(!tree.isIdle)
        tree.whenIdle { taken.set(true) }
        #expect(taken.value == nil)
        #expect(harness.scheduler.run { taken.value != nil })
        #expect(tree.isIdle)
        #expect(tree.statistics.sealedMemtables == 0)
        #expect(tree.statistics.levels[0].files == 0)
    }

    @Test func closingAnswersRequestsAndWaiters() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 4)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, &model, seed: 9)
        let compacted = Answer<Result<Void, EngineError>>()
        let idle = Answer<Bool>()
        tree.compact { compacted.set($0) }
        tree.whenIdle { idle.set(true) }
        try harness.close(tree)
        #expect(compacted.value != nil)
        #expect(idle.value == true)
        let late = Answer<Result<Void, EngineError>>()
        tree.compact { late.set($0) }
        #expect(throws: EngineError.self) { try late.value?.get() }
    }
}
