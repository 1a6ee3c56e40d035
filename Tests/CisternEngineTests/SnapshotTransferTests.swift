// Snapshots that leave a data directory and enter another one, and forks of them.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

private let groups = KeyGroupRange(first: 0, last: 31)
private let identity = TreeIdentity(store: "orders", keyGroups: groups, keyGroupCount: 32)

/// Copies what a snapshot needs into `/data/import` of another disk, as a store would bring it.
private func carry(
    _ handle: String, from source: EngineHarness, _ sourceDisk: MemoryFileSystem, to disk: MemoryFileSystem
) throws -> SnapshotRecord {
    let export: SnapshotExport = try source.wait { done in
        source.engine.exportSnapshot(handle, completion: done)
    }
    for file in export.files {
        let bytes = try #require(sourceDisk.contents(export.path(of: file)))
        #expect(UInt64(bytes.count) >= file.bytes)
        try disk.createDirectory(file.directory("/data/import"))
        disk.setContents(file.path("/data/import"), Array(bytes.prefix(Int(file.bytes))))
    }
    return export.record
}

private func bring(
    _ record: SnapshotRecord, into harness: EngineHarness, as store: String? = nil
) throws -> SnapshotInfo {
    try harness.wait { done in
        harness.engine.importSnapshot(record, from: "/data/import", as: store, completion: done)
    }
}

private func leftFiles(_ disk: MemoryFileSystem) -> [String] {
    disk.paths.filter { $0.hasPrefix("/data/tables/") || $0.hasSuffix(".snap") || $0.hasPrefix("/data/trees/") }
}

private func expectNothing(
    _ disk: MemoryFileSystem, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let left = leftFiles(disk)
    #expect(left == [], comment, sourceLocation: sourceLocation)
}

@Suite struct SnapshotTransferTests {
    /// A tree of random writes and what is in it.
    private struct Source {
        let disk: MemoryFileSystem
        let harness: EngineHarness
        let tree: Tree
        var model = ModelStore()
        var generator: BatchGenerator
        var random: SeededRandom

        init(seed: UInt64, options: EngineOptions? = nil, wallMilliseconds: UInt64 = 1_000_000) throws {
            random = SeededRandom(seed: seed)
            let chosen = options ?? randomOptions(&random)
            disk = MemoryFileSystem(seed: seed)
            generator = BatchGenerator(
                random: SeededRandom(seed: seed ^ 7), keysPerGroup: 10,
                valueBytesMax: .random(in: 1...200, using: &random))
            harness = try EngineHarness(chosen, fileSystem: disk, seed: seed, wallMilliseconds: wallMilliseconds)
            tree = try harness.create(identity)
        }

        mutating func write(_ batches: Int) throws {
            for _ in 0..<batches {
                let batch = generator.batch(in: groups, model: model, clock: harness.clock(tree))
                try harness.writeDurably(tree, batch)
                model.apply(batch)
            }
        }
    }

    private func expect(_ harness: EngineHarness, _ tree: Tree, _ model: ModelStore, _ seed: UInt64) throws {
        let found = try harness.scan(tree)
        let expected = model.scan(harness.clock(tree))
        #expect(found.map(\.key) == expected.map(\.key), "seed \(seed)")
        #expect(found.map(\.stored) == expected.map(\.stored), "seed \(seed)")
    }

