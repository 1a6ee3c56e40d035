import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct BlockCacheTests {
    @Test func repeatedReadsHitAndTheBudgetHolds() throws {
        let cache = BlockCache(capacityBytes: 1 << 20)
        let table = try openTable(try writeTable(entries(20_000)).file, cache: cache)
        for _ in 0..<3 {
            for number in stride(from: 0, to: 20_000, by: 7) { #expect(try table.value(key(number)) != nil) }
            let statistics = cache.statistics
            #expect(statistics.usedBytes <= 1 << 20)
            #expect(statistics.capacityBytes == 1 << 20)
        }
        let statistics = cache.statistics
        #expect(statistics.hits > 0 && statistics.misses > 0 && statistics.evictions > 0)
        #expect(statistics.insertions - statistics.evictions == UInt64(statistics.blockCount))
    }

    @Test func aScanLeavesWhatIsReadAgainAndAgain() throws {
        let cache = BlockCache(capacityBytes: 1 << 20)
        let hot = try openTable(try writeTable(entries(2000), number: 1).file, number: 1, cache: cache)
        let cold = try openTable(try writeTable(entries(60_000), number: 2).file, number: 2, cache: cache)
        func readHot() throws { for number in stride(from: 0, to: 2000, by: 20) { _ = try hot.value(key(number)) } }
        // Read twice, it enters the main queue on its way out of probation.
        for _ in 0..<4 { try readHot() }
        _ = try EntryCursor.table(cold.cursor()).drain()
        let before = cache.statistics
        try readHot()
        let after = cache.statistics
        #expect(after.evictions > 0)
        #expect(after.misses == before.misses, "the scan pushed out what was hot")
    }

    @Test func metadataStaysWhenDataDoesNotFit() throws {
        let cache = BlockCache(capacityBytes: 512 << 10)
        let file = try writeTable(entries(60_000), number: 9, cache: cache).file
        let written = cache.statistics
        #expect(written.metadataBytes > 0 && written.metadataBytes == written.usedBytes)
        let table = try openTable(file, number: 9, cache: cache)
        _ = try EntryCursor.table(table.cursor()).drain()
        #expect(cache.statistics.metadataBytes == written.metadataBytes)
        // Written through at creation: an absent key needs no read, and so no miss.
        let misses = cache.statistics.misses
        var absent = 0
        for number in 0..<1000 {
            let key = key(number * 60) + [1]
            if !(try key.withUnsafeBytes({ try table.mayContain($0, hash: Hash64.hash($0)) })) { absent += 1 }
        }
        #expect(absent > 950)
        #expect(cache.statistics.misses == misses)
    }

    @Test func metadataOfAClosedTableLeaves() throws {
        let cache = BlockCache(capacityBytes: 4 << 20)
        let file = try writeTable(entries(5000), number: 3, cache: cache).file
        do {
            let table = try openTable(file, number: 3, cache: cache)
            _ = try table.value(key(1))
            #expect(cache.statistics.metadataBytes > 0)
        }
        #expect(cache.statistics.metadataBytes == 0)
    }

    @Test func nothingIsCachedWithoutABudget() throws {
        let cache = BlockCache(capacityBytes: 0)
        let all = entries(500)
        let table = try openTable(try writeTable(all, cache: cache).file, cache: cache)
        #expect(try EntryCursor.table(table.cursor()).drain() == all)
        #expect(cache.statistics.blockCount == 0)
    }

    @Test func streamingDoesNotTouchTheData() throws {
        let cache = BlockCache(capacityBytes: 4 << 20)
        let table = try openTable(try writeTable(entries(5000)).file, cache: cache)
        _ = try EntryCursor.table(table.cursor(policy: .stream)).drain()
        #expect(cache.statistics.blockCount == 0)
    }

    @Test func manyThreadsReadOneTable() async throws {
        let cache = BlockCache(capacityBytes: 2 << 20)
        let all = entries(20_000)
        let table = try openTable(try writeTable(all).file, cache: cache)
        try await withThrowingTaskGroup(of: Int.self) { group in
            for thread in 0..<4 {
                group.addTask {
                    var found = 0
                    for step in 0..<2000 where try table.value(key((step * 7919 + thread) % 20_000)) != nil {
                        found += 1
                    }
                    return found
                }
            }
            for try await found in group { #expect(found == 2000) }
        }
        #expect(cache.statistics.usedBytes <= 2 << 20)
    }
}

private func key(_ number: Int) -> [UInt8] {
    [0, 1, UInt8(number >> 16), UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF)]
}

private func entries(_ count: Int) -> [OwnedEntry] {
    (0..<count).map { OwnedEntry(key($0), .put, [UInt8](repeating: UInt8($0 & 0xFF), count: 100)) }
}
