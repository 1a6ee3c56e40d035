import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct FormatUpgradeTests {
    @Test func aNewDirectoryGetsTheNewestTables() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try fill(harness, tree, "a")
        harness.engine.close()
        #expect(try versions(disk) == [4])
    }

    /// A directory of the first format stays readable for the program that made it, until an operator raises it.
    @Test func anOldDirectoryKeepsItsFormatUntilItIsRaised() throws {
        let disk = MemoryFileSystem()
        try EngineHarness(smallOptions(), fileSystem: disk, seed: 1).engine.close()
        setFormat(disk, 1)

        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        let old = try harness.create(wholeRange)
        try fill(harness, old, "a")
        #expect(throws: EngineError.self) { try DirectoryUpgrade.run("/data", fileSystem: disk) }
        harness.engine.close()
        #expect(try versions(disk) == [1])

        let raised = try DirectoryUpgrade.run("/data", fileSystem: disk)
        #expect(raised.from == 1 && raised.to == 4)
        let again = try DirectoryUpgrade.run("/data", fileSystem: disk)
        #expect(again.from == 4 && again.to == 4)

        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 3)
        let tree = try harness.open(old.id)
        try fill(harness, tree, "b")
        for name in ["a", "b"] {
            for number in 0..<300 { #expect(try harness.get(tree, makeKey(1, "\(name)\(number)")) != nil) }
        }
        harness.engine.close()
        #expect(try versions(disk).contains(4))
    }

    @Test func whatIsNotADataDirectoryIsNotRaised() throws {
        let disk = MemoryFileSystem()
        #expect(throws: EngineError.self) { try DirectoryUpgrade.run("/nowhere", fileSystem: disk) }
        try EngineHarness(smallOptions(), fileSystem: disk, seed: 1).engine.close()
        setFormat(disk, 9)
        #expect(throws: EngineError.self) { try DirectoryUpgrade.run("/data", fileSystem: disk) }
    }

    /// Scans of single maps, spread over many files, see what was written: no file is left out that has a part of one.
    @Test(arguments: [1, 2, 3, 4] as [UInt8]) func scansOfMapsAgreeWithWhatWasWritten(format: UInt8) throws {
        var random = SeededRandom(seed: 4_242)
        let disk = MemoryFileSystem()
        try EngineHarness(smallOptions(), fileSystem: disk, seed: 1).engine.close()
        setFormat(disk, format)
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 5)
        let tree = try harness.create(wholeRange)
        var model: [[UInt8]: [UInt8]] = [:]
        for _ in 0..<120 {
            var batch: [[UInt8]: OwnedEntry] = [:]
            for _ in 0..<40 {
                let key = mapPrefix(Int.random(in: 0..<40, using: &random)) + [UInt8.random(in: 0..<9, using: &random)]
                let value = (0..<20).map { _ in UInt8.random(in: 0...255, using: &random) }
                let isDelete = Int.random(in: 0..<4, using: &random) == 0
                batch[key] = OwnedEntry(key, isDelete ? .delete : .put, isDelete ? [] : value)
            }
            try harness.writeDurably(tree, OwnedBatch(Array(batch.values)))
            for (key, entry) in batch { model[key] = entry.kind == .delete ? nil : entry.value }
        }
        #expect(tree.statistics.flushes > 3)
        for map in 0..<60 {
            let prefix = mapPrefix(map)
            for start in [prefix, prefix + [4]] {
                let found = try scan(harness, tree, start, prefix)
                let expected = model.filter { $0.key.starts(with: prefix) && !$0.key.lexicographicallyPrecedes(start) }
                #expect(found == expected)
            }
        }
        harness.engine.close()
    }

    private func mapPrefix(_ map: Int) -> [UInt8] {
        [0, UInt8(map % 5), 0, 1, 3, 0x6B, UInt8(map), 0x79, 0]
    }

    private func scan(
        _ harness: EngineHarness, _ tree: Tree, _ start: [UInt8], _ prefix: [UInt8]
    ) throws -> [[UInt8]: [UInt8]] {
        var end = prefix
        end[end.count - 1] += 1
        var found: [[UInt8]: [UInt8]] = [:]
        _ = try tree.scan(
            from: start, to: end, clock: harness.clock(tree), limits: ScanLimits(entriesMax: .max, bytesMax: .max)
        ) { entry in
            found[Array(entry.key)] = Array(entry.value)
            return true
        }
        return found
    }

    private func fill(_ harness: EngineHarness, _ tree: Tree, _ name: String) throws {
        let value = String(repeating: "v", count: 100)
        for number in 0..<300 {
            try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "\(name)\(number)"), value)]))
        }
    }

    private func setFormat(_ disk: MemoryFileSystem, _ format: UInt8) {
        guard var bytes = disk.contents("/data/CISTERN") else { return }
        bytes[4] = format
        disk.setContents("/data/CISTERN", bytes)
    }

    /// Versions of the sorted files there are, from their footers.
    private func versions(_ disk: MemoryFileSystem) throws -> Set<UInt8> {
        var found: Set<UInt8> = []
        for name in try disk.list("/data/tables") {
            guard let bytes = disk.contents("/data/tables/" + name) else { continue }
            found.insert(bytes[bytes.count - 16])
        }
        return found
    }
}
