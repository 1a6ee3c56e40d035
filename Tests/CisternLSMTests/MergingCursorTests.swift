import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct MergingCursorTests {
    /// Sources of random entries, merged in every mode, against folding done naively from the rules' text.
    @Test func agreesWithANaiveFoldOfAllSources() throws {
        var random = seededRandom("merge model", default: 314_159)
        for round in 0..<60 {
            let sources = makeSources(&random, count: 1 + round % 9)
            let clock = ExpiryClock(
                processing: UInt64.random(in: 0..<110, using: &random),
                event: UInt64.random(in: 0..<110, using: &random))
            for mode in [MergingCursor.Mode.visible, .compaction] {
                for bottommost in [false, true] {
                    let expected = naive(sources.map(\.entries), clock, bottommost, mode)
                    let cursor = MergingCursor(
                        try sources.map { try $0.open() }, clock: clock, bottommost: bottommost, mode: mode)
                    #expect(try drain(cursor) == expected)
                    for _ in 0..<10 {
                        let key = randomKey(&random, spread: 60)
                        let more = try key.withUnsafeBytes { try cursor.seek(to: $0) }
                        let rest = try drain(cursor, positioned: more)
                        #expect(rest == expected.filter { !precedes($0.key, key) })
                    }
                }
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
            let cursor = MergingCursor(
                try sources.map { try $0.open() }, clock: clock, bottommost: true, mode: .visible)
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

    /// Merging in two steps (some sources first, then the result with the rest) shows what one step shows.
    @Test func compactingTheOldestSourcesFirstChangesNothingThatIsVisible() throws {
        var random = seededRandom("merge in two steps", default: 99)
        for _ in 0..<40 {
            let sources = makeSources(&random, count: 5)
            // Nothing expires between the steps: expiry of an older part is another rule's subject.
            let clock = ExpiryClock(processing: 0, event: 0)
            let all = naive(sources.map(\.entries), clock, true, .visible)
            for cut in 1..<5 {
                for (older, bottommost) in [(Array(sources[cut...]), true), (Array(sources[(cut - 1)..<cut]), false)] {
                    let lower = MergingCursor(
                        try older.map { try $0.open() }, clock: clock, bottommost: bottommost, mode: .compaction)
                    let merged = try drain(lower)
                    if merged.isEmpty { continue }
                    let table = try openTable(try writeTable(merged).file)
                    var cursors = try sources[..<(bottommost ? cut : cut - 1)].map { try $0.open() }
                    cursors.append(.table(table.cursor()))
                    if !bottommost { cursors += try sources[cut...].map { try $0.open() } }
                    let cursor = MergingCursor(cursors, clock: clock, bottommost: true, mode: .visible)
                    #expect(try drain(cursor) == all)
                }
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
        #expect(try merge(layers, clock, true, .visible) == [OwnedEntry(key, .put, [1, 2, 3, 4, 5], expiry: late)])
        let open = Array(layers[..<2])
        #expect(try merge(open, clock, false, .compaction) == [OwnedEntry(key, .append, [3, 4, 5], expiry: late)])
        #expect(try merge(open, clock, true, .compaction) == [OwnedEntry(key, .put, [3, 4, 5], expiry: late)])
        // The newest part has expired: the whole has, and still hides what is older.
        let expired = Array(layers[1...])
        #expect(try merge(expired, clock, false, .compaction) == [OwnedEntry(key, .delete)])
        #expect(try merge(expired, clock, true, .compaction) == [])
        #expect(try merge(expired, clock, true, .visible) == [])
    }

    @Test func anEmptyMergeIsEmpty() throws {
        #expect(try merge([], ExpiryClock(processing: 0, event: 0), true, .visible) == [])
        #expect(try merge([[], []], ExpiryClock(processing: 0, event: 0), true, .visible) == [])
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
            let table = Memtable(budgetBytes: 1 << 14)
            for entry in entries { entry.withView { table.apply($0) } }
            return .memtable(table.cursor())
        }
    }

    private func makeSources(_ random: inout SeededRandom, count: Int) -> [Source] {
        (0..<count).map { _ in
            var byKey: [[UInt8]: OwnedEntry] = [:]
            for _ in 0..<Int.random(in: 0..<60, using: &random) {
                let entry = randomEntry(&random, spread: 12, valueMax: 6)
                byKey[entry.key] = entry
            }
            return Source(
                entries: byKey.values.sorted { precedes($0.key, $1.key) }, isTable: Bool.random(using: &random))
        }
    }

    /// The rules of proto-spec/entries.md, word for word.
    private func naive(
        _ sources: [[OwnedEntry]], _ clock: ExpiryClock, _ bottommost: Bool, _ mode: MergingCursor.Mode
    ) -> [OwnedEntry] {
        var parts: [[UInt8]: [OwnedEntry]] = [:]
        for source in sources { for entry in source { parts[entry.key, default: []].append(entry) } }
        var result: [OwnedEntry] = []
        for key in parts.keys.sorted(by: precedes) {
            let stack = parts[key]!
            let base = stack.firstIndex { $0.kind != .append }
            let used = base.map { Array(stack[...$0]) } ?? stack
            let newest = used[0]
            let hidden = newest.kind == .delete || clock.isExpired(newest.expiry)
            if hidden {
                if mode == .compaction && !bottommost { result.append(OwnedEntry(key, .delete)) }
                continue
            }
            let value = used.reversed().filter { $0.kind != .delete }.flatMap(\.value)
            let stays = base == nil && mode == .compaction && !bottommost
            result.append(OwnedEntry(key, stays ? .append : .put, value, expiry: newest.expiry))
        }
        return result
    }

    private func merge(
        _ layers: [[OwnedEntry]], _ clock: ExpiryClock, _ bottommost: Bool, _ mode: MergingCursor.Mode
    ) throws -> [OwnedEntry] {
        let cursors = try layers.map { try Source(entries: $0, isTable: true).open() }
        return try drain(MergingCursor(cursors, clock: clock, bottommost: bottommost, mode: mode))
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
