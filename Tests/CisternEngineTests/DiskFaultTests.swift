// Disks that cannot be looked at, that are full, or that fail between two steps: what an engine finds, keeps and leaves.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

private let firstTree = "/data/trees/000001"

/// A closed engine's disk with one tree of one key, in a table file.
private func diskWithATree() throws -> (disk: MemoryFileSystem, tree: TreeID) {
    let disk = MemoryFileSystem()
    let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
    let tree = try harness.create(wholeRange)
    let id = tree.id
    try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
    try harness.close(tree)
    harness.engine.close()
    return (disk, id)
}

@Suite struct UnreachableFileTests {
    @Test(arguments: [
        MemoryFileSystem.Fault([.list], error: EACCES) { $0 == firstTree },
        MemoryFileSystem.Fault([.read], error: EIO) { $0 == firstTree + "/CURRENT" },
        MemoryFileSystem.Fault([.read], error: EIO) { $0.hasPrefix(firstTree + "/MANIFEST") },
    ]) func aTreeThatCannotBeLookedAtIsDamagedAndKeepsEveryFile(_ fault: MemoryFileSystem.Fault) throws {
        let (disk, id) = try diskWithATree()
        let before = disk.paths
        #expect(before.contains { $0.hasSuffix(".sst") })
        disk.inject(fault)
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.map(\.tree) == [id])
        #expect(harness.engine.treeInfos().isEmpty)
        harness.engine.close()
        #expect(disk.paths == before)

        disk.clearFaults()
        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 3)
        #expect(harness.engine.damagedParts.isEmpty)
        #expect(try harness.get(try harness.open(id), makeKey(1, "k")) != nil)
        harness.engine.close()
    }

    /// A directory of a newer format must not be taken for one without a format.
    @Test func aFormatFileThatCannotBeLookedAtStays() throws {
        let (disk, _) = try diskWithATree()
        var bytes = try #require(disk.contents("/data/CISTERN"))
        bytes[4] = 9
        disk.setContents("/data/CISTERN", bytes)
        disk.inject(.init([.exists], error: EACCES) { $0 == "/data/CISTERN" })
        #expect(throws: EngineError.self) { try EngineHarness(smallOptions(), fileSystem: disk, seed: 2) }
        #expect(disk.contents("/data/CISTERN") == bytes)
    }
}

@Suite struct LeftoverTests {
    @Test func failedAttemptsLeaveNoFilesBehind() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        harness.scheduler.runUntilIdle()

        // A manifest whose append failed is begun anew by each attempt.
        for operation in [MemoryFileSystem.Operation.append, .sync] {
            disk.inject(.init([operation], error: ENOSPC) { $0.contains("MANIFEST") })
            for epoch in UInt64(2)...6 {
                #expect(throws: EngineError.self) { try harness.setEpoch(tree, epoch, writer: "other") }
            }
            #expect(disk.paths.filter { $0.contains("MANIFEST") }.count == 1)
            disk.clearFaults()
        }

        for operation in [MemoryFileSystem.Operation.append, .sync, .rename] {
            disk.inject(.init([operation], error: ENOSPC) { $0.contains(".snap") })
            for checkpoint in UInt64(1)...5 {
                #expect(throws: EngineError.self) { try harness.snapshot(tree, checkpoint) }
            }
            #expect(disk.paths.filter { $0.contains(".snap") }.isEmpty)
            disk.clearFaults()
        }

