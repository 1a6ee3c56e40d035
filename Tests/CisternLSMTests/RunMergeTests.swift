import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct RunMergeTests {
    /// Runs of one to three tables, merged for files above others and at the bottom, against folding done naively.
    @Test func agreesWithANaiveFoldOfAllRuns() throws {
        var random = seededRandom("run merge model", default: 314_160)
        for round in 0..<90 {
            let runs = (0..<(1 + round % 9)).map { _ in randomRun(&random) }
            let clock = randomClock(&random)
            for purpose in [FoldedFor.compaction, .bottommost] {
                let expected = naiveFold(runs, clock, purpose)
                let windows = try runs.map { try open($0, tables: 1 + round % 3) }
                #expect(try drain(RunMerge(windows, clock: clock, bottommost: purpose == .bottommost)) == expected)
            }
        }
    }

    @Test func aFlushKeepsWhatAMergeOfOneRunWould() throws {
        var random = seededRandom("flush model", default: 11)
        for _ in 0..<60 {
            let entries = randomRun(&random)
            let clock = randomClock(&random)
            for purpose in [FoldedFor.compaction, .bottommost] {
                let memtable = Memtable(budgetBytes: 1 << 14, pool: MemoryPool())
                for entry in entries { entry.withView { memtable.apply($0) } }
                memtable.seal()
                let input = FlushInput(memtable, clock: clock, bottommost: purpose == .bottommost)
                var found: [OwnedEntry] = []
                while let entry = try input.next() { found.append(OwnedEntry(entry)) }
                #expect(found == naiveFold([entries], clock, purpose))
            }
        }
    }

    /// Keys that agree in their first 16 bytes and beyond, that are prefixes of others, and values of all sizes.
    @Test func longKeysAndValuesAreMergedInOrder() throws {
        var random = seededRandom("long keys", default: 77)
        let clock = ExpiryClock(processing: 0, event: 0)
        for _ in 0..<20 {
            let runs = (0..<4).map { _ in
                var byKey: [[UInt8]: OwnedEntry] = [:]
                for _ in 0..<150 {
                    var key = [UInt8](repeating: 7, count: Int.random(in: 2..<40, using: &random))
                    if Bool.random(using: &random) { key[key.count - 1] = UInt8.random(in: 0...255, using: &random) }
                    byKey[key] = OwnedEntry(key, .put, randomValue(&random, max: 700))
                }
                return byKey.values.sorted { precedes($0.key, $1.key) }
            }
            let windows = try runs.map { try open($0, tables: 2) }
            let merge = RunMerge(windows, clock: clock, bottommost: true)
            #expect(try drain(merge) == naiveFold(runs, clock, .bottommost))
        }
    }

    /// A run whose tables are shown in part, an empty window among them, is what the windows show.
    @Test func windowsOfKeyGroupsAreCutExactly() throws {
        var random = seededRandom("run windows", default: 5)
        let entries = randomTable(&random, count: 900, valueMax: 10)
        let clock = ExpiryClock(processing: 0, event: 0)
        for (first, last) in [(0, 9), (0, 0), (1, 1), (2, 3), (1, 2), (4, 9)] as [(UInt16, UInt16)] {
            let table = try openTable(try writeTable(entries, smallBlocks).file)
            let window = TableWindow(table, keyGroups: KeyGroupRange(first: first, last: last))
            let shown = entries.filter { (first...last).contains(UInt16($0.key[0]) << 8 | UInt16($0.key[1])) }
            let merge = RunMerge([[window]], clock: clock, bottommost: false)
            #expect(try drain(merge) == naiveFold([shown], clock, .compaction))
        }
        let pieces = try [(0, 0), (1, 1), (2, 3), (4, 9)].map { first, last in
            TableWindow(
                try openTable(try writeTable(entries).file), keyGroups: KeyGroupRange(first: first, last: last))
        }
        #expect(
            try drain(RunMerge([pieces], clock: clock, bottommost: false)) == naiveFold([entries], clock, .compaction))
    }

    /// Merging in two steps (some sources first, then the result with the rest) shows what one step shows.
    @Test func compactingSomeSourcesFirstChangesNothingThatIsVisible() throws {
        var random = seededRandom("merge in two steps", default: 99)
        // Nothing expires between the steps: expiry of an older part is another rule's subject.
        let clock = ExpiryClock(processing: 0, event: 0)
        for _ in 0..<40 {
            let runs = (0..<5).map { _ in randomRun(&random) }
            let all = naiveFold(runs, clock, .bottommost)
            for cut in 1..<5 {
                for (merged, bottommost) in [(cut..<5, true), ((cut - 1)..<cut, false)] {
                    let middle = try drain(
                        RunMerge(try runs[merged].map { try open($0, tables: 1) }, clock: clock, bottommost: bottommost)
                    )
                    var windows = try runs[..<merged.lowerBound].map { try open($0, tables: 1) }
                    windows.append(try open(middle, tables: 1))
                    windows += try runs[merged.upperBound...].map { try open($0, tables: 1) }
                    #expect(try drain(RunMerge(windows, clock: clock, bottommost: true)) == all)
                }
            }
        }
    }

    @Test func aMergeOfNothingIsEmpty() throws {
        let clock = ExpiryClock(processing: 0, event: 0)
        #expect(try drain(RunMerge([], clock: clock, bottommost: true)) == [])
        #expect(try drain(RunMerge([[], []], clock: clock, bottommost: true)) == [])
    }

    /// Every byte of a table is hit in turn: the merge ends with an error or with what was written.
    @Test func aDamagedInputIsAnErrorOrHarmless() throws {
        var random = seededRandom("damaged run", default: 8)
        let entries = randomTable(&random, count: 60, valueMax: 30)
        let file = try writeTable(entries, smallBlocks).file
        let clock = ExpiryClock(processing: 0, event: 0)
        let expected = naiveFold([entries], clock, .compaction)
        for offset in file.bytes.indices {
            let damaged = MemoryFile(bytes: file.bytes)
            damaged.bytes[offset] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            do {
                let window = TableWindow(try openTable(damaged))
                #expect(try drain(RunMerge([[window]], clock: clock, bottommost: false)) == expected)
            } catch is EngineError {}
        }
    }

    // MARK: Helpers

    private var smallBlocks: TableOptions {
        var options = TableOptions()
        options.blockSizeBytes = 128
        options.blocksPerPartition = 3
        return options
    }

    private func randomClock(_ random: inout SeededRandom) -> ExpiryClock {
        ExpiryClock(
            processing: UInt64.random(in: 0..<110, using: &random), event: UInt64.random(in: 0..<110, using: &random))
    }

    private func open(_ entries: [OwnedEntry], tables: Int) throws -> [TableWindow] {
        try entries.chunks(of: max(1, (entries.count + tables - 1) / tables)).map {
            TableWindow(try openTable(try writeTable($0, smallBlocks).file))
        }
    }

    private func drain(_ merge: RunMerge) throws -> [OwnedEntry] {
        var all: [OwnedEntry] = []
        while let entry = try merge.next() { all.append(OwnedEntry(entry)) }
        #expect(try merge.next().map(OwnedEntry.init) == nil)
        return all
    }
}
