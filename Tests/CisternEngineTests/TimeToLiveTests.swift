// Changed times to live: what is stored follows, nothing comes back, and nothing is rewritten for it.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

private let hour: UInt64 = 3_600_000

private func ttl(_ milliseconds: UInt64) -> StateTimeToLive { StateTimeToLive(milliseconds: milliseconds) }

/// Keys of state 1.
private func key(_ number: Int) -> [UInt8] { makeKey(UInt16(number % 128), "k\(number)") }

@Suite struct TimeToLiveTests {
    private func write(_ harness: EngineHarness, _ tree: Tree, _ numbers: Range<Int>, _ milliseconds: UInt64) throws {
        let expiry = Expiry.processingTime(milliseconds: harness.scheduler.time.wallMilliseconds + milliseconds)
        for number in numbers {
            let value = String(repeating: "v", count: 100)
            try harness.writeDurably(
                tree, OwnedBatch([put(key(number), value, expiry: milliseconds == 0 ? .never : expiry)]))
        }
    }

    private func alive(_ harness: EngineHarness, _ tree: Tree, _ numbers: Range<Int>) throws -> [Int] {
        let alive = try numbers.filter { try harness.get(tree, key($0)) != nil }
        #expect(try harness.scan(tree).count == alive.count)
        return alive
    }

    /// In files, in a sealed memtable and in the active one: all of it follows, and a restart changes nothing.
    @Test(arguments: [LogMode.synced, .off]) func whatIsStoredFollowsAChange(log: LogMode) throws {
        let disk = MemoryFileSystem()
        var options = smallOptions()
        options.log = log
        var harness = try EngineHarness(options, fileSystem: disk, seed: 1)
        var tree = try harness.create(wholeRange)
        #expect(try harness.declare(tree, ttl(hour), of: 1) == 0, "nothing is stored yet")
        #expect(try harness.declare(tree, ttl(hour), of: 1) == 0, "told again, it changes nothing")
        try write(harness, tree, 0..<300, hour)
        let start = harness.scheduler.time.wallMilliseconds
        harness.scheduler.runUntilIdle()
        #expect(tree.statistics.flushes > 0)

        #expect(try harness.declare(tree, ttl(3 * hour), of: 1) == 1)
        harness.scheduler.advance(milliseconds: 2 * hour)
        #expect(try alive(harness, tree, 0..<300).count == 300)
        #expect(try harness.get(tree, key(7))?.expiry == .processingTime(milliseconds: start + 3 * hour))
        try write(harness, tree, 300..<310, 3 * hour)
        #expect(
            try harness.get(tree, key(305))?.expiry == .processingTime(milliseconds: start + 5 * hour),
            "what is written by the new time to live is read by it")

        try harness.close(tree)
        harness.engine.close()
        harness = try EngineHarness(
            options, fileSystem: disk, seed: 2, wallMilliseconds: harness.scheduler.time.wallMilliseconds)
        tree = try harness.open(tree.id)
        #expect(tree.timeToLiveChanges == 1)
        #expect(try alive(harness, tree, 0..<310).count == 310)

