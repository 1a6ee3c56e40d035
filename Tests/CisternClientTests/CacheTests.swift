import CisternClient
import CisternPrimitives
import Testing

@Suite struct ValueCacheTests {
    @Test func hitsAreExactAndTheBudgetHolds() {
        var random = SeededRandom(seed: testSeed())
        var cache = ValueCache(capacityBytes: 20_000)
        var truth: [[UInt8]: [UInt8]?] = [:]
        var hits = 0
        for _ in 0..<30_000 {
            let key = [UInt8](
                repeating: UInt8.random(in: 0...255, using: &random), count: .random(in: 1...3, using: &random))
            let hash = Hash64.hash(key)
            switch Int.random(in: 0..<10, using: &random) {
            case 0...3:
                let value = (0..<Int.random(in: 0...60, using: &random)).map { _ in
                    UInt8.random(in: 0...9, using: &random)
                }
                cache.set(key[...], hash: hash, value: value[...], expiry: .never)
                truth[key] = .some(value)
            case 4:
                cache.setAbsent(key, hash: hash)
                truth[key] = .some(nil)
            case 5:
                cache.remove(key, hash: hash)
                truth[key] = nil
            case 6:
                let isCached = cache.get(key, hash: hash) != nil
                cache.append(key, hash: hash, operand: [7, 7], expiry: .never)
                if isCached, let old = truth[key] {
                    truth[key] = .some((old ?? []) + [7, 7])
                } else {
                    truth[key] = nil
                }
            default:
                switch cache.get(key, hash: hash) {
                case .value(let value, _):
                    hits += 1
                    #expect(truth[key] == .some(Array(value)))
                case .absent: #expect(truth[key] == .some(nil))
                case nil: break
                }
            }
            #expect(cache.byteCount <= cache.capacityBytes)
        }
        #expect(hits > 500)
    }

    @Test func entriesThatAreReadOutliveEntriesThatAreNot() {
        var cache = ValueCache(capacityBytes: 100 * (ValueCache.nodeOverheadBytes + 12))
        func key(_ number: Int) -> [UInt8] { withUnsafeBytes(of: UInt64(number)) { Array($0) } }
        for number in 0..<50 {
            cache.set(key(number)[...], hash: Hash64.hash(key(number)), value: [1, 2, 3, 4], expiry: .never)
        }
        for round in 0..<200 {
            for number in 0..<50 { _ = cache.get(key(number), hash: Hash64.hash(key(number))) }
            for scan in 0..<20 {
                let once = key(1000 + round * 20 + scan)
                cache.set(once[...], hash: Hash64.hash(once), value: [1, 2, 3, 4], expiry: .never)
            }
        }
        let kept = (0..<50).filter { cache.get(key($0), hash: Hash64.hash(key($0))) != nil }.count
        #expect(kept == 50)
    }

    @Test func aValueAsLargeAsTheCacheIsNotKeptAndEvictsNobody() {
        var cache = ValueCache(capacityBytes: 4000)
        cache.set([1], hash: 1, value: [1], expiry: .never)
        cache.set([2], hash: 2, value: [UInt8](repeating: 0, count: 3900)[...], expiry: .never)
        #expect(cache.get([2], hash: 2) == nil)
        #expect(cache.get([1], hash: 1) != nil)
        cache.set([1], hash: 1, value: [UInt8](repeating: 0, count: 3900)[...], expiry: .never)
        #expect(cache.get([1], hash: 1) == nil)
        #expect(cache.count == 0 && cache.byteCount == 0)
    }
}

@Suite struct WriteTableTests {
    @Test func foldsAsTheEngineDoesAndSealsSortedAndUnique() {
        var random = SeededRandom(seed: testSeed())
        let table = WriteTable(entriesExpected: 4)
        for _ in 0..<20 {
            table.removeAll()
            var truth: [[UInt8]: (kind: EntryKind, value: [UInt8], expiry: UInt64)] = [:]
            for step in 0..<Int.random(in: 1...600, using: &random) {
                let key = (0..<Int.random(in: 1...24, using: &random)).map { _ in
                    UInt8.random(in: 0...1, using: &random)
                }
                let kind: EntryKind = [.put, .delete, .append, .append].randomElement(using: &random)!
                let value = (0..<Int.random(in: 0...30, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
                let expiry = UInt64(step % 3)
                let known = truth[key] != nil
                let absorbed = table.apply(
                    kind, stateID: 1, key: key, hash: Hash64.hash(key), value: value, expiry: Expiry(rawValue: expiry))
                #expect(absorbed == known)
                switch (kind, truth[key]) {
                case (.put, _): truth[key] = (.put, value, expiry)
                case (.delete, _): truth[key] = (.delete, [], expiry)
                case (.append, nil): truth[key] = (.append, value, expiry)
                case (.append, let old?) where old.kind == .delete: truth[key] = (.put, value, expiry)
                case (.append, let old?): truth[key] = (old.kind, old.value + value, expiry)
                }
            }
            let expected = truth.keys.sorted { $0.lexicographicallyPrecedes($1) }
            #expect(
                table.byteCount
                    == truth.reduce(0) { $0 + $1.key.count + $1.value.value.count + WriteTable.entryOverheadBytes })
            let batch = table.seal { _, bytes, output in output.append(contentsOf: bytes) }
            #expect(batch.count == expected.count)
            for (index, key) in expected.enumerated() {
                let entry = truth[key]!
                #expect(Array(batch.key(index)) == key)
                #expect(batch.kind(index) == entry.kind)
                #expect(Array(batch.value(index)) == entry.value)
                #expect(batch.expiry(index).rawValue == entry.expiry)
            }
        }
    }

    @Test func manySmallAdditionsToManyListsStayCheap() {
        let table = WriteTable()
        for _ in 0..<2000 {
            for list in 0..<5 {
                table.apply(
                    .append, stateID: 1, key: [UInt8(list)], hash: UInt64(list), value: [1, 2, 3, 4], expiry: .never)
            }
        }
        let index = table.find([3], hash: 3)!
        #expect(table.value(at: index).count == 8000)
    }
}

@Suite struct FlushPolicyTests {
    @Test func theFirstBoundThatIsReachedDecides() {
        let policy = FlushPolicy(bytesMax: 100, entriesMax: 10, ageMaxNanoseconds: 1000)
        for bytes in [0, 99, 100, 101] {
            for entries in [0, 1, 9, 10] {
                for age in [UInt64(0), 999, 1000] {
                    for arena in [0, policy.arenaBytesMax - 1, policy.arenaBytesMax] {
                        let reason = policy.reason(
                            bytes: bytes, entries: entries, arenaBytes: arena, ageNanoseconds: age)
                        let expected: FlushPolicy.Reason? =
                            entries == 0
                            ? nil
                            : bytes >= 100
                                ? .bytes
                                : entries >= 10
                                    ? .entries : arena >= policy.arenaBytesMax ? .memory : age >= 1000 ? .age : nil
                        #expect(reason == expected)
                    }
                }
            }
        }
    }
}
