// What memory is used for, that it stays within its limit, and that the ledger tells the truth.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Foundation
import Testing

/// Resident bytes of this process.
private func residentBytes() -> Int {
    let fields = try! String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
    return Int(fields[1])! * 4096
}

private func stateKey(_ group: UInt16, _ state: UInt16, _ text: String) -> [UInt8] {
    [UInt8(group >> 8), UInt8(group & 0xFF), UInt8(state >> 8), UInt8(state & 0xFF)] + Array(text.utf8)
}

@Suite struct MemoryTests {
    @Test func theLargestMemtableIsFlushedEarlyWhenMemoryRunsShort() throws {
        var options = smallOptions()
        options.memtableBytes = 4 << 20
        options.memoryBytes = options.blockCacheBytes + (2 << 20)
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        harness.pointStates = PointStates([1])
        let large = try harness.create(
            TreeIdentity(store: "a", keyGroups: KeyGroupRange(first: 0, last: 31), keyGroupCount: 32))
        let small = try harness.create(
            TreeIdentity(store: "b", keyGroups: KeyGroupRange(first: 0, last: 31), keyGroupCount: 32))
        func fill(_ tree: Tree, _ count: Int, _ name: String) throws {
            for number in 0..<count {
                try harness.writeDurably(
                    tree, OwnedBatch([put(makeKey(1, "\(name)-\(number)"), String(repeating: "x", count: 2000))]))
                let use = harness.engine.memoryUse
                #expect(use[.memtables] + use[.sealedMemtables] <= (2 << 20) + (1 << 20))
            }
        }
        try fill(large, 250, "large")
        #expect(large.statistics.earlySeals == 0)
        try fill(small, 200, "small")
        #expect(harness.scheduler.run { large.statistics.flushes > 0 })
        #expect(large.statistics.earlySeals == 1)
        #expect(small.statistics.earlySeals == 0)
        // All that one tree takes is bounded too.
        try fill(small, 3000, "more")
        #expect(small.statistics.earlySeals > 1)
        #expect(try harness.get(large, makeKey(1, "large-7"))?.value.count == 2000)
        #expect(try harness.get(small, makeKey(1, "more-2999"))?.value.count == 2000)
        harness.engine.close()
    }