        #expect(try harness.declare(tree, ttl(hour), of: 1) == 2)
        #expect(try alive(harness, tree, 0..<310) == Array(300..<310))
        harness.scheduler.advance(milliseconds: hour)
        #expect(try alive(harness, tree, 0..<310).isEmpty)
        harness.engine.close()
    }

    @Test func whatWasOverStaysOver() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.declare(tree, ttl(hour), of: 1)
        try write(harness, tree, 0..<200, hour)
        harness.scheduler.advance(milliseconds: hour / 2)
        try write(harness, tree, 200..<250, hour)
        harness.scheduler.advance(milliseconds: hour / 2)
        // The first are over at this moment, compacted away or not.
        try harness.declare(tree, ttl(24 * hour), of: 1)
        #expect(try alive(harness, tree, 0..<250) == Array(200..<250))
        try harness.declare(tree, .none, of: 1)
        #expect(try alive(harness, tree, 0..<250) == Array(200..<250))
        harness.scheduler.advance(milliseconds: 1000 * hour)
        #expect(try alive(harness, tree, 0..<250) == Array(200..<250))
        #expect(try harness.get(tree, key(200))?.expiry == .never)
        // Written without a time to live, they count from their writing when there is one again.
        try write(harness, tree, 250..<260, 0)
        harness.scheduler.advance(milliseconds: hour)
        try harness.declare(tree, ttl(2 * hour), of: 1)
        #expect(try alive(harness, tree, 0..<260) == Array(250..<260))
        harness.scheduler.advance(milliseconds: hour)
        #expect(try alive(harness, tree, 0..<260).isEmpty)
        harness.engine.close()
    }

    @Test func entriesWithoutAnExpiryCountFromWhenTheirStateGetsATimeToLive() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        try write(harness, tree, 0..<300, 0)
        harness.scheduler.advance(milliseconds: 10 * hour)
        try harness.declare(tree, ttl(hour), of: 1)
        #expect(try alive(harness, tree, 0..<300).count == 300)
        harness.scheduler.advance(milliseconds: hour - 1)
        #expect(try alive(harness, tree, 0..<300).count == 300)
        harness.scheduler.advance(milliseconds: 1)
        #expect(try alive(harness, tree, 0..<300).isEmpty)
        harness.scheduler.advance(milliseconds: smallOptions().expiryCheckMilliseconds)
        harness.scheduler.runUntilIdle()
        try write(harness, tree, 0..<1, hour)
        try harness.wait { done in tree.compact(completion: done) } as Void
        #expect(tree.statistics.levels.reduce(0) { $0 + $1.files } == 1)
        harness.engine.close()
    }

    /// One edit in the manifest: no table is opened, read or written.
    @Test func aChangeTouchesNoTable() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.declare(tree, ttl(hour), of: 1)
        try write(harness, tree, 0..<300, hour)
        try harness.wait { done in tree.compact(completion: done) } as Void
        harness.scheduler.advance(milliseconds: hour / 2)
        disk.inject(.init([.open, .read, .append]) { $0.hasSuffix(".sst") })
        let before = tree.statistics
        try harness.declare(tree, ttl(2 * hour), of: 1)
        #expect(tree.statistics.levels == before.levels)
        // A shorter one makes the files dead as wholes, and they go unread.
        try harness.declare(tree, ttl(hour / 4), of: 1)
        harness.scheduler.runUntilIdle()
        #expect(tree.statistics.droppedFiles > 0)
        #expect(tree.statistics.levels.allSatisfy { $0.files == 0 })
        #expect(disk.paths.filter { $0.hasSuffix(".sst") }.isEmpty)
        harness.engine.close()
    }

    /// Trees with different histories become one, each key group by its own.
    @Test func unitedTreesKeepTheirHistories() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        func identity(_ first: UInt16, _ last: UInt16) -> TreeIdentity {
            TreeIdentity(store: "orders", keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: 128)
        }
        let left = try harness.create(identity(0, 63))
        let right = try harness.create(identity(64, 127))
        let (a, b) = (makeKey(3, "a"), makeKey(100, "b"))
        let start = harness.scheduler.time.wallMilliseconds
        try harness.declare(left, ttl(hour), of: 1)
        try harness.declare(left, ttl(4 * hour), of: 1)
        try harness.declare(right, ttl(2 * hour), of: 1)
        try harness.writeDurably(
            left, OwnedBatch([put(a, "1", expiry: .processingTime(milliseconds: start + 4 * hour))]))
        try harness.writeDurably(
            right, OwnedBatch([put(b, "2", expiry: .processingTime(milliseconds: start + 2 * hour))]))
        let handles = [try harness.snapshot(left, 1).handle, try harness.snapshot(right, 1).handle]

        let whole = try harness.create(wholeRange, epoch: 2, from: handles)
        #expect(try harness.get(whole, a)?.expiry == .processingTime(milliseconds: start + 4 * hour))
        #expect(try harness.get(whole, b)?.expiry == .processingTime(milliseconds: start + 2 * hour))
        try harness.declare(whole, ttl(3 * hour), of: 1)
        for key in [a, b] {
            #expect(try harness.get(whole, key)?.expiry == .processingTime(milliseconds: start + 3 * hour))
        }
        // A fork goes its own way, and so does what it was forked from.
        let handle = try harness.snapshot(whole, 2).handle
        let forked = TreeIdentity(store: "copy", keyGroups: wholeRange.keyGroups, keyGroupCount: 128)
        let fork = try harness.fork(forked, of: "orders", from: [handle])
        try harness.declare(fork, ttl(10 * hour), of: 1)
        harness.scheduler.advance(milliseconds: 3 * hour)
        for key in [a, b] {
            #expect(try harness.get(whole, key) == nil)
            #expect(try harness.get(fork, key) != nil)
        }
        // A look into the past goes by the rules of the past.
        let view = try harness.openSnapshot(handle)
        var result = LookupResult()
        let clock = ExpiryClock(processing: start + 3 * hour - 1, event: 0)
        #expect(try a.withUnsafeBytes { try view.get($0, clock: clock, into: &result) })
        #expect(result.finish(clock)?.expiry == .processingTime(milliseconds: start + 3 * hour))
        var count = 0
        try view.scan(clock: ExpiryClock(processing: start + 3 * hour, event: 0)) { _ in
            count += 1
            return true
        }
        #expect(count == 0)
        harness.engine.close()
    }

    @Test func eventTimeFollowsAChangeByTheWatermark() throws {
        let harness = try EngineHarness(smallOptions(), fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.declare(tree, StateTimeToLive(milliseconds: 100, isEventTime: true), of: 1)
        try harness.writeDurably(
            tree, OwnedBatch([put(key(1), "v", expiry: .eventTime(milliseconds: 1100))]), watermark: 1000)
        try harness.declare(tree, StateTimeToLive(milliseconds: 300, isEventTime: true), of: 1)
        try harness.writeDurably(tree, OwnedBatch([]), watermark: 1299)
        harness.scheduler.advance(milliseconds: 1000 * hour)
        #expect(try harness.get(tree, key(1))?.expiry == .eventTime(milliseconds: 1300))
        try harness.writeDurably(tree, OwnedBatch([]), watermark: 1300)
        #expect(try harness.get(tree, key(1)) == nil)
        harness.engine.close()
    }

    /// The end of a stream is a watermark that no expiry is behind.
    @Test(arguments: [UInt64(Int64.max), .max]) func aChangeAtTheLastWatermarkIsReadBack(watermark: UInt64) throws {
        let disk = MemoryFileSystem()
        var harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.declare(tree, StateTimeToLive(milliseconds: 300, isEventTime: true), of: 1)
        try harness.writeDurably(
            tree, OwnedBatch([put(key(1), "v", expiry: .eventTime(milliseconds: 1100))]), watermark: watermark)
        for milliseconds: UInt64 in [100, 500, 0] {
            try harness.declare(tree, StateTimeToLive(milliseconds: milliseconds, isEventTime: true), of: 1)
        }
        harness.engine.close()
        harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        #expect(harness.engine.damagedParts.isEmpty)
        let again = try harness.open(tree.id)
        #expect(again.timeToLiveChanges == 3)
        #expect(try harness.get(again, key(1)) == nil)
        harness.engine.close()
    }

    /// The program that made such a directory could not read rules, so there stored entries keep their expiry.
    @Test func anOlderDirectoryKeepsExpiriesAsTheyAre() throws {
        let disk = MemoryFileSystem()
        try EngineHarness(smallOptions(), fileSystem: disk, seed: 1).engine.close()
        disk.setContents("/data/CISTERN", [0x43, 0x49, 0x53, 0x54, 2, 0, 0, 0])
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 2)
        let tree = try harness.create(wholeRange)
        #expect(try harness.declare(tree, ttl(hour), of: 1) == 0)
        try write(harness, tree, 0..<10, hour)
        #expect(try harness.declare(tree, ttl(3 * hour), of: 1) == 0)
        harness.scheduler.advance(milliseconds: hour)
        #expect(try alive(harness, tree, 0..<10).isEmpty)
        harness.engine.close()
    }

    @Test func aChangeThatIsNotDurableIsAnError() throws {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(smallOptions(), fileSystem: disk, seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.declare(tree, ttl(hour), of: 1)
        try write(harness, tree, 0..<1, hour)
        disk.inject(.init([.sync], count: 1) { $0.contains("MANIFEST") })
        #expect(throws: EngineError.self) { try harness.declare(tree, ttl(9 * hour), of: 1) }
        #expect(tree.timeToLiveChanges == 0)
        #expect(try harness.declare(tree, ttl(9 * hour), of: 1) == 1)
        harness.scheduler.advance(milliseconds: hour)
        #expect(try harness.get(tree, key(0)) != nil)
        try harness.close(tree)
        #expect(throws: EngineError.self) { try harness.declare(tree, ttl(hour), of: 1) }
        harness.engine.close()
    }

    // MARK: Reclaiming

    /// A file in which something lives loses what expired in it within the lag, and the metric says how late it is.
    @Test func expiredEntriesLeaveTheDiskWithinTheLag() throws {
        var options = smallOptions()
        options.compaction.reclaimLagMilliseconds = hour
        options.compaction.expiredPercent = 100
        options.compaction.restPercent = 0
        options.compaction.targetFileBytes = 1 << 20
        options.compaction.partBytes = 1 << 20
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.declare(tree, ttl(hour), of: 1)
        try write(harness, tree, 0..<200, hour)
        try write(harness, tree, 200..<210, 0)
        try harness.wait { done in tree.compact(completion: done) } as Void
        let before = tree.statistics.approximateEntries
        harness.scheduler.advance(milliseconds: hour + 5)
        #expect(tree.statistics.reclaimLagMilliseconds == 5)
        #expect(tree.statistics.reclaimLagByState == [1: 5])
        harness.scheduler.runUntilIdle()
        #expect(tree.statistics.approximateEntries == before)
        var latest: UInt64 = 0
        while tree.statistics.approximateEntries == before {
            latest = tree.statistics.reclaimLagMilliseconds
            guard latest < 3 * hour else { break }
            harness.scheduler.advance(milliseconds: options.expiryCheckMilliseconds / 2)
            harness.scheduler.runUntilIdle()
        }
        #expect(latest <= hour + options.expiryCheckMilliseconds)
        harness.scheduler.runUntilIdle()
        #expect(tree.statistics.approximateEntries == 10)
        #expect(tree.statistics.reclaimLagMilliseconds == 0 && tree.statistics.reclaimLagByState.isEmpty)
        harness.engine.close()
    }

    @Test func aFileThatIsMostlyExpiredDoesNotWaitForTheLag() throws {
        var options = smallOptions()
        options.compaction.restPercent = 0
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        let tree = try harness.create(wholeRange)
        try harness.declare(tree, ttl(hour), of: 1)
        try write(harness, tree, 0..<200, hour)
        try write(harness, tree, 200..<400, 0)
        try harness.wait { done in tree.compact(completion: done) } as Void
        harness.scheduler.advance(milliseconds: hour)
        harness.scheduler.advance(milliseconds: 2 * smallOptions().expiryCheckMilliseconds)
        harness.scheduler.runUntilIdle()
        #expect(tree.statistics.approximateEntries < 300)
        #expect(try harness.scan(tree).count == 200)
        harness.engine.close()
    }
}

