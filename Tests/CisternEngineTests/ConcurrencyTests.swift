// Everything at once on real threads: several trees of one engine, each written, read and scanned by its owner, with flushes and
// compactions under way, little memory, snapshots read on other threads, forks, and trees that are dropped and made again.
// Every value tells its key and its version, so a read is compared with what its owner knows, byte by byte.
//
// The order of events is the scheduler's: a seed repeats the operations of each thread, not how they interleave.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct ConcurrencyTests {
    @Test(arguments: Seeds.seeds(count: 2)) func readsAreRightWhateverElseGoesOn(seed: UInt64) async throws {
        Seeds.announce("readsAreRightWhateverElseGoesOn", seed)
        var random = SeededRandom(seed: seed)
        let engine = try Engine.open(
            crowdedOptions(&random), fileSystem: MemoryFileSystem(), time: SystemTime())
        let readers = SnapshotReaders(engine, seed: seed)
        try await onThreads(3) { thread in
            var random = SeededRandom(seed: seed &* 31 &+ UInt64(thread))
            let owner = ThreadExecutor()
            defer { owner.stop() }
            // Dropped and made again, under another name.
            for life in 0..<3 {
                let store = "store-\(thread)-\(life)"
                let driven = try DrivenTree.create(store, engine, owner, seed: random.next())
                for checkpoint in UInt64(1)...4 {
                    for _ in 0..<12 { try owner.call { try driven.operate(25) } }
                    let (handle, model) = try driven.snapshot(checkpoint, on: owner)
                    if Bool.random(using: &random) {
                        try fork(handle, of: store, model, engine, owner, seed: random.next())
                    }
                    readers.read(handle, model)
                    _ = engine.memoryUse
                }
                try owner.call { try driven.checkEverything() }
                let id = driven.tree.id
                let retired: Result<Void, EngineError> = answer { engine.retireTree(id, completion: $0) }
                try retired.get()
            }
        }
        try readers.finish()
        let cache = engine.cacheStatistics
        #expect(cache.committedBytes <= cache.capacityBytes)
        engine.close()
        #expect(engine.damagedParts.isEmpty)
    }

    /// Another tree that shares files with the first, on the same owner.
    private func fork(
        _ handle: String, of source: String, _ model: TellingModel, _ engine: Engine, _ owner: ThreadExecutor,
        seed: UInt64
    ) throws {
        let identity = identity(of: source + "-fork-\(seed)")
        let made: Result<Tree, EngineError> = answer { done in
            engine.forkTree(
                identity, epoch: 1, writer: "w", of: source, from: [SnapshotReference(handle: handle)],
                pointStates: PointStates([2]), executor: owner, completion: done)
        }
        let driven = DrivenTree(try made.get(), model, seed: seed)
        try owner.call {
            try driven.operate(40)
            try driven.checkEverything()
        }
        let id = driven.tree.id
        let retired: Result<Void, EngineError> = answer { engine.retireTree(id, completion: $0) }
        try retired.get()
    }
}

/// Little of everything, so that all of it is in each other's way.
private func crowdedOptions(_ random: inout SeededRandom) -> EngineOptions {
    var options = EngineOptions(directory: "/data")
    options.memtableBytes = [8 << 10, 24 << 10, 200 << 10].randomElement(using: &random)!
    options.blockCacheBytes = [0, 100 << 10, 600 << 10].randomElement(using: &random)!
    options.memoryBytes = options.blockCacheBytes + options.memtableBytes * 3
    options.log = LogMode.allCases.randomElement(using: &random)!
    options.table.blockSizeBytes = .random(in: 128...2048, using: &random)
    options.table.blocksPerPartition = .random(in: 2...16, using: &random)
    options.values.thresholdBytes = [0, 0, 100].randomElement(using: &random)!
    options.compaction.levelZeroTrigger = .random(in: 1...3, using: &random)
    options.compaction.levelZeroStop = options.compaction.levelZeroTrigger + .random(in: 2...6, using: &random)
    options.compaction.targetFileBytes = .random(in: 4000...30_000, using: &random)
    options.compaction.partBytes = options.compaction.targetFileBytes + .random(in: 0...50_000, using: &random)
    options.compaction.threads = 2
    options.expiryCheckMilliseconds = 5
    return options
}

private func identity(of store: String) -> TreeIdentity {
    TreeIdentity(
        store: store, keyGroups: KeyGroupRange(first: 0, last: UInt16(TellingModel.groupCount - 1)),
        keyGroupCount: TellingModel.groupCount)
}

/// Waits for a completion that comes on another thread.
private func answer<Value: Sendable>(_ start: (@escaping @Sendable (Value) -> Void) -> Void) -> Value {
    let latch = Latch<Value>()
    start { latch.give($0) }
    return latch.wait()
}

