import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct MergingCursorTests {
    /// Sources of random entries, merged for a reader, against folding done naively from the rules' text.
    @Test func agreesWithANaiveFoldOfAllSources() throws {
        var random = seededRandom("merge model", default: 314_159)
        for round in 0..<60 {
            let sources = makeSources(&random, count: 1 + round % 9)
            let clock = ExpiryClock(
                processing: UInt64.random(in: 0..<110, using: &random),
                event: UInt64.random(in: 0..<110, using: &random))
            let expected = naiveFold(sources.map(\.entries), clock, .visible)
            let cursor = MergingCursor(try sources.map { try $0.open() }, clock: clock)
            #expect(try drain(cursor) == expected)
            for _ in 0..<10 {
                let key = randomKey(&random, spread: 60)
                let more = try key.withUnsafeBytes { try cursor.seek(to: $0) }
                let rest = try drain(cursor, positioned: more)
                #expect(rest == expected.filter { !precedes($0.key, key) })
            }
        }
    }

    /// Point reads through `LookupResult` and scans through the merge are one rule.
    @Test func pointReadsAgreeWithTheVisibleMerge() throws {
        var random = seededRandom("point reads", default: 2_718)
        var result = LookupResult()
        for round in 0..<30 {
            let sources = makeSources(&random, count: 1 + round % 6)
            let clock = ExpiryClock(
                processing: UInt64.random(in: 0..<110, using: &random),
                event: UInt64.random(in: 0..<110, using: &random))
            let cursor = MergingCursor(try sources.map { try $0.open() }, clock: clock)
            let visible = Dictionary(uniqueKeysWithValues: try drain(cursor).map { ($0.key, $0) })
            let keys = Set(sources.flatMap { $0.entries.map(\.key) })
            for key in keys {
                result.reset()
                for source in sources where !result.isComplete {
                    if let entry = source.entries.first(where: { $0.key == key }) {
                        _ = entry.withView { result.add($0) }
                    }
                }
                let found = result.finish(clock)
                #expect(found.map { Array($0.value) } == visible[key]?.value)
                #expect(found?.expiry == visible[key]?.expiry)
            }
        }
    }

    @Test func appendsFoldOldestFirstAndTakeTheNewestExpiry() throws {
        let key: [UInt8] = [0, 0, 1]
        let soon = Expiry.processingTime(milliseconds: 10)
        let late = Expiry.processingTime(milliseconds: 90)
        let layers: [[OwnedEntry]] = [
            [OwnedEntry(key, .append, [5], expiry: late)], [OwnedEntry(key, .append, [3, 4], expiry: soon)],
            [OwnedEntry(key, .put, [1, 2], expiry: soon)], [OwnedEntry(key, .put, [0])],
        ]
        let clock = ExpiryClock(processing: 50, event: 0)
        #expect(try merge(layers, clock) == [OwnedEntry(key, .put, [1, 2, 3, 4, 5], expiry: late)])
        // The newest part has expired: the whole has, and still hides what is older.
        #expect(try merge(Array(layers[1...]), clock) == [])
    }

    @Test func anEmptyMergeIsEmpty() throws {
        #expect(try merge([], ExpiryClock(processing: 0, event: 0)) == [])
        #expect(try merge([[], []], ExpiryClock(processing: 0, event: 0)) == [])
    }

    @Test func aLevelIsWalkedAsOneRun() throws {
        var random = seededRandom("levels", default: 5)
        let entries = randomTable(&random, count: 900, valueMax: 10)
        var windows: [TableWindow] = []
        // Tables whose key groups overlap, told apart by their windows, and an empty window among them.
        for (first, last) in [(0, 0), (1, 1), (2, 3), (4, 9)] as [(UInt16, UInt16)] {
            let shown = KeyGroupRange(first: first, last: last)
            let file = try writeTable(entries, number: UInt64(windows.count)).file
            windows.append(TableWindow(try openTable(file, number: UInt64(windows.count)), keyGroups: shown))
        }
        for policy in [CachePolicy.fill, .stream] {
            #expect(try EntryCursor.level(LevelCursor(windows, policy: policy)).drain() == entries)
            for _ in 0..<100 {
                let key = randomKey(&random, spread: 5000)
                let rest = try EntryCursor.level(LevelCursor(windows, policy: policy)).drain(from: key)
                #expect(rest == entries.filter { !precedes($0.key, key) })
            }
        }
        let whole = try entries.chunks(of: 100).map { try openTable(try writeTable($0).file) }
        #expect(try EntryCursor.level(LevelCursor(tables: whole)).drain() == entries)
        #expect(try EntryCursor.level(LevelCursor(tables: [])).drain() == [])
    }

    // MARK: Sources and the model

    /// Ascending entries and how to read them: from a memtable or from a table.
    private struct Source {
        let entries: [OwnedEntry]
        let isTable: Bool

        func open() throws -> EntryCursor {
            if isTable && !entries.isEmpty {
                var options = TableOptions()
                options.blockSizeBytes = 128
                options.blocksPerPartition = 3
                return .table(try openTable(try writeTable(entries, options).file).cursor(policy: .stream))
            }
            let table = Memtable(budgetBytes: 1 << 14, pool: MemoryPool())
            for entry in entries { entry.withView { table.apply($0) } }
            return .memtable(table.cursor())
        }
    }

    private func makeSources(_ random: inout SeededRandom, count: Int) -> [Source] {
        (0..<count).map { _ in
            Source(entries: randomRun(&random), isTable: Bool.random(using: &random))
        }
    }

    private func merge(_ layers: [[OwnedEntry]], _ clock: ExpiryClock) throws -> [OwnedEntry] {
        let cursors = try layers.map { try Source(entries: $0, isTable: true).open() }
        return try drain(MergingCursor(cursors, clock: clock))
    }

    private func drain(_ cursor: MergingCursor) throws -> [OwnedEntry] {
        try drain(cursor, positioned: try cursor.seekToFirst())
    }

    private func drain(_ cursor: MergingCursor, positioned: Bool) throws -> [OwnedEntry] {
        var all: [OwnedEntry] = []
        var more = positioned
        while more {
            all.append(OwnedEntry(cursor.entry))
            more = try cursor.next()
        }
        return all
    }
}

extension Array {
    func chunks(of size: Int) -> [[Element]] {
        stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
    }
}
