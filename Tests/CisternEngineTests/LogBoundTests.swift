// How long a tree's log may become: values replaced in place never fill a memtable, so the log's own length seals it too.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct LogBoundTests {
    static let segmentBytes = 8 << 10

    private func options() -> EngineOptions {
        var options = smallOptions()
        options.memtableBytes = 1 << 20
        options.logSegmentBytes = LogBoundTests.segmentBytes
        return options
    }

    /// One key, replaced again and again: the memtable stays as it is.
    private func replacement(_ number: Int) -> OwnedBatch {
        OwnedBatch([put(makeKey(1, "counter"), String(repeating: "\(number % 10)", count: 200))])
    }

    private func segments(_ disk: MemoryFileSystem) -> [Int] {
        disk.paths.filter { $0.hasSuffix(".log") }.map { disk.contents($0)?.count ?? 0 }
    }

    @Test func replacedValuesDoNotLengthenTheLogWithoutBound() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(options(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        var longest = 0
        for number in 0..<400 {
            try harness.writeDurably(tree, replacement(number))
            longest = max(longest, segments(disk).max() ?? 0)
        }
        #expect(longest < LogBoundTests.segmentBytes + 1000, "a segment has \(longest) bytes")
        harness.scheduler.runUntilIdle()
        #expect(tree.statistics.flushes > 5)
        #expect(segments(disk).reduce(0, +) < 2 * LogBoundTests.segmentBytes + 1000)
        harness.engine.close()
    }

    /// Flushes that stay behind must not let the log go on growing.
    @Test func aLogWhoseFlushesAreBehindAnswersBusy() throws {
        let harness = try EngineHarness(options(), fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        var reason: BusyReason?
        var batches = 0
        while reason == nil, batches < 1000 {
            let (outcome, _) = try harness.write(tree, replacement(batches))
            if case .busy(let found, _) = outcome { reason = found }
            batches += 1
        }
        #expect(reason == .flushBehind)
        #expect(tree.statistics.sealedMemtables <= options().sealedMemtablesMax + 1)
        harness.scheduler.runUntilIdle()
        try harness.writeDurably(tree, replacement(batches))
        harness.engine.close()
    }

    /// Each restart begins a segment; what they add up to counts, so a tree that is restarted often is flushed too.
    @Test func theLogOfSeveralRunsCountsTogether() throws {
        let disk = MemoryFileSystem()
        var id: TreeID?
        for run in 0..<12 {
            let harness = try EngineHarness(options(), fileSystem: disk, seed: UInt64(run))
            let tree: Tree
            if let id { tree = try harness.open(id) } else { tree = try harness.create(wholeRange) }
            id = tree.id
            #expect(tree.lastSequence == UInt64(run) * 10)
            for number in 0..<10 { try harness.writeDurably(tree, replacement(number)) }
            let found = try harness.get(tree, makeKey(1, "counter"))
            #expect(found?.value == Array(String(repeating: "9", count: 200).utf8))
            harness.scheduler.runUntilIdle()
            harness.engine.close()
        }
        #expect(segments(disk).reduce(0, +) < 2 * LogBoundTests.segmentBytes)
    }

    /// Recovery reads one segment after the other: the next one's header is all it needs of it meanwhile.
    @Test func replayReadsOfTheNextSegmentOnlyItsHeader() throws {
        let disk = MemoryFileSystem()
        var id: TreeID?
        for run in 0..<4 {
            var options = options()
            options.logSegmentBytes = nil
            let harness = try EngineHarness(options, fileSystem: disk, seed: UInt64(run))
            let tree: Tree
            if let id { tree = try harness.open(id) } else { tree = try harness.create(wholeRange) }
            id = tree.id
            #expect(tree.lastSequence == UInt64(run) * 20)
            for number in 0..<20 { try harness.writeDurably(tree, replacement(number)) }
            harness.engine.close()
        }
        #expect(segments(disk).count == 4)
        // A torn header of the last segment, which had no record yet.
        let last = try #require(disk.paths.last { $0.hasSuffix(".log") })
        disk.setContents(last, Array((disk.contents(last) ?? []).prefix(20)))
        let harness = try EngineHarness(options(), fileSystem: disk, seed: 9)
        let tree = try harness.open(try #require(id))
        #expect(tree.lastSequence == 60)
        harness.engine.close()
    }
}
