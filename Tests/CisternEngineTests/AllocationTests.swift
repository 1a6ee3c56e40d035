// Nothing on the way of a read allocates once its buffers have grown.

import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct AllocationTests {
    private static let count = 2000

    private func key(_ number: Int) -> [UInt8] { makeKey(UInt16(number % 128), "key-\(number / 128)") }

    /// Three files of level 0 over one below, all blocks in the cache.
    private func filledTree() throws -> (EngineHarness, Tree) {
        var options = EngineOptions(directory: "/store")
        options.log = .off
        options.blockCacheBytes = 8 << 20
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        for round in 0..<4 {
            let entries = (0..<AllocationTests.count).filter { round == 0 || $0 % 4 == round }
                .map { put(key($0), "value \($0)") }
            try harness.writeDurably(tree, OwnedBatch(entries.sorted { $0.key.lexicographicallyPrecedes($1.key) }))
            _ = try harness.snapshot(tree, UInt64(round))
            if round == 0 { try harness.wait { done in tree.compact(completion: done) } as Void }
        }
        return (harness, tree)
    }

    private func get(_ tree: Tree, _ keys: [[UInt8]], _ clock: ExpiryClock, _ result: inout LookupResult) throws -> Int
    {
        var found = 0
        for key in keys {
            let isThere = try key.withUnsafeBytes { try tree.get($0, clock: clock, into: &result) }
            if isThere { found += 1 }
        }
        return found
    }

    @Test func aReadInMemoryAllocatesNothing() throws {
        let (harness, tree) = try filledTree()
        let clock = harness.clock(tree)
        let present = (0..<AllocationTests.count).map { key($0) }
        let absent = (0..<AllocationTests.count).map { key($0) + [0x21] }
        var result = LookupResult()
        for keys in [present, absent] { _ = try get(tree, keys, clock, &result) }
        var found = 0
        let forPresent = try allocations { found = try get(tree, present, clock, &result) }
        #expect(found == AllocationTests.count)
        #expect(forPresent ?? 0 == 0)
        let forAbsent = try allocations { found = try get(tree, absent, clock, &result) }
        #expect(found == 0)
        #expect(forAbsent ?? 0 == 0)
        withExtendedLifetime(harness) {}
    }

    @Test func aScanInMemoryAllocatesNothing() throws {
        let (harness, tree) = try filledTree()
        // Something in the memtable as well.
        try harness.writeDurably(tree, OwnedBatch([put(key(0), "newest")]))
        let clock = harness.clock(tree)
        let ranges = (0..<128).map { (makeKey(UInt16($0), ""), makeKey(UInt16($0 + 1), "")) }
        var found = 0
        func run() throws {
            found = 0
            for (start, end) in ranges {
                _ = try tree.scan(from: start, to: end, clock: clock, limits: ScanLimits()) { _ in
                    found += 1
                    return true
                }
            }
        }
        try run()
        let counted = try allocations { try run() }
        #expect(found == AllocationTests.count)
        #expect(counted ?? 0 == 0)
        withExtendedLifetime(harness) {}
    }

    @Test func manyReadsAtOnceAllocateNothing() throws {
        let (harness, tree) = try filledTree()
        let clock = harness.clock(tree)
        let keys = OwnedKeys((0..<AllocationTests.count).map { $0 % 3 == 0 ? key($0) + [0x21] : key($0) })
        var result = LookupResult()
        var found = 0
        func run() throws {
            found = 0
            try tree.multiGet(
                count: keys.count, clock: clock, scratch: &result, key: { keys[$0] },
                visit: { _, value, _ in
                    if value != nil { found += 1 }
                    return true
                })
        }
        try run()
        let counted = try allocations { try run() }
        #expect(found == (0..<AllocationTests.count).count { $0 % 3 != 0 })
        #expect(counted ?? 0 == 0)
        withExtendedLifetime(harness) {}
    }
}

/// Keys whose bytes stay where they are.
final class OwnedKeys {
    private let memory: UnsafeMutableRawBufferPointer
    private let ends: [Int]

    init(_ keys: [[UInt8]]) {
        memory = .allocate(byteCount: keys.reduce(1) { $0 + $1.count }, alignment: 8)
        var ends = [0]
        for key in keys {
            for (index, byte) in key.enumerated() { memory[ends.last! + index] = byte }
            ends.append(ends.last! + key.count)
        }
        self.ends = ends
    }

    deinit { memory.deallocate() }

    var count: Int { ends.count - 1 }

    subscript(index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: memory[ends[index]..<ends[index + 1]])
    }
}
