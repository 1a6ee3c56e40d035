// Memtables with point states: the hash index beside the radix tree, and the order that is made on demand.

import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct PointMemtableTests {
    private static let pointState: UInt16 = 2
    private static let highPointState: UInt16 = 700

    private func makeTable(_ budget: Int, _ pool: MemoryPool = MemoryPool()) -> Memtable {
        Memtable(
            budgetBytes: budget, pool: pool,
            pointStates: PointStates([PointMemtableTests.pointState, PointMemtableTests.highPointState]))
    }

    private func stateKey(_ group: UInt16, _ state: UInt16, _ rest: [UInt8]) -> [UInt8] {
        [UInt8(group >> 8), UInt8(group & 0xFF), UInt8(state >> 8), UInt8(state & 0xFF)] + rest
    }

    /// Keys of point states, of others, too short for a state, prefixes of each other, with zeros at their ends.
    private func randomKey(_ random: inout SeededRandom, spread: Int) -> [UInt8] {
        let group = UInt16.random(in: 0..<3, using: &random)
        let number = Int.random(in: 0..<spread, using: &random)
        let state = [1, PointMemtableTests.pointState, PointMemtableTests.highPointState, 3].randomElement(
            using: &random)!
        switch Int.random(in: 0..<20, using: &random) {
        case 0: return [0, UInt8(group), UInt8(number & 1)]
        case 1: return stateKey(group, state, [UInt8](repeating: 0, count: number % 20))
        case 2...6: return stateKey(group, state, [UInt8](repeating: 0x61, count: 30) + Array(String(number).utf8))
        case 7...9: return stateKey(group, state, [UInt8(number & 0xFF), UInt8(number >> 8)])
        default: return stateKey(group, state, Array(String(number).utf8))
        }
    }

    private func isPoint(_ key: [UInt8]) -> Bool {
        guard key.count >= 4 else { return false }
        return [PointMemtableTests.pointState, PointMemtableTests.highPointState].contains(
            UInt16(key[2]) << 8 | UInt16(key[3]))
    }

    private func folded(_ old: OwnedEntry?, _ new: OwnedEntry) -> OwnedEntry {
        guard new.kind == .append, let old else { return new }
        switch old.kind {
        case .delete: return OwnedEntry(new.key, .put, new.value, expiry: new.expiry)
        case .put, .append: return OwnedEntry(new.key, old.kind, old.value + new.value, expiry: new.expiry)
        }
    }

    private func randomEntry(_ key: [UInt8], _ random: inout SeededRandom, valueMax: Int) -> OwnedEntry {
        let kind = [EntryKind.put, .put, .append, .delete].randomElement(using: &random)!
        let size = kind == .delete ? 0 : Int.random(in: 0...valueMax, using: &random)
        let value = (0..<size).map { _ in UInt8.random(in: 0...255, using: &random) }
        return OwnedEntry(key, kind, value, expiry: kind == .delete ? .never : Expiry(rawValue: random.next() % 9))
    }

    private func get(_ table: Memtable, _ key: [UInt8]) -> OwnedEntry? {
        key.withUnsafeBytes { table.get($0).map { OwnedEntry($0) } }
    }

    @Test func agreesWithADictionaryUnderRandomOperationsAndScans() throws {
        var random = seededRandom("point memtable model", default: 20_261_125)
        for round in 0..<8 {
            let table = makeTable(round % 2 == 0 ? 1 << 10 : 4 << 20)
            var model: [[UInt8]: OwnedEntry] = [:]
            let spread = round < 4 ? 300 : 20_000
            for step in 0..<12_000 {
                let key = randomKey(&random, spread: spread)
                let entry = randomEntry(key, &random, valueMax: round == 0 ? 900 : 30)
                entry.withView { table.apply($0) }
                model[key] = folded(model[key], entry)
                // A list sorted before must not be shown again after a change.
                if step % 3000 == 1500 {
                    #expect(try EntryCursor.memtable(table.cursor()).drain().count == model.count)
                }
            }
            #expect(table.entryCount == model.count)
            for (key, expected) in model { #expect(get(table, key) == expected) }
            for _ in 0..<500 {
                let key = randomKey(&random, spread: spread * 3)
                #expect(get(table, key) == model[key])
            }
            let sorted = model.values.sorted { precedes($0.key, $1.key) }
            #expect(try EntryCursor.memtable(table.cursor()).drain() == sorted)
            let bounds = (0..<30).map { _ in randomKey(&random, spread: spread) }
            for start in bounds {
                let cursor = table.cursor()
                let found = start.withUnsafeBytes { cursor.seek(to: $0) } ? OwnedEntry(cursor.entry) : nil
                #expect(found == sorted.first { !precedes($0.key, start) })
                for end in bounds.prefix(8) + [stateEnd(start)] where precedes(start, end) {
                    let inside = try EntryCursor.memtable(table.cursor(from: start, to: end)).drain(from: start)
                        .prefix { precedes($0.key, end) }
                    #expect(Array(inside) == sorted.filter { !precedes($0.key, start) && precedes($0.key, end) })
                }
            }
            if round % 3 == 0 { table.seal() }
        }
    }

    /// The first key behind all of the state that `key` is of.
    private func stateEnd(_ key: [UInt8]) -> [UInt8] {
        guard key.count >= 4 else { return [255] }
        let next = key[..<4].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } + 1
        return (0..<4).map { UInt8(next >> UInt32(24 - 8 * $0) & 0xFF) }
    }

    @Test func aBatchIsAppliedInItsOrder() {
        var random = seededRandom("point memtable batches", default: 7)
        let table = makeTable(1 << 20)
        var model: [[UInt8]: OwnedEntry] = [:]
        for size in [0, 1, 2, 15, 16, 17, 100, 1000] {
            let entries = (0..<size).map { _ in
                randomEntry(randomKey(&random, spread: 40), &random, valueMax: 30)
            }
            let batch = OwnedBatch(
                entries.map { CisternTestKit.OwnedEntry($0.key, $0.kind, $0.value, expiry: $0.expiry) })
            batch.withColumns { table.apply($0) }
            for entry in entries { model[entry.key] = folded(model[entry.key], entry) }
        }
        for (key, expected) in model { #expect(get(table, key) == expected) }
        #expect(table.entryCount == model.count)
    }

    /// What a restore does: nothing lies below, so the dead need not be here.
    @Test func entriesOfAWindowAreAppliedAndTheDeadLeftOut() throws {
        var random = seededRandom("point memtable window", default: 20_261_126)
        for round in 0..<6 {
            let table = makeTable(4 << 20)
            let clock = ExpiryClock(processing: 4, event: 0)
            let window = KeyGroupRange(first: UInt16(round % 2), last: UInt16(1 + round % 2))
            var model: [[UInt8]: OwnedEntry] = [:]
            let spread = [40, 300, 20_000][round % 3]
            for size in [1, 15, 17, 400, 3000, 9000, 9000] {
                var entries = (0..<size).map { _ in
                    randomEntry(randomKey(&random, spread: spread), &random, valueMax: 30)
                }
                if round < 3 { entries.sort { precedes($0.key, $1.key) } }
                let batch = OwnedBatch(
                    entries.map { CisternTestKit.OwnedEntry($0.key, $0.kind, $0.value, expiry: $0.expiry) })
                batch.withColumns { table.apply($0, within: window, leavingOut: clock) }
                for entry in entries where window.contains(UInt16(entry.key[0]) << 8 | UInt16(entry.key[1])) {
                    let isDead = entry.kind == .delete || entry.kind == .put && clock.isExpired(entry.expiry)
                    // Point keys that die are gone; ordered ones that are there become deletes.
                    let dead = isPoint(entry.key) ? nil : model[entry.key].map { OwnedEntry($0.key, .delete, []) }
                    model[entry.key] = isDead ? dead : folded(model[entry.key], entry)
                }
                // Sorted in between: a key that is forgotten must not be shown again.
                _ = try EntryCursor.memtable(table.cursor()).drain()
            }
            for (key, expected) in model { #expect(get(table, key) == expected) }
            let left = try EntryCursor.memtable(table.cursor()).drain()
            #expect(left.map(\.key) == model.keys.sorted { precedes($0, $1) })
            #expect(left.allSatisfy { $0.kind != .delete || !isPoint($0.key) })
            #expect(table.entryCount == model.count)
        }
    }

    @Test func aHundredThousandKeysAreFoundAndSorted() throws {
        let table = makeTable(64 << 20)
        var random = seededRandom("many point keys", default: 11)
        var keys: Set<[UInt8]> = []
        while keys.count < 100_000 {
            let number = random.next()
            let tail = (0..<8).map { UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) }
            keys.insert(stateKey(UInt16(number % 128), PointMemtableTests.pointState, tail))
        }
        for key in keys { OwnedEntry(key, .put, Array(key.reversed())).withView { table.apply($0) } }
        table.seal()
        #expect(table.entryCount == keys.count)
        #expect(keys.allSatisfy { get(table, $0)?.value == Array($0.reversed()) })
        let drained = try EntryCursor.memtable(table.cursor()).drain()
        #expect(drained.map(\.key) == keys.sorted(by: precedes))
    }

    /// The hash of a 16-byte key that begins with these bytes does not depend on the other eight: whoever sends such keys must
    /// not break anything.
    @Test func thousandsOfKeysWithTheSameHashAreKept() throws {
        let head: [UInt8] = [0x2F, 0x64, 0xBD, 0x78, 0x64, 0x1D, 0x76, 0xA0]
        func key(_ number: Int) -> [UInt8] { head + (0..<8).map { UInt8(number >> (8 * (7 - $0)) & 0xFF) } }
        #expect(Hash64.hash(key(1)) == Hash64.hash(key(2)))
        let table = Memtable(budgetBytes: 64 << 20, pool: MemoryPool(), pointStates: PointStates([0xBD78]))
        let count = 5000
        for round: UInt8 in 0..<2 {
            for number in 0..<count { OwnedEntry(key(number), .put, [round]).withView { table.apply($0) } }
            // Others that make segments split.
            for number in 0..<20_000 {
                OwnedEntry(stateKey(1, 0xBD78, Array(String(number).utf8)), .put, [round]).withView { table.apply($0) }
            }
        }
        #expect(table.entryCount == count + 20_000)
        #expect((0..<count).allSatisfy { get(table, key($0))?.value == [1] })
        #expect(get(table, key(count)) == nil)
        let drained = try EntryCursor.memtable(table.cursor(from: key(0), to: key(count))).drain(from: key(0))
        #expect(drained.prefix(count).map(\.key) == (0..<count).map(key))
    }

    @Test func keysWithLongSharedPrefixesAreSorted() throws {
        let table = makeTable(64 << 20)
        var keys: [[UInt8]] = []
        // Each step down shares eight bytes more, so that rounds nest as deep as they can.
        for length in 0..<300 {
            for branch in 0..<30 {
                let shared = [UInt8](repeating: 0x7A, count: length * 8)
                keys.append(stateKey(0, PointMemtableTests.pointState, shared + [0, UInt8(branch)]))
                keys.append(stateKey(0, PointMemtableTests.pointState, shared + [UInt8](repeating: 0, count: branch)))
            }
        }
        let distinct = Set(keys)
        for key in distinct.shuffled() { OwnedEntry(key, .put, [1]).withView { table.apply($0) } }
        let drained = try EntryCursor.memtable(table.cursor()).drain()
        #expect(drained.map(\.key) == distinct.sorted(by: precedes))
    }

    @Test func otherPointStatesAreTakenOnlyWhereNoEntryIsInTheWay() {
        let table = Memtable(budgetBytes: 1 << 20, pool: MemoryPool(), pointStates: PointStates([1]))
        #expect(table.adopt(PointStates([2])))
        OwnedEntry(stateKey(0, 3, [1]), .put, [1]).withView { table.apply($0) }
        OwnedEntry(stateKey(5, 4, [1]), .put, [1]).withView { table.apply($0) }
        OwnedEntry(stateKey(.max, 6, [1]), .put, [1]).withView { table.apply($0) }
        // New states, of which nothing is there.
        #expect(table.adopt(PointStates([1, 2, 5, 900])))
        for taken: UInt16 in [3, 4, 6] { #expect(!table.adopt(PointStates([1, 2, 5, 900, taken]))) }
        // A point state may have entries in the hash index.
        #expect(!table.adopt(PointStates([1, 2, 5])))
        #expect(table.adopt(PointStates([1, 2, 5, 900, .max])))
        for key in [stateKey(0, 3, [1]), stateKey(5, 4, [1]), stateKey(.max, 6, [1])] {
            #expect(get(table, key) != nil)
        }
    }

    @Test func anEmptyMemtableTakesNoMemoryAndASmallOneLittle() {
        let pool = MemoryPool()
        let tables = (0..<100).map { _ in makeTable(64 << 20, pool) }
        #expect(pool.usedBytes == 0)
        for table in tables {
            for state: UInt16 in [1, 2] { OwnedEntry(stateKey(0, state, [1]), .put, [1]).withView { table.apply($0) } }
        }
        #expect(pool.usedBytes <= 100 * 1024)
        #expect(tables.allSatisfy { $0.heldBytes <= 1024 })
    }

    @Test func memoryIsUsedAgain() {
        let pool = MemoryPool(retainedBytesMax: 64 << 20)
        for _ in 0..<4 {
            let table = makeTable(16 << 20, pool)
            var number = 0
            while !table.isFull {
                OwnedEntry(
                    stateKey(0, UInt16(1 + number % 2), Array(String(number).utf8)), .put,
                    [UInt8](repeating: 1, count: 900)
                ).withView { table.apply($0) }
                number += 1
            }
            #expect(table.byteCount <= table.heldBytes)
            #expect(table.heldBytes <= 20 << 20)
        }
        #expect(pool.usedBytes == 0)
        #expect(pool.retainedBytes <= 22 << 20)
        #expect(pool.retainedBytes >= 14 << 20)
    }

    @Test func slabsAreTouchedAheadOnTheLane() {
        let scheduler = SteppedScheduler(seed: 1)
        let pool = MemoryPool(retainedBytesMax: 64 << 20, lane: scheduler.makeLane())
        let table = makeTable(16 << 20, pool)
        func fill(_ byteCount: Int) {
            let start = table.byteCount
            while table.byteCount - start < byteCount {
                OwnedEntry(
                    stateKey(0, 1, Array(String(table.entryCount).utf8)), .put, [UInt8](repeating: 1, count: 900)
                ).withView { table.apply($0) }
            }
        }
        // A small memtable has nothing kept ready for it.
        fill(8 << 10)
        scheduler.runUntilIdle()
        #expect(pool.retainedBytes == 0)
        fill(100 << 10)
        scheduler.runUntilIdle()
        let ready = pool.retainedBytes
        #expect(ready >= 6 << 20 && ready <= 10 << 20)
        fill(3 << 20)
        #expect(pool.retainedBytes < ready)
        scheduler.runUntilIdle()
        #expect(pool.retainedBytes >= 6 << 20)
    }

    @Test func freeMemoryBeyondTheBoundGoesBack() {
        let pool = MemoryPool(retainedBytesMax: 4 << 20)
        var tables = (0..<4).map { _ in makeTable(16 << 20, pool) }
        for table in tables {
            OwnedEntry(stateKey(0, 1, [1]), .put, [UInt8](repeating: 1, count: 5 << 20)).withView { table.apply($0) }
        }
        #expect(pool.usedBytes >= 20 << 20)
        tables = []
        #expect(pool.usedBytes == 0)
        #expect(pool.retainedBytes <= 4 << 20)
        // Cold memory works like any other.
        let table = makeTable(16 << 20, pool)
        let value = (0..<(5 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        OwnedEntry(stateKey(0, 2, [1]), .put, value).withView { table.apply($0) }
        #expect(get(table, stateKey(0, 2, [1]))?.value == value)
    }
}
