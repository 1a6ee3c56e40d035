// Snapshots that refer to the log instead of flushing, and trees that are made from them.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

private func identity(_ first: UInt16, _ last: UInt16, store: String = "orders") -> TreeIdentity {
    TreeIdentity(store: store, keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: 128)
}

/// Memtables that take all a test writes, unless it wants them smaller.
private func roomyOptions(_ mode: LogMode = .synced, memtableBytes: Int = 1 << 20) -> EngineOptions {
    var options = smallOptions()
    options.log = mode
    options.memtableBytes = memtableBytes
    return options
}

/// Appends, so that a record that is replayed twice shows.
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

private func expect(
    _ harness: EngineHarness, _ tree: Tree, _ model: ModelStore, _ comment: Comment? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let found = try harness.scan(tree)
    let expected = model.scan(harness.clock(tree))
    #expect(found.map(\.key) == expected.map(\.key), comment, sourceLocation: sourceLocation)
    #expect(found.map(\.stored) == expected.map(\.stored), comment, sourceLocation: sourceLocation)
}

private func durableState(_ disk: MemoryFileSystem, _ tree: TreeID) throws -> TreeState {
    let directory = "/data/trees/" + String(repeating: "0", count: 6 - "\(tree.number)".count) + "\(tree.number)"
    let current = try #require(disk.contents(directory + "/CURRENT"))
    let number = try ManifestFormat.decodeCurrent(current, path: "CURRENT")
    let path = try #require(disk.paths.first { $0.hasPrefix(directory) && $0.hasSuffix("MANIFEST-00000\(number)") })
    return try ManifestFormat.decode(try #require(disk.contents(path)), path: path, tree: tree, number: number)
}

private func logs(_ disk: MemoryFileSystem) -> [String] { disk.paths.filter { $0.hasSuffix(".log") } }

/// Counts what is read of logs.
private final class ReadCounting: FileSystem {
    struct Counts {
        var bytes = 0
        var longest = 0
    }

    private final class File: RandomReadFile {
        let base: any RandomReadFile
        let counts: Guarded<Counts>

        init(_ base: any RandomReadFile, _ counts: Guarded<Counts>) {
            self.base = base
            self.counts = counts
        }

        var path: String { base.path }
        var size: UInt64 { base.size }

        func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
            counts.withLock { counts in
                counts.bytes += buffer.count
                counts.longest = max(counts.longest, buffer.count)
            }
            try base.read(at: offset, into: buffer)
        }
    }

    let base: MemoryFileSystem
    let counts = Guarded(Counts())

    init(_ base: MemoryFileSystem) { self.base = base }

    func openRead(_ path: String) throws(FileError) -> any RandomReadFile {
        let file = try base.openRead(path)
        return path.hasSuffix(".log") ? File(file, counts) : file
    }

    func createDirectory(_ path: String) throws(FileError) { try base.createDirectory(path) }
    func list(_ path: String) throws(FileError) -> [String] { try base.list(path) }
    func exists(_ path: String) throws(FileError) -> Bool { try base.exists(path) }
    func size(_ path: String) throws(FileError) -> UInt64 { try base.size(path) }
    func openWrite(_ path: String) throws(FileError) -> any PositionedFile { try base.openWrite(path) }
    func createSized(_ path: String, bytes: UInt64) throws(FileError) -> any PositionedFile {
        try base.createSized(path, bytes: bytes)
    }
    func createAppend(_ path: String) throws(FileError) -> any AppendFile { try base.createAppend(path) }
    func readAll(_ path: String, limit: Int) throws(FileError) -> [UInt8] { try base.readAll(path, limit: limit) }
    func rename(_ from: String, to: String) throws(FileError) { try base.rename(from, to: to) }
    func remove(_ path: String) throws(FileError) { try base.remove(path) }
    func truncate(_ path: String, to size: UInt64) throws(FileError) { try base.truncate(path, to: size) }
    func syncDirectory(_ path: String) throws(FileError) { try base.syncDirectory(path) }
    func lock(_ path: String) throws(FileError) -> any DirectoryLock { try base.lock(path) }
}

