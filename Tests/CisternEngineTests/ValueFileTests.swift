// Values outside of sorted files: found by every read, shared by whoever shares the files, rewritten when most of a file is
// dead, and gone with the last that points to them.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

private func valueOptions() -> EngineOptions {
    var options = smallOptions()
    options.values.thresholdBytes = 100
    options.values.smallFileBytes = 0
    return options
}

private func files(_ disk: MemoryFileSystem, _ suffix: String) -> [String] {
    disk.paths.filter { $0.hasSuffix(suffix) }
}

private func large(_ text: String, count: Int = 300) -> String {
    text + String(repeating: "x", count: count - text.utf8.count)
}

private func identity(_ first: UInt16, _ last: UInt16) -> TreeIdentity {
    TreeIdentity(store: "orders", keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: 128)
}

extension EngineHarness {
    fileprivate func compact(_ tree: Tree) throws { try wait { done in tree.compact(completion: done) } as Void }

    /// What the tree's statistics say of values.
    fileprivate func usage(_ tree: Tree) -> (files: Int, bytes: UInt64, dead: UInt64) {
        let statistics = tree.statistics
        return (statistics.valueFiles, statistics.valueBytes, statistics.deadValueBytes)
    }
}

@Suite struct ValueFileTests {
    private func writeAll(
        _ harness: EngineHarness, _ tree: Tree, _ tag: String, groups: ClosedRange<UInt16> = 0...127,
        expiry: Expiry = .never
    ) throws {
        for group in groups {
            try harness.writeDurably(
                tree,
                OwnedBatch([
                    put(makeKey(group, "large"), large("\(tag)\(group)"), expiry: expiry),
                    put(makeKey(group, "small"), "\(tag)\(group)", expiry: expiry),
                ]))
        }
    }

    private func expectAll(
        _ harness: EngineHarness, _ tree: Tree, _ tag: String, groups: ClosedRange<UInt16> = 0...127
    ) throws {
        for group in groups {
            #expect(try harness.get(tree, makeKey(group, "large"))?.value == Array(large("\(tag)\(group)").utf8))
            #expect(try harness.get(tree, makeKey(group, "small"))?.value == Array("\(tag)\(group)".utf8))
        }
        let found = try harness.scan(tree)
        #expect(found.count == groups.count * 2)
        for (key, stored) in found {
            let group = UInt16(key[0]) << 8 | UInt16(key[1])
            let value = key.last == makeKey(0, "large").last ? large("\(tag)\(group)") : "\(tag)\(group)"
            #expect(stored.value == Array(value.utf8))
        }
    }

