// The store of files: its format, and what is there after a crash.

import CisternFileSystem
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Foundation
import Testing

@Suite struct EmbeddedStoreTests {
    private let path = "/data/metadata"

    private func open(
        _ fileSystem: MemoryFileSystem, time: any TimeSource = ManualTime(wallMilliseconds: 1),
        changeBytesMin: Int = 1 << 20
    ) throws -> EmbeddedMetadataStore {
        var options = EmbeddedMetadataOptions()
        options.leaseCheckMilliseconds = nil
        options.changeBytesMin = changeBytesMin
        return try EmbeddedMetadataStore(directory: "/data", fileSystem: fileSystem, time: time, options: options)
    }

    /// A file with a snapshot and one change of each kind.
    private static func sample() -> (file: [UInt8], frames: [(bytes: Int, note: String)]) {
        var tree = MetadataTree()
        _ = tree.apply(.leaseBegan(milliseconds: 10_000))
        _ = tree.apply(.put(key: "node/1", value: [1, 2, 3], lease: MetadataLeaseID(1)))
        _ = tree.apply(.put(key: "ledger-ids", value: [9], lease: nil))
        var file = MetadataFileFormat.encode(tree)
        var frames = [
            (16, "header: CISTMETA, version 1, CRC-32C"), (17 + 8, "snapshot: lease 1 of 10,000 ms"),
            (17 + 8 + 2 + 10 + 1, "value of ledger-ids in version 3"),
            (17 + 8 + 2 + 6 + 3, "value of node/1 in version 2, bound to lease 1"),
            (17 + 16, "end of the snapshot: version 3, 1 lease, 2 values"),
        ]
        let changes: [(StoredChange, String)] = [
            (.put(key: "ledger-ids", value: [10], lease: nil), "put"), (.delete(key: "ledger-ids"), "delete"),
            (.leaseBegan(milliseconds: 5_000), "lease 6 begins"), (.leaseEnded(MetadataLeaseID(1)), "lease 1 ends"),
        ]
        for (number, (change, note)) in changes.enumerated() {
            let frame = MetadataFileFormat.encode(change, version: 4 + UInt64(number))
            file += frame
            frames.append((frame.count, "version \(4 + number): \(note)"))
        }
        file += MetadataFileFormat.encodeClosed(version: 8)
        frames.append((17, "version 8: closed"))
        return (file, frames)
    }

    @Test func theFileHasItsGoldenBytes() throws {
        let (file, frames) = EmbeddedStoreTests.sample()
        var hex = AnnotatedHex(
            title: "The file of an embedded metadata store, version 1.\nproto-spec/metadata-store.md")
        var rest = file[...]
        for (count, note) in frames {
            hex.field(rest.prefix(count), note)
            rest = rest.dropFirst(count)
        }
        #expect(rest.isEmpty)
        #expect(try GoldenFile.difference("metadata-store-v1.hex", from: hex.text) == nil)
        let contents = try MetadataFileFormat.decode(file, source: "test")
        #expect(contents.wasClosed && contents.tornBytes == 0 && contents.tree.version == 7)
        #expect(contents.tree.count == 0, "one was deleted, the other was bound to the lease that ended")
    }

