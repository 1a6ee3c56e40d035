// Files that are read while their bytes are in a snapshot store: right at every moment, and whole in the end.

import CisternFileSystem
import CisternPrimitives
import CisternSnapshotStore
import CisternTestKit
import Glibc
import Testing

/// A store in memory, with what can be wrong with one.
private final class FakeStore: SnapshotStore {
    struct State {
        var objects: [String: [UInt8]] = [:]
        var fails = false
        var ranges: [Range<UInt64>] = []
    }

    let state = Guarded(State())
    var location: String { "fake://store" }

    private func object(_ operation: String, _ name: String) throws(SnapshotStoreError) -> [UInt8]? {
        let (object, fails) = state.withLock { ($0.objects[name], $0.fails) }
        if fails {
            throw SnapshotStoreError(
                operation: operation, name: name, location: location, reason: "it is away", isTransient: true)
        }
        return object
    }

    func put(_ name: String, _ bytes: [UInt8]) throws(SnapshotStoreError) -> Bool {
        state.withLock { $0.objects.updateValue(bytes, forKey: name) == nil }
    }
    func get(_ name: String, limit: Int) throws(SnapshotStoreError) -> [UInt8]? { try object("get", name) }
    func get(_ name: String, range: Range<UInt64>) throws(SnapshotStoreError) -> [UInt8]? {
        state.withLock { $0.ranges.append(range) }
        return try object("get", name).map { Array($0[Int(range.lowerBound)..<Int(range.upperBound)]) }
    }
    func list(_ prefix: String) throws(SnapshotStoreError) -> [StoredObject] { [] }
    func delete(_ names: [String]) throws(SnapshotStoreError) {
        state.withLock { state in for name in names { state.objects[name] = nil } }
    }
    func removeLeftovers(_ prefix: String) throws(SnapshotStoreError) {}
    func close() {}
}

/// A directory with one file that is in the store, in pieces that do not fall on chunks.
private final class Subject {
    let store = FakeStore()
    let disk: MemoryFileSystem
    let scheduler: SteppedScheduler
    let contents: [UInt8]
    let placeholder: Placeholder
    private(set) var fileSystem: HydratingFileSystem
    private(set) var hydration: Hydration
    private let lock: any DirectoryLock
    let path = "/data/tables/1.sst"

    init(
        bytes: Int, piece: Int = 300_000, disk: MemoryFileSystem = MemoryFileSystem(), seed: UInt64 = 1,
        places: Bool = true
    ) throws {
        var random = SeededRandom(seed: seed)
        contents = (0..<bytes).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        var pieces: [StoredPiece] = []
        for start in stride(from: 0, to: bytes, by: piece) {
            let slice = Array(contents[start..<min(bytes, start + piece)])
            let name = "t1.\(pieces.count)"
            _ = try store.put(StoreLayout.piece(name, in: "ab"), slice)
            pieces.append(StoredPiece(name: name, bytes: UInt64(slice.count), checksum: CRC32C.checksum(slice)))
        }
        placeholder = Placeholder(
            namespace: "ab", file: StoredFile(kind: 1, tree: 0, number: 1, bytes: UInt64(bytes), pieces: pieces))
        self.disk = disk
        scheduler = SteppedScheduler(seed: seed)
        try disk.createDirectory("/data/tables")
        fileSystem = HydratingFileSystem(
            disk, store: store, directory: "/data", lockPath: "/data/LOCK", tables: "/data/tables")
        hydration = Hydration(fileSystem, lane: scheduler.makeLane(), bytesPerSecond: 0)
        lock = try fileSystem.lock("/data/LOCK")
        if places {
            try fileSystem.place(placeholder, at: path)
            try disk.syncDirectory("/data/tables")
        }
    }

    var file: any RandomReadFile { get throws { try fileSystem.openRead(path) } }

    func expect(
        _ range: Range<Int>, of file: (any RandomReadFile)? = nil, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let found = try (file ?? self.file).readBytes(UInt64(range.lowerBound)..<UInt64(range.upperBound))
        #expect(found == Array(contents[range]), sourceLocation: sourceLocation)
    }

    func piece(_ number: Int) -> String { StoreLayout.piece(placeholder.file.pieces[number].name, in: "ab") }
}

