// Snapshots on their way to a store, and back: random checkpoints, aborts, releases, restores and crashes, on disks that lose power,
// against what must be there. On a stepped scheduler: the same seed is the same run.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternServer
import CisternSnapshotStore
import CisternSnapshotStoreS3
import CisternTestKit
import Glibc
import S3Double
import Testing

private let wholeGroups = KeyGroupRange(first: 0, last: 15)

private func identity(_ groups: KeyGroupRange = wholeGroups) -> TreeIdentity {
    TreeIdentity(store: "orders", keyGroups: groups, keyGroupCount: 16)
}

private func makeKey(_ group: UInt16, _ name: String) -> [UInt8] {
    [UInt8(group >> 8), UInt8(group & 0xFF), 0, 1] + Array(name.utf8)
}

private func put(_ key: [UInt8], _ value: String) -> OwnedEntry { OwnedEntry(key, .put, Array(value.utf8)) }

/// The condition alone is shown: a failing `#expect` would look into engines, which cannot be copied.
private func expectTrue(
    _ condition: Bool, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation
) { #expect(condition, comment, sourceLocation: sourceLocation) }

private func engineOptions(valueFiles: Bool) -> EngineOptions {
    var options = EngineOptions(directory: "/data")
    options.memtableBytes = 6000
    options.blockCacheBytes = 1 << 20
    options.table.blockSizeBytes = 512
    options.compaction.levelZeroTrigger = 2
    options.compaction.targetFileBytes = 8000
    options.compaction.partBytes = 16_000
    options.values.thresholdBytes = valueFiles ? 100 : 0
    options.values.fileBytesMax = 4000
    return options
}

/// An engine with uploads to a store on another disk, or in a bucket.
private final class Side {
    let disk: MemoryFileSystem
    let storeDisk: MemoryFileSystem
    let store: any SnapshotStore
    let harness: EngineHarness
    let uploads: SnapshotUploads
    let fetch: SnapshotFetch
    let namespace: String

    init(
        _ disk: MemoryFileSystem, _ storeDisk: MemoryFileSystem, namespace: String, seed: UInt64,
        valueFiles: Bool = false,
        wallMilliseconds: UInt64 = 1_000_000, bucket: S3Double? = nil
    ) throws {
        self.disk = disk
        self.storeDisk = storeDisk
        self.namespace = namespace
        // Of the largest pieces three parts.
        store =
            try bucket?.store { $0.limits.partBytes = 1000 } ?? DirectorySnapshotStore("/store", fileSystem: storeDisk)
        harness = try EngineHarness(
            engineOptions(valueFiles: valueFiles), fileSystem: disk, seed: seed, wallMilliseconds: wallMilliseconds)
        uploads = SnapshotUploads(
            store: store, namespace: namespace, engine: harness.engine, fileSystem: disk,
            lane: harness.scheduler.makeLane(), time: harness.scheduler.time, nonce: seed, pieceBytesMax: 3000
        ) { Array("catalog of \($0)".utf8) }
        fetch = SnapshotFetch(
            store: store, engine: harness.engine, fileSystem: disk, lane: harness.scheduler.makeLane())
    }

    /// As a process that is killed: nothing is finished.
    func stop() {
        uploads.stop()
        fetch.stop()
        harness.engine.close()
    }

    func snapshot(_ tree: Tree, _ checkpoint: UInt64) throws -> SnapshotInfo {
        let info = try harness.snapshot(tree, checkpoint)
        uploads.taken(info.handle)
        return info
    }

    func release(_ handles: [String]) throws {
        let _: Int = try harness.wait { done in
            harness.engine.releaseSnapshots(handles) { [uploads] count in
                uploads.released(handles)
                done(.success(count))
            }
        }
    }

    func bring(_ handle: String, as name: String? = nil) throws -> FetchedSnapshot {
        let answer = Answer<Result<FetchedSnapshot, SnapshotFetchError>>()
        fetch.bring(handle, as: name) { answer.set($0) }
        guard harness.scheduler.run(until: { answer.value != nil }), let result = answer.value else { throw TimedOut() }
        let fetched = try result.get()
        uploads.taken(fetched.info.handle)
        return fetched
    }

    /// Until everything is uploaded and deleted.
    func settle() {
        _ = harness.scheduler.run(stepsMax: 100_000) {
            let status = uploads.status
            return status.isReady && status.pending == 0 && status.error == nil
        }
        harness.scheduler.runUntilIdle()
    }

    func manifests() throws -> [StoredSnapshot] {
        try store.list(StoreLayout.snapshots(of: namespace)).map { object in
            try StoredSnapshot.decode(try #require(try store.get(object.name, limit: 1 << 20)))
        }
    }

    /// Everything in the namespace is what these snapshots need, and the other way round.
    func expectInStore(_ handles: [String], _ comment: Comment) throws {
        let manifests = try manifests()
        #expect(manifests.map(\.handle).sorted() == handles.sorted(), comment)
        let needed = Set(manifests.flatMap { $0.pieceNames.map { StoreLayout.piece($0, in: namespace) } })
        try expectTrue(Set(store.list(StoreLayout.files(of: namespace)).map(\.name)) == needed, comment)
        expectTrue(!storeDisk.paths.contains { $0.hasSuffix(".tmp") }, comment)
    }

    /// Every file of the data directory is one that a tree or a snapshot refers to, and the other way round.
    func expectOnDisk(_ handles: [String], _ trees: [TreeID], _ comment: Comment) throws {
        expectTrue(harness.engine.snapshotHandles.sorted() == handles.sorted(), comment)
        let snapshots = disk.paths.filter { $0.hasPrefix("/data/snapshots/") }
        #expect(snapshots.count == handles.count, comment)
        var needed: Set<String> = []
        for path in snapshots {
            let record = try SnapshotFormat.decode(try #require(disk.contents(path)), path: path)
            for file in record.files { needed.insert(file.path("/data")) }
        }
        let found = Set(disk.paths.filter { $0.hasPrefix("/data/tables/") || $0.hasSuffix(".log") })
        var floors: [String: UInt64] = [:]
        for tree in trees {
            let directory = DataDirectory.tree("/data", tree)
            let number = try ManifestFormat.decodeCurrent(
                try #require(disk.contents(directory + "/CURRENT")), path: directory)
            let path = directory + "/" + DataDirectory.manifestName(number)
            let state = try ManifestFormat.decode(
                try #require(disk.contents(path)), path: path, tree: tree, number: number)
            let record = SnapshotRecord(
                handle: "", identity: state.identity, tree: tree, checkpoint: 0, progress: state.flushed,
                createdMilliseconds: 0, levels: state.levels, logs: state.logs)
            for file in record.files { needed.insert(file.path("/data")) }
            floors[directory] = state.firstSegment
        }
        // A tree's own segments are those from its first one on; there may be none yet.
        let own = found.filter { path in
            floors.contains { directory, floor in
                path.hasPrefix(directory + "/")
                    && DataDirectory.segmentNumber(ofName: String(path.dropFirst(directory.count + 1))) ?? 0 >= floor
            }
        }
        let (extra, missing) = (found.subtracting(own).subtracting(needed).sorted(), needed.subtracting(found).sorted())
        #expect(extra == [], comment)
        #expect(missing == [], comment)
        expectTrue(!disk.paths.contains { $0.hasPrefix("/data/import") || $0.hasSuffix(".tmp") }, comment)
        let verified = try DirectoryVerification.run("/data", deep: true, fileSystem: disk)
        #expect(verified.faults.isEmpty, comment)
    }

    func expect(_ tree: Tree, _ model: ModelStore, _ comment: Comment) throws {
        let expected = model.scan(harness.clock(tree))
        let found = try harness.scan(tree)
        let isEqual = found.map(\.key) == expected.map(\.key) && found.map(\.stored) == expected.map(\.stored)
        expectTrue(isEqual, comment)
    }
}

/// A job that takes checkpoints, loses its server, and goes on.
private final class JobRun {
    struct Checkpoint {
        let handles: [String]
        let model: ModelStore
    }

    let seed: UInt64
    let valueFiles: Bool
    /// nil: the store is on a disk.
    let bucket: S3Double?
    var random: SeededRandom
    var side: Side
    var trees: [Tree] = []
    var model = ModelStore()
    var checkpoints: [Checkpoint] = []
    var nextCheckpoint: UInt64 = 1
    var epoch: UInt64 = 0
    var restarts: UInt64 = 0
    var counts: [String: Int] = [:]

    init(seed: UInt64, bucket: S3Double? = nil) throws {
        self.seed = seed
        self.bucket = bucket
        random = SeededRandom(seed: seed)
        valueFiles = Bool.random(using: &random)
        side = try Side(
            MemoryFileSystem(seed: seed), MemoryFileSystem(seed: seed ^ 1), namespace: "server-0", seed: seed,
            valueFiles: valueFiles, bucket: bucket)
        try makeTrees(from: nil)
    }

    var comment: Comment { "seed \(seed), steps \(counts)" }
    var handles: [String] { checkpoints.flatMap(\.handles) }

    func run(steps: Int) throws {
        for _ in 0..<steps { try step() }
        try settleAndCompare()
        try checkRemote()
        // Everything goes with its last reference.
        let ids = trees.map(\.id)
        trees = []
        try side.release(handles)
        checkpoints = []
        for id in ids { try side.harness.retire(id) }
        try settleAndCompare()
        // What an upload could not remove when it failed, the start has.
        try restart(disk: side.disk, storeDisk: side.storeDisk)
        try settleAndCompare()
        expectTrue(bucket?.uploadCount ?? 0 == 0, comment)
        try expectTrue(side.store.list("").isEmpty, comment)
        expectTrue(side.disk.paths.filter { $0.hasPrefix("/data/tables/") } == [], comment)
        side.stop()
    }

    private func step() throws {
        func note(_ name: String) { counts[name, default: 0] += 1 }
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<25: try write()
        case 25..<50: for _ in 0..<Int.random(in: 1...30, using: &random) { side.harness.scheduler.step() }
        case 50..<65:
            note("checkpoint")
            try checkpoint()
        case 65..<75:
            note("subsume")
            while checkpoints.count > Int.random(in: 1...3, using: &random) { try release(at: 0) }
        case 75..<82:
            note("abort")
            try checkpoint()
            for _ in 0..<Int.random(in: 0...10, using: &random) { side.harness.scheduler.step() }
            try release(at: checkpoints.count - 1)
        case 82..<86:
            note("restore")
            if let checkpoint = checkpoints.randomElement(using: &random) { try makeTrees(from: checkpoint) }
        case 86..<89:
            note("failing store")
            side.storeDisk.inject(.init([.create, .append, .sync, .rename, .remove], error: EIO, count: 3))
            bucket?.storm(seed: random.next(), oneOf: .random(in: 1...6, using: &random))
        case 89..<92:
            note("restart")
            try restart(disk: side.disk, storeDisk: side.storeDisk)
        case 92..<95:
            note("power cut")
            let disk = side.disk.afterPowerCut(seed: random.next())
            let storeDisk = side.storeDisk.afterPowerCut(seed: random.next())
            try restart(disk: disk, storeDisk: storeDisk)
        case 95..<96:
            note("lost disk")
            try loseDisk()
        default:
            note("compare")
            try settleAndCompare()
            if Bool.random(using: &random) { try checkRemote() }
        }
    }

    private func write() throws {
        for tree in trees {
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let groups = tree.identity.keyGroups
                var entries: [[UInt8]: OwnedEntry] = [:]
                for _ in 0..<Int.random(in: 1...10, using: &random) {
                    let key = makeKey(
                        .random(in: groups.first...groups.last, using: &random),
                        "key \(Int.random(in: 0..<12, using: &random))")
                    let value = [UInt8](
                        repeating: .random(in: 0...255, using: &random), count: .random(in: 0...250, using: &random))
                    let kind: EntryKind = [.put, .put, .append, .delete].randomElement(using: &random)!
                    entries[key] = OwnedEntry(key, kind, value)
                }
                let batch = OwnedBatch(entries.values.sorted { $0.key.lexicographicallyPrecedes($1.key) })
                try side.harness.writeDurably(tree, batch)
                model.apply(batch)
            }
        }
    }

    private func checkpoint() throws {
        let number = nextCheckpoint
        nextCheckpoint += 1
        let handles = try trees.map { try side.snapshot($0, number).handle }
        checkpoints.append(Checkpoint(handles: handles, model: model))
    }

    private func release(at index: Int) throws {
        let released = checkpoints.remove(at: index)
        try side.release(released.handles)
    }

    /// New trees at a random parallelism, in place of those that are there.
    private func makeTrees(from checkpoint: Checkpoint?) throws {
        epoch += 1
        let cuts = Set(
            (0..<Int.random(in: 0...2, using: &random)).map { _ in UInt16.random(in: 1...15, using: &random) })
        let firsts = [0] + cuts.sorted()
        let replaced = trees.map(\.id)
        trees = try firsts.enumerated().map { index, first in
            let last = index + 1 < firsts.count ? firsts[index + 1] - 1 : 15
            return try side.harness.create(
                identity(KeyGroupRange(first: first, last: last)), epoch: epoch, from: checkpoint?.handles ?? [],
                replacing: index == 0 ? replaced : [])
        }
        model = checkpoint?.model ?? ModelStore()
        for tree in trees { try side.expect(tree, model.clipped(to: tree.identity.keyGroups), comment) }
    }

    private func restart(disk: MemoryFileSystem, storeDisk: MemoryFileSystem) throws {
        let ids = trees.map(\.id)
        trees = []
        side.stop()
        restarts += 1
        calm(storeDisk)
        side = try Side(
            disk, storeDisk, namespace: side.namespace, seed: seed &* 1000 &+ restarts, valueFiles: valueFiles,
            wallMilliseconds: side.harness.scheduler.time.wallMilliseconds, bucket: bucket)
        expectTrue(side.harness.engine.damagedParts.isEmpty, comment)
        trees = try ids.map { try side.harness.open($0) }
        for tree in trees { try side.expect(tree, model.clipped(to: tree.identity.keyGroups), comment) }
    }

    /// Another server, with an empty disk, takes over from what is in the store.
    private func loseDisk() throws {
        guard
            let checkpoint = checkpoints.last(where: { $0.handles.allSatisfy { side.uploads.isComplete($0) } })
        else { return }
        let old = side
        old.stop()
        calm(old.storeDisk)
        restarts += 1
        trees = []
        side = try Side(
            MemoryFileSystem(seed: seed &+ restarts), old.storeDisk.afterPowerCut(seed: random.next()),
            namespace: "server-\(restarts)", seed: seed &* 1000 &+ restarts, valueFiles: valueFiles,
            wallMilliseconds: old.harness.scheduler.time.wallMilliseconds, bucket: bucket)
        for handle in checkpoint.handles { try expectTrue(side.bring(handle).info.handle == handle) }
        checkpoints = [checkpoint]
        try makeTrees(from: checkpoint)
        // What an operator does with the namespace of a server that will not come back.
        let names = try ["snapshots/\(old.namespace)/", "files/\(old.namespace)/"].flatMap { try side.store.list($0) }
        try side.store.delete(names.map(\.name))
        for prefix in ["snapshots/\(old.namespace)/", "files/\(old.namespace)/"] {
            try side.store.removeLeftovers(prefix)
        }
    }

    private func calm(_ storeDisk: MemoryFileSystem) {
        storeDisk.clearFaults()
        bucket?.calm()
    }

    private func settleAndCompare() throws {
        calm(side.storeDisk)
        side.settle()
        expectTrue(side.uploads.status.error == nil, comment)
        try side.expectInStore(handles, comment)
        try side.expectOnDisk(handles, trees.map(\.id), comment)
    }

    /// Every checkpoint, brought to a server that has nothing, is the state that it was taken of.
    private func checkRemote() throws {
        calm(side.storeDisk)
        side.settle()
        guard let checkpoint = checkpoints.randomElement(using: &random) else { return }
        for handle in checkpoint.handles { expectTrue(side.uploads.isComplete(handle), comment) }
        let other = try Side(
            MemoryFileSystem(seed: 1), side.storeDisk, namespace: "reader", seed: seed, valueFiles: !valueFiles,
            bucket: bucket)
        var total: UInt64 = 0
        for handle in checkpoint.handles { total += try other.bring(handle).fetchedBytes }
        let tree = try other.harness.create(identity(), from: checkpoint.handles)
        try other.expect(tree, checkpoint.model, comment)
        try expectTrue(other.bring(checkpoint.handles[0]).fetchedBytes == 0)
        try other.release(checkpoint.handles)
        other.settle()
        try other.expectInStore([], comment)
        other.stop()
    }
}

@Suite struct SnapshotUploadTests {
    @Test(arguments: Seeds.seeds(count: 12)) func nothingLeaksAndNothingIsLost(seed: UInt64) throws {
        Seeds.announce("nothingLeaksAndNothingIsLost", seed)
        try JobRun(seed: seed).run(steps: 1000)
    }

    /// The same with a bucket behind a network in which requests are refused, cut and lost.
    @Test(arguments: Seeds.seeds(count: 3)) func nothingLeaksAndNothingIsLostInABucket(seed: UInt64) throws {
        Seeds.announce("nothingLeaksAndNothingIsLostInABucket", seed)
        let bucket = try S3Double()
        try JobRun(seed: seed, bucket: bucket).run(steps: 400)
        #expect(bucket.keys == [])
    }

    @Test func filesGoUpOnce() throws {
        let side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        let tree = try side.harness.create(identity())
        for number in 0..<40 {
            let batch = OwnedBatch([put(makeKey(UInt16(number % 16), "k\(number)"), String(repeating: "x", count: 200))]
            )
            try side.harness.writeDurably(tree, batch)
        }
        side.harness.scheduler.runUntilIdle()
        let first = try side.snapshot(tree, 1)
        side.settle()
        let uploaded = side.uploads.status.uploadedBytes
        expectTrue(uploaded == side.uploads.status.uploadedBytes && uploaded >= first.bytes / 2)
        expectTrue(side.uploads.isComplete(first.handle))
        // Nothing new; then a little more in the log.
        let second = try side.snapshot(tree, 2)
        side.settle()
        expectTrue(side.uploads.status.uploadedBytes == uploaded && side.uploads.isComplete(second.handle))
        try side.harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "more"), "y")]))
        _ = try side.snapshot(tree, 3)
        side.settle()
        let more = side.uploads.status.uploadedBytes - uploaded
        #expect(more > 0 && more < 500)
        expectTrue(side.uploads.status.complete == 3 && side.uploads.status.uploads == 3)
        side.stop()
    }

    /// A record that cannot be read may be that of any snapshot in the store.
    @Test func aDamagedRecordKeepsWhatMayBeItsOwn() throws {
        var side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        let tree = try side.harness.create(identity())
        try side.harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        let handle = try side.snapshot(tree, 1).handle
        side.settle()
        side.stop()
        let path = try #require(side.disk.paths.first { $0.hasSuffix(".snap") })
        side.disk.setContents(path, [1, 2, 3])
        side = try Side(side.disk, side.storeDisk, namespace: "a", seed: 2)
        side.settle()
        try expectTrue(side.manifests().map(\.handle) == [handle])
        try expectTrue(side.bring(handle).fetchedBytes > 0)
        side.stop()
    }

    /// The manifest of a newer program is left alone with everything that may be its.
    @Test func aManifestThatCannotBeReadKeepsAllPieces() throws {
        var side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        side.storeDisk.setContents("/store/snapshots/a/newer", Array("CSTO".utf8) + [9, 0, 0, 0])
        try side.storeDisk.createDirectory("/store/snapshots/a")
        _ = try side.store.put("files/a/its", [1])
        side.settle()
        try expectTrue(side.store.list("").map(\.name) == ["files/a/its", "snapshots/a/newer"])
        try side.store.delete(["snapshots/a/newer"])
        side.stop()
        side = try Side(side.disk, side.storeDisk, namespace: "a", seed: 2)
        side.settle()
        try expectTrue(side.store.list("").isEmpty)
        side.stop()
    }

    /// What the start cannot read is not what the snapshot that is here was uploaded as.
    @Test func aDamagedManifestOfASnapshotThatIsHereIsPutAgain() throws {
        var side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        let tree = try side.harness.create(identity())
        try side.harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        let handle = try side.snapshot(tree, 1).handle
        side.settle()
        side.stop()
        let path = try #require(side.storeDisk.paths.first { $0.hasPrefix("/store/snapshots/a/") })
        side.storeDisk.setContents(path, Array(try #require(side.storeDisk.contents(path)).dropLast()))
        side = try Side(side.disk, side.storeDisk, namespace: "a", seed: 2)
        side.settle()
        expectTrue(side.uploads.isComplete(handle))
        try expectTrue(side.manifests().map(\.handle) == [handle])
        side.stop()
    }

    @Test func aManifestThatIsDamagedDoesNotHideAnotherServers() throws {
        let side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        let tree = try side.harness.create(identity())
        try side.harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        let handle = try side.snapshot(tree, 1).handle
        side.settle()
        let other = try Side(MemoryFileSystem(), side.storeDisk, namespace: "b", seed: 2)
        _ = try other.bring(handle)
        other.settle()
        let path = try #require(side.storeDisk.paths.first { $0.hasPrefix("/store/snapshots/a/") })
        side.storeDisk.setContents(path, [1, 2, 3])
        let third = try Side(MemoryFileSystem(), side.storeDisk, namespace: "c", seed: 3)
        try expectTrue(third.bring(handle).fetchedBytes > 0)
        for each in [side, other, third] { each.stop() }
    }

    @Test func whoAsksForAReleasedSnapshotIsToldAtOnce() throws {
        let side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        let tree = try side.harness.create(identity())
        let handle = try side.snapshot(tree, 1).handle
        try side.release([handle])
        let answer = Answer<Bool>()
        side.uploads.whenComplete(handle) { answer.set($0) }
        #expect(answer.value == false)
        side.stop()
    }

    @Test func whatIsDamagedInTheStoreIsRefusedAndLeavesNothing() throws {
        let side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        let tree = try side.harness.create(identity())
        for number in 0..<60 {
            let batch = OwnedBatch([put(makeKey(UInt16(number % 16), "k\(number)"), String(repeating: "x", count: 200))]
            )
            try side.harness.writeDurably(tree, batch)
        }
        let handle = try side.snapshot(tree, 1).handle
        side.settle()
        let objects = side.storeDisk.paths
        #expect(objects.count > 3)
        for path in objects {
            let good = try #require(side.storeDisk.contents(path))
            for bad in [Array(good.dropLast()), Array(good.dropLast()) + [good.last! ^ 1], nil] {
                let storeDisk = MemoryFileSystem()
                try storeDisk.createDirectory("/store/snapshots/a")
                try storeDisk.createDirectory("/store/files/a")
                for other in objects { storeDisk.setContents(other, try #require(side.storeDisk.contents(other))) }
                if let bad { storeDisk.setContents(path, bad) } else { try storeDisk.remove(path) }
                let other = try Side(MemoryFileSystem(), storeDisk, namespace: "b", seed: 2)
                #expect(throws: SnapshotFetchError.self, "\(path)") { try other.bring(handle) }
                other.settle()
                try other.expectOnDisk([], [], "\(path)")
                other.stop()
            }
        }
        side.stop()
    }

    @Test func aForkIsBroughtUnderAnotherName() throws {
        let side = try Side(MemoryFileSystem(), MemoryFileSystem(), namespace: "a", seed: 1)
        let tree = try side.harness.create(identity())
        let batch = OwnedBatch([put(makeKey(1, "k"), "v")])
        try side.harness.writeDurably(tree, batch)
        let handle = try side.snapshot(tree, 1).handle
        side.settle()
        let other = try Side(MemoryFileSystem(), side.storeDisk, namespace: "b", seed: 2)
        let fork = try other.bring(handle, as: "trial").info
        #expect(fork.handle.hasPrefix("trial/1/0-15/"))
        let forked = TreeIdentity(store: "trial", keyGroups: wholeGroups, keyGroupCount: 16)
        var model = ModelStore()
        model.apply(batch)
        try other.expect(try other.harness.create(forked, from: [fork.handle]), model, "fork")
        other.settle()
        expectTrue(other.uploads.isComplete(fork.handle))
        side.stop()
        other.stop()
    }
}