    @Test func aCutInTheLastChangeIsATornTailAndAnyOtherDamageIsReported() throws {
        let (closed, frames) = EmbeddedStoreTests.sample()
        let file = Array(closed.dropLast(17))
        let last = file.count - frames[frames.count - 2].bytes
        let snapshot = frames.prefix(5).reduce(0) { $0 + $1.bytes }
        for count in 0..<file.count {
            let cut = Array(file[..<count])
            if count < snapshot {
                #expect(throws: CorruptionError.self, "cut to \(count)") {
                    try MetadataFileFormat.decode(cut, source: "test")
                }
            } else {
                // A file that ends earlier is one whose last change is another.
                #expect(throws: Never.self, "cut to \(count)") { try MetadataFileFormat.decode(cut, source: "test") }
            }
        }
        for index in file.indices {
            var changed = file
            changed[index] ^= 0x04
            let contents = try? MetadataFileFormat.decode(changed, source: "test")
            #expect((contents != nil) == (index >= last), "byte \(index)")
            if let contents { #expect(contents.tornBytes == file.count - last) }
        }
        for index in closed.indices where index < closed.count - 17 {
            var changed = closed
            changed[index] ^= 0x04
            #expect(throws: CorruptionError.self, "byte \(index)") {
                try MetadataFileFormat.decode(changed, source: "test")
            }
        }
    }

    @Test func damageIsReportedWithFileAndOffsetAndTheFileIsLeftAlone() async throws {
        let disk = MemoryFileSystem()
        let store = try open(disk)
        _ = try await store.create("a", [1])
        _ = try await store.create("b", [2])
        await store.close()
        var bytes = try #require(disk.contents(path))
        bytes[bytes.count - 17 - 1] ^= 1
        disk.setContents(path, bytes)
        #expect {
            _ = try open(disk)
        } throws: {
            guard case .corruption(let found) = $0 as? MetadataOpenError else { return false }
            return found.source == path && found.offset == UInt64(bytes.count - 17 - (17 + 8 + 2 + 1 + 1))
        }
        #expect(disk.contents(path) == bytes)
    }

    @Test func aSecondStoreOfTheDirectoryIsRefusedUntilTheFirstIsClosed() async throws {
        let disk = MemoryFileSystem()
        let store = try open(disk)
        #expect(throws: MetadataOpenError.self) { _ = try open(disk) }
        await store.close()
        await store.close()
        await #expect(throws: MetadataError.self) { try await store.get("a") }
        await (try open(disk)).close()
    }

    @Test func whatWasAnsweredIsThereAfterAPowerCutAtEachSync() async throws {
        for seed in Seeds.seeds(count: 8) {
            Seeds.announce("whatWasAnsweredIsThereAfterAPowerCutAtEachSync", seed)
            for cut in 1...40 {
                let disk = MemoryFileSystem(seed: seed)
                disk.failPower(atSync: cut)
                var answered: [String: [UInt8]] = [:]
                var unknown: (key: String, value: [UInt8]?)?
                if let store = try? open(disk, changeBytesMin: 120) {
                    var random = SeededRandom(seed: seed &* 1000 &+ UInt64(cut))
                    while unknown == nil { unknown = await step(store, &answered, &random) }
                }
                let after = disk.afterPowerCut(seed: seed &+ UInt64(cut))
                let store = try open(after)
                for key in ["k0", "k1", "k2", "k3"] {
                    let found = try await store.get(key)?.value
                    if key == unknown?.key {
                        #expect(found == answered[key] || found == unknown?.value, "\(key), cut \(cut)")
                    } else {
                        #expect(found == answered[key], "\(key), cut \(cut)")
                    }
                }
            }
        }
    }

    /// One random change; what it would have left when it was not answered.
    private func step(
        _ store: EmbeddedMetadataStore, _ answered: inout [String: [UInt8]], _ random: inout SeededRandom
    ) async -> (key: String, value: [UInt8]?)? {
        let key = "k\(Int.random(in: 0..<4, using: &random))"
        let value = [UInt8](repeating: UInt8.random(in: 1...255, using: &random), count: 20)
        var new: [UInt8]? = value
        do {
            if let found = try await store.get(key) {
                if Bool.random(using: &random) {
                    new = nil
                    try await store.delete(key, expected: found.version)
                } else {
                    _ = try await store.compareAndSwap(key, expected: found.version, new: value)
                }
            } else {
                _ = try await store.create(key, value)
            }
            answered[key] = new
            return nil
        } catch {
            return (key, new)
        }
    }

    @Test func afterAFailedSyncNothingIsTakenUntilTheStoreIsOpenedAgain() async throws {
        let disk = MemoryFileSystem()
        let store = try open(disk)
        _ = try await store.create("a", [1])
        disk.inject(MemoryFileSystem.Fault([.sync], count: 1))
        for _ in 0..<2 {
            await #expect {
                _ = try await store.create("b", [2])
            } throws: {
                ($0 as? MetadataError)?.isUnavailable == true
            }
        }
        await #expect(throws: MetadataError.self) { try await store.get("a") }
        await store.close()
        let again = try open(disk)
        #expect(try await again.get("a")?.value == [1])
    }

    @Test func theFileIsRewrittenWhenMostOfItIsHistoryAndAFullDiskDoesNotStopIt() async throws {
        let disk = MemoryFileSystem()
        let store = try open(disk, changeBytesMin: 1000)
        var version = try await store.create("a", [UInt8](repeating: 0, count: 100))
        // The new file cannot be made: the old one goes on.
        disk.inject(MemoryFileSystem.Fault([.create], error: 28, count: 2))
        for round in 0..<100 {
            version = try await store.compareAndSwap(
                "a", expected: version, new: [UInt8](repeating: UInt8(round), count: 100))
        }
        #expect(try #require(disk.contents(path)).count < 3000)
        #expect(disk.paths.sorted() == [path], "nothing is left beside it")
        #expect(try await store.get("a")?.value == [UInt8](repeating: 99, count: 100))
        #expect(version == 101)
    }

    @Test func aRealDirectoryIsOpenedAgainAfterRewritesWithAndWithoutAClose() async throws {
        let directory = NSTemporaryDirectory() + "cistern-metadata-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var options = EmbeddedMetadataOptions()
        options.changeBytesMin = 500
        var version: UInt64 = 0
        for round in UInt8(0)..<4 {
            let store = try EmbeddedMetadataStore(
                directory: directory, fileSystem: PosixFileSystem(), options: options)
            if round == 0 { version = try await store.create("a", [0]) }
            let found = try await store.get("a")
            #expect(found?.value == [round] && found?.version == version)
            for _ in 0..<50 {
                version = try await store.compareAndSwap("a", expected: version, new: [round + 1])
            }
            // Without a close, the lock goes with the store.
            if round % 2 == 0 { await store.close() }
        }
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: directory).sorted() == ["metadata", "metadata.lock"])
    }

    @Test func aLeaseHasItsWholeTimeAgainAfterARestart() async throws {
        let disk = MemoryFileSystem()
        let time = ManualTime(wallMilliseconds: 1)
        var store = try open(disk, time: time)
        let lease = try await store.acquireLease(milliseconds: 10_000)
        _ = try await store.create("node/1", [1], lease: lease.id)
        time.advance(milliseconds: 9_000)
        await store.close()
        store = try open(disk, time: time)
        time.advance(milliseconds: 9_000)
        #expect(try await store.get("node/1")?.lease == lease.id)
        time.advance(milliseconds: 1_000)
        #expect(try await store.get("node/1") == nil)
        await store.close()
        store = try open(disk, time: time)
        #expect(try await store.get("node/1") == nil)
    }
}