@Suite struct LogSnapshotTests {
    @Test(arguments: [LogMode.synced, .buffered]) func aSnapshotFlushesNothingAndEndsAtItsCall(mode: LogMode) throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(roomyOptions(mode), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, rounds: 7, tag: "a", into: &model)
        let answer = Answer<Result<SnapshotInfo, EngineError>>()
        tree.snapshot(checkpoint: 1) { answer.set($0) }
        // Into the same segment, before and after the snapshot is recorded.
        let cut = model
        try harness.write(tree, OwnedBatch([put(makeKey(1, "later"), "x")]))
        #expect(harness.scheduler.run { answer.value != nil })
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(2, "later"), "y")]))
        let info = try #require(answer.value).get()
        #expect(info.fileCount == 0 && info.logBytes > 0 && info.progress.sequence == 7)
        #expect(tree.statistics.flushes == 0 && tree.statistics.sealedMemtables == 0)
        #expect(!disk.paths.contains { $0.hasSuffix(".sst") })
        try expect(harness, try harness.create(wholeRange, epoch: 2, from: [info.handle]), cut)
        harness.engine.close()

        // What the handle promised is there after a power cut, whatever else is lost.
        for seed in UInt64(1)...10 {
            let again = try EngineHarness(roomyOptions(mode), fileSystem: disk.afterPowerCut(seed: seed), seed: seed)
            #expect(again.engine.damagedParts.isEmpty)
            try expect(again, try again.create(wholeRange, epoch: 3, from: [info.handle]), cut)
            again.engine.close()
        }
    }

    @Test func filesAndLogTogetherAreTheSnapshot() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(roomyOptions(memtableBytes: 8192), fileSystem: disk, seed: 5)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, rounds: 23, tag: "a", into: &model)
        try harness.setEpoch(tree, 2, writer: "second")
        try fill(harness, tree, rounds: 3, tag: "b", into: &model)
        // Between an epoch and its first batch, too.
        try harness.setEpoch(tree, 3, writer: "third")
        let info = try harness.snapshot(tree, 1)
        #expect(info.fileCount > 0 && info.logBytes > 0)
        #expect(info.progress.epoch == 3 && info.progress.sequence == 0)
        try fill(harness, tree, rounds: 9, tag: "c", into: &model)
        var cut = ModelStore()
        let restored = try harness.create(wholeRange, epoch: 4, from: [info.handle])
        for entry in try harness.scan(restored) {
            cut.apply(OwnedEntry(entry.key, .put, entry.stored.value, expiry: entry.stored.expiry))
        }
        let second = try harness.create(wholeRange, epoch: 5, from: [try harness.snapshot(restored, 2).handle])
        try expect(harness, second, cut)
        try expect(harness, tree, model)
        harness.engine.close()
    }

    /// The writer goes on while the snapshot is being recorded: into further segments, which are flushed and pruned.
    @Test func segmentsThatBeginAfterTheCutAreNotReferredTo() throws {
        for seed in UInt64(1)...20 {
            let disk = MemoryFileSystem(seed: seed)
            var harness = try EngineHarness(roomyOptions(memtableBytes: 8192), fileSystem: disk, seed: seed)
            let tree = try harness.create(wholeRange)
            var model = ModelStore()
            try fill(harness, tree, rounds: 4, tag: "a", into: &model)
            let answer = Answer<Result<SnapshotInfo, EngineError>>()
            tree.snapshot(checkpoint: 1) { answer.set($0) }
            let cut = model
            for round in 0..<6 {
                let batch = OwnedBatch((0..<128).map { put(makeKey(UInt16($0), "later\(round)"), "some value") })
                while case .busy = try harness.write(tree, batch).outcome { harness.scheduler.step() }
                for _ in 0..<Int(seed % 7) { harness.scheduler.step() }
            }
            #expect(harness.scheduler.run { answer.value != nil })
            let handle = try #require(answer.value).get().handle
            harness.scheduler.runUntilIdle()
            harness.engine.close()
            harness = try EngineHarness(roomyOptions(memtableBytes: 8192), fileSystem: disk, seed: seed)
            #expect(harness.engine.damagedParts.isEmpty, "seed \(seed)")
            try expect(harness, try harness.create(wholeRange, epoch: 2, from: [handle]), cut, "seed \(seed)")
            harness.engine.close()
        }
    }

    /// A restore reads each segment once, and a piece at a time: memory of a segment's length would be the larger part of it.
    @Test func aRestoreReadsItsLogOnceAndInPieces() throws {
        let disk = ReadCounting(MemoryFileSystem())
        let harness = try EngineHarness(roomyOptions(memtableBytes: 16 << 20), fileSystem: disk, seed: 1)
        var trees: [Tree] = []
        var model = ModelStore()
        for (first, last) in [(UInt16(0), UInt16(63)), (64, 127)] {
            let tree = try harness.create(identity(first, last))
            for round in 0..<24 {
                let value = [UInt8](repeating: UInt8(round), count: round == 5 ? 2 << 20 : 3000)
                let batch = OwnedBatch(
                    (first...last).map { OwnedEntry(makeKey($0, "k\(round)"), .put, $0 == first ? value : [1]) })
                model.apply(batch)
                try harness.writeDurably(tree, batch)
                if round % 4 == 0 { try harness.writeDurably(tree, OwnedBatch([put(makeKey(first, "k"), "x")])) }
            }
            model.apply(put(makeKey(first, "k"), "x"))
            trees.append(tree)
        }
        let handles = try trees.map { try harness.snapshot($0, 1).handle }
        let logBytes = logs(disk.base).reduce(0) { $0 + (disk.base.contents($1)?.count ?? 0) }
        disk.counts.withLock { $0 = ReadCounting.Counts() }
        let restored = try harness.create(wholeRange, epoch: 2, from: handles)
        let counts = disk.counts.withLock { $0 }
        #expect(counts.bytes == logBytes)
        // The large value is one record, which has to be in memory whole.
        #expect(counts.longest <= (2 << 20) + SegmentWindow.pieceBytes)
        try expect(harness, restored, model)
        harness.engine.close()
    }

    /// What is dead hides nothing where nothing lies below, and then it is not restored; else it is.
    @Test func aRestoreLeavesOutWhatIsDead() throws {
        for seed in UInt64(1)...24 {
            var random = SeededRandom(seed: seed)
            let disk = MemoryFileSystem(seed: seed)
            // A third of the runs has files below, a third more than one memtable.
            let memtableBytes = [1 << 20, 8192, 32 << 10][Int(seed % 3)]
            var harness = try EngineHarness(
                roomyOptions(memtableBytes: seed % 3 == 2 ? 1 << 20 : memtableBytes), fileSystem: disk, seed: seed)
            harness.pointStates = seed % 2 == 0 ? PointStates([1]) : PointStates()
            let tree = try harness.create(wholeRange)
            var model = ModelStore()
            for round in 0..<40 {
                let keys = Set(
                    (0..<40).map { _ in
                        makeKey(UInt16.random(in: 0..<128, using: &random), "k\(Int.random(in: 0..<8, using: &random))")
                    })
                let batch = OwnedBatch(
                    keys.sorted { $0.lexicographicallyPrecedes($1) }.map { key in
                        switch Int.random(in: 0..<4, using: &random) {
                        case 0: OwnedEntry(key, .delete)
                        case 1: put(key, "for ever \(round)")
                        case 2: put(key, "a while \(round)", expiry: .eventTime(milliseconds: UInt64(round) + 9))
                        default: put(key, "long \(round)", expiry: .processingTime(milliseconds: 2_000_000))
                        }
                    })
                model.apply(batch)
                try harness.writeDurably(tree, batch, watermark: UInt64(round))
            }
            let handle = try harness.snapshot(tree, 1).handle
            if seed % 3 == 2 {
                harness.engine.close()
                harness = try EngineHarness(
                    roomyOptions(memtableBytes: memtableBytes), fileSystem: disk, seed: seed)
                harness.pointStates = seed % 2 == 0 ? PointStates([1]) : PointStates()
            }
            let half = identity(20, 90)
            var restored = try harness.create(half, epoch: 2, from: [handle], replacing: [tree.id])
            let part = model.clipped(to: half.keyGroups)
            let alive = part.scan(harness.clock(restored)).count
            try expect(harness, restored, part, "seed \(seed)")
            if seed % 6 == 0 { #expect(restored.statistics.approximateEntries == UInt64(alive), "seed \(seed)") }
            // The next start replays the same log again.
            harness.engine.close()
            harness = try EngineHarness(roomyOptions(memtableBytes: memtableBytes), fileSystem: disk, seed: seed)
            harness.pointStates = seed % 2 == 0 ? PointStates([1]) : PointStates()
            restored = try harness.open(restored.id)
            try expect(harness, restored, part, "seed \(seed), opened again")
            let kept = try harness.snapshot(restored, 2).handle
            try expect(harness, try harness.create(half, epoch: 3, from: [kept]), part, "seed \(seed), again")
            harness.engine.close()
        }
    }

    /// A tree that was made from logs refers to them until it has flushed what they hold, and replays them once.
    @Test func aRestoredTreeKeepsTheLogsUntilItsFirstFlush() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, rounds: 6, tag: "a", into: &model)
        let handle = try harness.snapshot(tree, 1).handle
        var restored = try harness.create(wholeRange, epoch: 2, from: [handle], replacing: [tree.id])
        let id = restored.id
        harness.engine.releaseSnapshots([handle])
        harness.scheduler.runUntilIdle()
        try fill(harness, restored, rounds: 4, tag: "b", into: &model)
        for seed in UInt64(2)...4 {
            harness.engine.close()
            harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: seed)
            #expect(harness.engine.treeInfos().map(\.id) == [id])
            restored = try harness.open(id)
            try expect(harness, restored, model)
            try fill(harness, restored, rounds: 1, tag: "c", into: &model)
            #expect(try durableState(disk, id).logs.map(\.tree) == [tree.id])
        }
        #expect(logs(disk).contains { $0.hasPrefix("/data/trees/000001/") })
        try harness.close(restored)
        harness.scheduler.runUntilIdle()
        #expect(try durableState(disk, id).logs.isEmpty)
        // Nothing refers to the first tree's segments any more, and its directory went with them.
        #expect(!disk.paths.contains { $0.hasPrefix("/data/trees/000001") })
        #expect(try disk.list("/data/trees") == ["000002"])
        try expect(harness, try harness.open(id), model)
        harness.engine.close()
    }

    @Test func segmentsOfATreeThatIsGoneStayWithTheSnapshot() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, rounds: 6, tag: "a", into: &model)
        let handles = [try harness.snapshot(tree, 1).handle, try harness.snapshot(tree, 2).handle]
        try harness.retire(tree.id)
        harness.scheduler.runUntilIdle()
        harness.engine.close()
        harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.treeInfos().isEmpty && harness.engine.damagedParts.isEmpty)
        harness.engine.releaseSnapshots([handles[0]])
        harness.scheduler.runUntilIdle()
        #expect(!logs(disk).isEmpty)
        let restored = try harness.create(wholeRange, epoch: 2, from: [handles[1]])
        #expect(restored.id > tree.id)
        try expect(harness, restored, model)
        harness.engine.releaseSnapshots([handles[1]])
        try harness.retire(restored.id)
        harness.scheduler.runUntilIdle()
        #expect(disk.paths.filter { !$0.hasSuffix("CISTERN") }.isEmpty, "\(disk.paths)")
        #expect(try disk.list("/data/trees").isEmpty)
        harness.engine.close()
    }

    /// The live tree flushes and prunes its log; the snapshot's segments outlive that, and a restart.
    @Test func segmentsThatASnapshotRefersToAreNotPruned() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange)
        let id = tree.id
        var model = ModelStore()
        try fill(harness, tree, rounds: 6, tag: "a", into: &model)
        let cut = model
        let handle = try harness.snapshot(tree, 1).handle
        try harness.close(tree)
        tree = try harness.open(id)
        try fill(harness, tree, rounds: 6, tag: "b", into: &model)
        try harness.close(tree)
        #expect(logs(disk).first?.hasSuffix("000001.log") == true)
        harness.engine.close()
        harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 2)
        tree = try harness.open(id)
        try expect(harness, tree, model)
        let restored = try harness.create(wholeRange, epoch: 2, from: [handle])
        try expect(harness, restored, cut)
        try harness.retire(restored.id)
        harness.engine.releaseSnapshots([handle])
        harness.scheduler.runUntilIdle()
        #expect(!logs(disk).contains { $0.hasSuffix("000001.log") })
        harness.engine.close()
    }

    @Test func whatDoesNotFitOneMemtableBecomesFiles() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1)
        var model = ModelStore()
        var handles: [String] = []
        for first in stride(from: UInt16(0), to: 128, by: 32) {
            let tree = try harness.create(identity(first, first + 31))
            try fill(harness, tree, rounds: 40, tag: "t\(first)-", into: &model)
            handles.append(try harness.snapshot(tree, 1).handle)
        }
        harness.engine.close()
        harness = try EngineHarness(roomyOptions(memtableBytes: 8192), fileSystem: disk, seed: 2)
        let whole = try harness.create(wholeRange, epoch: 2, from: handles)
        #expect(whole.statistics.memtableEntries == 0)
        #expect(whole.statistics.levels[0].files > 1)
        #expect(try durableState(disk, whole.id).logs.isEmpty)
        try expect(harness, whole, model)
        harness.engine.releaseSnapshots(handles)
        harness.scheduler.runUntilIdle()
        let before = model
        try fill(harness, whole, rounds: 3, tag: "later", into: &model)
        #expect(before != model)
        harness.engine.close()
        harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 3)
        try expect(harness, try harness.open(whole.id), model)
        harness.engine.close()
    }

    /// Split and union, again and again, without a flush in between: references do not multiply.
    @Test func repeatedSplitAndUnionKeepsOneReferenceToEachLog() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1)
        var trees = [try harness.create(wholeRange)]
        var model = ModelStore()
        try fill(harness, trees[0], rounds: 3, tag: "0-", into: &model)
        var written: Set<TreeID> = [trees[0].id]
        var handles: [String] = []
        for round in UInt64(1)...8 {
            let next = round % 2 == 1 ? [identity(0, 41), identity(42, 79), identity(80, 127)] : [wholeRange]
            let taken = try trees.map { try harness.snapshot($0, round).handle }
            let old = trees.map(\.id)
            trees = try next.enumerated().map { index, range in
                try harness.create(range, epoch: round + 1, from: taken, replacing: index == 0 ? old : [])
            }
            handles += taken
            for tree in trees {
                let parts = try durableState(disk, tree.id).logs
                #expect(Set(parts.map(\.tree)).isSubset(of: written))
                #expect(parts.count == Set(parts.map(\.tree)).count, "round \(round): \(parts)")
                try expect(harness, tree, model.clipped(to: tree.identity.keyGroups))
            }
            for tree in trees {
                try fill(harness, tree, rounds: 1, tag: "\(round)-", into: &model)
                written.insert(tree.id)
            }
        }
        for tree in trees { try expect(harness, tree, model.clipped(to: tree.identity.keyGroups)) }
        harness.engine.releaseSnapshots(handles)
        for tree in trees { try harness.close(tree) }
        harness.scheduler.runUntilIdle()
        #expect(try disk.list("/data/trees").count == trees.count)
        harness.engine.close()
    }

    /// Programs that know only the first format would remove segments that others refer to.
    @Test func aDirectoryOfFormatOneKeepsItsSnapshotsWithoutLogs() throws {
        let disk = MemoryFileSystem()
        try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1).engine.close()
        disk.setContents("/data/CISTERN", [0x43, 0x49, 0x53, 0x54, 1, 0, 0, 0])
        let harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 2)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, rounds: 3, tag: "a", into: &model)
        let info = try harness.snapshot(tree, 1)
        #expect(info.fileCount == 1 && info.logBytes == 0)
        let record = try #require(disk.paths.first { $0.hasSuffix(".snap") }.flatMap { disk.contents($0) })
        #expect(record[4] == 1)
        harness.engine.close()
    }
}