        disk.inject(.init([.append], error: ENOSPC) { $0.hasSuffix(".log") })
        let (_, durable) = try harness.write(tree, OwnedBatch([put(makeKey(1, "l"), "w")]))
        #expect(harness.scheduler.run { durable.value != nil })
        let failures = tree.statistics.failures
        #expect(harness.scheduler.run { tree.statistics.failures > failures + 5 })
        #expect(disk.paths.filter { $0.hasSuffix(".log") }.count <= 1)
        disk.clearFaults()
        #expect(harness.scheduler.run { tree.statistics.readOnlyCause == nil })
        #expect(try harness.get(tree, makeKey(1, "l")) != nil)
        harness.engine.close()
    }

    /// Whatever CURRENT names after a power cut must be there.
    @Test func aManifestIsFindableBeforeCurrentNamesIt() throws {
        for seed in UInt64(1)...20 {
            let (disk, id) = try diskWithATree()
            let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: seed)
            let tree = try harness.open(id)
            let before = Set(disk.paths)
            disk.inject(.init([.create]) { $0.contains("CURRENT") })
            #expect(throws: EngineError.self) { try harness.setEpoch(tree, 2, writer: "other") }
            let begun = disk.paths.filter { $0.contains("MANIFEST") && !before.contains($0) }
            #expect(begun.count == 1)
            harness.engine.close()
            let found = disk.afterPowerCut(seed: seed).paths
            #expect(begun.allSatisfy { found.contains($0) }, "seed \(seed)")
        }
    }
}

@Suite struct ReleaseTests {
    @Test func aReleaseIsAnsweredWhenTheSnapshotCannotComeBack() throws {
        for seed in UInt64(1)...20 {
            let disk = MemoryFileSystem(seed: seed)
            var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: seed)
            let tree = try harness.create(wholeRange)
            try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
            let handle = try harness.snapshot(tree, 1).handle
            disk.inject(.init([.syncDirectory]) { $0.hasSuffix("/snapshots") })
            let first = Answer<Int>()
            let again = Answer<Int>()
            harness.engine.releaseSnapshots([handle]) { first.set($0) }
            harness.engine.releaseSnapshots([handle]) { again.set($0) }
            _ = harness.scheduler.run(stepsMax: 100) { false }
            #expect(first.value == nil && again.value == nil)
            #expect(harness.engine.snapshots(store: "orders").isEmpty)

            disk.clearFaults()
            #expect(harness.scheduler.run { first.value != nil && again.value != nil })
            #expect(first.value == 1 && again.value == 0)
            harness.engine.close()
            harness = try EngineHarness(smallOptions(), fileSystem: disk.afterPowerCut(seed: seed), seed: seed)
            #expect(harness.engine.snapshots(store: "orders").isEmpty)
            harness.engine.close()
        }
    }

    @Test func aReleaseIsFinishedByClosing() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let handle = try harness.snapshot(try harness.create(wholeRange), 1).handle
        let answer = Answer<Int>()
        harness.engine.releaseSnapshots([handle]) { answer.set($0) }
        harness.engine.close()
        #expect(answer.value == 1)
        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.snapshots(store: "orders").isEmpty)
        harness.engine.close()
    }
}