@Suite struct HydrationTests {
    @Test func aPlaceholderHasItsGoldenBytes() throws {
        let placeholder = Placeholder(
            namespace: "00112233445566778899aabbccddeeff",
            file: StoredFile(
                kind: 1, tree: 0, number: 12, bytes: 20_000_000,
                pieces: [
                    StoredPiece(name: "t12.0a", bytes: 16 << 20, checksum: 0x0102_0304),
                    StoredPiece(name: "t12.0b", bytes: 20_000_000 - 16 << 20, checksum: 5),
                ]))
        let bytes = placeholder.encode()
        var hex = AnnotatedHex(title: "A placeholder, version 1.\nproto-spec/placeholder.md")
        var rest = bytes[...]
        for (count, note) in [(4, "magic CPLH"), (2, "version"), (2, "zero"), (4, "length"), (4, "CRC-32C")] {
            hex.field(rest.prefix(count), note)
            rest = rest.dropFirst(count)
        }
        hex.section("body")
        hex.field(rest.prefix(33), "namespace")
        hex.field(rest.dropFirst(33), "a sorted file of two pieces")
        #expect(try GoldenFile.difference("placeholder-v1.hex", from: hex.text) == nil)
        #expect(try Placeholder.decode(try GoldenFile.bytes("placeholder-v1.hex")) == placeholder)
    }

