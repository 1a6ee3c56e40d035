// Writers over loopback: what is acknowledged is there, nodes that go are replaced, fences hold, memory is bounded.

import CisternChangelog
import CisternLogNetwork
import CisternLogProtocol
import CisternPrimitives
import CisternTransport
import NIOCore
import Testing

/// The failure that a call ends with.
func failure(_ call: () async throws(LedgerError) -> Void) async -> LedgerError? {
    do throws(LedgerError) {
        try await call()
        return nil
    } catch {
        return error
    }
}

@Suite(.timeLimit(.minutes(1))) struct LedgerWriterHandleTests {
    @Test func aThousandEntriesComeBackFromThreeNodes() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            for number in 0..<1000 {
                #expect(try await writer.append(body(number)) == EntryID(Int64(number)))
            }
            try await writer.acknowledged(EntryID(999))
            #expect(writer.lastAcknowledged == EntryID(999) && writer.unacknowledgedBytes == 0)
            #expect(try await writer.close() == EntryID(999))
            #expect(cluster.metadata[ledger]?.closedLastEntry == EntryID(999))
            let entries = try await cluster.read()
            #expect(entries.map(\.id) == (0..<1000).map { EntryID($0) })
            #expect(entries.map(\.body) == (0..<1000).map { body($0) })
            // Entries that gather travel together.
            #expect(cluster[1].state.submits < 1000)
        }
    }

    @Test func aNodeThatStopsIsReplacedAndNothingAcknowledgedIsLost() async throws {
        try await withCluster(4) { cluster in
            let writer = await cluster.writer(try cluster.create(), candidates: nodes(4))
            for number in 0..<500 { try await writer.append(body(number)) }
            try await writer.acknowledged(EntryID(499))
            await cluster.stop(LogNodeID(2))
            for number in 500..<1000 { try await writer.append(body(number)) }
            try await writer.acknowledged(EntryID(999))
            let found = try #require(cluster.metadata[ledger])
            #expect(found.fragments.count == 2 && found.lastFragment.ensemble == nodes(1, 4, 3))
            #expect(try await writer.close() == EntryID(999))
            #expect(try await cluster.read().map(\.body) == (0..<1000).map { body($0) })
        }
    }

    @Test func withoutACandidateAQuorumGoesOnAndTheNodeCatchesUpWhenItIsBack() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            await cluster.stop(LogNodeID(3))
            for number in 0..<100 { try await writer.append(body(number)) }
            try await writer.acknowledged(EntryID(99))
            await cluster.stop(LogNodeID(2))
            let late = try await writer.append(body(100))
            try await cluster.start(LogNodeID(3))
            // One node of the quorum is down; the entry completes on the one that came back.
            try await writer.acknowledged(late)
            #expect(cluster[3].state.bodies[ledger]?[late] == body(100))
            #expect(cluster.metadata[ledger]?.fragments.count == 1)
        }
    }

    @Test func aRecoveryFencesTheWriter() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            for number in 0..<100 { try await writer.append(body(number)) }
            try await writer.acknowledged(EntryID(99))
            let recovered = try await cluster.client.recover(ledger, candidates: [])
            #expect(recovered.last == EntryID(99))
            #expect(cluster.metadata[ledger] == recovered.metadata.value)
            let error = await failure { () throws(LedgerError) in
                let entry = try await writer.append(body(100))
                try await writer.acknowledged(entry)
            }
            #expect(error?.failure == .fenced)
            #expect("\(error!)".contains("stop writing"))
            // It stays so.
            let again = await failure { () throws(LedgerError) in _ = try await writer.append(body(101)) }
            #expect(again?.failure == .fenced)
            let closing = await failure { () throws(LedgerError) in _ = try await writer.close() }
            #expect(closing?.failure == .fenced)
            #expect(try await cluster.read().count == 100)
        }
    }

    @Test func slowNodesFillTheWindowAndNoMore() async throws {
        var options = quickOptions()
        options.windowBytes = 10_000
        options.requestTimeout = .seconds(60)
        try await withCluster(options: options) { cluster in
            for node in cluster.members.values { node.change { $0.holdsSyncs = true } }
            let writer = await cluster.writer(try cluster.create())
            var taken = 0
            while try writer.append(body(taken, size: 1000), acknowledged: nil) != nil { taken += 1 }
            #expect(taken == 10 && writer.unacknowledgedBytes == 10_000)
            // Those who wait are let in by acknowledgements, in their order.
            let waiting = Task { try await writer.append(body(10, size: 1000)) }
            await cluster[1].wait { $0.addBytes == 10_000 }
            #expect(try writer.append([1], acknowledged: nil) == nil)
            for node in cluster.members.values { node.change { $0.holdsSyncs = false } }
            let entry = try await waiting.value
            #expect(entry == EntryID(10))
            try await writer.acknowledged(entry)
            #expect(writer.unacknowledgedBytes == 0)
        }
    }

    @Test func aNodeThatIsNotWaitedForLagsByABoundAndThenHoldsTheWriterBack() async throws {
        var options = quickOptions()
        options.windowBytes = 10_000
        options.requestTimeout = .seconds(60)
        try await withCluster(options: options) { cluster in
            cluster[3].change { $0.holdsSyncs = true }
            let writer = await cluster.writer(try cluster.create())
            var last = EntryID.none
            var isFull = false
            while !isFull {
                // With all of it acknowledged, only the third node can be what is waited for.
                if last > .none { try await writer.acknowledged(last) }
                let entry = try writer.append(body(7, size: 1000), acknowledged: nil)
                isFull = entry == nil
                last = entry ?? last
            }
            // Two windows, and what each add takes beside its body.
            #expect(last >= EntryID(12) && last < EntryID(20))
            #expect(writer.unacknowledgedBytes == 0)
            let waiting = Task { try await writer.append(body(8, size: 1000)) }
            let count = Int(last.rawValue) + 1
            await cluster[3].wait { $0.requests.count { if case .add = $0 { true } else { false } } == count }
            cluster[3].change { $0.holdsSyncs = false }
            #expect(try await waiting.value == last.next)
            for _ in 0..<50 { last = try await writer.append(body(9, size: 1000)) }
            try await writer.acknowledged(last)
        }
    }

    @Test func anEntryLargerThanTheWindowIsLetInAlone() async throws {
        var options = quickOptions()
        options.windowBytes = 10
        try await withCluster(options: options) { cluster in
            let writer = await cluster.writer(try cluster.create())
            let large = body(1, size: 3 << 20)
            let entry = try await writer.append(large)
            try await writer.append([2])
            try await writer.acknowledged(EntryID(1))
            try await writer.close()
            #expect(try await cluster.read().map(\.body) == [large, [2]] && entry == .first)
            let error = await failure { () throws(LedgerError) in
                _ = try await writer.append([UInt8](repeating: 0, count: LedgerWriterHandle.entryBytesMax + 1))
            }
            #expect(error == .entryTooLarge(ledger, bytes: (16 << 20) + 1, max: 16 << 20))
        }
    }

    @Test func aNodeThatDoesNotAnswerInTimeIsReplaced() async throws {
        var options = quickOptions()
        options.requestTimeout = .milliseconds(50)
        try await withCluster(4, options: options) { cluster in
            cluster[2].change { $0.holdsSyncs = true }
            let writer = await cluster.writer(try cluster.create((3, 3, 3)), candidates: nodes(4))
            let entry = try await writer.append(body(0))
            try await writer.acknowledged(entry)
            #expect(cluster.metadata[ledger]?.lastFragment.ensemble == nodes(1, 4, 3))
        }
    }

    @Test func metadataThatDoesNotAnswerIsAskedAgain() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            let entry = try await writer.append(body(0))
            cluster.metadata.failNext(3)
            #expect(try await writer.close() == entry)
            cluster.metadata.failNext(2)
            #expect(try await cluster.client.recover(ledger, candidates: []).last == entry)
        }
    }

    @Test func callbacksComeInOrderAndACloseWaitsForAllEntries() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            let (stream, continuation) = AsyncStream.makeStream(of: EntryID.self)
            for number in 0..<200 {
                let entry = try writer.append(body(number)) { continuation.yield((try? $0.get()) ?? .none) }
                #expect(entry == EntryID(Int64(number)))
            }
            #expect(try await writer.close() == EntryID(199))
            continuation.finish()
            var acknowledged: [EntryID] = []
            for await entry in stream { acknowledged.append(entry) }
            #expect(acknowledged == (0..<200).map { EntryID($0) })
            #expect(try await writer.close() == EntryID(199))
            let error = await failure { () throws(LedgerError) in _ = try await writer.append([1]) }
            #expect(error == .writerClosed(ledger))
        }
    }

    @Test func anEmptyLedgerIsClosedAtNothing() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            #expect(try await writer.close() == EntryID.none)
            #expect(try await cluster.read().isEmpty)
        }
    }

    @Test func whoWaitsForAStoppedWriterIsTold() async throws {
        var options = quickOptions()
        options.windowBytes = 1
        try await withCluster(options: options) { cluster in
            for node in cluster.members.values { node.change { $0.holdsSyncs = true } }
            let writer = await cluster.writer(try cluster.create())
            let entry = try await writer.append(body(0))
            let forRoom = Task { await failure { () throws(LedgerError) in _ = try await writer.append(body(1)) } }
            let forEntry = Task { await failure { () throws(LedgerError) in try await writer.acknowledged(entry) } }
            await cluster[1].wait { $0.addBytes > 0 }
            writer.stop()
            writer.stop()
            #expect(await forRoom.value == .stopped(ledger))
            #expect(await forEntry.value == .stopped(ledger))
        }
    }

    @Test func aWriterThatGetsNowhereSaysWhy() async throws {
        try await withCluster { cluster in
            for node in cluster.members.values { node.change { $0.machine.setReadOnly(true) } }
            await cluster.stop(LogNodeID(3))
            let writer = await cluster.writer(try cluster.create())
            let entry = try await writer.append(body(0))
            while !(writer.trouble.contains("n1 refuses: readOnly") && writer.trouble.contains("n3: ")) {
                await Task.yield()
            }
            for node in cluster.members.values { node.change { $0.machine.setReadOnly(false) } }
            try await writer.acknowledged(entry)
            #expect(writer.trouble.isEmpty)
        }
    }

    @Test func aTokenWithoutTheRightIsNamed() async throws {
        var options = quickOptions()
        options.transport.token = "reader"
        var listener = LogNodeListenerOptions()
        listener.transport.access = TestAccess()
        try await withCluster(options: options, listener: listener) { cluster in
            let writer = await cluster.writer(try cluster.create())
            try await writer.append(body(0))
            while !writer.trouble.contains("PERMISSION_DENIED") { await Task.yield() }
            #expect(writer.trouble.contains("write:changelog"))
            writer.stop()
        }
    }

    @Test func aLedgerWhoseMetadataIsGoneFailsTheClose() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            try await writer.append(body(0))
            cluster.metadata.remove(ledger)
            let error = await failure { () throws(LedgerError) in _ = try await writer.close() }
            #expect(error?.failure == .deleted)
        }
    }
}