@Suite struct LogSnapshotDamageTests {
    private func snapshotOnDisk() throws -> (disk: MemoryFileSystem, tree: TreeID, handle: String, segment: String) {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        try fill(harness, tree, rounds: 3, tag: "a", into: &model)
        let handle = try harness.snapshot(tree, 1).handle
        try fill(harness, tree, rounds: 3, tag: "b", into: &model)
        harness.engine.close()
        return (disk, tree.id, handle, try #require(logs(disk).first))
    }

    @Test func aSegmentThatIsMissingIsReported() throws {
        let (disk, tree, _, segment) = try snapshotOnDisk()
        try disk.remove(segment)
        let harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.count == 1)
        #expect("\(harness.engine.damagedParts)".contains(segment))
        #expect(harness.engine.snapshots(store: "orders").isEmpty)
        #expect(harness.engine.treeInfos().map(\.id) == [tree])
        harness.engine.close()
    }

    @Test func everyChangeToWhatASnapshotRefersToIsNoticed() throws {
        let (disk, tree, handle, segment) = try snapshotOnDisk()
        let bytes = try #require(disk.contents(segment))
        let record = try SnapshotFormat.decode(
            try #require(disk.paths.first { $0.hasSuffix(".snap") }.flatMap { disk.contents($0) }), path: "s")
        let meant = Int(try #require(record.logs.first?.segments.first).bytes)
        #expect(record.logs.count == 1 && meant < bytes.count)
        for offset in stride(from: 0, to: meant, by: 97) {
            var damaged = bytes
            damaged[offset] ^= 4
            disk.setContents(segment, damaged)
            let harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 2)
            #expect(throws: EngineError.self) { try harness.create(wholeRange, epoch: 2, from: [handle]) }
            #expect(harness.engine.treeInfos().map(\.id) == [tree])
            harness.engine.close()
        }
        disk.setContents(segment, Array(bytes[..<(meant - 1)]))
        var harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 2)
        #expect(throws: EngineError.self) { try harness.create(wholeRange, epoch: 2, from: [handle]) }
        harness.engine.close()
        // What lies behind does not matter.
        disk.setContents(segment, Array(bytes[..<meant]) + [1, 2, 3])
        harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 2)
        _ = try harness.create(wholeRange, epoch: 2, from: [handle])
        harness.engine.close()
    }

    /// A snapshot whose log cannot be made durable is refused, and the tree comes back by itself.
    @Test(arguments: [ENOSPC, EIO]) func aLogThatCannotBeSyncedRefusesTheSnapshot(error: Int32) throws {
        for mode in [LogMode.buffered, .synced] {
            let disk = MemoryFileSystem()
            let harness = try EngineHarness(roomyOptions(mode), fileSystem: disk, seed: 1)
            let tree = try harness.create(wholeRange)
            var model = ModelStore()
            try fill(harness, tree, rounds: 3, tag: "a", into: &model)
            disk.inject(.init([.sync], error: error) { $0.hasSuffix(".log") })
            if mode == .synced {
                let batch = OwnedBatch([put(makeKey(1, "doubtful"), "x")])
                try harness.write(tree, batch)
                model.apply(batch)
            }
            let answer = Answer<Result<SnapshotInfo, EngineError>>()
            tree.snapshot(checkpoint: 1) { answer.set($0) }
            #expect(harness.scheduler.run { answer.value != nil })
            guard case .failure(.readOnly(_, let cause)) = try #require(answer.value) else {
                Issue.record("expected readOnly, found \(String(describing: answer.value))")
                return
            }
            #expect(cause.contains("errno \(error)"), "\(cause)")
            #expect(harness.scheduler.run { tree.statistics.readOnlyCause != nil })
            disk.clearFaults()
            #expect(harness.scheduler.run { tree.statistics.readOnlyCause == nil })
            let info = try harness.snapshot(tree, 1)
            try expect(harness, try harness.create(wholeRange, epoch: 2, from: [info.handle]), model)
            harness.engine.close()
        }
    }

    /// Each step of a restore that reads logs fails once: no tree is left, nothing is lost, and the next attempt works.
    @Test func aRestoreThatFailsLeavesNothingBehind() throws {
        for memtableBytes in [1 << 20, 4096] {
            let disk = MemoryFileSystem()
            var harness = try EngineHarness(roomyOptions(), fileSystem: disk, seed: 1)
            let tree = try harness.create(wholeRange)
            var model = ModelStore()
            try fill(harness, tree, rounds: 12, tag: "a", into: &model)
            let handle = try harness.snapshot(tree, 1).handle
            harness.engine.close()
            harness = try EngineHarness(roomyOptions(memtableBytes: memtableBytes), fileSystem: disk, seed: 1)
            let before = disk.paths
            var failures = 0
            for operation in [MemoryFileSystem.Operation.open, .read, .create, .append, .sync, .syncDirectory, .rename]
            {
                for skip in 0..<3 {
                    disk.inject(.init([operation], error: ENOSPC, skip: skip, count: 1))
                    let made = try? harness.create(wholeRange, epoch: 2, from: [handle])
                    disk.clearFaults()
                    if let made {
                        try expect(harness, made, model)
                        try harness.retire(made.id)
                    } else {
                        failures += 1
                    }
                    harness.scheduler.runUntilIdle()
                    #expect(disk.paths == before, "\(operation) \(skip)")
                }
            }
            #expect(failures > 10)
            harness.engine.close()
        }
    }
}