/// Random writes, changes, rescales and restarts, beside a dictionary that knows when everything was written.
private final class TimeToLiveRun {
    struct Entry {
        var value: [UInt8]
        var isEventTime: Bool
        /// nil: written before the state had a time to live.
        var written: UInt64?
        var isOver = false
    }
    /// What holds for a state in a key group; nil: it never had a time to live.
    struct Setting {
        var ttl: UInt64
        var isEventTime: Bool
    }
    struct Place: Hashable {
        let state: UInt8
        let group: UInt16
    }

    let seed: UInt64
    let options: EngineOptions
    let disk: MemoryFileSystem
    var random: SeededRandom
    var harness: EngineHarness
    var trees: [Tree] = []
    var entries: [[UInt8]: Entry] = [:]
    var settings: [Place: Setting] = [:]
    var watermark: UInt64 = 1000
    var epoch: UInt64 = 0
    var checkpoint: UInt64 = 0

    static let groups: UInt16 = 16

    init(seed: UInt64) throws {
        self.seed = seed
        random = SeededRandom(seed: seed)
        var options = randomOptions(&random)
        options.log = [LogMode.synced, .buffered].randomElement(using: &random)!
        options.compaction.expiredPercent = .random(in: 1...100, using: &random)
        self.options = options
        disk = MemoryFileSystem(seed: seed)
        harness = try EngineHarness(options, fileSystem: disk, seed: seed)
        try rescale()
    }

