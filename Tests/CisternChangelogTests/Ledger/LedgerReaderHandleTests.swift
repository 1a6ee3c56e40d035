// Readers and recoveries over loopback.

import CisternChangelog
import CisternLogProtocol
import CisternPrimitives
import NIOCore
import Testing

@Suite(.timeLimit(.minutes(1))) struct LedgerReaderHandleTests {
    @Test func aReaderFollowsAWriterToTheEnd() async throws {
        try await withCluster { cluster in
            let created = try cluster.create()
            let reader = await cluster.client.openReader(ledger, metadata: created.value)
            let reading = Task {
                var bodies: [[UInt8]] = []
                for try await entry in reader {
                    #expect(entry.id == EntryID(Int64(bodies.count)))
                    bodies.append(entry.body)
                }
                return bodies
            }
            let writer = await cluster.writer(created)
            for number in 0..<300 {
                let entry = try await writer.append(body(number))
                // Now and then the writer is idle, and its last add confirmed goes out alone.
                if number % 100 == 99 { try await writer.acknowledged(entry) }
            }
            try await writer.close()
            #expect(try await reading.value == (0..<300).map { body($0) })
        }
    }

    @Test func anIdleWritersLastEntryReachesAReaderThatWaits() async throws {
        try await withCluster { cluster in
            let created = try cluster.create()
            let writer = await cluster.writer(created)
            let reader = await cluster.client.openReader(ledger, metadata: created.value)
            for number in 0..<3 {
                try await writer.append(body(number))
                let batch = try await reader.nextBatch()
                #expect(batch?.first == EntryID(Int64(number)) && batch?.bodies == [body(number)])
            }
            #expect(cluster[1].state.requests.contains { if case .writeLAC = $0 { true } else { false } })
        }
    }

    @Test func aPartOfAnOpenLedgerIsRead() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            for number in 0..<100 { try await writer.append(body(number)) }
            try await writer.acknowledged(EntryID(99))
            let entries = try await cluster.read(from: EntryID(40), through: EntryID(59))
            #expect(entries.map(\.id) == (40..<60).map { EntryID($0) })
            #expect(entries.map(\.body) == (40..<60).map { body($0) })
            #expect(try await cluster.read(from: EntryID(40), through: EntryID(39)).isEmpty)
        }
    }

    @Test func aReaderFetchesNoMoreThanItsShareAhead() async throws {
        var options = quickOptions()
        options.readAheadBytes = 100_000
        try await withCluster(options: options) { cluster in
            let writer = await cluster.writer(try cluster.create())
            for number in 0..<500 { try await writer.append(body(number, size: 5000)) }
            try await writer.close()
            let reader = await cluster.client.openReader(ledger, metadata: cluster.metadata[ledger]!)
            // Nobody takes anything: it fetches until half of its share is there.
            while reader.bufferedBytes <= 50_000 { await Task.yield() }
            var count = 0
            var most = reader.bufferedBytes
            while let batch = try await reader.nextBatch() {
                for (index, found) in batch.bodies.enumerated() where found != body(count + index, size: 5000) {
                    Issue.record("entry \(count + index) is another one")
                }
                count += batch.bodies.count
                most = max(most, reader.bufferedBytes)
            }
            #expect(count == 500 && most <= 100_000)
        }
    }

    @Test func aNodeThatCannotReadOrIsGoneIsPassedOver() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            for number in 0..<100 { try await writer.append(body(number)) }
            try await writer.close()
            // The acknowledgements may have been those of the other two.
            await cluster[3].wait { $0.bodies[ledger]?.count == 100 }
            cluster[1].change { $0.failsReads = true }
            await cluster.stop(LogNodeID(2))
            #expect(try await cluster.read().map(\.body) == (0..<100).map { body($0) })
            cluster[3].change { $0.failsReads = true }
            await #expect { _ = try await cluster.read() } throws: { error in
                (error as? LedgerError)?.failure == .unreadable(.first) && "\(error)".contains("n2")
            }
        }
    }

    @Test func aReaderWaitsForNodesThatAreGoneForAMoment() async throws {
        var options = quickOptions()
        options.patience = .seconds(60)
        try await withCluster(options: options) { cluster in
            let writer = await cluster.writer(try cluster.create())
            for number in 0..<10 { try await writer.append(body(number)) }
            try await writer.close()
            for node in cluster.members.values { node.change { $0.failsReads = true } }
            let reading = Task { try await cluster.read() }
            // All of them are asked, and asked again.
            for node in cluster.members.values {
                await node.wait { $0.requests.count { if case .read = $0 { true } else { false } } >= 2 }
            }
            cluster[2].change { $0.failsReads = false }
            #expect(try await reading.value.map(\.body) == (0..<10).map { body($0) })
        }
    }

    @Test func aReaderThatIsStoppedOrCancelledEnds() async throws {
        try await withCluster { cluster in
            let created = try cluster.create()
            let writer = await cluster.writer(created)
            try await writer.append(body(0))
            let reader = await cluster.client.openReader(ledger, metadata: created.value)
            #expect(try await reader.nextBatch()?.bodies == [body(0)])
            let waiting = Task { try await reader.nextBatch() }
            waiting.cancel()
            await #expect(throws: LedgerError.stopped(ledger)) { _ = try await waiting.value }
            reader.stop()
            await #expect(throws: LedgerError.stopped(ledger)) { _ = try await reader.nextBatch() }
        }
    }

    @Test func aReaderOfADeletedLedgerIsTold() async throws {
        try await withCluster { cluster in
            let created = try cluster.create()
            let reader = await cluster.client.openReader(ledger, metadata: created.value)
            cluster.metadata.remove(ledger)
            await #expect { _ = try await reader.nextBatch() } throws: { ($0 as? LedgerError)?.failure == .deleted }
        }
    }

    @Test func recoveryFindsWhatWasAcknowledgedOnTwoOfThreeNodes() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            for number in 0..<1000 { try await writer.append(body(number)) }
            try await writer.acknowledged(EntryID(999))
            writer.stop()
            await cluster.stop(LogNodeID(1))
            let recovered = try await cluster.client.recover(ledger, candidates: [])
            #expect(recovered.last == EntryID(999))
            #expect(try await cluster.client.recover(ledger, candidates: []) == recovered)
            #expect(try await cluster.read().map(\.body) == (0..<1000).map { body($0) })
        }
    }

    @Test func aRecoveryWaitsForNodesThatAreGoneForAMoment() async throws {
        var options = quickOptions()
        options.patience = .seconds(60)
        try await withCluster(options: options) { cluster in
            let writer = await cluster.writer(try cluster.create())
            try await writer.acknowledged(try await writer.append(body(0)))
            writer.stop()
            await cluster.stop(LogNodeID(1))
            await cluster.stop(LogNodeID(2))
            let recovering = Task { try await cluster.client.recover(ledger, candidates: []) }
            // It asks the one that is there, in vain, and asks again.
            await cluster[3].wait { $0.requests.count { if case .readLAC = $0 { true } else { false } } >= 2 }
            try await cluster.start(LogNodeID(1))
            #expect(try await recovering.value.last == .first)
        }
    }

    @Test func recoveryWithoutAQuorumSaysWhichNodesAreMissing() async throws {
        try await withCluster { cluster in
            let writer = await cluster.writer(try cluster.create())
            try await writer.append(body(0))
            writer.stop()
            await cluster.stop(LogNodeID(1))
            cluster.addresses[LogNodeID(2)] = nil
            await cluster.stop(LogNodeID(2))
            await #expect {
                _ = try await cluster.client.recover(ledger, candidates: [])
            } throws: { error in
                (error as? LedgerError)?.failure == .notFenced && "\(error)".contains("n1: ")
                    && "\(error)".contains("n2")
            }
        }
    }
}
