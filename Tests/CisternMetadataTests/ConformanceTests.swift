// What every metadata store must do.

import CisternMetadata
import CisternTestKit
import Testing

@Suite struct ConformanceTests {
    @Test(arguments: StoreKind.available)
    func aKeyIsCreatedReadSwappedAndDeletedByItsVersion(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let (store, key) = (subject.store, subject.key("a"))
            #expect(try await store.get(key) == nil)
            #expect(await reason { _ = try await store.compareAndSwap(key, expected: 1, new: []) } == .missing)
            #expect(await reason { try await store.delete(key, expected: 1) } == .missing)

            let first = try await store.create(key, [1, 2])
            #expect(first > 0)
            #expect(
                try await store.get(key) == MetadataEntry(key: key, value: [1, 2], version: first, lease: nil))
            #expect(await reason { _ = try await store.create(key, [3]) } == .exists(version: first))

            let second = try await store.compareAndSwap(key, expected: first, new: [])
            #expect(second > first)
            let stale = MetadataError.Reason.conflict(expected: first, found: second)
            #expect(await reason { _ = try await store.compareAndSwap(key, expected: first, new: [4]) } == stale)
            #expect(await reason { try await store.delete(key, expected: first) } == stale)
            #expect(try await store.get(key)?.value == [])