    @Test func aPlaceholderThatIsCutOrChangedAnywhereIsRefused() throws {
        let bytes = try Subject(bytes: 1000).placeholder.encode()
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 0x40
            #expect(throws: StoredSnapshotDamage.self, "byte \(index)") { try Placeholder.decode(damaged) }
            #expect(throws: StoredSnapshotDamage.self) { try Placeholder.decode(Array(bytes[..<index])) }
        }
        #expect(throws: StoredSnapshotDamage.self) { try Placeholder.decode(bytes + [0]) }
    }

    @Test func readsAreRightBeforeWhileAndAfterTheFileComes() throws {
        for seed in Seeds.seeds(count: 12) {
            Seeds.announce("readsAreRightBeforeWhileAndAfterTheFileComes", seed)
            let bytes = [1, 1000, 65_536, 300_000, 1_234_567][Int(seed % 5)]
            let subject = try Subject(bytes: bytes, seed: seed)
            var random = SeededRandom(seed: seed)
            let early = try subject.file
            #expect(early.size == UInt64(bytes))
            subject.hydration.wake()
            for _ in 0..<200 {
                let start = Int.random(in: 0..<bytes, using: &random)
                try subject.expect(start..<min(bytes, start + Int.random(in: 0..<200_000, using: &random)), of: early)
                if Int.random(in: 0..<20, using: &random) == 0 { subject.scheduler.step() }
            }
            subject.scheduler.runUntilIdle()
            try subject.expect(0..<bytes, of: early)
            try subject.expect(0..<bytes)
            // Nothing of it is special any more, also not on the disk.
            #expect(subject.disk.contents(subject.path) == subject.contents)
            #expect(subject.fileSystem.pending == (0, 0))
            #expect(subject.disk.paths.filter { $0.hasPrefix("/data/hydration") } == [])
            #expect(throws: FileError(operation: "read", path: subject.path, reason: .endOfFile)) {
                _ = try early.readBytes(0..<UInt64(bytes + 1))
            }
        }
    }

    @Test func aReadBringsWhatItNeedsAndNoMoreThanThat() throws {
        let subject = try Subject(bytes: 2_000_000, piece: 1_000_000)
        try subject.expect(70_000..<70_010)
        #expect(subject.store.state.withLock { $0.ranges } == [65_536..<131_072])
        try subject.expect(65_536..<131_072)
        #expect(subject.store.state.withLock { $0.ranges.count } == 1)
        // From one object into the next.
        try subject.expect(999_990..<1_000_010)
        #expect(subject.store.state.withLock { $0.ranges.count } == 3)
        #expect(subject.hydration.status.reads == 3)
        #expect(subject.fileSystem.pending.bytes == 2_000_000 - 2 * 65_536)
    }

    @Test func readsOneBehindTheOtherFetchMoreAndMore() throws {
        let subject = try Subject(bytes: 8 << 20, piece: 8 << 20)
        let file = try subject.file
        for start in stride(from: 0, to: 8 << 20, by: 4096) { try subject.expect(start..<start + 4096, of: file) }
        #expect(subject.store.state.withLock { $0.ranges.count } < 12)
    }

    @Test func aThreadThatMustNotWaitIsToldWhatItWouldWaitFor() throws {
        let subject = try Subject(bytes: 400_000)
        let file = try subject.file
        let waits = DiskWaits()
        #expect(throws: FileError(operation: "read", path: subject.path, reason: .wouldWait)) {
            try waits.collect { () throws(FileError) in _ = try file.readBytes(1000..<2000) }
        }
        #expect(subject.store.state.withLock { $0.ranges.isEmpty })
        let ranges = waits.take()
        #expect(ranges.map(\.offset) == [1000] && ranges.map(\.count) == [1000])
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DiskRange.loadBytes, alignment: 16)
        defer { buffer.deallocate() }
        for range in ranges { range.load(ahead: 0, buffer: buffer) }
        var found: [UInt8] = []
        try waits.collect { () throws(FileError) in found = try file.readBytes(1000..<2000) }
        #expect(found == Array(subject.contents[1000..<2000]))
    }

    @Test func aFileKeepsItsReadersWhenItIsRenamedWhileItComes() throws {
        let subject = try Subject(bytes: 1_000_000)
        let file = try subject.file
        subject.hydration.wake()
        subject.scheduler.step()
        try subject.fileSystem.rename(subject.path, to: "/data/tables/2.sst")
        try subject.expect(500_000..<600_000, of: file)
        subject.scheduler.runUntilIdle()
        #expect(file.path == "/data/tables/2.sst")
        try subject.expect(0..<1_000_000, of: file)
        #expect(subject.disk.contents("/data/tables/2.sst") == subject.contents)
        #expect(try !subject.disk.exists(subject.path))
    }

    @Test func aFileThatIsRemovedWhileItComesLeavesNothing() throws {
        let subject = try Subject(bytes: 1_000_000)
        subject.hydration.wake()
        subject.scheduler.step()
        try subject.fileSystem.remove(subject.path)
        subject.scheduler.runUntilIdle()
        #expect(subject.disk.paths.filter { $0 != "/data/LOCK" } == [])
        #expect(subject.fileSystem.pending == (0, 0))
        #expect(subject.hydration.status.failures == 0)
    }

    @Test func aStoreThatIsAwayIsAskedAgain() throws {
        let subject = try Subject(bytes: 1_000_000)
        subject.store.state.withLock { $0.fails = true }
        subject.hydration.wake()
        subject.scheduler.step()
        #expect(subject.hydration.status.failures == 1)
        #expect(subject.hydration.status.error?.contains("it is away") == true)
        let refused = #expect(throws: FileError.self) { try subject.expect(0..<10) }
        #expect("\(refused!)".contains("in a snapshot store still") && "\(refused!)".contains("it is away"))
        subject.store.state.withLock { $0.fails = false }
        #expect(subject.scheduler.run { subject.hydration.status.pendingFiles == 0 })
        #expect(subject.hydration.status.error == nil)
        try subject.expect(0..<1_000_000)
    }

    @Test func aDamagedOrMissingPieceIsSaidAndTheFileIsNeverTakenForWhole() throws {
        let subject = try Subject(bytes: 1_000_000)
        let second = subject.piece(1)
        let good = subject.store.state.withLock { $0.objects[second]! }
        var bad = good
        bad[100] ^= 1
        for (object, word) in [(bad, "checksum"), (Array(good.dropLast()), "bytes"), (nil, "missing")] {
            subject.store.state.withLock { $0.objects[second] = object }
            subject.hydration.wake()
            #expect(subject.scheduler.run { subject.hydration.status.error?.contains(word) == true })
            #expect(subject.hydration.status.error?.contains(second) == true)
            #expect(subject.hydration.status.pendingFiles == 1)
        }
        // What the others have can be read as ever.
        try subject.expect(0..<200_000)
        #expect(throws: FileError.self) { try subject.expect(400_000..<400_010) }
        subject.store.state.withLock { $0.objects[second] = good }
        #expect(subject.scheduler.run { subject.hydration.status.pendingFiles == 0 })
        try subject.expect(0..<1_000_000)
    }

    /// Nobody can tell it why its bytes did not come but the file itself.
    @Test func aThreadThatMustNotWaitIsToldThatAFetchHasFailed() throws {
        let subject = try Subject(bytes: 400_000)
        let file = try subject.file
        let waits = DiskWaits()
        func read() throws(FileError) {
            try waits.collect { () throws(FileError) in _ = try file.readBytes(1000..<2000) }
        }
        subject.store.state.withLock { $0.fails = true }
        #expect(throws: FileError(operation: "read", path: subject.path, reason: .wouldWait)) { try read() }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DiskRange.loadBytes, alignment: 16)
        defer { buffer.deallocate() }
        for range in waits.take() { range.load(ahead: 0, buffer: buffer) }
        let error = #expect(throws: FileError.self) { try read() }
        #expect("\(error!)".contains("it is away"))
        subject.store.state.withLock { $0.fails = false }
        try subject.expect(0..<10, of: file)
        try read()
    }

    @Test func aFullDiskIsTriedAgainAndReadsGoOn() throws {
        let subject = try Subject(bytes: 1_000_000)
        subject.disk.inject(MemoryFileSystem.Fault([.write], error: ENOSPC))
        try subject.expect(0..<1000)
        try subject.expect(299_000..<301_000)
        #expect(subject.fileSystem.pending.bytes == 1_000_000)
        subject.disk.clearFaults()
        subject.disk.inject(MemoryFileSystem.Fault([.write, .sync], error: ENOSPC, count: 3))
        subject.hydration.wake()
        #expect(subject.scheduler.run { subject.hydration.status.pendingFiles == 0 })
        #expect(subject.hydration.status.failures == 3)
        try subject.expect(0..<1_000_000)
    }

    @Test func aPowerCutAtAnySyncLeavesThePlaceholderOrTheWholeFile() throws {
        var syncs = 0
        var cuts = 0
        while true {
            syncs += 1
            let subject = try Subject(bytes: 700_000, seed: UInt64(syncs))
            let before = subject.disk.syncCount
            subject.disk.failPower(atSync: before + syncs)
            try subject.expect(0..<1000)
            subject.hydration.wake()
            _ = subject.scheduler.run(stepsMax: 200) { subject.disk.isDead || subject.fileSystem.pending.files == 0 }
            if !subject.disk.isDead { break }
            cuts += 1
            for seed in UInt64(1)...4 {
                let disk = subject.disk.afterPowerCut(seed: seed)
                let again = try Subject(bytes: 700_000, disk: disk, seed: UInt64(syncs), places: false)
                try again.expect(0..<700_000)
                again.hydration.wake()
                again.scheduler.runUntilIdle()
                #expect(again.disk.contents(again.path) == again.contents)
            }
        }
        #expect(cuts >= 2)
    }

    @Test func aStartBeginsAnewWithWhatWasNotWhole() throws {
        let subject = try Subject(bytes: 1_000_000)
        subject.hydration.wake()
        for _ in 0..<2 { subject.scheduler.step() }
        let disk = subject.disk.afterProcessEnd()
        let again = try Subject(bytes: 1_000_000, disk: disk, places: false)
        #expect(again.fileSystem.pending == (1, 1_000_000))
        try again.expect(0..<1_000_000)
        again.hydration.wake()
        again.scheduler.runUntilIdle()
        #expect(again.disk.contents(again.path) == again.contents)
    }

    @Test func readersOnManyThreadsSeeRightBytesWhileTheFileComes() throws {
        let temporary = try TemporaryDirectory()
        let store = FakeStore()
        var random = SeededRandom(seed: 3)
        let contents = (0..<3_000_000).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        var pieces: [StoredPiece] = []
        for start in stride(from: 0, to: contents.count, by: 250_000) {
            let slice = Array(contents[start..<start + 250_000])
            _ = try store.put(StoreLayout.piece("t\(start)", in: "ab"), slice)
            pieces.append(StoredPiece(name: "t\(start)", bytes: 250_000, checksum: CRC32C.checksum(slice)))
        }
        // One descriptor for all: each is closed again and again.
        let base = PosixFileSystem(openFilesMax: 1)
        let tables = temporary.path + "/tables"
        try base.createDirectory(tables)
        let fileSystem = HydratingFileSystem(
            base, store: store, directory: temporary.path, lockPath: temporary.path + "/LOCK", tables: tables)
        let hydration = Hydration(fileSystem, lane: SerialThread(name: "hydrate"), bytesPerSecond: 0)
        defer { hydration.stop() }
        var files: [any RandomReadFile] = []
        for number in 0..<4 {
            let file = StoredFile(
                kind: 1, tree: 0, number: UInt64(number), bytes: UInt64(contents.count), pieces: pieces)
            let path = tables + "/\(number)"
            try fileSystem.place(Placeholder(namespace: "ab", file: file), at: path)
            files.append(try fileSystem.openRead(path))
        }
        let wrong = Guarded(0)
        let lanes = (0..<4).map { SerialThread(name: "reader-\($0)") }
        for (number, lane) in lanes.enumerated() {
            lane.submit { [files] in
                var random = SeededRandom(seed: UInt64(number))
                var rounds = 0
                while hydration.status.pendingFiles > 0 || rounds < 200 {
                    rounds += 1
                    let start = Int.random(in: 0..<2_900_000, using: &random)
                    let range = start..<start + Int.random(in: 1..<100_000, using: &random)
                    let found = try? files[rounds % 4].readBytes(UInt64(range.lowerBound)..<UInt64(range.upperBound))
                    if found != Array(contents[range]) { wrong.withLock { $0 += 1 } }
                    if rounds == 20 { hydration.wake() }
                }
            }
        }
        for lane in lanes { lane.drain() }
        for lane in lanes { lane.stop() }
        #expect(wrong.withLock { $0 } == 0)
        for number in 0..<4 {
            #expect(try base.readAll(tables + "/\(number)", limit: 1 << 30) == contents)
        }
    }
}