    @Test func largeValuesAreInValueFilesAndEveryReadFindsThem() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange)
        try writeAll(harness, tree, "a")
        try harness.compact(tree)
        #expect(!files(disk, ".val").isEmpty)
        // 128 keys of 300 bytes are in none of them.
        #expect(files(disk, ".sst").reduce(0) { $0 + (disk.contents($1)?.count ?? 0) } < 20_000)
        try expectAll(harness, tree, "a")
        let keys = OwnedKeys((0..<128).flatMap { [makeKey($0, "large"), makeKey($0, "small"), makeKey($0, "none")] })
        var result = LookupResult()
        var values: [[UInt8]?] = []
        try tree.multiGet(
            count: keys.count, clock: harness.clock(tree), scratch: &result, key: { keys[$0] },
            visit: { _, value, _ in
                values.append(value.map { Array($0) })
                return true
            })
        let expected = (0..<128).flatMap { [Array(large("a\($0)").utf8), Array("a\($0)".utf8), nil] as [[UInt8]?] }
        #expect(values == expected)
        let id = tree.id
        harness.engine.close()
        harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 2)
        tree = try harness.open(id)
        try expectAll(harness, tree, "a")
        harness.engine.close()
    }

    @Test func aScanOfKeysReadsNoValueFile() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try writeAll(harness, tree, "a")
        try harness.compact(tree)
        disk.inject(.init([.read, .open], error: EIO) { $0.hasSuffix(".val") })
        var keys: [[UInt8]] = []
        let limits = ScanLimits(entriesMax: .max, bytesMax: .max)
        let clock = harness.clock(tree)
        let rest = try tree.scan(from: [], to: [], clock: clock, limits: limits, keysOnly: true) {
            keys.append(Array($0.key))
            return true
        }
        #expect(rest == nil && keys.count == 256)
        #expect(throws: EngineError.self) { try harness.scan(tree) }
        #expect(throws: EngineError.self) { try harness.get(tree, makeKey(1, "large")) }
        #expect(try harness.get(tree, makeKey(1, "small")) != nil)
        disk.clearFaults()
        try expectAll(harness, tree, "a")
        harness.engine.close()
    }

    /// An append over a value in a value file reads it, wherever the two meet; the folded value is a put like others.
    @Test func appendsFoldOntoValuesInValueFiles() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(1, "list"), large("a"))]))
        try harness.compact(tree)
        try harness.writeDurably(tree, OwnedBatch([OwnedEntry(makeKey(1, "list"), .append, Array("bc".utf8))]))
        let expected = Array((large("a") + "bc").utf8)
        #expect(try harness.get(tree, makeKey(1, "list"))?.value == expected)
        #expect(try harness.scan(tree).map(\.stored.value) == [expected])
        try harness.compact(tree)
        #expect(try harness.get(tree, makeKey(1, "list"))?.value == expected)
        #expect(harness.usage(tree).files == 1 && harness.usage(tree).dead == 0)
        #expect(harness.usage(tree).bytes == UInt64(expected.count + 16))
        // Large appends without a base stay in the sorted file.
        let operand = OwnedEntry(makeKey(2, "list"), .append, Array(large("d").utf8))
        try harness.writeDurably(tree, OwnedBatch([operand]))
        try harness.writeDurably(tree, OwnedBatch([put(makeKey(3, "other"), large("e"))]))
        harness.scheduler.runUntilIdle()
        #expect(try harness.get(tree, makeKey(2, "list"))?.value == operand.value)
        harness.engine.close()
    }

    /// Overwriting makes garbage, garbage makes rewriting, and what is live stays readable.
    @Test(arguments: Seeds.seeds(count: 6)) func aFileOfWhichMostIsDeadIsRewritten(seed: UInt64) throws {
        Seeds.announce("aFileOfWhichMostIsDeadIsRewritten", seed)
        var random = SeededRandom(seed: seed)
        let disk = MemoryFileSystem(seed: seed)
        let harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: seed)
        let tree = try harness.create(wholeRange)
        var model: [[UInt8]: String] = [:]
        for round in 0..<30 {
            for _ in 0..<40 {
                let group = UInt16.random(in: 0...127, using: &random)
                let key = makeKey(group, "large")
                let value = large("\(round)-\(group)-", count: .random(in: 50...600, using: &random))
                try harness.writeDurably(tree, OwnedBatch([put(key, value)]))
                model[key] = value
            }
        }
        try harness.compact(tree)
        harness.scheduler.runUntilIdle()
        for _ in 0..<20 {
            harness.scheduler.advance(milliseconds: 60_000)
            harness.scheduler.runUntilIdle()
        }
        let usage = harness.usage(tree)
        #expect(usage.dead * 2 <= usage.bytes, "\(usage.dead) of \(usage.bytes) bytes are dead")
        let live = model.values.filter { $0.utf8.count >= 100 }
        #expect(usage.bytes - usage.dead == live.reduce(0) { $0 + UInt64($1.utf8.count) + 16 })
        #expect(usage.files == files(disk, ".val").count)
        for (key, value) in model { #expect(try harness.get(tree, key)?.value == Array(value.utf8)) }
        try expectRecounted(harness, tree, disk)
        harness.engine.close()
    }

    /// Live bytes as the manifest has them are those of the pointers in the sorted files, counted again from their bytes.
    private func expectRecounted(_ harness: EngineHarness, _ tree: Tree, _ disk: MemoryFileSystem) throws {
        var live: UInt64 = 0
        for path in files(disk, ".sst") {
            let table = try TableReader.open(
                file: try disk.openRead(path), number: 1, cache: BlockCache(capacityBytes: 0))
            let cursor = table.cursor(policy: .stream)
            var more = try cursor.seekToFirst()
            while more {
                if cursor.entry.isPointer {
                    let size = cursor.entry.value.loadUnaligned(fromByteOffset: 16, as: UInt32.self)
                    live += UInt64(UInt32(littleEndian: size)) + 16
                }
                more = try cursor.next()
            }
        }
        let usage = harness.usage(tree)
        #expect(usage.bytes - usage.dead == live)
        let total = files(disk, ".val").reduce(0) { $0 + (disk.contents($1)?.count ?? 0) - 64 }
        #expect(usage.bytes == UInt64(total))
    }

    @Test func whenEverythingIsDeletedNoFileIsLeft() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try writeAll(harness, tree, "a")
        try writeAll(harness, tree, "b")
        for group in UInt16(0)...127 {
            try harness.writeDurably(
                tree,
                OwnedBatch([
                    OwnedEntry(makeKey(group, "large"), .delete), OwnedEntry(makeKey(group, "small"), .delete),
                ]))
        }
        try harness.compact(tree)
        harness.scheduler.runUntilIdle()
        #expect(try harness.scan(tree).isEmpty)
        #expect(files(disk, ".val").isEmpty && files(disk, ".sst").isEmpty)
        harness.engine.close()
    }

    /// What expires soon is not in one file with what stays, so its files go and nothing else is rewritten.
    @Test func valuesThatExpireTogetherGoTogether() throws {
        let disk = MemoryFileSystem()
        var options = valueOptions()
        options.compaction.reclaimLagMilliseconds = 1
        options.values.livePercent = 0
        let harness = try EngineHarness(options, fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        let soon = Expiry.processingTime(milliseconds: harness.scheduler.time.wallMilliseconds + 600_000)
        try writeAll(harness, tree, "a", groups: 0...40, expiry: soon)
        try writeAll(harness, tree, "b", groups: 41...127)
        try harness.compact(tree)
        let before = Set(files(disk, ".val"))
        #expect(before.count >= 2)
        harness.scheduler.advance(milliseconds: 700_000)
        harness.scheduler.runUntilIdle()
        try harness.compact(tree)
        harness.scheduler.runUntilIdle()
        let after = Set(files(disk, ".val"))
        #expect(after.count < before.count && after.isSubset(of: before))
        #expect(harness.usage(tree).dead == 0)
        try expectAll(harness, tree, "b", groups: 41...127)
        harness.engine.close()
    }

    @Test(arguments: LogMode.allCases) func aSnapshotKeepsItsValuesUntilItIsReleased(mode: LogMode) throws {
        let disk = MemoryFileSystem()
        var options = valueOptions()
        options.log = mode
        var harness = try EngineHarness(options, fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange)
        let id = tree.id
        try writeAll(harness, tree, "a")
        try harness.compact(tree)
        let info = try harness.snapshot(tree, 1)
        #expect(info.bytes > 128 * 300)
        try writeAll(harness, tree, "b")
        try harness.compact(tree)
        harness.scheduler.runUntilIdle()
        let held = files(disk, ".val").count
        let view = try harness.openSnapshot(info.handle)
        var found = 0
        try view.scan(clock: view.clock) { entry in
            if entry.value.count >= 100 { #expect(entry.value.first == UInt8(ascii: "a")) }
            found += 1
            return true
        }
        #expect(found == 256)
        try harness.close(tree)
        harness.engine.close()

        // Offline, and after a restart.
        let offline = try OfflineSnapshots("/data", fileSystem: disk).open(info.handle)
        var result = LookupResult()
        let key = makeKey(7, "large")
        #expect(try key.withUnsafeBytes { try offline.get($0, clock: offline.clock, into: &result) })
        #expect(result.finish(offline.clock).map { Array($0.value) } == Array(large("a7").utf8))
        harness = try EngineHarness(options, fileSystem: disk, seed: 2)
        tree = try harness.open(id)
        try expectAll(harness, tree, "b")
        #expect(files(disk, ".val").count == held)
        #expect(harness.engine.releaseSnapshots([info.handle]) == 1)
        harness.scheduler.runUntilIdle()
        #expect(files(disk, ".val").count < held)
        #expect(files(disk, ".val").count == harness.usage(tree).files)
        try expectAll(harness, tree, "b")
        harness.engine.close()
    }

    /// Two halves of a tree share its value files; each rewrites what it needs, and the files go with the second.
    @Test func halvesOfATreeShareItsValueFiles() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        let whole = try harness.create(wholeRange)
        try writeAll(harness, whole, "a")
        try harness.compact(whole)
        let info = try harness.snapshot(whole, 1)
        let left = try harness.create(identity(0, 63), epoch: 2, from: [info.handle], replacing: [whole.id])
        let right = try harness.create(identity(64, 127), epoch: 2, from: [info.handle])
        #expect(harness.engine.releaseSnapshots([info.handle]) == 1)
        harness.scheduler.runUntilIdle()
        try expectAll(harness, left, "a", groups: 0...63)
        try expectAll(harness, right, "a", groups: 64...127)
        try harness.compact(left)
        harness.scheduler.runUntilIdle()
        try expectAll(harness, left, "a", groups: 0...63)
        try expectAll(harness, right, "a", groups: 64...127)
        let (first, second) = (try harness.snapshot(left, 2), try harness.snapshot(right, 2))
        let united = try harness.create(
            wholeRange, epoch: 3, from: [first.handle, second.handle], replacing: [left.id, right.id])
        #expect(harness.engine.releaseSnapshots([first.handle, second.handle]) == 2)
        harness.scheduler.runUntilIdle()
        try expectAll(harness, united, "a")
        try harness.retire(united.id)
        harness.scheduler.runUntilIdle()
        #expect(files(disk, ".val").isEmpty && files(disk, ".sst").isEmpty)
        harness.engine.close()
    }

    /// A directory of a format without value files gets none, whatever is configured, until an operator raises it.
    @Test func anOldDirectoryGetsNoValueFiles() throws {
        let disk = MemoryFileSystem()
        try EngineHarness(valueOptions(), fileSystem: disk, seed: 1).engine.close()
        var bytes = try #require(disk.contents("/data/CISTERN"))
        let newest = UInt16(bytes[4])
        bytes[4] = 2
        disk.setContents("/data/CISTERN", bytes)
        var harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 2)
        var tree = try harness.create(wholeRange)
        try writeAll(harness, tree, "a")
        try harness.compact(tree)
        #expect(files(disk, ".val").isEmpty)
        let id = tree.id
        harness.engine.close()
        #expect(try DirectoryUpgrade.run("/data", fileSystem: disk).to == newest)
        harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 3)
        tree = try harness.open(id)
        try writeAll(harness, tree, "b", groups: 0...63)
        try harness.compact(tree)
        #expect(!files(disk, ".val").isEmpty)
        for group in UInt16(0)...127 {
            let value = large((group < 64 ? "b" : "a") + "\(group)")
            #expect(try harness.get(tree, makeKey(group, "large"))?.value == Array(value.utf8))
        }
        harness.engine.close()
    }

    /// Turned off, what is in value files is still read, and comes back as its files are rewritten.
    @Test func turnedOffNothingIsLost() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange)
        let id = tree.id
        try writeAll(harness, tree, "a")
        try harness.compact(tree)
        harness.engine.close()
        var options = valueOptions()
        options.values.thresholdBytes = 0
        options.values.smallFileBytes = 1 << 30
        harness = try EngineHarness(options, fileSystem: disk, seed: 2)
        tree = try harness.open(id)
        try expectAll(harness, tree, "a")
        try writeAll(harness, tree, "b")
        try expectAll(harness, tree, "b")
        try harness.compact(tree)
        harness.scheduler.runUntilIdle()
        try expectAll(harness, tree, "b")
        #expect(files(disk, ".val").isEmpty)
        harness.engine.close()
    }

    @Test(arguments: [ENOSPC, EIO]) func aDiskThatTakesNoValuesMakesTheTreeReadOnlyAndNothingIsLost(
        error: Int32
    ) throws {
        for operation in [MemoryFileSystem.Operation.create, .append, .sync] {
            let disk = MemoryFileSystem()
            let harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
            let tree = try harness.create(wholeRange)
            disk.inject(.init([operation], error: error) { $0.hasSuffix(".val") })
            var written: [[UInt8]] = []
            for group in UInt16(0)...127 {
                let key = makeKey(group, "large")
                do throws(EngineError) {
                    let outcome = try harness.write(tree, OwnedBatch([put(key, large("\(group)"))])).outcome
                    if outcome == .applied { written.append(key) }
                } catch {
                    break
                }
                harness.scheduler.step()
            }
            harness.scheduler.runUntilIdle()
            #expect(tree.statistics.readOnlyCause != nil)
            for key in written { #expect(try harness.get(tree, key) != nil) }
            #expect(files(disk, ".sst").isEmpty)
            disk.clearFaults()
            harness.scheduler.advance(milliseconds: 60_000)
            harness.scheduler.runUntilIdle()
            #expect(tree.statistics.readOnlyCause == nil)
            for key in written { #expect(try harness.get(tree, key) != nil) }
            try harness.retire(tree.id)
            harness.scheduler.runUntilIdle()
            #expect(files(disk, ".val").isEmpty && files(disk, ".sst").isEmpty)
            harness.engine.close()
        }
    }

    /// Every byte of a value file, changed: an error that names the file, or what was written.
    @Test func aDamagedValueIsAnErrorAndNeverOtherData() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        let id = tree.id
        try harness.writeDurably(
            tree, OwnedBatch([put(makeKey(1, "k"), large("a")), put(makeKey(2, "k"), large("b"))]))
        try harness.close(tree)
        harness.engine.close()
        let path = try #require(files(disk, ".val").first)
        let bytes = try #require(disk.contents(path))
        var errors = 0
        for offset in bytes.indices {
            var damaged = bytes
            damaged[offset] ^= 0x40
            disk.setContents(path, damaged)
            harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 2)
            let tree = try harness.open(id)
            for (group, text) in [(UInt16(1), "a"), (2, "b")] {
                do {
                    let found = try harness.get(tree, makeKey(group, "k"))
                    #expect(found?.value == Array(large(text).utf8))
                } catch EngineError.corruption(let damage) {
                    #expect(damage.source == path)
                    errors += 1
                }
            }
            harness.engine.close()
        }
        #expect(errors >= bytes.count)
    }

    @Test func aMissingValueFileIsDamageAndAnUnknownOneGoes() throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        let id = tree.id
        try writeAll(harness, tree, "a")
        try harness.close(tree)
        harness.engine.close()
        let path = try #require(files(disk, ".val").last)
        let bytes = try #require(disk.contents(path))
        try disk.remove(path)
        disk.setContents("/data/tables/000000009999.val", bytes)
        harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.map(\.tree) == [id])
        harness.engine.close()
        // As long as something is damaged nothing is removed.
        #expect(disk.contents("/data/tables/000000009999.val") != nil)
        disk.setContents(path, bytes)
        harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 3)
        #expect(harness.engine.damagedParts.isEmpty)
        try expectAll(harness, try harness.open(id), "a")
        harness.engine.close()
        #expect(disk.contents("/data/tables/000000009999.val") == nil)
    }

    @Test func inspectShowsEveryValueOfAFile() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(valueOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try writeAll(harness, tree, "a")
        try harness.compact(tree)
        harness.engine.close()
        var values = 0
        for path in files(disk, ".val") {
            let name = String(path.split(separator: "/").last ?? "")
            let kind = try #require(EngineFile(name: name, firstBytes: []))
            #expect(kind == .valueFile)
            #expect(EngineFile(name: "renamed", firstBytes: disk.contents(path) ?? []) == .valueFile)
            var end: UInt64 = 0
            try kind.inspect(path, fileSystem: disk) { part in
                #expect(part.range.lowerBound == end)
                end = part.range.upperBound
                if part.name == "value" { values += 1 }
            }
            #expect(end == UInt64(disk.contents(path)?.count ?? 0))
        }
        #expect(values >= 128)
    }
}
