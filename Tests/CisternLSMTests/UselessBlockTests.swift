// Blocks that are read for a key that is not in them: a filter's false positives.

import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct UselessBlockTests {
    private static func key(_ number: Int) -> [UInt8] { [0, 1, 0, 1, UInt8(number >> 8), UInt8(number & 0xFF)] }

    /// Even numbers, without a filter, so that each look-up comes to its block; in a cache that has read nothing.
    private static func table(_ cache: BlockCache) throws -> TableReader {
        var options = TableOptions()
        options.blockSizeBytes = 512
        options.filterBitsPerKey = 0
        let entries = stride(from: 0, to: 2000, by: 2).map {
            OwnedEntry(key($0), .put, [UInt8](repeating: 7, count: 40))
        }
        let file = try writeTable(entries, options, number: 1, cache: BlockCache(capacityBytes: 1 << 20)).file
        return try openTable(file, number: 1, cache: cache)
    }

    private static func has(_ table: TableReader, _ number: Int, _ reader: CacheReader) throws -> Bool {
        var result = LookupResult()
        try key(number).withUnsafeBytes { bytes in
            _ = try table.get(bytes, hash: Hash64.hash(bytes), reader: reader, into: &result)
        }
        return result.finish(ExpiryClock(processing: 0, event: 0)) != nil
    }

    @Test func aBlockIsKeptForAKeyThatItHasAndForAnAbsentOneTheSecondTime() throws {
        let cache = BlockCache(capacityBytes: 1 << 20)
        let table = try Self.table(cache)
        let reader = CacheReader(cache)
        #expect(try !Self.has(table, 1001, reader))
        // The index alone.
        let afterIndex = cache.statistics.blockCount
        #expect(try !Self.has(table, 3, reader))
        #expect(cache.statistics.blockCount == afterIndex)
        #expect(try !Self.has(table, 1001, reader))
        #expect(cache.statistics.blockCount == afterIndex + 1)
        #expect(try Self.has(table, 4, reader))
        #expect(cache.statistics.blockCount == afterIndex + 2)
        // What is kept is looked into without being read: the other one becomes so at its second time.
        for _ in 0..<2 { #expect(try !Self.has(table, 3, reader)) }
        let misses = cache.statistics.misses
        for _ in 0..<10 {
            #expect(try !Self.has(table, 1001, reader))
            #expect(try !Self.has(table, 3, reader))
        }
        #expect(cache.statistics.misses == misses)
    }

    @Test func absentKeysThatAreAskedForOnceLeaveTheCacheAsItWas() throws {
        let cache = BlockCache(capacityBytes: 1 << 20)
        let table = try Self.table(cache)
        let reader = CacheReader(cache)
        for number in stride(from: 0, to: 200, by: 2) { #expect(try Self.has(table, number, reader)) }
        let before = cache.statistics.blockCount
        // One look-up a block: a block has about ten entries.
        for number in stride(from: 301, to: 2000, by: 40) { #expect(try !Self.has(table, number, reader)) }
        #expect(cache.statistics.blockCount <= before + 8)
    }
}
