// Disks that fill up or fail: typed errors, reads go on, nothing acknowledged is lost, no restart.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

/// A writer as the client library is one: sends a batch again, with its number, until it is acknowledged.
private struct Writer {
    let harness: EngineHarness
    let tree: Tree
    var model = ModelStore()
    var sequence: UInt64 = 0

    init(_ harness: EngineHarness, _ tree: Tree) {
        self.harness = harness
        self.tree = tree
        sequence = tree.lastSequence
    }

    /// - Returns: the errors on the way.
    @discardableResult
    mutating func write(_ batch: OwnedBatch, attemptsMax: Int = 10_000) throws -> [EngineError] {
        sequence += 1
        model.apply(batch)
        var errors: [EngineError] = []
        for _ in 0..<attemptsMax {
            do throws(EngineError) {
                let (outcome, durable) = try harness.write(tree, batch, sequence: sequence)
                if case .busy = outcome {
                    _ = harness.scheduler.run(stepsMax: 5) { false }
                    continue
                }
                guard harness.scheduler.run(until: { durable.value != nil }), let result = durable.value else {
                    Issue.record("a batch is never answered")
                    return errors
                }
                try result.get()
                return errors
            } catch {
                errors.append(error)
                // Lets the tree's own retry come.
                _ = harness.scheduler.run(stepsMax: 5) { false }
            }
        }
        throw TimedOut()
    }

    func verify(_ comment: String = "") throws {
        let found = try harness.scan(tree)
        let expected = model.scan(harness.clock(tree))
        #expect(found.map(\.key) == expected.map(\.key), "\(comment)")
        #expect(found.map(\.stored) == expected.map(\.stored), "\(comment)")
    }
}

/// Appends make a batch that is applied twice, or half, visible.
private func appendBatch(_ number: Int) -> OwnedBatch {
    let first = OwnedEntry(makeKey(1, "list-\(number % 7)"), .append, Array("\(number),".utf8))
    let second = put(makeKey(2, "key-\(number % 50)"), String(repeating: "x", count: number % 400))
    return OwnedBatch([first, second])
}

