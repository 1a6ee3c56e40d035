// Table files whose tree goes, or moves, while a job that made them ends; and files that several threads take and leave.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

private func tables(_ disk: MemoryFileSystem) -> [String] { disk.paths.filter { $0.hasSuffix(".sst") } }

/// Table files and value files.
private func everything(_ disk: MemoryFileSystem) -> [String] { disk.paths.filter { $0.hasPrefix("/data/tables/") } }

/// With value files, in every second run.
private func ownershipOptions(_ seed: UInt64) -> EngineOptions {
    var options = smallOptions()
    options.values.thresholdBytes = seed % 2 == 0 ? 100 : 0
    options.values.fileBytesMax = 4 << 10
    return options
}

@Suite struct FileOwnershipTests {
    /// Writes until a flush has begun, and runs some way into it.
    private func startJobs(_ harness: EngineHarness, _ tree: Tree, steps: Int) throws {
        for number in 0..<200 {
            let batch = OwnedBatch([put(makeKey(UInt16(number % 128), "k"), String(repeating: "x", count: 400))])
            while case .busy = try harness.write(tree, batch).outcome { harness.scheduler.step() }
        }
        #expect(tree.statistics.sealedMemtables > 0)
        for _ in 0..<steps { harness.scheduler.step() }
    }

    @Test func aTreeThatGoesWhileItsJobsEndLeavesNoFile() throws {
        for seed in UInt64(1)...40 {
            let disk = MemoryFileSystem(seed: seed)
            let harness = try EngineHarness(ownershipOptions(seed), fileSystem: disk, seed: seed)
            var tree: Tree? = try harness.create(wholeRange)
            let id = try #require(tree).id
            try startJobs(harness, try #require(tree), steps: Int(seed) % 30)
            harness.engine.retireTree(id)
            tree = nil
            harness.scheduler.runUntilIdle()
            #expect(everything(disk).isEmpty, "seed \(seed)")
            harness.engine.close()
        }
    }

    @Test func aTreeThatMovesWhileItIsRetiredLeavesNoFile() throws {
        for seed in UInt64(1)...80 {
            let disk = MemoryFileSystem(seed: seed)
            let harness = try EngineHarness(ownershipOptions(seed), fileSystem: disk, seed: seed)
            let tree = try harness.create(wholeRange)
            try startJobs(harness, tree, steps: Int(seed) % 50)
            tree.handOver(to: harness.scheduler.makeExecutor()) { _ in }
            harness.engine.retireTree(tree.id)
            harness.scheduler.runUntilIdle()
            #expect(everything(disk).isEmpty, "seed \(seed)")
            harness.engine.close()
        }
    }

    /// A commit that failed may be on disk, so its file stays until the manifest is known not to name it.
    @Test func aTreeClosedWithAnEditInDoubtGivesUpItsFileWithTheNextEdit() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(ownershipOptions(2), fileSystem: disk, seed: 3)
        var tree = try harness.create(wholeRange)
        let id = tree.id
        try startJobs(harness, tree, steps: 0)
        disk.inject(.init([.append, .create], error: ENOSPC) { $0.contains("MANIFEST") })
        #expect(throws: EngineError.self) { try harness.close(tree) }
        harness.scheduler.runUntilIdle()
        #expect(!tables(disk).isEmpty)
        disk.clearFaults()
        tree = try harness.open(id)
        #expect(tree.lastSequence == 200)
        #expect(try harness.scan(tree).count == 128)
        harness.scheduler.runUntilIdle()
        #expect(tables(disk).count == tree.statistics.levels.reduce(0) { $0 + $1.files })
        #expect(everything(disk).count == tables(disk).count + tree.statistics.valueFiles)
        try harness.retire(id)
        harness.scheduler.runUntilIdle()
        #expect(everything(disk).isEmpty)
        harness.engine.close()
    }

    @Test func aTreeClosedWithAnEditInDoubtAndRetiredLeavesNoFile() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(ownershipOptions(2), fileSystem: disk, seed: 3)
        let tree = try harness.create(wholeRange)
        try startJobs(harness, tree, steps: 0)
        disk.inject(.init([.append, .create], error: ENOSPC) { $0.contains("MANIFEST") })
        #expect(throws: EngineError.self) { try harness.close(tree) }
        try harness.retire(tree.id)
        harness.scheduler.runUntilIdle()
        #expect(everything(disk).isEmpty)
        harness.engine.close()
    }

    /// The last reference may go while another thread looks whether the file is still used.
    @Test func aFileMayBeLeftByOneThreadWhileAnotherLetsGoOfIt() throws {
        let lane = SteppedScheduler(seed: 1).makeLane()
        let directory = TableDirectory(
            path: "/tables", fileSystem: MemoryFileSystem(), cache: BlockCache(capacityBytes: 0), lane: lane,
            closingLane: lane,
            nextNumber: 1)
        let user = SerialThread(name: "test-user")
        let done = Guarded(false)
        user.submit {
            var random = SeededRandom(seed: 1)
            for _ in 0..<20_000 {
                let table = directory.table(7)
                // So that the end of the reference meets every moment of the other thread's call.
                var spin = random.next() % 64
                while spin > 0 { spin -= 1 }
                withExtendedLifetime(table) {}
            }
            done.withLock { $0 = true }
        }
        var isDone = false
        while !isDone {
            for _ in 0..<100 {
                directory.retain([7])
                directory.release([7])
            }
            isDone = done.withLock { $0 }
        }
        user.stop()
    }
}
