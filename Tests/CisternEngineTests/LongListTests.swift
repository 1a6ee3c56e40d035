// Lists that are too long: refused where they grow, and never a reason to refuse everything else.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct LongListTests {
    private let list = makeKey(1, "list")

    private func append(_ count: Int, to key: [UInt8]) -> OwnedEntry {
        OwnedEntry(key, .append, [UInt8](repeating: 7, count: count))
    }

    @Test func anAppendBeyondTheFoldedLimitIsRefusedWithItsWholeBatch() throws {
        var options = smallOptions()
        options.memtableBytes = 1 << 20
        options.foldedValueBytesMax = 4096
        // Without a log each snapshot flushes.
        options.log = .off
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        let other = makeKey(2, "other")
        for _ in 0..<4 { try harness.writeDurably(tree, OwnedBatch([append(1000, to: list)])) }
        do throws(EngineError) {
            try harness.write(tree, OwnedBatch([put(other, "v"), append(97, to: list)]))
            Issue.record("an append beyond the limit is taken")
        } catch {
            guard case .invalidEntry(let detail) = error else {
                Issue.record("expected invalidEntry, found \(error)")
                return
            }
            #expect(detail.contains("4097") && detail.contains("foldedValueBytesMax") && detail.contains("4096"))
        }
        #expect(tree.lastSequence == 4)
        #expect(try harness.get(tree, other) == nil)
        #expect(try harness.get(tree, list)?.value.count == 4000)
        #expect(tree.statistics.readOnlyCause == nil)
        // Up to the limit it goes on, and a put or delete begins anew, in the same batch too.
        try harness.writeDurably(tree, OwnedBatch([append(96, to: list)]))
        #expect(throws: EngineError.self) { try harness.write(tree, OwnedBatch([append(1, to: list)])) }
        try harness.writeDurably(
            tree, OwnedBatch([OwnedEntry(list, .delete), append(3000, to: list), append(1096, to: list)]))
        #expect(try harness.get(tree, list)?.value.count == 4096)
        #expect(throws: EngineError.self) {
            try harness.write(
                tree, OwnedBatch([OwnedEntry(list, .delete), append(3000, to: list), append(1097, to: list)]))
        }
        try harness.writeDurably(tree, OwnedBatch([put(list, "short"), append(4091, to: list)]))
        #expect(try harness.get(tree, list)?.value.count == 4096)
        // What is in files counts too, and a list that was cleared is short again, flushed or not.
        _ = try harness.snapshot(tree, 1)
        #expect(throws: EngineError.self) { try harness.write(tree, OwnedBatch([append(1, to: list)])) }
        try harness.writeDurably(tree, OwnedBatch([OwnedEntry(list, .delete), append(1, to: list)]))
        _ = try harness.snapshot(tree, 2)
        try harness.writeDurably(tree, OwnedBatch([append(4000, to: list)]))
        #expect(try harness.get(tree, list)?.value.count == 4001)
        harness.engine.close()
    }

    /// However the appends are spread over flushes, compactions and restarts: the one that goes too far is refused, and files go
    /// on being merged.
    @Test(arguments: Seeds.seeds(count: 12)) func aListNeverBecomesTooLongForAMerge(seed: UInt64) throws {
        Seeds.announce("aListNeverBecomesTooLongForAMerge", seed)
        var random = SeededRandom(seed: seed)
        var options = smallOptions()
        options.foldedValueBytesMax = 40_000
        options.sealedMemtablesMax = 2
        options.compaction.levelZeroTrigger = 2
        options.compaction.levelZeroStop = 6
        options.values.thresholdBytes = Bool.random(using: &random) ? 0 : 1000
        options.table.valueBytesMax = 4 * 40_000 + 15 * 312
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(options, fileSystem: disk, seed: seed)
        var tree = try harness.create(wholeRange)
        var model = ModelStore()
        var refusals = 0
        for round in 1...400 {
            let size = Int.random(in: 1...(Bool.random(using: &random) ? 100 : 6000), using: &random)
            var entries = [append(size, to: list), put(makeKey(2, "k\(round % 50)"), "\(round)")]
            if Int.random(in: 0..<60, using: &random) == 0 { entries.insert(OwnedEntry(list, .delete), at: 0) }
            let batch = OwnedBatch(entries)
            do {
                try harness.writeDurably(tree, batch)
                model.apply(batch)
            } catch EngineError.invalidEntry {
                refusals += 1
            }
            if Int.random(in: 0..<40, using: &random) == 0 {
                let id = tree.id
                harness.engine.close()
                harness = try EngineHarness(options, fileSystem: disk, seed: random.next())
                tree = try harness.open(id)
            }
            #expect(tree.statistics.compactionBlockedCause == nil, "seed \(seed)")
            #expect(tree.statistics.readOnlyCause == nil, "seed \(seed)")
        }
        #expect(refusals > 0, "seed \(seed)")
        #expect(harness.scheduler.run { tree.isIdle })
        try harness.wait { done in tree.compact(completion: done) } as Void
        #expect(tree.statistics.levelZeroDepth == 0)
        #expect(try harness.scan(tree).map(\.stored) == model.scan(harness.clock(tree)).map(\.stored), "seed \(seed)")
        harness.engine.close()
    }

    /// Files of older directories do not tell of long lists.
    @Test func aListTooLongForATableStaysReadableAndKeepsNobodyFromWriting() throws {
        var options = smallOptions()
        options.memtableBytes = 64 << 10
        options.foldedValueBytesMax = 4096
        // Without a log each snapshot flushes.
        options.log = .off
        options.table.valueBytesMax = 21_000
        options.compaction.levelZeroTrigger = 2
        options.compaction.levelZeroStop = 4
        let disk = MemoryFileSystem()
        try EngineHarness(options, fileSystem: disk, seed: 1).engine.close()
        disk.setContents("/data/CISTERN", [0x43, 0x49, 0x53, 0x54, 2, 0, 0, 0])
        var harness = try EngineHarness(options, fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange)
        var model = ModelStore()
        for round in 1...12 {
            let batch = OwnedBatch([append(3000, to: list), put(makeKey(2, "k\(round)"), "\(round)")])
            model.apply(batch)
            try harness.writeDurably(tree, batch)
            _ = try harness.snapshot(tree, UInt64(round))
            #expect(tree.statistics.readOnlyCause == nil)
        }
        #expect(tree.statistics.compactionBlockedCause?.contains("a table takes up to 21000") == true)
        #expect(try harness.scan(tree).map(\.stored) == model.scan(harness.clock(tree)).map(\.stored))

        // The same after a restart.
        let id = tree.id
        harness.engine.close()
        harness = try EngineHarness(options, fileSystem: disk, seed: 2)
        tree = try harness.open(id)
        #expect(try harness.scan(tree).map(\.stored) == model.scan(harness.clock(tree)).map(\.stored))

        // Clearing the list is how its owner gets out of it.
        let clear = OwnedBatch([OwnedEntry(list, .delete)])
        model.apply(clear)
        try harness.writeDurably(tree, clear)
        _ = try harness.snapshot(tree, 100)
        #expect(harness.scheduler.run { tree.statistics.levels[0].files < 2 })
        #expect(tree.statistics.compactionBlockedCause == nil)
        #expect(tree.statistics.readOnlyCause == nil)
        #expect(try harness.scan(tree).map(\.stored) == model.scan(harness.clock(tree)).map(\.stored))
        harness.engine.close()
    }
}
