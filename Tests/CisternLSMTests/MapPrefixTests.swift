import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct MapPrefixTests {
    /// The filter knows every map of the table, wherever partitions are cut, and few others.
    @Test func aTableTellsWhichMapsItHas() throws {
        var random = seededRandom("map prefixes", default: 21)
        for sizes in [1...1, 1...4, 30...60] {
            var entries: [OwnedEntry] = []
            for map in 0..<200 where map % 2 == 0 {
                for user in 0..<Int.random(in: sizes, using: &random) {
                    entries.append(OwnedEntry(mapKey(map, user), .put, [1, 2, 3]))
                }
            }
            entries.sort { precedes($0.key, $1.key) }
            var options = TableOptions()
            options.blockSizeBytes = 128
            options.blocksPerPartition = 3
            for version in [1, 2] as [UInt32] {
                options.formatVersion = version
                let table = try openTable(try writeTable(entries, options).file)
                try table.verify()
                var passed = 0
                for map in 0..<200 {
                    let answer = try mayContain(table, mapKey(map, nil))
                    if map % 2 == 0 { #expect(answer) } else if answer { passed += 1 }
                }
                if version == 1 { #expect(passed == 100) } else { #expect(passed < 20) }
            }
        }
    }

    /// Ranges that are not about one map are never judged by a prefix.
    @Test func onlyTheKeysOfOneMapAreARangeOfIt() {
        let prefix = mapKey(1, nil)
        #expect(isMapRange(prefix, successor(prefix)))
        #expect(isMapRange(prefix + [5, 6], successor(prefix)))
        #expect(isMapRange(prefix + [5, 6], prefix + [9]))
        #expect(!isMapRange(prefix, []))
        #expect(!isMapRange(prefix, successor(successor(prefix))))
        #expect(!isMapRange(prefix, successor(prefix) + [0]))
        #expect(!isMapRange(Array(prefix.dropLast()), successor(prefix)))
        #expect(!isMapRange([0, 1], [0, 2]))
        let last: [UInt8] = [0, 1, 0, 2, 1, 0xFF, 1, 0xFF]
        #expect(isMapRange(last, [0, 1, 0, 2, 1, 0xFF, 2]))
        #expect(!isMapRange(last, [0, 1, 0, 2, 1, 0xFF, 3]))
        #expect(!isMapRange(last, [0, 1, 0, 2, 2]))
    }

    private func mapKey(_ map: Int, _ user: Int?) -> [UInt8] {
        var key: [UInt8] = [0, UInt8(map % 3), 0, 2]
        // Keys of one byte, of several, and of so many that the size takes two.
        let name = [UInt8](repeating: UInt8(map), count: [1, 5, 200][map % 3])
        if name.count < 128 { key.append(UInt8(name.count)) } else { key += [UInt8(name.count & 0x7F | 0x80), 1] }
        key += name + [1, 0x6E]
        if let user { key += [UInt8(user), 7] }
        return key
    }

    private func mayContain(_ table: TableReader, _ prefix: [UInt8]) throws -> Bool {
        try prefix.withUnsafeBytes { start in
            try successor(prefix).withUnsafeBytes { end in
                let range = try #require(MapRange(from: start, to: end))
                return try table.mayContain(range)
            }
        }
    }

    private func isMapRange(_ start: [UInt8], _ end: [UInt8]) -> Bool {
        start.withUnsafeBytes { start in end.withUnsafeBytes { MapRange(from: start, to: $0) != nil } }
    }

    private func successor(_ key: [UInt8]) -> [UInt8] {
        var next = key
        while next.last == 0xFF { next.removeLast() }
        next[next.count - 1] += 1
        return next
    }
}
