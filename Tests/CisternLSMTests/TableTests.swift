import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct TableTests {
    @Test func whatIsWrittenIsReadBackUnderAllShapes() throws {
        var random = seededRandom("table shapes", default: 42)
        for (blockSize, partition, bits, valueMax) in [
            (4096, 64, 10, 40), (128, 2, 10, 40), (64, 1, 0, 3), (256, 3, 16, 0), (1 << 16, 64, 10, 9000),
        ] {
            var options = TableOptions()
            options.blockSizeBytes = blockSize
            options.blocksPerPartition = partition
            options.filterBitsPerKey = bits
            let entries = randomTable(&random, count: 1500, valueMax: valueMax)
            let (file, summary) = try writeTable(entries, options)
            let table = try openTable(file)
            #expect(table.summary == summary)
            #expect(summary.fileBytes == file.size)
            try table.verify()
            for policy in [CachePolicy.fill, .stream] {
                let cursor = EntryCursor.table(table.cursor(policy: policy))
                #expect(try cursor.drain() == entries)
            }
            for entry in entries {
                #expect(try lookup(table, entry.key) == entry)
            }
            for _ in 0..<300 {
                let key = randomKey(&random, spread: 5000)
                #expect(try lookup(table, key) == entries.first { $0.key == key })
                let expected = entries.first { !precedes($0.key, key) }
                #expect(try EntryCursor.table(table.cursor()).drain(from: key).first == expected)
            }
        }
    }

    @Test func theSummaryCountsWhatIsInside() throws {
        let entries = [
            OwnedEntry([0, 3, 1], .put, [1, 2, 3]),
            OwnedEntry([0, 3, 2], .put, [1], expiry: .processingTime(milliseconds: 500)),
            OwnedEntry([0, 4], .delete),
            OwnedEntry([1, 0, 9], .append, [7, 7], expiry: .eventTime(milliseconds: 900)),
            OwnedEntry([1, 2, 9], .put, [], expiry: .processingTime(milliseconds: 400)),
        ]
        let (file, summary) = try writeTable(entries)
        #expect(summary.entryCount == 5)
        #expect(summary.deleteCount == 1)
        #expect(summary.appendCount == 1)
        #expect(summary.neverExpiringCount == 1)
        #expect(summary.maxExpiryProcessing == 500)
        #expect(summary.maxExpiryEvent == 900)
        #expect(summary.keyGroups == KeyGroupRange(first: 3, last: 258))
        #expect(summary.smallestKey == [0, 3, 1])
        #expect(summary.largestKey == [1, 2, 9])
        #expect(summary.rawKeyBytes == 14)
        #expect(summary.rawValueBytes == 6)
        #expect(try openTable(file).summary == summary)
        #expect(!record(summary).isExpired(ExpiryClock(processing: 1000, event: 1000)))
    }

    @Test func aTableIsExpiredWhenItsLatestExpiriesHavePassed() throws {
        let (_, summary) = try writeTable([
            OwnedEntry([0, 0, 1], .put, [], expiry: .processingTime(milliseconds: 500)),
            OwnedEntry([0, 0, 2], .put, [], expiry: .eventTime(milliseconds: 900)),
        ])
        #expect(!record(summary).isExpired(ExpiryClock(processing: 500, event: 899)))
        #expect(!record(summary).isExpired(ExpiryClock(processing: 499, event: 900)))
        #expect(record(summary).isExpired(ExpiryClock(processing: 500, event: 900)))
    }

    @Test func aWindowShowsOnlyItsKeyGroups() throws {
        var random = seededRandom("table windows", default: 7)
        let entries = randomTable(&random, count: 800, valueMax: 20)
        var options = TableOptions()
        options.blockSizeBytes = 256
        options.blocksPerPartition = 4
        let table = try openTable(try writeTable(entries, options).file)
        for first in 0..<UInt16(5) {
            for last in first..<UInt16(6) {
                let range = KeyGroupRange(first: first, last: last)
                let expected = entries.filter { range.contains(UInt16($0.key[0]) << 8 | UInt16($0.key[1])) }
                for policy in [CachePolicy.fill, .stream] {
                    let cursor = EntryCursor.table(table.cursor(window: range, policy: policy))
                    #expect(try cursor.drain() == expected)
                }
                for _ in 0..<20 {
                    let key = randomKey(&random, spread: 900)
                    let rest = try EntryCursor.table(table.cursor(window: range)).drain(from: key)
                    #expect(rest == expected.filter { !precedes($0.key, key) })
                }
            }
        }
    }

    @Test func keysOutOfOrderOrOutsideTheFormatAreRefused() throws {
        let writer = TableWriter(file: MemoryFile())
        try OwnedEntry([0, 0, 5]).withView { try writer.add($0) }
        for bad in [[0, 0, 5], [0, 0, 4], [0], [], [1] + [UInt8](repeating: 0, count: 65_535)] as [[UInt8]] {
            #expect(throws: EngineError.self) { try OwnedEntry(bad).withView { try writer.add($0) } }
        }
        #expect(throws: EngineError.self) { _ = try TableWriter(file: MemoryFile()).finish() }
    }

    @Test func aValueLargerThanABlockHasABlockOfItsOwn() throws {
        let large = (0..<(2 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let entries = [
            OwnedEntry([0, 0, 1], .put, [1]), OwnedEntry([0, 0, 2], .put, large), OwnedEntry([0, 0, 3], .put, [3]),
        ]
        let table = try openTable(try writeTable(entries).file)
        #expect(table.summary.dataBlockCount == 3)
        for entry in entries { #expect(try table.value(entry.key) == entry.value) }
        #expect(try EntryCursor.table(table.cursor(policy: .stream)).drain() == entries)
    }

    @Test func theFilterAnswersAbsentKeysAtItsRate() throws {
        var entries: [OwnedEntry] = []
        for number in 0..<40_000 { entries.append(OwnedEntry(key(number * 2), .put, [])) }
        let table = try openTable(try writeTable(entries).file)
        var falsePositives = 0
        for number in 0..<40_000 {
            let present = key(number * 2)
            let absent = key(number * 2 + 1)
            let presentPasses = try present.withUnsafeBytes { try table.mayContain($0, hash: Hash64.hash($0)) }
            let absentPasses = try absent.withUnsafeBytes { try table.mayContain($0, hash: Hash64.hash($0)) }
            if !presentPasses { Issue.record("key \(number) is missing in the filter") }
            if absentPasses { falsePositives += 1 }
        }
        // 10 bits a key: 1.3 % by theory and prototype.
        let rate = Double(falsePositives) / 40_000
        print("filter: false positives \(rate * 100) %")
        #expect(rate > 0.004 && rate < 0.02)
    }

    private func key(_ number: Int) -> [UInt8] {
        [0, UInt8(number >> 16 & 0xFF), UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF)] + Array("abcdef".utf8)
    }

    private func lookup(_ table: TableReader, _ key: [UInt8]) throws -> OwnedEntry? {
        let cursor = EntryCursor.table(table.cursor())
        let more = try key.withUnsafeBytes { try cursor.seek(to: $0) }
        let seen = more && Array(cursor.entry.key) == key ? OwnedEntry(cursor.entry) : nil
        // The point read must agree with the cursor: a value for puts and appends, none for deletes.
        let never = ExpiryClock(processing: 0, event: 0)
        #expect(try table.value(key, clock: never) == (seen?.kind == .delete ? nil : seen?.value))
        return seen
    }
}

/// Ascending entries of all kinds.
func randomTable(_ random: inout SeededRandom, count: Int, valueMax: Int) -> [OwnedEntry] {
    var byKey: [[UInt8]: OwnedEntry] = [:]
    for _ in 0..<count {
        let entry = randomEntry(&random, spread: 5000, valueMax: valueMax)
        byKey[entry.key] = entry
    }
    return byKey.values.sorted { precedes($0.key, $1.key) }
}

private func record(_ summary: TableSummary) -> FileRecord {
    FileRecord(number: 1, window: summary.keyGroups, summary: summary)
}