            try await store.delete(key, expected: second)
            #expect(try await store.get(key) == nil)
            let third = try await store.create(key, [5])
            #expect(third > second + 1, "the delete has a version too")
        }
    }

    @Test(arguments: StoreKind.available)
    func eachVersionHasOneWinnerOfManyThatSwapIt(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let (store, key) = (subject.store, subject.key("counter"))
            let tasks = 8
            let rounds = 12
            let created = try await store.create(key, [0])
            let wins = try await withThrowingTaskGroup(of: [(UInt64, UInt64)].self) { group in
                for _ in 0..<tasks {
                    group.addTask {
                        var mine: [(UInt64, UInt64)] = []
                        while mine.count < rounds {
                            let found = try #require(try await store.get(key))
                            do throws(MetadataError) {
                                let version = try await store.compareAndSwap(
                                    key, expected: found.version, new: [found.value[0] + 1])
                                mine.append((found.version, version))
                            } catch {
                                guard case .conflict(found.version, let other) = error.reason else { throw error }
                                #expect(other > found.version)
                            }
                        }
                        return mine
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            // Each win expects the version that the win before it has written.
            let chain = wins.sorted { $0.0 < $1.0 }
            #expect(chain.map(\.0) == [created] + chain.dropLast().map(\.1))
            #expect(try await store.get(key)?.value == [UInt8(tasks * rounds)])
        }
    }

    @Test(arguments: StoreKind.available)
    func oneOfManyCreatesTheKey(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let (store, key) = (subject.store, subject.key("leader"))
            let winners = await withTaskGroup(of: UInt8?.self) { group in
                for number in UInt8(0)..<16 {
                    group.addTask {
                        do throws(MetadataError) {
                            _ = try await store.create(key, [number])
                            return number
                        } catch {
                            guard case .exists = error.reason else { return .max }
                            return nil
                        }
                    }
                }
                return await group.reduce(into: [UInt8]()) { if let number = $1 { $0.append(number) } }
            }
            #expect(winners.count == 1)
            let stored = try await store.get(key)?.value
            #expect(stored == winners)
        }
    }

    @Test(arguments: StoreKind.available)
    func aPrefixIsListedInOrderPageByPage(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            // Neighbours in the order of keys that the prefix must leave out.
            for name in ["n", "n.", "n0", "o", "m/z"] { _ = try await store.create(subject.key(name), []) }
            let names = (0..<25).map { "n/\($0 < 10 ? "0" : "")\($0)" }
            for name in names.shuffled() { _ = try await store.create(subject.key(name), Array(name.utf8)) }
            var seen: [MetadataEntry] = []
            var after: String?
            repeat {
                let page = try await store.list(prefix: subject.key("n/"), after: after, limit: 10)
                #expect(page.entries.count <= 10)
                #expect(page.version >= (page.entries.map(\.version).max() ?? 0))
                seen += page.entries
                after = page.next
            } while after != nil
            #expect(seen.map(\.key) == names.map { subject.key($0) })
            #expect(seen.map(\.value) == names.map { Array($0.utf8) })
            let rest = try await store.list(prefix: subject.key("n/"), after: subject.key("n/22"), limit: 10)
            #expect(rest.entries.map(\.key) == ["n/23", "n/24"].map { subject.key($0) } && rest.next == nil)
            let none = try await store.list(prefix: subject.key("x/"), after: nil, limit: 1)
            #expect(none.entries.isEmpty && none.next == nil)
        }
    }

    @Test(arguments: StoreKind.available)
    func limitsAreRefusedByNameAndTheLargestValueIsTaken(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            func isLimit(_ found: MetadataError.Reason?) -> Bool { if case .limit = found { true } else { false } }
            let long = String(repeating: "k", count: 513)
            for key in ["", long, "a b", "ä"] {
                #expect(isLimit(await reason { _ = try await store.create(key, []) }), "\(key)")
                #expect(isLimit(await reason { _ = try await store.get(key) }), "\(key)")
            }
            #expect(isLimit(await reason { _ = try await store.list(prefix: "", after: nil, limit: 0) }))
            #expect(isLimit(await reason { _ = try await store.acquireLease(milliseconds: 0) }))
            let value = (0..<MetadataLimits.valueBytesMax).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            #expect(isLimit(await reason { _ = try await store.create(subject.key("v"), value + [0]) }))
            let longest = subject.root + String(repeating: "k", count: 512 - subject.root.utf8.count)
            for key in [longest, subject.key("v1"), subject.key("v2"), subject.key("v3"), subject.key("v4")] {
                let version = try await store.create(key, value)
                #expect(try await store.get(key) == MetadataEntry(key: key, value: value, version: version, lease: nil))
            }
            var count = 0
            var after: String?
            repeat {
                let page = try await store.list(prefix: subject.root, after: after, limit: 1_000)
                count += page.entries.count
                after = page.next
            } while after != nil
            #expect(count == 5)
        }
    }

    // MARK: Watches

    @Test(arguments: StoreKind.available)
    func aWatchSeesEveryVersionOnceAndInOrder(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            let before = try await store.create(subject.key("other"), [])
            let (writers, rounds) = (4, 12)
            async let written = withThrowingTaskGroup(of: [UInt64: MetadataChange].self) { group in
                for writer in 0..<writers {
                    group.addTask {
                        let key = subject.key("w/\(writer)")
                        var mine: [UInt64: MetadataChange] = [:]
                        var version = try await store.create(key, [0])
                        mine[version] = MetadataChange(key: key, value: [0])
                        for round in UInt8(1)..<UInt8(rounds) {
                            version = try await store.compareAndSwap(key, expected: version, new: [round])
                            mine[version] = MetadataChange(key: key, value: [round])
                        }
                        return mine
                    }
                }
                return try await group.reduce(into: [:]) { $0.merge($1) { first, _ in first } }
            }
            var seen: [MetadataChangeSet] = []
            for try await change in store.watch(prefix: subject.key("w/"), from: before + 1) {
                seen.append(change)
                if seen.count == writers * rounds { break }
            }
            let expected = try await written.sorted { $0.key < $1.key }
            #expect(seen == expected.map { MetadataChangeSet(version: $0.key, changes: [$0.value]) })
            // From the middle of the past.
            var later: [MetadataChangeSet] = []
            for try await change in store.watch(prefix: subject.key("w/"), from: seen[20].version) {
                later.append(change)
                if later.count == seen.count - 20 { break }
            }
            #expect(later == Array(seen[20...]))
        }
    }

    @Test(arguments: StoreKind.available)
    func aWatchSeesDeletesAndNotItsNeighbours(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            let first = try await store.create(subject.key("n/1"), [1])
            let other = try await store.create(subject.key("n0"), [1])
            try await store.delete(subject.key("n0"), expected: other)
            try await store.delete(subject.key("n/1"), expected: first)
            var iterator = store.watch(prefix: subject.key("n/"), from: first).makeAsyncIterator()
            let created = try await iterator.next()
            #expect(created?.changes == [MetadataChange(key: subject.key("n/1"), value: [1])])
            let deleted = try await iterator.next()
            #expect(deleted?.changes == [MetadataChange(key: subject.key("n/1"), value: nil)])
            #expect(deleted?.version == first + 3)
        }
    }

    @Test(arguments: StoreKind.available)
    func aWatchOfWhatIsNotKeptReportsTheCompaction(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            // The last change is a delete, of which a compaction leaves nothing.
            try await store.delete(subject.key("a"), expected: try await store.create(subject.key("a"), [1]))
            let first = try await store.list(prefix: subject.root, after: nil, limit: 1).version
            try await subject.dropHistory()
            var iterator = store.watch(prefix: subject.root, from: first).makeAsyncIterator()
            let found = await reason { _ = try await iterator.next() }
            guard case .compacted(let oldest) = found else {
                Issue.record("found \(String(describing: found))")
                return
            }
            #expect(oldest > first)
            let next = try await store.create(subject.key("b"), [2])
            // A store that keeps a number of changes has lost one more to this one.
            iterator = store.watch(prefix: subject.root, from: next).makeAsyncIterator()
            #expect(try await iterator.next()?.version == next)
        }
    }

    @Test(arguments: StoreKind.available)
    func aCancelledWatchEnds(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            let first = try await store.create(subject.key("a"), [1])
            let (begun, begin) = AsyncStream.makeStream(of: Void.self)
            let watching = Task {
                var count = 0
                for try await _ in store.watch(prefix: subject.root, from: first) {
                    count += 1
                    begin.yield()
                }
                return count
            }
            for await _ in begun { break }
            watching.cancel()
            #expect(try await watching.value == 1)
        }
    }

    // MARK: Leases

    @Test(arguments: StoreKind.available)
    func aLeaseThatIsOverTakesItsKeysWithIt(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            let lease = try await store.acquireLease(milliseconds: 1_000)
            #expect(lease.milliseconds >= 1_000)
            try await store.keepAlive(lease.id)
            let names = ["n/1", "n/2"].map { subject.key($0) }
            let first = try await store.create(names[0], [1], lease: lease.id)
            _ = try await store.create(names[1], [2], lease: lease.id)
            // A swap keeps the lease.
            let last = try await store.compareAndSwap(names[0], expected: first, new: [3])
            _ = try await store.create(subject.key("n/3"), [3])
            #expect(try await store.get(names[0])?.lease == lease.id)
            await subject.letPass(lease.milliseconds)
            var gone: Set<String> = []
            for try await change in store.watch(prefix: subject.key("n/"), from: last + 1) {
                gone.formUnion(change.changes.filter { $0.value == nil }.map(\.key))
                if gone.count == names.count { break }
            }
            #expect(gone == Set(names))
            for name in names { #expect(try await store.get(name) == nil) }
            #expect(try await store.get(subject.key("n/3"))?.value == [3])
            #expect(await reason { try await store.keepAlive(lease.id) } == .leaseEnded(lease.id))
            #expect(
                await reason { _ = try await store.create(names[0], [1], lease: lease.id) } == .leaseEnded(lease.id))
        }
    }

    @Test(arguments: StoreKind.available)
    func aReleasedLeaseTakesItsKeysWithItAtOnce(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let store = subject.store
            let lease = try await store.acquireLease(milliseconds: 60_000)
            let other = try await store.acquireLease(milliseconds: 60_000)
            #expect(lease.id != other.id)
            _ = try await store.create(subject.key("a"), [1], lease: lease.id)
            _ = try await store.create(subject.key("b"), [1], lease: other.id)
            try await store.release(lease.id)
            #expect(try await store.get(subject.key("a")) == nil)
            #expect(try await store.get(subject.key("b")) != nil)
            try await store.release(lease.id)
            #expect(await reason { try await store.keepAlive(lease.id) } == .leaseEnded(lease.id))
            try await store.release(other.id)
        }
    }

    @Test(arguments: StoreKind.available)
    func aKeyThatWasDeletedAndMadeAgainIsNotTheLeasesAnyMore(kind: StoreKind) async throws {
        try await StoreSubject.with(kind) { subject in
            let (store, key) = (subject.store, subject.key("a"))
            let lease = try await store.acquireLease(milliseconds: 60_000)
            let version = try await store.create(key, [1], lease: lease.id)
            try await store.delete(key, expected: version)
            _ = try await store.create(key, [2])
            try await store.release(lease.id)
            #expect(try await store.get(key)?.value == [2])
        }
    }
}
