// The cache's memory: sizes that change, blocks that are read while they are evicted, blocks written for tables to come.

import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct CacheFrameTests {
    @Test func memoryMovesToTheSizesThatAreRead() throws {
        let cache = BlockCache(capacityBytes: 4 << 20)
        let large = try openTable(try table(12_000, valueBytes: 1000, blockBytes: 16 << 10, number: 1), cache: cache)
        for number in 0..<12_000 { #expect(try large.value(frameKey(number)) != nil) }
        #expect(cache.statistics.usedBytes > 3 << 20, "the cache was not filled")
        // Now small blocks alone: everything of the other table is in frames of another size.
        let small = try openTable(
            try table(20_000, valueBytes: 60, blockBytes: 1024, number: 2), number: 2, cache: cache)
        for _ in 0..<3 {
            for number in stride(from: 0, to: 20_000, by: 2) { #expect(try small.value(frameKey(number)) != nil) }
        }
        let before = cache.statistics
        for number in stride(from: 0, to: 20_000, by: 2) { #expect(try small.value(frameKey(number)) != nil) }
        let after = cache.statistics
        #expect(after.misses - before.misses < 100, "small blocks found no memory")
        #expect(after.usedBytes <= after.committedBytes)
        #expect(after.committedBytes <= 4 << 20)
    }

    @Test func blocksLargerThanASlabShareTheBudget() throws {
        let cache = BlockCache(capacityBytes: 4 << 20)
        let small = try openTable(try table(20_000, valueBytes: 100, blockBytes: 4096, number: 1), cache: cache)
        for number in 0..<20_000 { #expect(try small.value(frameKey(number)) != nil) }
        let large = try openTable(
            try table(40, valueBytes: 300_000, blockBytes: 4096, number: 2), number: 2, cache: cache)
        for _ in 0..<3 {
            for number in 0..<40 { #expect(try large.value(frameKey(number))?.count == 300_000) }
            #expect(cache.statistics.committedBytes <= 4 << 20)
        }
        for number in 0..<20_000 { #expect(try small.value(frameKey(number)) != nil) }
        #expect(cache.statistics.committedBytes <= 4 << 20)
    }

    /// With slabs alone and with regions of a huge page.
    @Test(arguments: [8 << 20, 32 << 20]) func theCacheBecomesSmallerAndLargerAgain(_ capacity: Int) throws {
        let cache = BlockCache(capacityBytes: capacity)
        let count = capacity / 700
        let reader = try openTable(try table(count, valueBytes: 900, blockBytes: 4096, number: 1), cache: cache)
        func readAll() throws {
            for number in 0..<count { #expect(try reader.value(frameKey(number)) == frameValue(number, 900)) }
        }
        try readAll()
        #expect(cache.statistics.committedBytes > capacity / 8 * 7)
        let cursor = reader.cursor()
        #expect(try cursor.seekToFirst())
        for share in [2, 4, 3] {
            cache.setLimit(capacity / share)
            #expect(cache.statistics.committedBytes <= capacity / share)
            #expect(cache.statistics.usedBytes <= cache.statistics.committedBytes)
            try readAll()
            #expect(cache.statistics.committedBytes <= capacity / share)
            // With few slabs, the sizes of blocks fight for each.
            #expect(cache.statistics.usedBytes > capacity / share / 5)
        }
        cache.setLimit(capacity)
        try readAll()
        #expect(cache.statistics.committedBytes > capacity / 8 * 7)
        #expect(cache.statistics.committedBytes <= capacity)
        #expect(Array(cursor.entry.value) == frameValue(0, 900))
    }

    @Test func memoryIsTouchedAheadOnTheLane() throws {
        let scheduler = SteppedScheduler(seed: 1)
        let cache = BlockCache(capacityBytes: 64 << 20, lane: scheduler.makeLane())
        let reader = try openTable(try table(20_000, valueBytes: 900, blockBytes: 4096, number: 1), cache: cache)
        #expect(try reader.value(frameKey(0)) != nil)
        let first = cache.statistics.committedBytes
        scheduler.runUntilIdle()
        let ahead = cache.statistics.committedBytes - first
        #expect(ahead >= 2 << 20 && ahead <= 8 << 20)
        // What was touched ahead is used before anything else is touched.
        for number in 0..<1500 { #expect(try reader.value(frameKey(number)) == frameValue(number, 900)) }
        #expect(cache.statistics.committedBytes == first + ahead)
        for number in 0..<20_000 {
            #expect(try reader.value(frameKey(number)) == frameValue(number, 900))
            if number % 100 == 0 { scheduler.runUntilIdle() }
        }
        #expect(cache.statistics.committedBytes <= 64 << 20)
    }

    @Test func aCursorKeepsItsBlockThroughEviction() throws {
        let cache = BlockCache(capacityBytes: 1 << 20)
        let watched = try openTable(try table(2000, valueBytes: 100, blockBytes: 4096, number: 1), cache: cache)
        let flood = try openTable(
            try table(60_000, valueBytes: 100, blockBytes: 4096, number: 2), number: 2, cache: cache)
        let cursor = watched.cursor()
        var more = try cursor.seekToFirst()
        var number = 0
        while more {
            if number % 97 == 0 {
                for step in 0..<400 { _ = try flood.value(frameKey((number * 31 + step * 149) % 60_000)) }
            }
            #expect(Array(cursor.entry.key) == frameKey(number))
            #expect(Array(cursor.entry.value) == frameValue(number, 100))
            number += 1
            more = try cursor.next()
        }
        #expect(number == 2000)
        #expect(cache.statistics.evictions > 1000)
    }

    @Test func readersOfManyThreadsSeeTheirOwnBytesWhileOthersEvict() async throws {
        let cache = BlockCache(capacityBytes: 1 << 20)
        let sizes = [40, 100, 333, 2000]
        let tables = try sizes.enumerated().map { position, size in
            try openTable(
                try table(6000, valueBytes: size, blockBytes: 4096, number: UInt64(position)),
                number: UInt64(position), cache: cache)
        }
        try await withThrowingTaskGroup(of: Int.self) { group in
            for thread in 0..<4 {
                group.addTask {
                    var wrong = 0
                    for step in 0..<4000 {
                        let which = (step + thread) % tables.count
                        let number = (step * 7919 + thread * 13) % 6000
                        if try tables[which].value(frameKey(number)) != frameValue(number, sizes[which]) { wrong += 1 }
                    }
                    return wrong
                }
            }
            for try await wrong in group { #expect(wrong == 0) }
        }
        #expect(cache.statistics.evictions > 0)
    }

    @Test func whatWasWrittenForAFileThatNobodyOpensIsForgotten() throws {
        let cache = BlockCache(capacityBytes: 1 << 20)
        _ = try writeTable(
            (0..<5000).map { OwnedEntry(frameKey($0), .put, frameValue($0, 100)) }, number: 7, cache: cache)
        #expect(cache.statistics.metadataBytes > 0)
        cache.forget(file: 7)
        #expect(cache.statistics.metadataBytes == 0)
        #expect(cache.statistics.blockCount == 0)
    }
}

private func frameKey(_ number: Int) -> [UInt8] {
    [0, 1, UInt8(number >> 16), UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF)]
}

private func frameValue(_ number: Int, _ count: Int) -> [UInt8] {
    [UInt8](repeating: UInt8(truncatingIfNeeded: number &* 31 &+ count), count: count)
}

private func table(_ count: Int, valueBytes: Int, blockBytes: Int, number: UInt64) throws -> MemoryFile {
    var options = TableOptions()
    options.blockSizeBytes = blockBytes
    let entries = (0..<count).map { OwnedEntry(frameKey($0), .put, frameValue($0, valueBytes)) }
    return try writeTable(entries, options, number: number).file
}
