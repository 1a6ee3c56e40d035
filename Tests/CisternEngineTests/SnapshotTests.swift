// Snapshots, and new trees from clipped unions of them.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct SnapshotTests {
    private func identity(_ first: UInt16, _ last: UInt16) -> TreeIdentity {
        TreeIdentity(store: "orders", keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: 128)
    }

    private func fill(_ harness: EngineHarness, _ tree: Tree, rounds: Int, tag: String) throws -> ModelStore {
        var model = ModelStore()
        let groups = tree.identity.keyGroups
        for round in 0..<rounds {
            let batch = OwnedBatch(
                (groups.first...groups.last).map { put(makeKey($0, "k\(round % 9)"), "\(tag)-\(round)-\($0)") })
            model.apply(batch)
            try harness.writeDurably(tree, batch)
        }
        return model
    }

    private func expect(_ harness: EngineHarness, _ tree: Tree, _ model: ModelStore) throws {
        let found = try harness.scan(tree)
        let expected = model.scan(harness.clock(tree))
        #expect(found.map(\.key) == expected.map(\.key))
        #expect(found.map(\.stored) == expected.map(\.stored))
    }

    @Test func aSnapshotIsTheStateAtItsCallAndIsTakenOnce() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(identity(0, 127))
        let model = try fill(harness, tree, rounds: 20, tag: "a")
        let first = Answer<Result<SnapshotInfo, EngineError>>()
        let second = Answer<Result<SnapshotInfo, EngineError>>()
        tree.snapshot(checkpoint: 7) { first.set($0) }
        tree.snapshot(checkpoint: 7) { second.set($0) }
        try harness.write(tree, OwnedBatch([put(makeKey(1, "later"), "x")]))
        #expect(harness.scheduler.run { first.value != nil && second.value != nil })
        let info = try #require(first.value).get()
        #expect(try #require(second.value).get() == info)
        #expect(info.handle.hasPrefix("orders/7/0-127/"))
        #expect(info.checkpoint == 7 && info.progress.sequence == 20)
        #expect(try harness.snapshot(tree, 7) == info)
        #expect(harness.engine.snapshots(store: "orders") == [info])
        #expect(harness.engine.snapshots(store: "other").isEmpty)
        let id = tree.id
        harness.engine.close()

        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        let known = try #require(harness.engine.snapshots(store: "orders").first)
        #expect(known.handle == info.handle && known.progress == info.progress && known.bytes == info.bytes)
        #expect(try harness.snapshot(try harness.open(id), 7) == known)
        let restored = try harness.create(identity(0, 127), epoch: 2, from: [info.handle])
        try expect(harness, restored, model)
        harness.engine.close()
    }

    @Test func twoTreesBecomeThreeAndThreeBecomeOne() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let left = try harness.create(identity(0, 63))
        let right = try harness.create(identity(64, 127))
        var model = try fill(harness, left, rounds: 40, tag: "l")
        model.merge(try fill(harness, right, rounds: 30, tag: "r"))
        let handles = [try harness.snapshot(left, 1).handle, try harness.snapshot(right, 1).handle]

        let ranges = [identity(0, 42), identity(43, 84), identity(85, 127)]
        var thirds: [Tree] = []
        for (index, range) in ranges.enumerated() {
            let tree = try harness.create(
                range, epoch: 2, from: handles, replacing: index == 0 ? [left.id, right.id] : [])
            #expect(tree.statistics.levels.reduce(0) { $0 + $1.files } > 0)
            try expect(harness, tree, model.clipped(to: range.keyGroups))
            thirds.append(tree)
        }
        #expect(harness.engine.treeInfos().map(\.identity) == ranges)
        for tree in thirds {
            let batch = OwnedBatch([put(makeKey(tree.identity.keyGroups.first, "new"), "n")])
            model.apply(batch)
            try harness.writeDurably(tree, batch)
        }
        let again = try thirds.reversed().map { try harness.snapshot($0, 2).handle }
        #expect(harness.engine.releaseSnapshots(handles) == 2)
        let whole = try harness.create(identity(0, 127), epoch: 3, from: again, replacing: thirds.map(\.id))
        try expect(harness, whole, model)
        harness.scheduler.runUntilIdle()
        try expect(harness, whole, model)
        harness.engine.close()
    }

    @Test func filesOfAReleasedSnapshotGoWhenNothingElseRefersToThem() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(identity(0, 127))
        _ = try fill(harness, tree, rounds: 30, tag: "a")
        let handle = try harness.snapshot(tree, 1).handle
        try harness.retire(tree.id)
        harness.scheduler.runUntilIdle()
        let kept = disk.paths.filter { $0.hasSuffix(".sst") }.count
        #expect(kept > 0)
        let restored = try harness.create(identity(0, 63), epoch: 2, from: [handle])
        #expect(harness.engine.releaseSnapshots([handle]) == 1)
        harness.scheduler.runUntilIdle()
        #expect(try harness.scan(restored).count == 64 * 9)
        try harness.retire(restored.id)
        harness.scheduler.runUntilIdle()
        #expect(disk.paths.filter { $0.hasSuffix(".sst") || $0.hasSuffix(".snap") }.isEmpty)
        harness.engine.close()
    }

    @Test func snapshotsThatDoNotFitAreRefused() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let left = try harness.create(identity(0, 63))
        let middle = try harness.create(identity(32, 95))
        let handles = [try harness.snapshot(left, 1).handle, try harness.snapshot(middle, 1).handle]
        // Overlapping snapshots, a range that is not covered, an unknown handle, another number of key groups.
        #expect(throws: EngineError.self) { try harness.create(identity(0, 95), epoch: 2, from: handles) }
        #expect(throws: EngineError.self) { try harness.create(identity(0, 64), epoch: 2, from: [handles[0]]) }
        #expect(throws: EngineError.self) { try harness.create(identity(0, 63), epoch: 2, from: ["orders/9/0-63/x"]) }
        let other = TreeIdentity(store: "orders", keyGroups: KeyGroupRange(first: 0, last: 63), keyGroupCount: 64)
        #expect(throws: EngineError.self) { try harness.create(other, epoch: 2, from: [handles[0]]) }
        // Snapshots outside of the range do not matter.
        _ = try harness.create(identity(0, 31), epoch: 2, from: [handles[0]])
        #expect(harness.engine.treeInfos().count == 3)
        harness.engine.close()
    }

    /// A crash between the new tree and the end of the old ones leaves one of the two, never both.
    @Test func anExchangeOfTreesIsAtomicAtEverySync() throws {
        for cut in 1...14 {
            let disk = MemoryFileSystem(seed: UInt64(cut))
            var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
            let left = try harness.create(identity(0, 63))
            let right = try harness.create(identity(64, 127))
            var model = try fill(harness, left, rounds: 3, tag: "l")
            model.merge(try fill(harness, right, rounds: 3, tag: "r"))
            let handles = [try harness.snapshot(left, 1).handle, try harness.snapshot(right, 1).handle]
            harness.scheduler.runUntilIdle()
            disk.failPower(atSync: disk.syncCount + cut)
            let made = try? harness.create(
                identity(0, 127), epoch: 2, from: handles, replacing: [left.id, right.id])
            for _ in 0..<200 { harness.scheduler.step() }
            harness.engine.close()
            harness = try EngineHarness(
                smallOptions(), fileSystem: disk.afterPowerCut(seed: UInt64(cut)), seed: 2)
            #expect(harness.engine.damagedParts.isEmpty)
            let ranges = harness.engine.treeInfos().map(\.identity.keyGroups)
            let isNew = ranges == [KeyGroupRange(first: 0, last: 127)]
            #expect(isNew || (ranges == [identity(0, 63).keyGroups, identity(64, 127).keyGroups] && made == nil))
            for info in harness.engine.treeInfos() {
                try expect(harness, try harness.open(info.id), model.clipped(to: info.identity.keyGroups))
            }
            harness.engine.close()
        }
    }

    /// The time of a restore must not depend on the size of the state: no table file is opened.
    @Test func aRestoreOpensNoTable() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(identity(0, 127))
        let model = try fill(harness, tree, rounds: 40, tag: "a")
        let handle = try harness.snapshot(tree, 1).handle
        harness.scheduler.runUntilIdle()
        disk.inject(.init([.open, .read]) { $0.hasSuffix(".sst") })
        let restored = try harness.create(identity(10, 20), epoch: 2, from: [handle])
        disk.clearFaults()
        try expect(harness, restored, model.clipped(to: restored.identity.keyGroups))
        harness.engine.close()
    }
}