@Suite struct TakeoverTests {
    /// A tree with a key, and a failed attempt to put another in its place whose CURRENT may be on disk.
    private func failedTakeover(_ disk: MemoryFileSystem, seed: UInt64) throws -> (EngineHarness, Tree, String) {
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: seed)
        let tree = try harness.create(wholeRange)
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        let handle = try harness.snapshot(tree, 1).handle
        harness.scheduler.runUntilIdle()
        // The directory can be synced before CURRENT is there, and not afterwards.
        disk.inject(.init([.syncDirectory], skip: 1) { $0.hasSuffix("/trees/000002") })
        disk.inject(.init([.remove]) { $0.hasSuffix("/trees/000002/CURRENT") })
        #expect(throws: EngineError.self) {
            try harness.create(wholeRange, epoch: 2, from: [handle], replacing: [tree.id])
        }
        #expect(try disk.exists("/data/trees/000002/CURRENT"))
        return (harness, tree, handle)
    }

    @Test func aTakeoverThatFailedHalfwayLosesNothingAcknowledgedAfterwards() throws {
        for seed in UInt64(1)...20 {
            let disk = MemoryFileSystem(seed: seed)
            let (harness, tree, _) = try failedTakeover(disk, seed: seed)
            _ = harness.scheduler.run(stepsMax: 50) { false }
            let asked = Answer<Result<Void, EngineError>>()
            let batch = OwnedBatch([put(makeKey(1, "later"), "v")])
            do throws(EngineError) {
                let (_, durable) = try harness.write(tree, batch)
                _ = harness.scheduler.run(stepsMax: 200) { durable.value != nil }
                if let result = durable.value { asked.set(result) }
            } catch {
                asked.set(.failure(error))
            }
            let id = tree.id
            harness.engine.close()
            let after = try EngineHarness(smallOptions(), fileSystem: disk.afterPowerCut(seed: seed), seed: seed)
            if case .success? = asked.value {
                #expect(after.engine.treeInfos().map(\.id) == [id], "seed \(seed)")
                let opened = try after.open(id)
                #expect(try after.get(opened, makeKey(1, "later")) != nil, "seed \(seed)")
            }
            #expect(after.engine.treeInfos().count == 1)
            after.engine.close()
        }
    }

    @Test func theFormerTreeGoesOnWhenTheNewOneIsGone() throws {
        for seed in UInt64(1)...20 {
            let disk = MemoryFileSystem(seed: seed)
            var (harness, tree, handle) = try failedTakeover(disk, seed: seed)
            _ = harness.scheduler.run(stepsMax: 50) { false }
            #expect(tree.statistics.readOnlyCause != nil)
            #expect(try harness.get(tree, makeKey(1, "k")) != nil)
            #expect(throws: EngineError.self) { try harness.setEpoch(tree, 2, writer: "other") }
            // Neither another attempt nor opening the tree again leads past the block.
            #expect(throws: EngineError.self) {
                try harness.create(wholeRange, epoch: 2, from: [handle], replacing: [tree.id])
            }
            let id = tree.id
            try harness.close(tree)
            tree = try harness.open(id)
            let batch = OwnedBatch([put(makeKey(1, "later"), "v")])
            #expect(throws: EngineError.self) { try harness.write(tree, batch) }

            disk.clearFaults()
            #expect(harness.scheduler.run { tree.statistics.readOnlyCause == nil })
            try harness.writeDurably(tree, batch)
            harness.engine.close()
            harness = try EngineHarness(smallOptions(), fileSystem: disk.afterPowerCut(seed: seed), seed: seed)
            #expect(harness.engine.treeInfos().map(\.id) == [id])
            let opened = try harness.open(id)
            #expect(try harness.get(opened, makeKey(1, "later")) != nil)
            handle = try harness.snapshot(opened, 2).handle
            harness.engine.close()
        }
    }
}