/// The same run of snapshots, restores and exchanges, with the power cut at each of its syncs in turn.
@Suite struct LogSnapshotCrashTests {
    @Test(arguments: [LogMode.synced, .buffered]) func everySyncPointIsACleanCut(mode: LogMode) throws {
        let whole = MemoryFileSystem(seed: 1)
        _ = try run(on: whole, mode)
        let syncs = whole.syncCount
        #expect(syncs > 30)
        for sync in 1...syncs {
            let disk = MemoryFileSystem(seed: UInt64(sync))
            disk.failPower(atSync: sync)
            let acknowledged = try run(on: disk, mode)
            try verify(acknowledged, on: disk.afterPowerCut(seed: UInt64(sync)), mode, sync)
        }
    }

    /// What was promised before the power failed.
    private struct Acknowledged {
        var snapshots: [(handle: String, range: KeyGroupRange, model: ModelStore)] = []
        /// Trees by what they must hold; empty while an exchange was under way.
        var trees: [(range: KeyGroupRange, model: ModelStore)] = []
        var isExchanging = false
    }

    private func run(on disk: MemoryFileSystem, _ mode: LogMode) throws -> Acknowledged {
        var known = Acknowledged()
        guard let harness = try? EngineHarness(roomyOptions(mode), fileSystem: disk, seed: 1) else { return known }
        defer { harness.engine.close() }
        var model = ModelStore()
        do {
            var trees = [try harness.create(wholeRange)]
            known.trees = [(wholeRange.keyGroups, model)]
            for round in UInt64(1)...3 {
                for tree in trees { try fill(harness, tree, rounds: 2, tag: "\(round)-", into: &model) }
                // With a synced log what was written is there; a buffered one promises what a snapshot holds.
                if mode == .synced { known.trees = trees.map { ($0.identity.keyGroups, part(model, $0)) } }
                var handles: [String] = []
                for tree in trees {
                    let handle = try harness.snapshot(tree, round).handle
                    known.snapshots.append((handle, tree.identity.keyGroups, part(model, tree)))
                    handles.append(handle)
                }
                let next = round % 2 == 1 ? [identity(0, 63), identity(64, 127)] : [wholeRange]
                known.isExchanging = true
                let old = trees.map(\.id)
                trees = try next.enumerated().map { index, range in
                    try harness.create(range, epoch: round + 1, from: handles, replacing: index == 0 ? old : [])
                }
                known.isExchanging = false
                known.trees = trees.map { ($0.identity.keyGroups, part(model, $0)) }
                if round == 2 {
                    let released = known.snapshots.removeFirst()
                    harness.engine.releaseSnapshots([released.handle])
                    harness.scheduler.runUntilIdle()
                    try harness.close(trees[0])
                    trees[0] = try harness.open(trees[0].id)
                }
            }
        } catch { return known }
        return known
    }

