// Nodes that come and go while a ledger is written and read: what was acknowledged is there, once, and identical.

import CisternChangelog
import CisternLogProtocol
import CisternPrimitives
import CisternTestKit
import NIOCore
import Testing

@Suite(.timeLimit(.minutes(1))) struct LedgerFaultTests {
    @Test func whatIsAcknowledgedSurvivesNodesThatComeAndGo() async throws {
        for seed in Seeds.seeds(count: 5) {
            Seeds.announce("whatIsAcknowledgedSurvivesNodesThatComeAndGo", seed)
            var random = SeededRandom(seed: seed)
            try await withCluster(5) { cluster in
                let created = try cluster.create()
                let reader = await cluster.client.openReader(ledger, metadata: created.value)
                let reading = Task {
                    var found: [LedgerEntry] = []
                    for try await entry in reader { found.append(entry) }
                    return found
                }
                let writer = await cluster.writer(created, candidates: nodes(4, 5))
                var down: LogNodeID?
                var count = 0
                for _ in 0..<30 {
                    for _ in 0..<Int.random(in: 1...40, using: &random) {
                        try await writer.append(body(count))
                        count += 1
                    }
                    if Bool.random(using: &random) { try await writer.acknowledged(EntryID(Int64(count - 1))) }
                    // One at a time: two in one ensemble are more than Qa − 1.
                    if let node = down {
                        try await cluster.start(node)
                        down = nil
                    } else if Bool.random(using: &random) {
                        // The last node's copies may be all that is left of an entry until the others have it.
                        try await writer.acknowledged(EntryID(Int64(count - 1)))
                        let node = LogNodeID(UInt64.random(in: 1...5, using: &random))
                        await cluster.stop(node)
                        down = node
                    }
                    let free = (1...5).map { LogNodeID($0) }.filter { $0 != down }
                    writer.setCandidates(free.shuffled(using: &random))
                }
                if let node = down { try await cluster.start(node) }
                let closes = Bool.random(using: &random)
                if closes {
                    #expect(try await writer.close() == EntryID(Int64(count - 1)))
                } else {
                    try await writer.acknowledged(EntryID(Int64(count - 1)))
                    let recovered = try await cluster.client.recover(ledger, candidates: nodes(1, 2, 3, 4, 5))
                    #expect(recovered.last == EntryID(Int64(count - 1)))
                }
                let expected = (0..<count).map { body($0) }
                let followed = try await reading.value
                #expect(followed.map(\.body) == expected && followed.last?.id == EntryID(Int64(count - 1)))
                #expect(try await cluster.read().map(\.body) == expected)
            }
        }
    }

    @Test func twoRecoveriesAndAWriterAgreeOnTheLastEntry() async throws {
        for seed in Seeds.seeds(count: 5) {
            Seeds.announce("twoRecoveriesAndAWriterAgreeOnTheLastEntry", seed)
            var random = SeededRandom(seed: seed)
            let before = Int.random(in: 0...200, using: &random)
            try await withCluster(4) { cluster in
                let writer = await cluster.writer(try cluster.create(), candidates: nodes(4))
                for number in 0..<before { try await writer.append(body(number)) }
                async let first = cluster.client.recover(ledger, candidates: nodes(4))
                async let second = cluster.client.recover(ledger, candidates: nodes(4))
                var number = before
                var end: LedgerError?
                while end == nil {
                    end = await failure { () throws(LedgerError) in
                        try await writer.acknowledged(try await writer.append(body(number)))
                    }
                    number += 1
                }
                #expect(end?.failure == .fenced)
                let (one, two) = try await (first, second)
                #expect(one.last == two.last && one.last >= writer.lastAcknowledged)
                let entries = try await cluster.read()
                #expect(entries.map(\.body) == (0..<entries.count).map { body($0) })
                #expect(EntryID(Int64(entries.count - 1)) == one.last)
            }
        }
    }

    @Test func aReaderThatWaitsSeesTheRecoverysClose() async throws {
        try await withCluster { cluster in
            let created = try cluster.create()
            let writer = await cluster.writer(created)
            try await writer.acknowledged(try await writer.append(body(0)))
            let reader = await cluster.client.openReader(ledger, metadata: created.value)
            #expect(try await reader.nextBatch()?.bodies == [body(0)])
            let waiting = Task { try await reader.nextBatch() }
            await cluster[1].wait { state in
                state.requests.contains {
                    if case .readLAC(let read) = $0 { read.newerThan == .first } else { false }
                }
            }
            _ = try await cluster.client.recover(ledger, candidates: [])
            #expect(try await waiting.value == nil)
        }
    }
}