@Suite struct FailureTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let operations: Set<MemoryFileSystem.Operation>
        let suffix: String
        let error: Int32
        var testDescription: String { "\(name), errno \(error)" }
    }

    static let cases: [Case] = [ENOSPC, EIO].flatMap { (error: Int32) -> [Case] in
        [
            Case(name: "log append", operations: [.append], suffix: ".log", error: error),
            Case(name: "log sync", operations: [.sync], suffix: ".log", error: error),
            Case(name: "log create", operations: [.create], suffix: ".log", error: error),
            Case(name: "table create", operations: [.create], suffix: ".sst", error: error),
            Case(name: "table append", operations: [.append], suffix: ".sst", error: error),
            Case(name: "table sync", operations: [.sync], suffix: ".sst", error: error),
            Case(name: "table directory", operations: [.syncDirectory], suffix: "/tables", error: error),
            Case(name: "manifest append", operations: [.append], suffix: "MANIFEST", error: error),
            Case(name: "manifest sync", operations: [.sync], suffix: "MANIFEST", error: error),
            Case(name: "current", operations: [.rename, .create], suffix: "CURRENT", error: error),
            Case(name: "everything", operations: [.append, .sync, .create], suffix: "/", error: error),
        ]
    }

    @Test(arguments: cases) func aFailingDiskMakesTheTreeReadOnlyUntilItWorksAgain(_ failure: Case) throws {
        for log in [LogMode.synced, .buffered, .off] {
            let disk = MemoryFileSystem(seed: 7)
            var options = smallOptions()
            options.log = log
            var harness = try EngineHarness(options, fileSystem: disk, seed: 8)
            var writer = Writer(harness, try harness.create(wholeRange))
            for number in 0..<150 { try writer.write(appendBatch(number)) }
            #expect(writer.tree.statistics.failures == 0)

            disk.inject(.init(failure.operations, error: failure.error) { $0.contains(failure.suffix) })
            var refusal: EngineError?
            var number = 150
            while number < 2000, refusal == nil {
                do { try writer.write(appendBatch(number), attemptsMax: 20) } catch { refusal = lastError(writer) }
                number += 1
            }
            if let refusal {
                guard case .readOnly(let tree, let cause) = refusal else {
                    Issue.record("expected readOnly, found \(refusal)")
                    return
                }
                #expect(tree == "orders 0...127")
                #expect(cause.contains("errno \(failure.error)"), "\(cause)")
                #expect(writer.tree.statistics.readOnlyCause != nil)
                // Reads go on. The batch that was refused may be there already; it is not acknowledged.
                #expect(try harness.get(writer.tree, makeKey(2, "key-1")) != nil)
                #expect(throws: EngineError.self) { try harness.snapshot(writer.tree, 1) }
            }

            disk.clearFaults()
            if refusal != nil {
                // The last batch again, with its number: applied or not, it is acknowledged once.
                writer.sequence -= 1
                var again = writer
                try again.write(OwnedBatch([]), attemptsMax: 1000)
                writer.sequence = again.sequence
            }
            for more in number..<(number + 100) { try writer.write(appendBatch(more)) }
            harness.scheduler.runUntilIdle()
            #expect(writer.tree.statistics.readOnlyCause == nil)

            // And after the process dies, with the log on, the same is found. The refused batch was sent again empty, so the
            // model takes what the tree has of it.
            let before = try harness.scan(writer.tree)
            let id = writer.tree.id
            if log == .off { try harness.close(writer.tree) }
            harness.engine.close()
            harness = try EngineHarness(options, fileSystem: disk.afterPowerCut(seed: 5), seed: 9)
            #expect(harness.engine.damagedParts.isEmpty)
            if log == .buffered { continue }
            writer = Writer(harness, try harness.open(id))
            let after = try harness.scan(writer.tree)
            #expect(before.map(\.key) == after.map(\.key))
            #expect(before.map(\.stored) == after.map(\.stored))
            harness.engine.close()
        }
    }

    private func lastError(_ writer: Writer) -> EngineError? {
        do throws(EngineError) {
            _ = try writer.harness.write(writer.tree, OwnedBatch([]), sequence: writer.tree.lastSequence + 1)
            return nil
        } catch { return error }
    }

    @Test func aFullDiskIsSurvivedWithEveryBatchAppliedOnce() throws {
        for seed in UInt64(1)...10 {
            let disk = MemoryFileSystem(seed: seed)
            let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: seed)
            var writer = Writer(harness, try harness.create(wholeRange))
            disk.capacityBytes = 30_000 + seed * 2_000
            var refused = 0
            var number = 0
            while refused < 3 && number < 3000 {
                // When the tree refuses, the operator frees some space.
                let batch = appendBatch(number)
                let before = writer.model
                writer.sequence += 1
                writer.model.apply(batch)
                var isDone = false
                while !isDone {
                    do throws(EngineError) {
                        let (outcome, durable) = try harness.write(writer.tree, batch, sequence: writer.sequence)
                        if case .busy = outcome {
                            _ = harness.scheduler.run(stepsMax: 5) { false }
                            continue
                        }
                        _ = harness.scheduler.run(until: { durable.value != nil })
                        try durable.value?.get()
                        isDone = true
                    } catch {
                        guard case .readOnly(_, let cause) = error else {
                            Issue.record("expected readOnly, found \(error)")
                            return
                        }
                        #expect(cause.contains("errno \(ENOSPC)"))
                        // The refused batch is there or not; the acknowledged ones are.
                        let found = try harness.scan(writer.tree).map(\.stored)
                        let clock = harness.clock(writer.tree)
                        #expect(
                            found == writer.model.scan(clock).map(\.stored)
                                || found == before.scan(clock).map(\.stored))
                        disk.capacityBytes += 10_000
                        refused += 1
                        _ = harness.scheduler.run(stepsMax: 500) { false }
                    }
                }
                number += 1
            }
            #expect(refused >= 3)
            disk.capacityBytes = .max
            harness.scheduler.runUntilIdle()
            try writer.verify("seed \(seed)")
            harness.engine.close()
        }
    }

    /// Faults of every kind that come and go, under a writer that sends again, with power cuts in between.
    @Test(arguments: Seeds.seeds(count: 30)) func everyBatchIsAppliedOnceThroughRandomFaults(seed: UInt64) throws {
        Seeds.announce("everyBatchIsAppliedOnceThroughRandomFaults", seed)
        var random = SeededRandom(seed: seed)
        var options = randomOptions(&random)
        options.log = .synced
        var disk = MemoryFileSystem(seed: seed)
        var harness = try EngineHarness(options, fileSystem: disk, seed: seed)
        var writer = Writer(harness, try harness.create(wholeRange))
        for number in 0..<400 {
            switch Int.random(in: 0..<30, using: &random) {
            case 0:
                let operations: [MemoryFileSystem.Operation] = [
                    .append, .sync, .create, .rename, .syncDirectory, .remove, .truncate,
                ]
                let chosen = operations.filter { _ in Bool.random(using: &random) }
                disk.inject(
                    .init(
                        Set(chosen), error: Bool.random(using: &random) ? EIO : ENOSPC,
                        skip: .random(in: 0...20, using: &random), count: .random(in: 1...6, using: &random)))
            case 1: disk.clearFaults()
            case 2:
                let asked = Answer<Result<SnapshotInfo, EngineError>>()
                writer.tree.snapshot(checkpoint: UInt64(number)) { asked.set($0) }
            case 3:
                let id = writer.tree.id
                harness.engine.close()
                disk = disk.afterPowerCut(seed: random.next())
                harness = try EngineHarness(
                    options, fileSystem: disk, seed: random.next(),
                    wallMilliseconds: harness.scheduler.time.wallMilliseconds)
                var next = Writer(harness, try harness.open(id))
                #expect(next.sequence >= writer.sequence, "seed \(seed)")
                next.sequence = writer.sequence
                next.model = writer.model
                writer = next
                try writer.verify("after a power cut, seed \(seed)")
            default: break
            }
            try writer.write(appendBatch(number))
        }
        disk.clearFaults()
        harness.scheduler.runUntilIdle()
        try writer.verify("seed \(seed)")
        harness.engine.close()
    }

    @Test func aFailedSetEpochLeavesTheFormerWriterInPlace() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange, epoch: 1)
        disk.inject(.init([.append, .create], error: ENOSPC) { $0.contains("MANIFEST") })
        #expect(throws: EngineError.self) { try harness.setEpoch(tree, 2, writer: "other") }
        #expect(tree.epoch == 1)
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
        disk.clearFaults()
        try harness.setEpoch(tree, 2, writer: "other")
        #expect(tree.epoch == 2)
        harness.engine.close()
    }

    @Test func overloadAnswersBusyAndDropsNothing() throws {
        var options = smallOptions()
        options.memtableBytes = 4096
        options.sealedMemtablesMax = 1
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        var model = ModelStore()
        var sawBusy = false
        for number in 0..<400 {
            let batch = appendBatch(number)
            let (outcome, _) = try harness.write(tree, batch)
            switch outcome {
            case .applied: model.apply(batch)
            case .busy(let reason, let hint):
                sawBusy = true
                #expect(reason == .flushBehind)
                #expect(hint == options.busyRetryMilliseconds)
                #expect(tree.statistics.sealedMemtables <= 1 + options.sealedMemtablesMax)
            case .duplicate: Issue.record("a new batch is no duplicate")
            }
        }
        #expect(sawBusy)
        harness.scheduler.runUntilIdle()
        try harness.writeDurably(tree, OwnedBatch([]))
        let found = try harness.scan(tree)
        #expect(found.map(\.stored) == model.scan(harness.clock(tree)).map(\.stored))
        harness.engine.close()
    }
}
