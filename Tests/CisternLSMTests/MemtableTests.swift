import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct MemtableTests {
    @Test func agreesWithADictionaryUnderRandomOperations() {
        var random = seededRandom("memtable model", default: 20_261_123)
        for round in 0..<8 {
            let table = Memtable(budgetBytes: round % 2 == 0 ? 1 << 10 : 1 << 20, pool: MemoryPool())
            var model: [[UInt8]: OwnedEntry] = [:]
            for _ in 0..<3000 {
                let entry = randomEntry(&random, spread: 400, valueMax: round == 0 ? 4000 : 40)
                entry.withView { table.apply($0) }
                model[entry.key] = folded(model[entry.key], entry)
            }
            #expect(table.entryCount == model.count)
            for (key, expected) in model { #expect(get(table, key) == expected) }
            for _ in 0..<500 {
                let key = randomKey(&random, spread: 1200)
                #expect(get(table, key) == model[key])
            }
            let sorted = model.values.sorted { precedes($0.key, $1.key) }
            let drained = try! EntryCursor.memtable(table.cursor()).drain()
            #expect(drained == sorted)
            for _ in 0..<200 {
                let key = randomKey(&random, spread: 1200)
                let cursor = table.cursor()
                let found = key.withUnsafeBytes { cursor.seek(to: $0) } ? OwnedEntry(cursor.entry) : nil
                #expect(found == sorted.first { !precedes($0.key, key) })
            }
        }
    }

    @Test func everyNodeSizeHoldsItsKeysInOrder() throws {
        for fanOut in [1, 3, 4, 5, 15, 16, 17, 47, 48, 49, 255, 256] {
            let table = Memtable(budgetBytes: 1 << 20, pool: MemoryPool())
            let bytes = (0..<fanOut).map { UInt8($0 * 256 / fanOut) }
            for byte in bytes.reversed() { OwnedEntry([0, 0, 7, byte], .put, [byte]).withView { table.apply($0) } }
            OwnedEntry([0, 0, 7], .put, [99]).withView { table.apply($0) }
            let drained = try EntryCursor.memtable(table.cursor()).drain()
            #expect(drained.map(\.key) == [[0, 0, 7]] + bytes.map { [0, 0, 7, $0] })
            for byte in 0...255 {
                let key: [UInt8] = [0, 0, 7, UInt8(byte)]
                #expect((get(table, key) != nil) == bytes.contains(UInt8(byte)))
                let rest = try EntryCursor.memtable(table.cursor()).drain(from: key)
                #expect(rest.count == bytes.filter { $0 >= UInt8(byte) }.count)
            }
        }
    }

    @Test func keysThatArePrefixesOfKeysAndLongSharedPrefixesAreKept() throws {
        let table = Memtable(budgetBytes: 1 << 20, pool: MemoryPool())
        let long = [UInt8](repeating: 0xAB, count: 30_000)
        var keys: [[UInt8]] = []
        for count in [0, 1, 2, 15, 16, 17, 18, 31, 32, 33, 100, 29_999, 30_000] {
            keys.append([0, 1] + long[..<count])
            keys.append([0, 1] + long[..<count] + [1])
        }
        for (number, key) in keys.enumerated() { OwnedEntry(key, .put, [UInt8(number)]).withView { table.apply($0) } }
        for (number, key) in keys.enumerated() { #expect(get(table, key)?.value == [UInt8(number)]) }
        for count in [3, 14, 50, 20_000] { #expect(get(table, [0, 1] + long[..<count]) == nil) }
        let drained = try EntryCursor.memtable(table.cursor()).drain()
        #expect(drained.map(\.key) == keys.sorted(by: precedes))
    }

    @Test func aValueThatFitsIsOverwrittenWithoutTakingMemory() {
        let table = Memtable(budgetBytes: 1 << 20, pool: MemoryPool())
        OwnedEntry([0, 0, 1], .put, [UInt8](repeating: 1, count: 100)).withView { table.apply($0) }
        let before = table.byteCount
        for number in 0..<1000 {
            OwnedEntry([0, 0, 1], .put, [UInt8](repeating: UInt8(number & 0xFF), count: number % 101)).withView {
                table.apply($0)
            }
        }
        OwnedEntry([0, 0, 1], .delete, [1, 2, 3], expiry: .processingTime(milliseconds: 5)).withView { table.apply($0) }
        #expect(table.byteCount == before)
        #expect(get(table, [0, 0, 1]) == OwnedEntry([0, 0, 1], .delete))
    }

    @Test func appendsCopyNothingAndLeaveLittleUnused() throws {
        for operandBytes in [4, 40, 5000] {
            let table = Memtable(budgetBytes: 64 << 20, pool: MemoryPool(), pointStates: PointStates([1]))
            let keys: [[UInt8]] = [[0, 0, 0, 1, 7], [0, 0, 0, 2, 7]]
            var expected: [UInt8] = []
            for number in 0..<2000 {
                let operand = (0..<operandBytes).map { UInt8(truncatingIfNeeded: $0 &+ number) }
                for key in keys { OwnedEntry(key, .append, operand).withView { table.apply($0) } }
                expected += operand
            }
            for key in keys { #expect(get(table, key) == OwnedEntry(key, .append, expected)) }
            #expect(try EntryCursor.memtable(table.cursor()).drain().map(\.value) == [expected, expected])
            #expect(table.byteCount < keys.count * expected.count * 3 / 2 + (1 << 20))
            // A put ends the list where it is, and another begins behind it.
            for key in keys {
                OwnedEntry(key, .put, [1, 2]).withView { table.apply($0) }
                OwnedEntry(key, .append, expected).withView { table.apply($0) }
                OwnedEntry(key, .append, [3], expiry: .processingTime(milliseconds: 9)).withView { table.apply($0) }
                #expect(get(table, key)?.value == [1, 2] + expected + [3])
                OwnedEntry(key, .delete).withView { table.apply($0) }
                #expect(get(table, key) == OwnedEntry(key, .delete))
                OwnedEntry(key, .append, [5]).withView { table.apply($0) }
                #expect(get(table, key) == OwnedEntry(key, .put, [5]))
            }
        }
    }

    @Test func aValueLargerThanAChunkIsHeld() {
        let table = Memtable(budgetBytes: 1 << 20, pool: MemoryPool())
        let large = (0..<(3 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        OwnedEntry([0, 0, 1], .put, [1]).withView { table.apply($0) }
        OwnedEntry([0, 0, 2], .put, large).withView { table.apply($0) }
        OwnedEntry([0, 0, 3], .put, [3]).withView { table.apply($0) }
        #expect(get(table, [0, 0, 2])?.value == large)
        #expect(get(table, [0, 0, 1])?.value == [1])
        #expect(get(table, [0, 0, 3])?.value == [3])
        #expect(table.byteCount > 3 << 20)
        #expect(table.isFull)
    }

    @Test func aSealedMemtableIsReadFromManyThreads() async throws {
        let table = Memtable(budgetBytes: 1 << 20, pool: MemoryPool())
        for number in 0..<2000 {
            OwnedEntry([0, 0] + Array("k\(number)".utf8), .put, [1]).withView { table.apply($0) }
        }
        table.seal()
        try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<4 { group.addTask { try EntryCursor.memtable(table.cursor()).drain().count } }
            for try await count in group { #expect(count == 2000) }
        }
    }

    @Test func writingToASealedMemtableTraps() async {
        await #expect(processExitsWith: .failure) {
            let table = Memtable(budgetBytes: 1 << 16, pool: MemoryPool())
            table.seal()
            OwnedEntry([0, 0], .put, []).withView { table.apply($0) }
        }
    }

    private func get(_ table: Memtable, _ key: [UInt8]) -> OwnedEntry? {
        key.withUnsafeBytes { table.get($0).map { OwnedEntry($0) } }
    }

    /// The folding rule of one memtable slot.
    private func folded(_ old: OwnedEntry?, _ new: OwnedEntry) -> OwnedEntry {
        guard new.kind == .append, let old else { return new }
        switch old.kind {
        case .delete: return OwnedEntry(new.key, .put, new.value, expiry: new.expiry)
        case .put, .append: return OwnedEntry(new.key, old.kind, old.value + new.value, expiry: new.expiry)
        }
    }
}