    /// Memtables may have what the cache gives back; when they do not need it any more, the cache gets it again.
    @Test func theCacheGivesMemoryToMemtablesAndGetsItBack() throws {
        var options = smallOptions()
        options.blockCacheBytes = 32 << 20
        options.memtableBytes = 8 << 20
        options.sealedMemtablesMax = 8
        options.memoryBytes = options.blockCacheBytes + (8 << 20)
        options.log = .off
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        harness.pointStates = PointStates([1])
        let tree = try harness.create(wholeRange)
        let value = [UInt8](repeating: 1, count: 4000)
        func key(_ number: Int) -> [UInt8] { stateKey(UInt16(number % 32), 1, "\(number)") }
        func fill(_ range: Range<Int>) throws {
            for number in range { try harness.writeDurably(tree, OwnedBatch([OwnedEntry(key(number), .put, value)])) }
        }
        try fill(0..<8000)
        #expect(harness.scheduler.run { tree.isIdle })
        for number in 0..<8000 { #expect(try harness.get(tree, key(number)) != nil) }
        harness.scheduler.runUntilIdle()
        let full = harness.engine.memoryUse[.blockCache]
        #expect(full > 24 << 20)
        // No lane runs meanwhile, so memtables wait for their flush.
        for number in 0..<6000 {
            let outcome = try harness.write(tree, OwnedBatch([OwnedEntry(key(number), .put, value)])).outcome
            #expect(outcome == .applied)
        }
        #expect(harness.engine.memoryUse[.memtables] + harness.engine.memoryUse[.sealedMemtables] > 20 << 20)
        var least = full
        while harness.scheduler.step() { least = min(least, harness.engine.memoryUse[.blockCache]) }
        #expect(least < full - (4 << 20))
        #expect(least >= 7 << 20)
        #expect(harness.scheduler.run { tree.isIdle })
        for number in 0..<8000 { #expect(try harness.get(tree, key(number)) != nil) }
        harness.scheduler.runUntilIdle()
        #expect(harness.engine.memoryUse[.blockCache] > 24 << 20)
        harness.engine.close()
    }

    @Test func closedTreesLeaveNothingInTheLedger() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        harness.pointStates = PointStates([1])
        let tree = try harness.create(wholeRange)
        for number in 0..<500 {
            try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "\(number)"), "value")]))
        }
        _ = try harness.scan(tree)
        #expect(harness.engine.memoryUse[.memtables] > 0)
        #expect(harness.engine.memoryUse[.scratch] > 0)
        try harness.close(tree)
        harness.scheduler.runUntilIdle()
        for kind in [MemoryClass.memtables, .sealedMemtables, .scratch, .jobs, .tables, .logQueues] {
            #expect(harness.engine.memoryUse[kind] == 0, "\(kind)")
        }
        harness.engine.close()
    }

    @Test(.disabled(if: isSanitized)) func theLedgerAgreesWithTheResidentMemoryOfTheProcess() async {
        await #expect(processExitsWith: .success) {
            let directory = NSTemporaryDirectory() + "/cistern-ledger-\(getpid())"
            defer { try? FileManager.default.removeItem(atPath: directory) }
            var options = EngineOptions(directory: directory)
            options.memtableBytes = 32 << 20
            options.blockCacheBytes = 32 << 20
            options.log = .off
            let harness = try EngineHarness(options, fileSystem: PosixFileSystem(), seed: 1)
            harness.pointStates = PointStates([1])
            let tree = try harness.create(wholeRange)
            let value = [UInt8](repeating: 7, count: 1000)
            let before = residentBytes()
            for round in 0..<1000 {
                let entries = (0..<100).map { number in
                    OwnedEntry(stateKey(UInt16(number % 32), UInt16(1 + number % 2), "\(round)-\(number)"), .put, value)
                }
                try harness.writeDurably(tree, OwnedBatch(entries))
            }
            for round in 0..<1000 {
                for number in 0..<100 where number % 3 == 0 {
                    let key = stateKey(UInt16(number % 32), UInt16(1 + number % 2), "\(round)-\(number)")
                    guard try harness.get(tree, key)?.value.count == 1000 else { exit(2) }
                }
            }
            let used = harness.engine.memoryUse.totalBytes
            let grown = residentBytes() - before
            print("resident \(grown), ledger \(used)")
            FileHandle.standardError.write(Data("resident \(grown), ledger \(used)\n".utf8))
            guard used > 64 << 20, abs(grown - used) * 10 <= used else { exit(3) }
            harness.engine.close()
        }
    }

    @Test func tenThousandStatesOfATreeTakeLittle() throws {
        var options = smallOptions()
        options.memtableBytes = 16 << 20
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        let states: [UInt16] = Array(1...10_000)
        harness.pointStates = PointStates(states.filter { $0 % 2 == 0 })
        let tree = try harness.create(wholeRange)
        for first in stride(from: 0, to: states.count, by: 100) {
            let entries = states[first..<(first + 100)].map { put(stateKey(1, $0, "key"), "value") }
            try harness.writeDurably(tree, OwnedBatch(entries))
        }
        #expect(tree.statistics.memtableEntries == states.count)
        #expect(harness.engine.memoryUse[.memtables] / states.count < 256)
        harness.engine.close()
    }

    /// Ten thousand with CISTERN_SCALE=1.
    @Test(.disabled(if: isSanitized)) func manyTreesTakeKilobytesEach() async {
        await #expect(processExitsWith: .success) {
            let options = smallOptions()
            let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
            harness.pointStates = PointStates([1])
            var trees: [Tree] = []
            let count = getenv("CISTERN_SCALE") == nil ? 1000 : 10_000
            // What the first ones cost is the runtime's and the test's.
            for number in 0..<100 { trees.append(try makeTree(harness, number)) }
            let before = residentBytes()
            for number in 100..<(100 + count) { trees.append(try makeTree(harness, number)) }
            let each = (residentBytes() - before) / count
            FileHandle.standardError.write(Data("bytes a tree: \(each)\n".utf8))
            guard each < 16 << 10 else { exit(3) }
            harness.engine.close()
        }
    }
}

private func makeTree(_ harness: EngineHarness, _ number: Int) throws -> Tree {
    let identity = TreeIdentity(
        store: "store-\(number)", keyGroups: KeyGroupRange(first: 0, last: 31), keyGroupCount: 32)
    let tree = try harness.create(identity)
    try harness.writeDurably(tree, OwnedBatch([put(stateKey(1, 1, "key"), "value"), put(stateKey(1, 2, "key"), "v")]))
    return tree
}
