import CisternFileSystem
import CisternLogNode
import CisternLogProtocol
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

@Suite struct LogNodeHostTests {
    @Test func whatIsAnsweredIsThereAfterAKill() throws {
        let node = NodeHarness()
        try node.start()
        for id in 0..<300 { #expect(node.add(Int64(id), body(Int64(id)), lac: Int64(id) - 1) == .some(nil)) }
        #expect(node.status.segments > 2, "several segments were written")
        node.run()
        node.kill()
        try node.start()
        #expect(node.host.damage.isEmpty)
        let reply = node.read(0, count: 301)
        #expect(reply?.answers == (0..<300).map { .present(body(Int64($0))) } + [.absent])
        #expect(reply?.lac == entry(298))
        #expect(node.add(300, body(300)) == .some(nil))
    }

    @Test func answersAreCutWhereTheyGetTooLong() throws {
        let node = NodeHarness()
        try node.start()
        for id in 0..<10 { _ = node.add(Int64(id), body(Int64(id))) }
        #expect(node.read(0, count: 10, bytesMax: 350)?.answers.count == 3)
        #expect(node.read(5, count: 10, bytesMax: 1)?.answers == [.present(body(5))])
    }

    @Test func fencesAndDeletesSurvive() throws {
        let node = NodeHarness()
        node.ledgers.withLock { $0 = [ledger, LedgerID(8)] }
        try node.start()
        _ = node.add(0, [1])
        _ = node.add(0, [2], in: LedgerID(8))
        #expect(node.fence()?.isFenced == true)
        #expect(node.add(1, [1]) == .some(.fenced))
        node.ledgers.withLock { _ = $0?.remove(LedgerID(8)) }
        node.collect()
        node.collect()
        node.kill()
        try node.start()
        #expect(node.add(1, [1]) == .some(.fenced))
        #expect(node.add(0, [2], in: LedgerID(8)) == .some(.deleted))
        #expect(node.read(0)?.answers == [.present([1])])
    }

    @Test func segmentsOfDeletedLedgersGoAndNothingElseDoes() throws {
        let node = NodeHarness()
        let others = (8...15).map { LedgerID(UInt64($0)) }
        node.ledgers.withLock { $0 = Set([ledger] + others) }
        try node.start()
        _ = node.add(0, body(0))
        for other in others {
            for id in 0..<200 { _ = node.add(Int64(id), body(Int64(id), in: other), in: other) }
        }
        let full = node.status.segments
        node.ledgers.withLock { $0 = [ledger, LedgerID(15)] }
        node.collect()
        node.collect()
        node.run()
        let left = node.status
        #expect(left.segments < full - 5, "\(full) -> \(left.segments)")
        #expect(left.journal.segmentsRemoved > 5)
        for _ in 0..<2 {
            #expect(node.read(0)?.answers == [.present(body(0))])
            let last = node.read(0, count: 200, in: LedgerID(15))
            #expect(last?.answers == (0..<200).map { .present(body(Int64($0), in: LedgerID(15))) })
            #expect(node.add(500, [1], in: LedgerID(9)) == .some(.deleted))
            node.kill()
            try node.start()
            #expect(node.host.damage.isEmpty)
        }
    }

    @Test func aSegmentThatIsNearlyEmptyIsRewritten() throws {
        let node = NodeHarness()
        node.rewriteBelow = 0.2
        let other = LedgerID(8)
        node.ledgers.withLock { $0 = [ledger, other] }
        try node.start()
        for id in 0..<10 { _ = node.add(Int64(id), body(Int64(id)), lac: Int64(id) - 1) }
        _ = node.fence()
        for id in 0..<400 { _ = node.add(Int64(id), body(Int64(id), in: other), in: other) }
        node.ledgers.withLock { $0 = [ledger] }
        node.collect()
        node.collect()
        node.run()
        let status = node.status
        #expect(status.journal.recordsRewritten >= 10)
        #expect(status.segments <= 3, "\(status.segments)")
        for _ in 0..<2 {
            let reply = node.read(0, count: 11)
            #expect(reply?.answers == (0..<10).map { .present(body(Int64($0))) } + [.absent])
            #expect(reply?.lac == entry(8))
            #expect(node.add(10, [1]) == .some(.fenced))
            node.kill()
            try node.start()
        }
    }

    @Test func aFullDiskRefusesWritersUntilThereIsRoom() throws {
        let node = NodeHarness()
        node.ledgers.withLock { $0 = [ledger, LedgerID(8)] }
        try node.start()
        node.run()
        node.disk.capacityBytes = node.disk.usedBytes + (8 << 10)
        var id: Int64 = 0
        while id < 1000, node.add(id, body(id)) == .some(nil) { id += 1 }
        #expect(id > 50 && id < 1000)
        #expect(node.add(id, body(id)) == .some(.readOnly))
        #expect(node.status.isReadOnly)
        // The reserve is for what helps.
        #expect(node.add(id, body(id), recovery: true) == .some(nil))
        #expect(node.fence(LedgerID(8))?.isFenced == true)
        node.disk.capacityBytes = .max
        let isWritable = node.scheduler.run { node.hostIsWritable }
        #expect(isWritable)
        #expect(node.add(id + 1, body(id + 1)) == .some(nil))
        #expect(node.read(0, count: Int(id))?.answers.count == Int(id))
    }

    @Test func theReserveOfTheDiskIsLeftToRecovery() throws {
        let node = NodeHarness()
        node.disk.capacityBytes = 256 << 10
        node.reserveBytes = 128 << 10
        try node.start()
        node.run()
        var next: Int64 = 0
        while node.add(next, body(next, count: 1000)) == .some(nil), next < 1_000 { next += 1 }
        #expect(next > 50 && node.add(next, [1]) == .some(.readOnly))
        #expect(node.status.isReadOnly)
        // Far from full, so recovery goes on.
        for id in next..<next + 50 { #expect(node.add(id, body(id, count: 1000), recovery: true) == .some(nil)) }
        #expect(node.fence()?.isFenced == true)
    }

    @Test func everythingIsReadAgainAtABoundedSpeed() throws {
        let node = NodeHarness()
        try node.start()
        for id in 0..<200 { _ = node.add(Int64(id), body(Int64(id), count: 1000)) }
        node.run()
        let segments = node.status.segments
        #expect(segments > 10)
        // A segment of 16 KiB takes a second.
        node.host.scrub(bytesPerSecond: 16 << 10) { _ in }
        node.run()
        #expect((1...40).contains(node.status.journal.scrubbedEntries))
        for _ in 0..<segments {
            node.scheduler.advance(milliseconds: 1_000)
            node.run()
        }
        #expect(node.status.journal.scrubs == 1)
        #expect(node.status.journal.scrubbedEntries > 150)
        #expect(node.status.journal.damagedEntries == 0)
    }

    @Test func whoWaitsForNewsIsAnsweredWhenTheNodeIsAboutToStop() throws {
        let node = NodeHarness()
        try node.start()
        #expect(node.add(0, [1]) == .some(nil))
        func wait() -> UInt64 { node.send(.readLAC(ReadLACRequest(ledger: ledger, fence: false, newerThan: entry(0)))) }
        let before = wait()
        node.run()
        #expect(node.client[before] == nil)
        node.host.releaseWaiters()
        let after = wait()
        node.run()
        #expect(node.client[before] != nil && node.client[after] != nil)
        #expect(node.status.unanswered == 0)
    }

    @Test func requestsAndRefusalsAreCounted() throws {
        let node = NodeHarness()
        try node.start()
        #expect(node.add(0, body(0)) == .some(nil))
        _ = node.read(0)
        _ = node.fence()
        #expect(node.add(1, body(1)) == .some(.fenced))
        let counts = node.status.requests
        #expect(counts.adds == 2 && counts.addBytes == 200 && counts.reads == 1 && counts.lacReads == 1)
        #expect(counts.refusals == [.fenced: 1])
        #expect(node.status.journal.syncLatency.reduce(0, +) == node.status.journal.syncs)
    }

    @Test func aFailedSyncPromisesNothingAndReadsGoOn() throws {
        let node = NodeHarness()
        try node.start()
        _ = node.add(0, [1])
        node.disk.inject(MemoryFileSystem.Fault([.sync], error: EIO) { $0.contains("journal-") })
        #expect(node.add(1, [2]) == .some(.unavailable))
        #expect(node.add(2, [3]) == .some(.unavailable))
        #expect(node.read(0)?.answers == [.present([1])])
        #expect(node.status.failure != nil)
        node.disk.clearFaults()
        node.kill()
        try node.start()
        #expect(node.read(0)?.answers == [.present([1])])
        #expect(node.add(2, [3]) == .some(nil))
    }

    @Test func anEmptyOrForeignDirectoryIsRefused() throws {
        let node = NodeHarness()
        #expect(throws: JournalError.self) { try node.start(isNew: false) }
        node.kill()
        try node.start(isNew: true)
        _ = node.add(0, [1])
        node.kill()
        let error = #expect(throws: JournalError.self) { try node.start(node: 2) }
        #expect("\(error!)".contains("n1") && "\(error!)".contains("n2"))
    }

    @Test func aReadThatFailsIsUnknownAndDamageIsFoundByTheScrubber() throws {
        let node = NodeHarness()
        try node.start()
        for id in 0..<300 { _ = node.add(Int64(id), body(Int64(id))) }
        node.run()
        let first = node.disk.paths.first { $0.hasSuffix(".seg") && $0.contains("journal-") }!
        var bytes = node.disk.contents(first)!
        bytes[2000] ^= 0x10
        node.disk.setContents(first, bytes)
        let scrubbed = Guarded<Int?>(nil)
        node.host.scrub { count in scrubbed.withLock { $0 = count } }
        _ = node.scheduler.run { scrubbed.withLock { $0 != nil } }
        #expect(scrubbed.withLock { $0! } > 100)
        #expect(node.status.journal.damagedEntries == 1)
        let answers = node.read(0, count: 300)?.answers ?? []
        #expect(answers.count { $0 == .unknown } == 1)
        #expect(!answers.contains(.absent))
        let lost = Int64(answers.firstIndex(of: .unknown)!)
        // Repair brings it back, and it is there.
        #expect(node.add(lost, body(lost), recovery: true) == .some(nil))
        #expect(node.read(lost)?.answers == [.present(body(lost))])
        node.kill()
        try node.start()
        #expect(node.read(lost)?.answers == [.present(body(lost))])
    }

    @Test func anIndexThatIsGoneOrDamagedIsMadeFromTheSegment() throws {
        let node = NodeHarness()
        try node.start()
        for id in 0..<300 { _ = node.add(Int64(id), body(Int64(id))) }
        node.run()
        let indexes = node.disk.paths.filter { $0.hasSuffix(".idx") }
        #expect(indexes.count >= 2)
        node.kill()
        try node.disk.remove(indexes[0])
        node.disk.setContents(indexes[1], [1, 2, 3])
        try node.start()
        #expect(node.host.damage.isEmpty)
        #expect(node.read(0, count: 300)?.answers == (0..<300).map { .present(body(Int64($0))) })
    }
}

extension NodeHarness {
    var hostIsWritable: Bool {
        let box = Guarded<Bool?>(nil)
        host.status { status in box.withLock { $0 = !status.isReadOnly } }
        scheduler.runUntilIdle()
        return box.withLock { $0 } ?? false
    }
}
