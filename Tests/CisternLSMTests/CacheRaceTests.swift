// Readers of one cache on threads of their own while blocks are evicted, tables are written, opened and dropped, and slabs
// change their size. Every value tells its key and its table, so a byte that is another block's is seen; under a sanitizer
// (`make sanitize`) a race or a stale read is seen even where the bytes happen to be right.

import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct CacheRaceTests {
    @Test(arguments: Seeds.seeds(count: 2)) func tablesComeAndGoUnderTheirReaders(seed: UInt64) async throws {
        Seeds.announce("tablesComeAndGoUnderTheirReaders", seed)
        var random = SeededRandom(seed: seed)
        let cache = BlockCache(capacityBytes: [600 << 10, 1 << 20, 3 << 20].randomElement(using: &random)!)
        do {
            let shelf = Shelf(cache: cache)
            for place in 0..<Shelf.places { try shelf.replace(place, &random) }
            let rounds = 250
            try await onThreads(5) { thread in
                var random = SeededRandom(seed: seed &* 31 &+ UInt64(thread))
                switch thread {
                case 0: for _ in 0..<rounds / 10 { try shelf.churn(&random) }
                case 1, 2: try shelf.walk(rounds: rounds, &random)
                default: try shelf.get(rounds: rounds * 8, &random)
                }
            }
            let statistics = cache.statistics
            #expect(statistics.committedBytes <= statistics.capacityBytes)
            #expect(statistics.hits > 0 && statistics.misses > 0 && statistics.evictions > 0)
        }
        let statistics = cache.statistics
        #expect(statistics.blockCount == 0 && statistics.usedBytes == 0 && statistics.metadataBytes == 0)
        #expect(statistics.insertions == statistics.evictions)
    }

    /// Cursors that stand on their blocks while the cache turns over many times, so that it has to do without those frames.
    @Test(arguments: Seeds.seeds(count: 2)) func pinnedBlocksStayThroughManyTurns(seed: UInt64) async throws {
        Seeds.announce("pinnedBlocksStayThroughManyTurns", seed)
        let cache = BlockCache(capacityBytes: 700 << 10)
        var random = SeededRandom(seed: seed)
        let shelf = Shelf(cache: cache)
        for place in 0..<Shelf.places { try shelf.replace(place, &random) }
        try await onThreads(4) { thread in
            var random = SeededRandom(seed: seed &* 31 &+ UInt64(thread))
            if thread > 1 { return try shelf.get(rounds: 2500, &random) }
            let reader = CacheReader(cache)
            var stands: [Stand] = []
            // As many as take most of the budget together with those of the other thread.
            for _ in 0..<40 { if let stand = try shelf.stand(reader, &random) { stands.append(stand) } }
            for _ in 0..<10 {
                for stand in stands { try stand.check() }
                try shelf.get(rounds: 60, &random)
                let moved = Int.random(in: stands.indices, using: &random)
                if let stand = try shelf.stand(reader, &random) { stands[moved] = stand }
            }
            for stand in stands { try stand.check() }
        }
        #expect(cache.statistics.committedBytes <= cache.statistics.capacityBytes)
    }

    #if CISTERN_ADDRESS_SANITIZER
        /// The address sanitizer sees an access to a frame that was given back: without this the other tests would prove
        /// less than they seem to.
        @Test func aStaleReadOfAFrameIsReported() async {
            let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
                let cache = BlockCache(capacityBytes: 1 << 20)
                var random = SeededRandom(seed: 1)
                let shelf = Shelf(cache: cache)
                for place in 0..<Shelf.places { try shelf.replace(place, &random) }
                var stale: [UnsafeRawBufferPointer] = []
                for _ in 0..<50 {
                    let reader = CacheReader(cache)
                    if let stand = try shelf.stand(reader, &random) { stale.append(stand.cursor.entry.value) }
                }
                // Nothing pins the blocks any more: their frames are taken for other blocks, and are free in between.
                for round in 0..<300 {
                    try shelf.replace(round % Shelf.places, &random)
                    try shelf.get(rounds: 50, &random)
                    // By pointers, whose accesses are compiled here; the iterator's are the standard library's, which is not
                    // instrumented.
                    for bytes in stale {
                        let start = bytes.baseAddress!.assumingMemoryBound(to: UInt8.self)
                        for index in 0..<bytes.count { blackHole(start[index]) }
                    }
                }
            }
            let report = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
            #expect(report.contains("use-after-poison"))
        }
    #endif
}

@inline(never)
private func blackHole(_ byte: UInt8) { if byte == 0xFF && byte == 0 { print(byte) } }

private struct WrongBytes: Error, CustomStringConvertible {
    let description: String
}

/// A table with what its values are made of.
private final class ShelvedTable: Sendable {
    let table: TableReader
    let number: UInt64
    let count: Int
    let valueBytes: Int