    private func part(_ model: ModelStore, _ tree: Tree) -> ModelStore { model.clipped(to: tree.identity.keyGroups) }

    private func verify(_ known: Acknowledged, on disk: MemoryFileSystem, _ mode: LogMode, _ sync: Int) throws {
        let harness = try EngineHarness(roomyOptions(mode), fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.isEmpty, "sync \(sync)")
        if !known.isExchanging {
            #expect(Set(harness.engine.treeInfos().map(\.identity.keyGroups)).isSuperset(of: known.trees.map(\.range)))
        }
        for info in harness.engine.treeInfos() {
            let tree = try harness.open(info.id)
            guard mode == .synced, !known.isExchanging else { continue }
            guard let expected = known.trees.first(where: { $0.range == info.identity.keyGroups })?.model else {
                continue
            }
            // Batches after the last acknowledged one may be there: compared where the writer had come to rest.
            if tree.lastSequence == 0 { try expect(harness, tree, expected, "sync \(sync)") }
        }
        for (index, snapshot) in known.snapshots.enumerated() {
            let range = TreeIdentity(store: "orders", keyGroups: snapshot.range, keyGroupCount: 128)
            let restored = try harness.create(range, epoch: 100 + UInt64(index), from: [snapshot.handle])
            try expect(harness, restored, snapshot.model, "sync \(sync), snapshot \(snapshot.handle)")
            try harness.retire(restored.id)
        }
        harness.scheduler.runUntilIdle()
        harness.engine.close()
    }
}