private let noTime = ExpiryClock(processing: 0, event: 0)

private struct WrongRead: Error, CustomStringConvertible {
    let description: String
}

/// What keys hold: a version each, 0 when absent. Values are made from key and version.
private struct TellingModel: Sendable {
    static let keyCount = 3000
    static let groupCount = 8
    private(set) var versions = [UInt32](repeating: 0, count: keyCount)

    static func key(_ number: Int) -> [UInt8] {
        // States 1 and 2: one is kept in order, the other is not. Keys ascend with their numbers.
        let (group, place) = number.quotientAndRemainder(dividingBy: keyCount / groupCount)
        let state: UInt8 = place < 200 ? 1 : 2
        return [0, UInt8(group), 0, state] + Array("key-\(10_000 + number)".utf8)
    }

    static func value(_ number: Int, _ version: UInt32) -> [UInt8] {
        let seed = UInt32(truncatingIfNeeded: number) &* 2_654_435_761 ^ version &* 40_503
        return [
            UInt8(number & 0xFF), UInt8(number >> 8), UInt8(version & 0xFF), UInt8(version >> 8 & 0xFF),
        ] + [UInt8](repeating: UInt8(seed & 0xFF), count: Int(seed >> 8) % 200)
    }

    subscript(number: Int) -> UInt32 {
        get { versions[number] }
        set { versions[number] = newValue }
    }

    func expected(_ number: Int) -> [UInt8]? {
        versions[number] == 0 ? nil : TellingModel.value(number, versions[number])
    }

    func check(_ number: Int, _ found: [UInt8]?, _ way: String) throws {
        if found == expected(number) { return }
        throw WrongRead(
            description: "\(way): key \(number) should have version \(versions[number]) and reads as \(found ?? [])")
    }

    /// - Parameter found: keys in order from `first` on, as many as there are or a page.
    func check(_ found: [([UInt8], [UInt8])], from first: Int, isComplete: Bool, _ way: String) throws {
        var numbers = (first..<TellingModel.keyCount).lazy.filter { versions[$0] != 0 }.makeIterator()
        for (key, value) in found {
            guard let number = numbers.next(), key == TellingModel.key(number) else {
                throw WrongRead(description: "\(way): key \(key) is not the next one")
            }
            try check(number, value, way)
        }
        if isComplete, let missing = numbers.next() {
            throw WrongRead(description: "\(way): key \(missing) is missing")
        }
    }
}

/// A tree and what its owner knows of it. Reached on the owner's executor only.
private final class DrivenTree: @unchecked Sendable {
    let tree: Tree
    private var model: TellingModel
    private var random: SeededRandom
    private var version: UInt32 = 1_000_000
    private var result = LookupResult()

    init(_ tree: Tree, _ model: TellingModel, seed: UInt64) {
        self.tree = tree
        self.model = model
        random = SeededRandom(seed: seed)
    }

    static func create(_ store: String, _ engine: Engine, _ owner: ThreadExecutor, seed: UInt64) throws -> DrivenTree {
        let made: Result<Tree, EngineError> = answer { done in
            engine.createTree(
                identity(of: store), epoch: 1, writer: "w", from: [], pointStates: PointStates([2]), executor: owner,
                completion: done)
        }
        return DrivenTree(try made.get(), TellingModel(), seed: seed)
    }

    /// The snapshot's handle and what is in it.
    func snapshot(_ checkpoint: UInt64, on owner: ThreadExecutor) throws -> (String, TellingModel) {
        let latch = Latch<Result<SnapshotInfo, EngineError>>()
        let model = try owner.call { [self] in
            tree.snapshot(checkpoint: checkpoint) { latch.give($0) }
            return self.model
        }
        // Goes on while the snapshot is made.
        try owner.call { [self] in try operate(20) }
        return (try latch.wait().get().handle, model)
    }

    func operate(_ count: Int) throws {
        for _ in 0..<count {
            switch Int.random(in: 0..<10, using: &random) {
            case 0...4: try write()
            case 5...6: for _ in 0..<10 { try get(.random(in: 0..<TellingModel.keyCount, using: &random)) }
            case 7...8: try multiGet()
            default: try scanPage()
            }
        }
    }

