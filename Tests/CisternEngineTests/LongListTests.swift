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
        // A flush gives room again.
        _ = try harness.snapshot(tree, 1)
        try harness.writeDurably(tree, OwnedBatch([append(4000, to: list)]))
        #expect(try harness.get(tree, list)?.value.count == 8096)
        harness.engine.close()
    }

    @Test func aListTooLongForATableStaysReadableAndKeepsNobodyFromWriting() throws {
        var options = smallOptions()
        options.memtableBytes = 64 << 10
        options.foldedValueBytesMax = 4096
        // Without a log each snapshot flushes.
        options.log = .off
        options.table.valueBytesMax = 10_000
        options.compaction.levelZeroTrigger = 2
        options.compaction.levelZeroStop = 4
        let disk = MemoryFileSystem()
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
        #expect(tree.statistics.compactionBlockedCause?.contains("a table takes up to 10000") == true)
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
