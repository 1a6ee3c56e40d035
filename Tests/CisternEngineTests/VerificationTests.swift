// `DirectoryVerification`: a sound directory is sound, and every damage to one is named with its file. Nothing is changed.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct VerificationTests {
    /// Tables in several levels, a log, a snapshot of each kind, and a tree that refers to the log of one that is gone.
    private func populated() throws -> MemoryFileSystem {
        let disk = MemoryFileSystem()
        var options = smallOptions()
        options.memtableBytes = 8192
        options.values.thresholdBytes = 40
        let harness = try EngineHarness(options, fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        for round in 0..<12 {
            try harness.writeDurably(
                tree,
                OwnedBatch(
                    (0..<128).map { group in
                        let value = "value \(round)" + String(repeating: "+", count: group % 8 == 0 ? 50 : 0)
                        return put(makeKey(UInt16(group), "k\(round % 7)"), value)
                    }))
        }
        harness.scheduler.runUntilIdle()
        let first = try harness.snapshot(tree, 1)
        #expect(first.fileCount > 1)
        let other = TreeIdentity(store: "other", keyGroups: wholeRange.keyGroups, keyGroupCount: 128)
        let gone = try harness.create(other)
        try harness.writeDurably(gone, OwnedBatch([put(makeKey(3, "x"), "y")]))
        let second = try harness.snapshot(gone, 1)
        #expect(second.logBytes > 0)
        _ = try harness.create(other, epoch: 2, from: [second.handle], replacing: [gone.id])
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(3, "x"), "y")]))
        _ = try harness.snapshot(tree, 2)
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(3, "z"), "y")]))
        harness.scheduler.runUntilIdle()
        harness.engine.close()
        return disk
    }

    private func verify(_ disk: MemoryFileSystem, deep: Bool = false) throws -> DirectoryVerification {
        try DirectoryVerification.run("/data", deep: deep, fileSystem: disk)
    }

    @Test func aSoundDirectoryIsSoundAndStaysAsItIs() throws {
        let disk = try populated()
        let before = disk.paths.map { ($0, disk.contents($0)) }
        for deep in [false, true] {
            let found = try verify(disk, deep: deep)
            #expect(found.faults.isEmpty, "\(found.faults)")
            #expect(found.remarks.isEmpty, "\(found.remarks)")
            #expect(found.trees == 2 && found.snapshots == 3 && found.tables > 1 && found.segments >= 2)
            #expect(found.entries > 0 && found.tableBytes > 0 && found.logBytes > 0)
            #expect(found.valueFiles > 0 && found.valueBytes > 0)
        }
        #expect(disk.paths == before.map(\.0))
        for (path, contents) in before { #expect(disk.contents(path) == contents) }
    }

    @Test func everyFileThatIsMissingIsNamed() throws {
        let whole = try populated()
        for path in whole.paths where !path.hasSuffix("LOCK") && !path.hasSuffix(".snap") {
            let disk = whole.afterNothing()
            try disk.remove(path)
            if path.hasSuffix("CISTERN") {
                #expect(throws: EngineError.self) { try verify(disk) }
                continue
            }
            let found = try verify(disk)
            let name = String(path.split(separator: "/").last ?? "")
            if name == "CURRENT" {
                // A directory without it is no tree; what is left of it is remarked upon.
                #expect(!found.remarks.isEmpty, "\(path)")
            } else if found.faults.isEmpty {
                // Only a log whose records nobody acknowledged may be absent without a trace.
                #expect(path.hasSuffix(".log"), "\(path)")
            } else {
                #expect(found.faults.contains { "\($0)".contains(name) }, "\(path): \(found.faults)")
            }
        }
    }

    @Test func everyChangedByteIsFound() throws {
        let disk = try populated()
        for path in disk.paths where !path.hasSuffix("LOCK") {
            let bytes = try #require(disk.contents(path))
            for offset in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 40)) {
                var damaged = bytes
                damaged[offset] ^= 0x10
                disk.setContents(path, damaged)
                guard let found = try? verify(disk, deep: true) else {
                    #expect(path.hasSuffix("CISTERN"), "\(path) byte \(offset)")
                    continue
                }
                let isReserved = path.hasSuffix("CISTERN") && offset >= 6
                // The end of a log may be what a crash left, and so may the last edit of a manifest.
                let mayBeTorn = path.hasSuffix(".log") || path.contains("MANIFEST")
                #expect(!found.faults.isEmpty || isReserved || mayBeTorn, "\(path) byte \(offset)")
                #expect(found.faults.allSatisfy { $0.offset <= UInt64(bytes.count) })
            }
            disk.setContents(path, bytes)
        }
    }

    /// Damage inside a table's blocks is found by a deep look only, at its place.
    @Test func aDamagedBlockIsFoundByADeepLook() throws {
        let disk = try populated()
        let table = try #require(disk.paths.first { $0.hasSuffix(".sst") })
        var bytes = try #require(disk.contents(table))
        bytes[100] ^= 1
        disk.setContents(table, bytes)
        #expect(try verify(disk).faults.isEmpty)
        let fault = try #require(try verify(disk, deep: true).faults.first)
        #expect(fault.path == table && fault.offset <= 100)
    }

    @Test func aTableThatWasExchangedIsFound() throws {
        let disk = try populated()
        let tables = disk.paths.filter { $0.hasSuffix(".sst") }
        // A value file knows its number.
        let values = disk.paths.filter { $0.hasSuffix(".val") }
        let exchanged = disk.afterNothing()
        exchanged.setContents(values[0], try #require(disk.contents(values[1])))
        #expect(try verify(exchanged).faults.map(\.path) == [values[0]])
        disk.setContents(tables[0], try #require(disk.contents(tables[1])))
        let found = try verify(disk)
        #expect(found.faults.map(\.path) == [tables[0]])
    }

    @Test func whatNobodyRefersToIsRemarkedUpon() throws {
        let disk = try populated()
        disk.setContents("/data/tables/000000000999.sst", [1, 2, 3])
        disk.setContents("/data/snapshots/000009.snap.tmp", [1])
        try disk.createDirectory("/data/trees/000099")
        disk.setContents("/data/trees/000099/000001.log", [1])
        let found = try verify(disk, deep: true)
        #expect(found.faults.isEmpty)
        #expect(found.remarks.count == 3, "\(found.remarks)")
    }
}

extension MemoryFileSystem {
    /// A copy of what is there.
    fileprivate func afterNothing() -> MemoryFileSystem {
        let copy = MemoryFileSystem()
        for path in paths {
            try? copy.createDirectory(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
            if let bytes = contents(path) { copy.setContents(path, bytes) }
        }
        return copy
    }
}