    private func write() throws {
        var numbers: Set<Int> = []
        let center = Int.random(in: 0..<TellingModel.keyCount, using: &random)
        for _ in 0..<Int.random(in: 1...40, using: &random) {
            let spread = Bool.random(using: &random) ? 50 : TellingModel.keyCount
            numbers.insert((center + Int.random(in: 0..<spread, using: &random)) % TellingModel.keyCount)
        }
        version += 1
        var next = model
        let entries = numbers.sorted().map { number in
            let isDelete = Int.random(in: 0..<6, using: &random) == 0
            next[number] = isDelete ? 0 : version
            let value = isDelete ? [] : TellingModel.value(number, version)
            return OwnedEntry(TellingModel.key(number), isDelete ? .delete : .put, value)
        }
        let outcome = try OwnedBatch(entries).withColumns { columns in
            try tree.write(
                columns, epoch: 1, sequence: tree.lastSequence + 1, watermark: 0,
                durable: { _ in })
        }
        // Busy: the batch is forgotten, and reads go on while flushes catch up.
        if outcome == .applied { model = next }
    }

    private func get(_ number: Int) throws {
        _ = try TellingModel.key(number).withUnsafeBytes { try tree.get($0, clock: noTime, into: &result) }
        try model.check(number, result.finish(noTime).map { Array($0.value) }, "get")
    }

    private func multiGet() throws {
        let count = Int.random(in: 1...70, using: &random)
        let numbers = (0..<count).map { _ in Int.random(in: 0..<TellingModel.keyCount, using: &random) }
        let keys = numbers.map(TellingModel.key)
        let blob = keys.flatMap(\.self)
        var starts = [0]
        for key in keys { starts.append(starts.last! + key.count) }
        var found: [[UInt8]?] = []
        try blob.withUnsafeBytes { bytes in
            try tree.multiGet(
                count: count, clock: noTime, scratch: &result,
                key: { UnsafeRawBufferPointer(rebasing: bytes[starts[$0]..<starts[$0 + 1]]) },
                visit: { _, value, _ in
                    found.append(value.map { Array($0) })
                    return true
                })
        }
        for (number, value) in zip(numbers, found) { try model.check(number, value, "multiGet") }
        guard found.count == count else { throw WrongRead(description: "multiGet: \(found.count) of \(count) answers") }
    }

    private func scanPage() throws {
        let first = Int.random(in: 0..<TellingModel.keyCount, using: &random)
        try scan(from: first, ScanLimits(entriesMax: .random(in: 1...200, using: &random)))
    }

    private func scan(from first: Int, _ limits: ScanLimits) throws {
        var found: [([UInt8], [UInt8])] = []
        let next = try tree.scan(from: TellingModel.key(first), to: [], clock: noTime, limits: limits) { entry in
            found.append((Array(entry.key), Array(entry.value)))
            return true
        }
        try model.check(found, from: first, isComplete: next == nil, "scan")
    }

    func checkEverything() throws {
        try scan(from: 0, ScanLimits(entriesMax: .max, bytesMax: .max))
        for number in 0..<TellingModel.keyCount { try get(number) }
    }
}

/// Two threads that read snapshots where they lie, while their trees go on.
private final class SnapshotReaders: Sendable {
    private let engine: Engine
    private let threads = [ThreadExecutor(), ThreadExecutor()]
    private let state: Guarded<(random: SeededRandom, failure: (any Error)?)>

    init(_ engine: Engine, seed: UInt64) {
        self.engine = engine
        state = Guarded((SeededRandom(seed: seed), nil))
    }

    /// Opens the snapshot, releases it while it is read, and compares.
    func read(_ handle: String, _ model: TellingModel) {
        let engine = engine
        engine.openSnapshot(handle) { [self] opened in
            engine.releaseSnapshots([handle])
            for thread in threads {
                thread.execute { [self] in
                    do {
                        try check(try opened.get(), model)
                    } catch {
                        state.withLock { $0.failure = error }
                    }
                }
            }
        }
    }

    private func check(_ view: SnapshotView, _ model: TellingModel) throws {
        var result = LookupResult()
        for _ in 0..<150 {
            let number = state.withLock { Int.random(in: 0..<TellingModel.keyCount, using: &$0.random) }
            _ = try TellingModel.key(number).withUnsafeBytes { try view.get($0, clock: noTime, into: &result) }
            try model.check(number, result.finish(noTime).map { Array($0.value) }, "snapshot get")
        }
        var found: [([UInt8], [UInt8])] = []
        try view.scan(clock: noTime) { entry in
            found.append((Array(entry.key), Array(entry.value)))
            return true
        }
        try model.check(found, from: 0, isComplete: true, "snapshot scan")
    }

    /// Waits for what was asked; the openings are answered on the engine's lanes, so a last one is asked and waited for.
    func finish() throws {
        _ = answer { (done: @escaping @Sendable (Bool) -> Void) in
            engine.openSnapshot("no such snapshot") { _ in done(true) }
        }
        for thread in threads { try thread.call {} }
        for thread in threads { thread.stop() }
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }
}