    @Test(arguments: Seeds.seeds(count: 20))
    func aSnapshotIsTheSameInAnotherDirectoryWhateverItsFiles(seed: UInt64) throws {
        Seeds.announce("aSnapshotIsTheSameInAnotherDirectoryWhateverItsFiles", seed)
        var source = try Source(seed: seed)
        var cuts: [(handle: String, model: ModelStore)] = []
        for checkpoint in UInt64(1)...3 {
            try source.write(.random(in: 1...60, using: &source.random))
            if Bool.random(using: &source.random) { source.harness.scheduler.runUntilIdle() }
            cuts.append((try source.harness.snapshot(source.tree, checkpoint).handle, source.model))
        }
        // A directory that has trees, tables and snapshots under the same numbers, of the same store.
        var other = try Source(seed: seed ^ 0xFFFF, wallMilliseconds: 1_000_050)
        try other.write(30)
        let own = try other.harness.snapshot(other.tree, 1).handle
        for (index, cut) in cuts.enumerated() {
            let record = try carry(cut.handle, from: source.harness, source.disk, to: other.disk)
            let info = try bring(record, into: other.harness)
            #expect(info.handle == cut.handle && info.checkpoint == UInt64(index + 1))
            #expect(try bring(record, into: other.harness) == info, "brought twice is there once")
            let tree = try other.harness.create(identity, epoch: 5, from: [cut.handle])
            try expect(other.harness, tree, cut.model, seed)
            try other.harness.retire(tree.id)
        }
        // The tree that was there did not mistake one of them for its own.
        #expect(try other.harness.snapshot(other.tree, 1).handle == own)
        try expect(other.harness, other.tree, other.model, seed)
        other.harness.scheduler.runUntilIdle()
        let verified = try DirectoryVerification.run("/data", deep: true, fileSystem: other.disk)
        #expect(verified.faults.isEmpty, "seed \(seed): \(verified.faults)")
        other.harness.engine.releaseSnapshots(cuts.map(\.handle) + [own])
        try other.harness.retire(other.tree.id)
        other.harness.scheduler.runUntilIdle()
        try expectNothing(other.disk, "seed \(seed)")
        source.harness.engine.close()
        other.harness.engine.close()
    }

    /// Handles are unique among directories by the time that is in them; clocks may be the same.
    @Test func anotherSnapshotOfTheSameHandleIsRefused() throws {
        var source = try Source(seed: 1, options: smallOptions())
        var other = try Source(seed: 2, options: smallOptions())
        try source.write(3)
        try other.write(5)
        let handle = try source.harness.snapshot(source.tree, 1).handle
        #expect(try other.harness.snapshot(other.tree, 1).handle == handle)
        let record = try carry(handle, from: source.harness, source.disk, to: other.disk)
        #expect { try bring(record, into: other.harness) } throws: { "\($0)".contains("is another one") }
        source.harness.engine.close()
        other.harness.engine.close()
    }

    @Test func aForkHasAHandleOfItsOwnAndOutlivesItsSource() throws {
        var source = try Source(seed: 3)
        try source.write(40)
        let handle = try source.harness.snapshot(source.tree, 1).handle
        let fork: SnapshotInfo = try source.harness.wait { done in
            source.harness.engine.forkSnapshot(handle, as: "what-if", completion: done)
        }
        #expect(fork.handle.hasPrefix("what-if/1/0-31/") && fork.identity.store == "what-if")
        source.harness.engine.releaseSnapshots([handle])
        try source.harness.retire(source.tree.id)
        source.harness.scheduler.runUntilIdle()
        let forked = TreeIdentity(store: "what-if", keyGroups: groups, keyGroupCount: 32)
        let tree = try source.harness.create(forked, from: [fork.handle])
        try expect(source.harness, tree, source.model, 3)
        // The same by way of another directory.
        let disk = MemoryFileSystem()
        let other = try EngineHarness(smallOptions(), fileSystem: disk, seed: 4)
        let record = try carry(fork.handle, from: source.harness, source.disk, to: disk)
        let third = try bring(record, into: other, as: "third")
        let copy = try other.create(
            TreeIdentity(store: "third", keyGroups: groups, keyGroupCount: 32), from: [third.handle])
        try expect(other, copy, source.model, 3)
        source.harness.engine.close()
        other.engine.close()
    }