@Suite struct NumberTests {
    @Test func aTreeNumberThatASnapshotRemembersIsNotUsedAgain() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        let id = tree.id
        let first = try harness.snapshot(tree, 1)
        try harness.retire(id)
        harness.scheduler.runUntilIdle()
        harness.engine.close()
        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        let next = try harness.create(wholeRange)
        #expect(next.id > id)
        #expect(try harness.snapshot(next, 1).handle != first.handle)
        harness.engine.close()
    }

    @Test func hostileNumbersInNamesAreIgnored() throws {
        let (disk, id) = try diskWithATree()
        for path in [
            "/data/tables/18446744073709551615.sst", "/data/snapshots/18446744073709551615.snap",
            "/data/trees/18446744073709551615", firstTree + "/18446744073709551615.log",
            firstTree + "/MANIFEST-18446744073709551615",
        ] { disk.setContents(path, [1, 2, 3]) }
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        let tree = try harness.open(id)
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "l"), "w")]))
        _ = try harness.snapshot(tree, 1)
        try harness.setEpoch(tree, 2, writer: "other")
        harness.engine.close()
    }

    @Test func numbersNobodyCanCountOnFromAreRefused() {
        func isRefused(_ change: (inout TreeState) -> Void) -> Bool {
            var state = TreeState(identity: wholeRange, epoch: 1, writer: "w")
            change(&state)
            let bytes =
                ManifestFormat.encodeHeader(tree: TreeID(1), number: 1, state: state)
                + ManifestFormat.encode(state, number: 1)
            return (try? ManifestFormat.decode(bytes, path: "m", tree: TreeID(1), number: 1)) == nil
        }
        #expect(!isRefused { $0.flushed.sequence = 7 })
        #expect(isRefused { $0.flushed.sequence = .max })
        #expect(isRefused { $0.firstSegment = .max })
        #expect(isRefused { $0.levels[1] = [hugeFile(.max, 0, 127)] })
        #expect(!isRefused { $0.logs = [log(tree: 5, segments: [4, 5])] })
        #expect(isRefused { $0.logs = [log(tree: .max, segments: [4])] })
        #expect(isRefused { $0.logs = [log(tree: 5, segments: [.max])] })
        #expect(isRefused { $0.logs = [log(tree: 5, segments: [5, 4])] })
        #expect(isRefused { $0.logs = [log(tree: 5, segments: [0])] })
        #expect(throws: EngineError.self) {
            try ManifestFormat.decodeCurrent(ManifestFormat.encodeCurrent(.max), path: "c")
        }
        let snapshot = SnapshotRecord(
            handle: "h", identity: wholeRange, tree: TreeID(.max), checkpoint: 1,
            progress: WriteProgress(epoch: 1, sequence: 1, watermark: 0), createdMilliseconds: 0,
            levels: TreeState(identity: wholeRange, epoch: 1, writer: "w").levels)
        #expect(throws: EngineError.self) {
            try SnapshotFormat.decode(SnapshotFormat.encode(snapshot), path: "s")
        }
    }

    private func log(tree: UInt64, segments: [UInt64]) -> LogReference {
        LogReference(
            tree: TreeID(tree), window: wholeRange.keyGroups, after: LogPosition(epoch: 1, sequence: 1),
            through: LogPosition(epoch: 1, sequence: 9),
            segments: segments.map { LogSegmentPart(number: $0, bytes: 99) })
    }

    private func hugeFile(_ number: UInt64, _ first: UInt16, _ last: UInt16) -> FileRecord {
        var summary = TableSummary()
        summary.entryCount = .max
        summary.fileBytes = .max
        summary.keyGroups = wholeRange.keyGroups
        summary.smallestKey = makeKey(0, "a")
        summary.largestKey = makeKey(127, "z")
        return FileRecord(number: number, window: KeyGroupRange(first: first, last: last), summary: summary)
    }

    @Test func sizesThatAddUpToTooMuchStayAtTheLargest() {
        let half = hugeFile(1, 0, 63)
        #expect(half.windowedBytes == .max / 2 && half.windowedEntries == .max / 2)
        let files = [half, hugeFile(2, 0, 127)]
        #expect(files.windowedBytes == .max && files.windowedEntries == .max)
        let picker = CompactionPicker(options: CompactionOptions())
        var levels = TreeState(identity: wholeRange, epoch: 1, writer: "w").levels
        levels[0] = (1...4).map { hugeFile($0, 0, 127) }
        #expect(picker.debtBytes(levels, CompactionFeedback()) == .max)
    }

    @Test func delaysBeyondADayAreRefused() {
        for change in [
            { (options: inout EngineOptions) in options.retryLastMilliseconds = .max },
            { (options: inout EngineOptions) in options.expiryCheckMilliseconds = .max },
            { (options: inout EngineOptions) in options.busyRetryMilliseconds = .max },
        ] {
            var options = smallOptions()
            change(&options)
            #expect(throws: EngineError.self) { try options.validate() }
        }
    }

    @Test func aSnapshotOfAnotherStoreIsRefused() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let handle = try harness.snapshot(try harness.create(wholeRange), 1).handle
        let other = TreeIdentity(store: "other", keyGroups: wholeRange.keyGroups, keyGroupCount: 128)
        #expect(throws: EngineError.self) { try harness.create(other, from: [handle]) }
        harness.engine.close()
    }
}
