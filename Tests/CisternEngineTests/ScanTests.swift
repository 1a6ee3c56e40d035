// Scans of ranges: bounds anywhere, several runs, keys that agree in more bytes than a merge compares as a number.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct ScanTests {
    @Test(arguments: Seeds.seeds(count: 24)) func aRangeShowsWhatADictionaryHasThere(seed: UInt64) throws {
        Seeds.announce("scans of ranges", seed)
        var run = try ScanRun(seed: seed)
        for round in 0..<Int.random(in: 1...7, using: &run.random) {
            try run.write()
            if Bool.random(using: &run.random) { _ = try run.harness.snapshot(run.tree, UInt64(round + 1)) }
            try run.verify(run.tree, run.model)
        }
        // Files that are shown in part.
        let snapshot = try run.harness.snapshot(run.tree, 100)
        let groups = KeyGroupRange(first: 1, last: 2)
        let part = try run.harness.create(
            TreeIdentity(store: wholeRange.store, keyGroups: groups, keyGroupCount: wholeRange.keyGroupCount),
            from: [snapshot.handle])
        try run.verify(part, run.model.clipped(to: groups))
    }
}

private struct ScanRun {
    var random: SeededRandom
    let harness: EngineHarness
    let tree: Tree
    var model = ModelStore()
    private let keys: [[UInt8]]

    init(seed: UInt64) throws {
        random = SeededRandom(seed: seed)
        var options = randomOptions(&random)
        options.log = .off
        // Everything is flushed by `snapshot`, so that there are many runs.
        options.memtableBytes = 1 << 20
        harness = try EngineHarness(options, fileSystem: MemoryFileSystem(seed: seed), seed: seed)
        harness.pointStates = PointStates(Bool.random(using: &random) ? [2] : [])
        tree = try harness.create(wholeRange)
        var keys: Set<[UInt8]> = []
        for _ in 0..<300 { keys.insert(ScanRun.key(&random)) }
        self.keys = keys.sorted { $0.lexicographicallyPrecedes($1) }
    }

    /// Four key groups, two states, few maps with long names, user keys of bytes that are seldom: of any length, so that some
    /// begin with others.
    private static func key(_ random: inout SeededRandom) -> [UInt8] {
        let name = [UInt8](repeating: 0x6E, count: [1, 3, 9, 20].randomElement(using: &random)!)
        let shared = [UInt8](repeating: 0x75, count: [0, 0, 5, 18].randomElement(using: &random)!)
        let user = (0..<Int.random(in: 0...22, using: &random)).map { _ in
            [0, 1, 0x75, 0xFF].randomElement(using: &random)! as UInt8
        }
        return [0, .random(in: 0...3, using: &random), 0, .random(in: 1...2, using: &random)]
            + [UInt8(name.count)] + name + [0] + shared + user.prefix(.random(in: 0...3, using: &random))
    }

    mutating func write() throws {
        var entries: [[UInt8]: OwnedEntry] = [:]
        for _ in 0..<Int.random(in: 1...250, using: &random) {
            let key = keys.randomElement(using: &random)!
            let value = [UInt8](
                repeating: .random(in: 0...255, using: &random), count: Int.random(in: 0...30, using: &random))
            let kinds: [EntryKind] = [.put, .put, .put, .append, .delete]
            entries[key] = OwnedEntry(key, kinds.randomElement(using: &random)!, value)
        }
        let batch = OwnedBatch(entries.values.sorted { $0.key.lexicographicallyPrecedes($1.key) })
        try harness.writeDurably(tree, batch)
        model.apply(batch)
    }

    mutating func verify(_ tree: Tree, _ model: ModelStore) throws {
        let clock = harness.clock(tree)
        let all = model.scan(clock)
        for _ in 0..<80 {
            let (start, end) = range()
            let expected = all.filter { entry in
                !entry.key.lexicographicallyPrecedes(start) && (end.isEmpty || entry.key.lexicographicallyPrecedes(end))
            }
            let limits = ScanLimits(entriesMax: .random(in: 1...40, using: &random), bytesMax: .max)
            var found: [(key: [UInt8], value: [UInt8])] = []
            var next: [UInt8]? = start
            while let from = next {
                next = try tree.scan(from: from, to: end, clock: clock, limits: limits) { entry in
                    found.append((Array(entry.key), Array(entry.value)))
                    return true
                }
            }
            #expect(found.map(\.key) == expected.map(\.key))
            #expect(found.map(\.value) == expected.map(\.stored.value))
        }
    }

    /// Whole maps, whole states, from a key to another, and bounds beside keys.
    private mutating func range() -> (start: [UInt8], end: [UInt8]) {
        let key = keys.randomElement(using: &random)!
        if Bool.random(using: &random) {
            let prefix = Array(
                key.prefix(
                    [2, 4, 6 + Int(key[4]), .random(in: 0...key.count, using: &random)].randomElement(using: &random)!))
            return (prefix, successor(prefix))
        }
        return (bound(), Int.random(in: 0..<8, using: &random) == 0 ? [] : bound())
    }

    private mutating func bound() -> [UInt8] {
        let key = keys.randomElement(using: &random)!
        switch Int.random(in: 0..<4, using: &random) {
        case 0: return key
        case 1: return key + [0]
        case 2: return Array(key.prefix(.random(in: 0...key.count, using: &random)))
        default: return successor(key)
        }
    }

    /// The smallest key behind all that begin with the prefix; empty when there is none.
    private func successor(_ prefix: [UInt8]) -> [UInt8] {
        var end = prefix
        while end.last == 0xFF { end.removeLast() }
        if !end.isEmpty { end[end.count - 1] += 1 }
        return end
    }
}
