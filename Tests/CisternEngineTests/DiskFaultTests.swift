// Disks that cannot be looked at, that are full, or that fail between two steps: what an engine finds, keeps and leaves.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

private let firstTree = "/data/trees/000001"

/// A closed engine's disk with one tree of one key, in a table file.
private func diskWithATree() throws -> (disk: MemoryFileSystem, tree: TreeID) {
    let disk = MemoryFileSystem()
    let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
    let tree = try harness.create(wholeRange)
    let id = tree.id
    try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "k"), "v")]))
    try harness.close(tree)
    harness.engine.close()
    return (disk, id)
}

@Suite struct UnreachableFileTests {
    @Test(arguments: [
        MemoryFileSystem.Fault([.list], error: EACCES) { $0 == firstTree },
        MemoryFileSystem.Fault([.read], error: EIO) { $0 == firstTree + "/CURRENT" },
        MemoryFileSystem.Fault([.read], error: EIO) { $0.hasPrefix(firstTree + "/MANIFEST") },
    ]) func aTreeThatCannotBeLookedAtIsDamagedAndKeepsEveryFile(_ fault: MemoryFileSystem.Fault) throws {
        let (disk, id) = try diskWithATree()
        let before = disk.paths
        #expect(before.contains { $0.hasSuffix(".sst") })
        disk.inject(fault)
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.map(\.tree) == [id])
        #expect(harness.engine.treeInfos().isEmpty)
        harness.engine.close()
        #expect(disk.paths == before)

        disk.clearFaults()
        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 3)
        #expect(harness.engine.damagedParts.isEmpty)
        #expect(try harness.get(try harness.open(id), makeKey(1, "k")) != nil)
        harness.engine.close()
    }

    /// A directory of a newer format must not be taken for one without a format.
    @Test func aFormatFileThatCannotBeLookedAtStays() throws {
        let (disk, _) = try diskWithATree()
        var bytes = try #require(disk.contents("/data/CISTERN"))
        bytes[4] = 9
        disk.setContents("/data/CISTERN", bytes)
        disk.inject(.init([.exists], error: EACCES) { $0 == "/data/CISTERN" })
        #expect(throws: EngineError.self) { try EngineHarness(smallOptions(), fileSystem: disk, seed: 2) }
        #expect(disk.contents("/data/CISTERN") == bytes)
    }
}