@Suite struct DirectoryTests {
    @Test func aSecondProcessIsRefused() throws {
        let disk = MemoryFileSystem()
        let first = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        #expect(throws: EngineError.file(FileError(operation: "lock", path: "/data/LOCK", reason: .locked))) {
            _ = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        }
        first.engine.close()
        first.engine.close()
        try EngineHarness(smallOptions(), fileSystem: disk, seed: 3).engine.close()
    }

    @Test func aDamagedTreeIsReportedAndLeavesTheOthersAlone() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let good = try harness.create(wholeRange)
        let bad = try harness.create(TreeIdentity(store: "other", keyGroups: wholeRange.keyGroups, keyGroupCount: 128))
        try harness.writeDurably(good, OwnedBatch([put(makeKey(1, "k"), "v")]))
        let (goodID, badID) = (good.id, bad.id)
        try harness.close(good)
        try harness.close(bad)
        harness.engine.close()
        let current = "/data/trees/000002/CURRENT"
        var bytes = try #require(disk.contents(current))
        bytes[9] ^= 4
        disk.setContents(current, bytes)
        // An orphan must stay while a tree cannot be read: it may be its file.
        let orphan = "/data/tables/000000000999.sst"
        disk.setContents(orphan, [1, 2, 3])

        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.map(\.tree) == [badID])
        #expect(harness.engine.treeInfos().map(\.id) == [goodID])
        #expect(try disk.exists(orphan))
        #expect(try harness.get(try harness.open(goodID), makeKey(1, "k")) != nil)
        #expect(throws: EngineError.self) { try harness.open(badID) }
        try harness.retire(badID)
        #expect(harness.engine.damagedParts.isEmpty)
        harness.engine.close()
        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 3)
        #expect(try !disk.exists(orphan))
        harness.engine.close()
    }

    @Test func aNewerFormatAndBadOptionsAreRefused() throws {
        let disk = MemoryFileSystem()
        try EngineHarness(smallOptions(), fileSystem: disk, seed: 1).engine.close()
        var bytes = try #require(disk.contents("/data/CISTERN"))
        bytes[4] = 9
        disk.setContents("/data/CISTERN", bytes)
        #expect(throws: EngineError.self) { try EngineHarness(smallOptions(), fileSystem: disk, seed: 2) }
        for change in [
            { (options: inout EngineOptions) in options.memtableBytes = 1 },
            { (options: inout EngineOptions) in options.compaction.levelZeroStop = options.compaction.levelZeroTrigger
            },
            { (options: inout EngineOptions) in options.compaction.garbagePercent = 0 },
            { (options: inout EngineOptions) in options.retryLastMilliseconds = 1 },
        ] {
            var options = smallOptions()
            change(&options)
            #expect(throws: EngineError.self) { try options.validate() }
        }
    }

    /// The same engine on real threads and the real file system.
    @Test func realThreadsAndFilesKeepTheContract() async throws {
        let directory = "/tmp/cistern-engine-\(UInt64.random(in: 0 ... .max))"
        var options = smallOptions()
        options.directory = directory
        defer { removeTree(directory) }
        for round in UInt64(0)..<2 {
            let engine = try Engine.open(options, fileSystem: PosixFileSystem(), time: SystemTime())
            let owner = ThreadExecutor()
            let tree: Tree = try await withCheckedContinuation {
                (done: CheckedContinuation<Result<Tree, EngineError>, Never>) in
                if let info = engine.treeInfos().first {
                    engine.openTree(info.id, executor: owner) { done.resume(returning: $0) }
                } else {
                    engine.createTree(wholeRange, epoch: 1, writer: "w", from: [], executor: owner) {
                        done.resume(returning: $0)
                    }
                }
            }.get()
            for number in UInt64(1)...300 {
                let batch = OwnedBatch([
                    OwnedEntry(makeKey(UInt16(number % 128), "k"), .append, [UInt8](repeating: 7, count: 50))
                ])
                let result: Result<Void, EngineError> = await withCheckedContinuation { done in
                    owner.execute {
                        let outcome = batch.withColumns { columns in
                            Result { () throws(EngineError) in
                                try tree.write(
                                    columns, epoch: 1, sequence: round * 300 + number, watermark: 0,
                                    durable: { done.resume(returning: $0) })
                            }
                        }
                        switch outcome {
                        case .success(.applied): break
                        case .success: done.resume(returning: .failure(.closed(tree: "unexpected outcome")))
                        case .failure(let error): done.resume(returning: .failure(error))
                        }
                    }
                }
                try result.get()
            }
            let length: Int = await withCheckedContinuation { done in
                owner.execute {
                    var result = LookupResult()
                    let clock = ExpiryClock(processing: 0, event: 0)
                    _ = try? makeKey(1, "k").withUnsafeBytes { try tree.get($0, clock: clock, into: &result) }
                    done.resume(returning: result.finish(clock)?.value.count ?? 0)
                }
            }
            #expect(length == Int(round + 1) * 150)
            engine.close()
            owner.stop()
        }
    }

    private func removeTree(_ path: String) {
        let fileSystem = PosixFileSystem()
        for name in (try? fileSystem.list(path)) ?? [] {
            if (try? fileSystem.list(path + "/" + name)) != nil {
                removeTree(path + "/" + name)
            } else {
                try? fileSystem.remove(path + "/" + name)
            }
        }
        try? fileSystem.remove(path)
    }
}
