// Power cuts: whatever was acknowledged is there, a batch is there whole or not at all, and the store goes on.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// One tree, written batch after batch until the power fails.
private final class CrashRun {
    let seed: UInt64
    let options: EngineOptions
    var random: SeededRandom
    var generator: BatchGenerator
    var disk: MemoryFileSystem
    /// Batches the tree was given, in order; the first `acknowledged` must never be lost.
    var batches: [OwnedBatch] = []
    var acknowledged = 0
    var tree: TreeID?
    /// Snapshots that were acknowledged: handle, and batches in it.
    var snapshots: [(handle: String, batches: Int)] = []
    var wall: UInt64 = 1_000_000

    init(seed: UInt64, log: LogMode = .synced) {
        self.seed = seed
        random = SeededRandom(seed: seed)
        var options = randomOptions(&random)
        options.log = log
        options.queuedLogBytesMax = 1 << 20
        self.options = options
        generator = BatchGenerator(
            random: SeededRandom(seed: seed ^ 0x5EED), keysPerGroup: 5,
            valueBytesMax: .random(in: 1...300, using: &random))
        disk = MemoryFileSystem(seed: seed)
    }

    func model(_ count: Int) -> ModelStore {
        var model = ModelStore()
        for batch in batches[..<count] { model.apply(batch) }
        return model
    }

    /// Writes until `batchesMax` are acknowledged or the power is gone.
    func work(batchesMax: Int) throws {
        guard let harness = try openEngine() else { return }
        defer {
            wall = harness.scheduler.time.wallMilliseconds
            harness.engine.close()
        }
        guard let tree = try openTree(harness) else { return }
        meet(tree)
        var answers: [Answer<Result<Void, EngineError>>] = []
        var asked: [(Answer<Result<SnapshotInfo, EngineError>>, Int)] = []
        let first = batches.count
        while batches.count < first + batchesMax && !disk.isDead {
            let batch = plain(
                generator.batch(
                    in: tree.identity.keyGroups, model: ModelStore(),
                    clock: ExpiryClock(processing: 0, event: 0)))
            do throws(EngineError) {
                let (outcome, durable) = try harness.write(tree, batch)
                if outcome == .applied {
                    batches.append(batch)
                    answers.append(durable)
                }
            } catch { break }
            if Int.random(in: 0..<8, using: &random) == 0 {
                let answer = Answer<Result<SnapshotInfo, EngineError>>()
                let count = batches.count
                tree.snapshot(checkpoint: UInt64(count)) { answer.set($0) }
                asked.append((answer, count))
            }
            for _ in 0..<Int.random(in: 0...12, using: &random) { harness.scheduler.step() }
        }
        if !disk.isDead { harness.scheduler.runUntilIdle() }
        let durable = answers.prefix { if case .success? = $0.value { true } else { false } }.count
        acknowledged = max(acknowledged, first + durable)
        for (answer, count) in asked {
            guard case .success(let info)? = answer.value else { continue }
            if !snapshots.contains(where: { $0.handle == info.handle }) { snapshots.append((info.handle, count)) }
        }
    }

    /// No expiry: what is visible must not depend on when the power failed.
    private func plain(_ batch: OwnedBatch) -> OwnedBatch {
        OwnedBatch(batch.entries.map { OwnedEntry($0.key, $0.kind, $0.value) })
    }

    private func openEngine() throws -> EngineHarness? {
        do {
            return try EngineHarness(options, fileSystem: disk, seed: random.next(), wallMilliseconds: wall)
        } catch {
            if disk.isDead { return nil }
            throw error
        }
    }

    private func openTree(_ harness: EngineHarness) throws -> Tree? {
        do {
            // One whose making was cut off before it was acknowledged may be there.
            tree = tree ?? harness.engine.treeInfos().first?.id
            if let tree { return try harness.open(tree) }
            let made = try harness.create(wholeRange)
            tree = made.id
            return made
        } catch {
            if disk.isDead { return nil }
            throw error
        }
    }

    /// What was not acknowledged may be there or not; the writer finds out when it attaches.
    private func meet(_ tree: Tree) {
        let found = Int(tree.lastSequence)
        #expect(found >= acknowledged && found <= batches.count, "\(found) of \(acknowledged), seed \(seed)")
        batches.removeLast(max(0, batches.count - found))
        acknowledged = batches.count
    }

    func cutPower() { disk = disk.afterPowerCut(seed: random.next()) }

    /// What is on the disk after the power came back.
    func verify() throws {
        let harness = try EngineHarness(options, fileSystem: disk, seed: random.next(), wallMilliseconds: wall)
        defer { harness.engine.close() }
        #expect(harness.engine.damagedParts.isEmpty, "seed \(seed)")
        guard let id = tree else { return }
        let tree = try harness.open(id)
        meet(tree)
        try expect(harness, tree, model(batches.count))
        for (handle, count) in snapshots {
            let restored = try harness.create(wholeRange, epoch: 9, from: [handle])
            try expect(harness, restored, model(count))
            try harness.retire(restored.id)
        }
        harness.scheduler.runUntilIdle()
        #expect(harness.engine.treeInfos().map(\.id) == [id])
        try harness.close(tree)
    }

    private func expect(_ harness: EngineHarness, _ tree: Tree, _ model: ModelStore) throws {
        let scanned = try harness.scan(tree)
        let expected = model.scan(harness.clock(tree))
        #expect(scanned.map(\.key) == expected.map(\.key), "seed \(seed)")
        #expect(scanned.map(\.stored) == expected.map(\.stored), "seed \(seed)")
    }
}

@Suite struct CrashTests {
    /// The same small run, with the power cut at each of its syncs in turn.
    @Test func everySyncPointOfASmallRunIsACleanCut() throws {
        let seed: UInt64 = 11
        let whole = CrashRun(seed: seed)
        try whole.work(batchesMax: 60)
        let syncs = whole.disk.syncCount
        #expect(syncs > 40)
        for sync in 1...syncs {
            let run = CrashRun(seed: seed)
            run.disk.failPower(atSync: sync)
            try run.work(batchesMax: 60)
            run.cutPower()
            try run.verify()
        }
    }

    @Test(arguments: Seeds.seeds(count: 24)) func nothingAcknowledgedIsLostByPowerCuts(seed: UInt64) throws {
        Seeds.announce("nothingAcknowledgedIsLostByPowerCuts", seed)
        let run = CrashRun(seed: seed)
        // Also while recovering from the cut before.
        for _ in 0..<6 {
            run.disk.failPower(atSync: run.disk.syncCount + Int.random(in: 1...150, using: &run.random))
            try run.work(batchesMax: 80)
            run.cutPower()
            if Bool.random(using: &run.random) { try run.verify() }
        }
        try run.verify()
    }
}