    /// The export keeps what it names, whoever lets go of it.
    @Test func filesOfAnExportStayUntilItEnds() throws {
        var source = try Source(seed: 5)
        try source.write(60)
        let handle = try source.harness.snapshot(source.tree, 1).handle
        var export: SnapshotExport? = try source.harness.wait { done in
            source.harness.engine.exportSnapshot(handle, completion: done)
        }
        source.harness.engine.releaseSnapshots([handle])
        try source.harness.retire(source.tree.id)
        source.harness.scheduler.runUntilIdle()
        for file in export?.files ?? [] {
            let path = export?.path(of: file) ?? ""
            #expect(UInt64(source.disk.contents(path)?.count ?? 0) >= file.bytes, "\(path)")
        }
        export = nil
        source.harness.scheduler.runUntilIdle()
        #expect(source.disk.paths.filter { $0.hasPrefix("/data/tables/") || $0.hasSuffix(".log") } == [])
        #expect(throws: EngineError.self) {
            let _: SnapshotExport = try source.harness.wait { done in
                source.harness.engine.exportSnapshot(handle, completion: done)
            }
        }
        source.harness.engine.close()
    }

    /// A power cut at any sync leaves the directory with the snapshot, whole, or without a trace of it.
    @Test func anImportIsThereWholeOrNotAtAll() throws {
        var options = smallOptions()
        options.values.thresholdBytes = 60
        var source = try Source(seed: 6, options: options)
        try source.write(60)
        let handle = try source.harness.snapshot(source.tree, 1).handle
        var outcomes: Set<Bool> = []
        for sync in 1...60 {
            let disk = MemoryFileSystem(seed: UInt64(sync))
            let harness = try EngineHarness(options, fileSystem: disk, seed: UInt64(sync))
            let record = try carry(handle, from: source.harness, source.disk, to: disk)
            disk.failPower(atSync: disk.syncCount + sync)
            var isDone = true
            do { _ = try bring(record, into: harness) } catch { isDone = false }
            harness.engine.close()
            let after = disk.afterPowerCut(seed: UInt64(sync))
            let again = try EngineHarness(options, fileSystem: after, seed: 1)
            #expect(again.engine.damagedParts.isEmpty, "sync \(sync): \(again.engine.damagedParts)")
            let isThere = again.engine.snapshotHandles == [handle]
            if isDone { #expect(isThere, "sync \(sync)") }
            if isThere {
                try expect(again, try again.create(identity, epoch: 2, from: [handle]), source.model, UInt64(sync))
            } else {
                try expectNothing(after, "sync \(sync)")
            }
            outcomes.insert(isThere)
            again.engine.close()
            if isDone { break }
        }
        #expect(outcomes == [true, false])
        source.harness.engine.close()
    }

    @Test func aFileThatIsNotTheSnapshotsIsRefusedAndNothingStays() throws {
        var source = try Source(seed: 8, options: smallOptions())
        try source.write(80)
        let handle = try source.harness.snapshot(source.tree, 1).handle
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let record = try carry(handle, from: source.harness, source.disk, to: disk)
        let files = record.files
        #expect(files.contains { $0.kind == .table } && files.contains { $0.kind == .log })
        for file in files {
            // A refused import may have moved some of them.
            _ = try carry(handle, from: source.harness, source.disk, to: disk)
            let path = file.path("/data/import")
            let good = disk.contents(path) ?? []
            for bad in [Array(good.dropLast()), Array(good.dropLast(30)) + [UInt8](repeating: 7, count: 30), []] {
                _ = try carry(handle, from: source.harness, source.disk, to: disk)
                disk.setContents(path, bad)
                let result = Result { try bring(record, into: harness) }
                let isRefused = (try? result.get()) == nil
                #expect(isRefused, "\(path) with \(bad.count) of \(good.count) bytes")
                harness.scheduler.runUntilIdle()
                try expectNothing(disk)
            }
        }
        _ = try carry(handle, from: source.harness, source.disk, to: disk)
        #expect(try bring(record, into: harness).handle == handle)
        source.harness.engine.close()
        harness.engine.close()
    }

    @Test func anOlderDirectoryRefusesWhatItsFormatDoesNotHave() throws {
        var source = try Source(seed: 9, options: smallOptions())
        try source.write(80)
        try source.harness.declare(source.tree, StateTimeToLive(milliseconds: 5000, isEventTime: false), of: 1)
        source.harness.scheduler.runUntilIdle()
        let handle = try source.harness.snapshot(source.tree, 1).handle
        for format in UInt8(1)...3 {
            let disk = MemoryFileSystem()
            try disk.createDirectory("/data")
            disk.setContents("/data/CISTERN", Array("CIST".utf8) + [format, 0, 0, 0])
            let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
            let record = try carry(handle, from: source.harness, source.disk, to: disk)
            #expect { try bring(record, into: harness) } throws: { "\($0)".contains("cistern upgrade /data") }
            harness.scheduler.runUntilIdle()
            try expectNothing(disk)
            harness.engine.close()
        }
        source.harness.engine.close()
    }
}