    init(_ cache: BlockCache, number: UInt64, _ random: inout SeededRandom) throws {
        self.number = number
        count = .random(in: 800...2500, using: &random)
        valueBytes = [20, 90, 400].randomElement(using: &random)!
        var options = TableOptions()
        options.blockSizeBytes = [512, 1500, 4096, 9000].randomElement(using: &random)!
        options.blocksPerPartition = .random(in: 2...40, using: &random)
        let (number, valueBytes) = (number, valueBytes)
        let entries = (0..<count).map {
            OwnedEntry(ShelvedTable.key($0), .put, ShelvedTable.value($0, number, valueBytes))
        }
        let file = try writeTable(entries, options, number: number, cache: cache).file
        table = try openTable(file, number: number, cache: cache)
    }

    static func key(_ entry: Int) -> [UInt8] { [0, 1, 0, 1, UInt8(entry >> 8), UInt8(entry & 0xFF)] }

    static func value(_ entry: Int, _ number: UInt64, _ byteCount: Int) -> [UInt8] {
        let filler = UInt8(truncatingIfNeeded: entry &* 31 &+ Int(number) &* 7)
        return key(entry) + [UInt8(truncatingIfNeeded: number), UInt8(truncatingIfNeeded: number >> 8)]
            + [UInt8](repeating: filler, count: byteCount)
    }

    func check(_ entry: Int, _ found: [UInt8]?) throws {
        if found == ShelvedTable.value(entry, number, valueBytes) { return }
        throw WrongBytes(description: "entry \(entry) of table \(number) reads as \(found ?? [])")
    }
}

/// A cursor and where it should stand.
private final class Stand {
    let cursor: TableCursor
    let table: ShelvedTable
    var entry: Int

    init(_ cursor: TableCursor, _ table: ShelvedTable, _ entry: Int) {
        self.cursor = cursor
        self.table = table
        self.entry = entry
    }

    func check() throws {
        let found = cursor.entry
        guard Array(found.key) == ShelvedTable.key(entry) else {
            throw WrongBytes(description: "a cursor of table \(table.number) left entry \(entry)")
        }
        try table.check(entry, Array(found.value))
    }
}

/// Tables that threads take, read and replace; who takes one keeps it until it is done.
private final class Shelf: Sendable {
    static let places = 5

    let cache: BlockCache
    private let state = Guarded<(tables: [ShelvedTable?], next: UInt64)>(
        ([ShelvedTable?](repeating: nil, count: Shelf.places), 1))

    init(cache: BlockCache) { self.cache = cache }

    private func take(_ random: inout SeededRandom) -> ShelvedTable {
        let place = Int.random(in: 0..<Shelf.places, using: &random)
        return state.withLock { $0.tables[place]! }
    }

    private func nextNumber() -> UInt64 {
        state.withLock { state in
            state.next += 1
            return state.next
        }
    }

    func replace(_ place: Int, _ random: inout SeededRandom) throws {
        let table = try ShelvedTable(cache, number: nextNumber(), &random)
        // The old one ends outside the lock.
        let old = state.withLock { state in
            let old = state.tables[place]
            state.tables[place] = table
            return old
        }
        withExtendedLifetime(old) {}
    }

    func churn(_ random: inout SeededRandom) throws {
        try replace(Int.random(in: 0..<Shelf.places, using: &random), &random)
        // One that is written and never opened.
        let number = nextNumber()
        let entries = (0..<500).map { OwnedEntry(ShelvedTable.key($0), .put, [1]) }
        _ = try writeTable(entries, number: number, cache: cache)
        _ = cache.statistics
        cache.forget(file: number)
    }

    func get(rounds: Int, _ random: inout SeededRandom) throws {
        for _ in 0..<rounds {
            let taken = take(&random)
            let entry = Int.random(in: 0..<taken.count, using: &random)
            try taken.check(entry, try taken.table.value(ShelvedTable.key(entry)))
        }
    }

    func stand(_ reader: CacheReader, _ random: inout SeededRandom) throws -> Stand? {
        let taken = take(&random)
        let entry = Int.random(in: 0..<taken.count, using: &random)
        let cursor = taken.table.cursor(reader: reader)
        guard try ShelvedTable.key(entry).withUnsafeBytes({ try cursor.seek(to: $0) }) else {
            throw WrongBytes(description: "entry \(entry) of table \(taken.number) is not found")
        }
        let stand = Stand(cursor, taken, entry)
        try stand.check()
        return stand
    }

    /// Cursors that live for several rounds, each going on by a few entries a round.
    func walk(rounds: Int, _ random: inout SeededRandom) throws {
        let reader = CacheReader(cache)
        var stands: [Stand] = []
        for round in 0..<rounds {
            if stands.count < 4, let stand = try stand(reader, &random) { stands.append(stand) }
            let which = Int.random(in: stands.indices, using: &random)
            let stand = stands[which]
            try stand.check()
            for _ in 0..<Int.random(in: 0...100, using: &random) {
                guard try stand.cursor.next() else {
                    guard stand.entry == stand.table.count - 1 else {
                        throw WrongBytes(description: "table \(stand.table.number) ends at entry \(stand.entry)")
                    }
                    stands.remove(at: which)
                    break
                }
                stand.entry += 1
                try stand.check()
            }
            if round % 16 == 15 && !stands.isEmpty { stands.removeFirst() }
        }
    }
}