    func run(operations: Int) throws {
        for _ in 0..<operations {
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<55: try write()
            case 55..<65: for _ in 0..<Int.random(in: 1...20, using: &random) { harness.scheduler.step() }
            case 65..<75: harness.scheduler.advance(milliseconds: .random(in: 1...80, using: &random))
            case 75..<82:
                watermark += .random(in: 1...80, using: &random)
                try sendWatermark()
            case 82..<89: try declare()
            case 89..<95: try verify()
            case 95..<98: try rescale()
            default: try restart()
            }
        }
        try verify()
        harness.engine.close()
    }

    private func now(_ isEventTime: Bool) -> UInt64 {
        isEventTime ? watermark : harness.scheduler.time.wallMilliseconds
    }

    private func place(_ key: [UInt8]) -> Place { Place(state: key[3], group: UInt16(key[0]) << 8 | UInt16(key[1])) }

    private func write() throws {
        let tree = trees.randomElement(using: &random)!
        let groups = tree.identity.keyGroups
        var batch: [[UInt8]: OwnedEntry] = [:]
        for _ in 0..<Int.random(in: 0...12, using: &random) {
            var key = makeKey(
                .random(in: groups.first...groups.last, using: &random), "k\(Int.random(in: 0..<12, using: &random))")
            key[3] = .random(in: 1...3, using: &random)
            if Int.random(in: 0..<6, using: &random) == 0 {
                batch[key] = OwnedEntry(key, .delete)
                entries[key] = nil
                continue
            }
            let value = (0..<Int.random(in: 0...120, using: &random)).map { _ in UInt8.random(in: 0...9, using: &random)
            }
            var entry = Entry(value: value, isEventTime: false, written: nil)
            var expiry = Expiry.never
            if let setting = settings[place(key)] {
                entry.isEventTime = setting.isEventTime
                entry.written = now(setting.isEventTime)
                expiry = current(entry, setting)
            }
            batch[key] = OwnedEntry(key, .put, value, expiry: expiry)
            entries[key] = entry
        }
        let sorted = batch.values.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        try harness.writeDurably(tree, OwnedBatch(sorted), watermark: watermark)
    }

    private func current(_ entry: Entry, _ setting: Setting?) -> Expiry {
        guard let setting, let written = entry.written, setting.ttl > 0 else { return .never }
        let milliseconds = written + setting.ttl
        return entry.isEventTime
            ? .eventTime(milliseconds: milliseconds) : .processingTime(milliseconds: milliseconds)
    }

    private func isAlive(_ key: [UInt8], _ entry: Entry) -> Bool {
        if entry.isOver { return false }
        let expiry = current(entry, settings[place(key)])
        return expiry == .never || expiry.milliseconds > now(expiry.isEventTime)
    }

    /// In one tree, or in all.
    private func declare() throws {
        let state = UInt8.random(in: 1...3, using: &random)
        let isEventTime = Bool.random(using: &random)
        let milliseconds: UInt64 = Bool.random(using: &random) ? .random(in: 1...400, using: &random) : 0
        let chosen = Bool.random(using: &random) ? trees : [trees.randomElement(using: &random)!]
        for tree in chosen {
            let groups = tree.identity.keyGroups
            for (key, entry) in entries where key[3] == state && groups.contains(place(key).group) {
                if !isAlive(key, entry) { entries[key]?.isOver = true }
                if entry.written == nil && milliseconds > 0 && settings[place(key)] == nil {
                    entries[key]?.isEventTime = isEventTime
                    entries[key]?.written = now(isEventTime)
                }
            }
            for group in groups.first...groups.last {
                let place = Place(state: state, group: group)
                if milliseconds > 0 {
                    settings[place] = Setting(ttl: milliseconds, isEventTime: isEventTime)
                } else {
                    settings[place]?.ttl = 0
                }
            }
            try harness.declare(
                tree, StateTimeToLive(milliseconds: milliseconds, isEventTime: isEventTime), of: UInt16(state))
        }
    }

    private func verify() throws {
        for tree in trees {
            let groups = tree.identity.keyGroups
            let expected = entries.filter { groups.contains(place($0.key).group) && isAlive($0.key, $0.value) }
            let found = try harness.scan(tree, pageEntries: .random(in: 1...50, using: &random))
            #expect(
                found.map(\.key) == expected.keys.sorted { $0.lexicographicallyPrecedes($1) }, "seed \(seed)")
            for (key, stored) in found {
                guard let entry = expected[key] else { continue }
                #expect(stored.value == entry.value, "seed \(seed)")
                #expect(stored.expiry == current(entry, settings[place(key)]), "seed \(seed)")
            }
            let wanted = entries.keys.filter { groups.contains(place($0).group) }.shuffled(using: &random).prefix(30)
            let keys = OwnedKeys(Array(wanted))
            var result = LookupResult()
            try tree.multiGet(
                count: keys.count, clock: harness.clock(tree), scratch: &result, key: { keys[$0] },
                visit: { index, value, expiry in
                    let key = wanted[wanted.startIndex + index]
                    #expect(value.map { Array($0) } == expected[key]?.value, "seed \(seed)")
                    if let entry = expected[key] {
                        #expect(expiry == current(entry, settings[place(key)]), "seed \(seed)")
                    }
                    return true
                })
            for key in wanted { #expect(try harness.get(tree, key)?.value == expected[key]?.value, "seed \(seed)") }
            #expect(tree.statistics.readOnlyCause == nil)
        }
    }

    private func sendWatermark() throws {
        for tree in trees { try harness.writeDurably(tree, OwnedBatch([]), watermark: watermark) }
    }

    private func rescale() throws {
        epoch += 1
        checkpoint += 1
        let handles = try trees.map { try harness.snapshot($0, checkpoint).handle }
        let cuts = Set(
            (0..<Int.random(in: 0...3, using: &random)).map { _ in
                UInt16.random(in: 1..<TimeToLiveRun.groups, using: &random)
            }
        ).sorted()
        let firsts = [0] + cuts
        let old = trees.map(\.id)
        trees = []
        for (index, first) in firsts.enumerated() {
            let last = index + 1 < firsts.count ? firsts[index + 1] - 1 : TimeToLiveRun.groups - 1
            let identity = TreeIdentity(
                store: "model", keyGroups: KeyGroupRange(first: first, last: last),
                keyGroupCount: Int(TimeToLiveRun.groups))
            trees.append(
                try harness.create(identity, epoch: epoch, from: handles, replacing: index == 0 ? old : []))
        }
        try sendWatermark()
    }

    private func restart() throws {
        let ids = trees.map(\.id)
        if Bool.random(using: &random) { for tree in trees { try harness.close(tree) } }
        harness.engine.close()
        harness = try EngineHarness(
            options, fileSystem: disk, seed: random.next(),
            wallMilliseconds: harness.scheduler.time.wallMilliseconds)
        trees = try ids.map { try harness.open($0) }
        try sendWatermark()
    }
}

@Suite struct TimeToLiveModelTests {
    @Test(arguments: Seeds.seeds(count: 30)) func everyEntryLivesAsLongAsItsStateSays(seed: UInt64) throws {
        Seeds.announce("everyEntryLivesAsLongAsItsStateSays", seed)
        try TimeToLiveRun(seed: seed).run(operations: 400)
    }
}
