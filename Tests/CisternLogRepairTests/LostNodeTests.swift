import CisternChangelog
import CisternLogProtocol
import CisternLogRepair
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Testing

@Suite(.timeLimit(.minutes(1))) struct LostNodeTests {
    @Test func theLedgersOfALostNodeAreWholeAgainOnOthers() async throws {
        try await RepairCluster.with(5) { cluster in
            let sizes = [(3, 3, 2), (4, 3, 2), (3, 2, 2), (2, 2, 1)]
            var ledgers: [LedgerID] = []
            for (index, sizes) in sizes.enumerated() {
                let ensemble = (1...UInt64(sizes.0)).map(LogNodeID.init)
                ledgers.append(try await cluster.write(300 + index, sizes, on: ensemble))
            }
            let elsewhere = try await cluster.write(10, on: nodes(2, 3, 4))
            let before = try await cluster.ledger(elsewhere)
            try await cluster.lose(1)
            let context = cluster.context()
            try await cluster.repairAll(context)
            #expect(try await cluster.queue(context).isEmpty)
            #expect(context.figures.ledgersRepaired == 4 && context.figures.waiting == 0)
            for ledger in ledgers {
                #expect(!(try await cluster.ledger(ledger).allNodes.contains(LogNodeID(1))))
            }
            #expect(try await cluster.ledger(elsewhere) == before)
            // Qa - 1 more.
            try await cluster.lose(2)
            for (index, ledger) in ledgers.enumerated() where sizes[index].2 == 2 {
                try await cluster.check(ledger, has: 300 + index)
            }
        }
    }

    @Test func aReplacementHasAllThatTheLostNodeHeld() async throws {
        try await RepairCluster.with(4) { cluster in
            let ledger = try await cluster.write(700)
            try await cluster.lose(1)
            let context = cluster.context()
            try await cluster.repairAll(context)
            #expect(context.figures.entriesCopied == 700 && context.figures.bytesCopied == 70_000)
            #expect(try await cluster.ledger(ledger).fragments[0].ensemble == nodes(4, 2, 3))
            try await cluster.lose(2, 3)
            try await cluster.check(ledger, has: 700)
        }
    }

    @Test func aNodeThatComesBackWithinTheGraceIsLeftAlone() async throws {
        try await RepairCluster.with(4) { cluster in
            let ledger = try await cluster.write(10)
            let before = try await cluster.ledger(ledger)
            let context = cluster.context()
            let auditor = RepairAuditor(context)
            #expect(try await auditor.audit() == nil)
            for _ in 0..<2 {
                try await cluster.lose(1)
                #expect(try await auditor.audit() == 600_000)
                #expect(context.figures.missingNodes == nodes(1))
                cluster.time.advance(milliseconds: 599_999)
                #expect(try await auditor.audit() == 1)
                try await cluster.start(1)
                #expect(try await auditor.audit() == nil)
                #expect(context.figures.missingNodes.isEmpty)
                // Its next absence is counted anew.
            }
            cluster.time.advance(milliseconds: 600_000)
            try await auditor.audit()
            #expect(try await cluster.queue(context).isEmpty)
            #expect(try await cluster.ledger(ledger) == before)
        }
    }

    @Test func aNodeThatComesBackLateCallsOffWhatIsLeft() async throws {
        try await RepairCluster.with(3) { cluster in
            let ledgers = [try await cluster.write(10), try await cluster.write(10, (1, 1, 1), on: nodes(1))]
            try await cluster.lose(1)
            let context = cluster.context()
            try await cluster.repairAll(context)
            #expect(try await cluster.queue(context).map(\.state) == [.noTarget, .lost])
            try await cluster.start(1)
            try await RepairAuditor(context).audit()
            #expect(try await cluster.queue(context).isEmpty)
            for ledger in ledgers { try await cluster.check(ledger, has: 10) }
        }
    }

    @Test func theOnlyCopyIsReportedLostOnceAndNotTriedAgain() async throws {
        try await RepairCluster.with(3) { cluster in
            let gone = try await cluster.write(10, (1, 1, 1), on: nodes(1))
            // Entries 0, 2, 4 … are on node 1 alone.
            let half = try await cluster.write(10, (2, 1, 1), on: nodes(1, 2))
            let empty = try await cluster.write(0, (1, 1, 1), on: nodes(1))
            try await cluster.lose(1)
            let context = cluster.context()
            try await cluster.repairAll(context)
            let left = try await cluster.queue(context)
            #expect(left.map(\.ledger) == [gone, half] && left.allSatisfy { $0.state == .lost })
            #expect(context.figures.lost == 2 && context.figures.failures == 2)
            #expect(context.figures.lastError?.contains("n1") == true)
            try await cluster.check(empty, has: 0)
            cluster.time.advance(milliseconds: 10 * context.options.retryMilliseconds)
            try await RepairAuditor(context).audit()
            let worker = RepairWorker(context)
            try await worker.round(lease: try await cluster.lease())
            #expect(context.figures.failures == 2)
            // What is deleted is no loss.
            #expect(await cluster.store.deleteLedger(gone))
            try await RepairAuditor(context).audit()
            #expect(try await cluster.queue(context).map(\.ledger) == [half])
        }
    }

    @Test func aLedgerWithoutAPlaceToGoWaitsForANode() async throws {
        try await RepairCluster.with(3) { cluster in
            let ledger = try await cluster.write(10)
            try await cluster.lose(1)
            let context = cluster.context()
            try await cluster.repairAll(context)
            #expect(try await cluster.queue(context).map(\.state) == [.noTarget])
            #expect(context.figures.withoutTarget == 1)
            try await cluster.add(4)
            try await RepairWorker(context).round(lease: try await cluster.lease())
            #expect(try await cluster.queue(context).isEmpty)
            #expect(try await cluster.ledger(ledger).fragments[0].ensemble == nodes(4, 2, 3))
        }
    }

    @Test func aWriterGoesOnWhileItsOlderFragmentsAreRepaired() async throws {
        try await RepairCluster.with(5) { cluster in
            let writer = try await cluster.create(candidates: nodes(4))
            var count = 0
            func append(_ entries: Int) async throws {
                for _ in 0..<entries {
                    try await writer.append(body(count))
                    count += 1
                }
                try await writer.acknowledged(EntryID(Int64(count - 1)))
            }
            try await append(400)
            try await cluster.lose(1)
            // The writer meets the dead node and replaces it.
            try await append(1)
            try await until {
                try await append(1)
                return try await cluster.ledger(writer.ledger).fragments.count == 2
            }
            let context = cluster.context()
            let repairing = Task { [cluster = UncheckedBox(cluster)] in
                try await cluster.value.repairAll(context)
            }
            try await append(400)
            try await repairing.value
            try await append(400)
            let fragments = try await cluster.ledger(writer.ledger).fragments
            #expect(fragments[0].ensemble == nodes(5, 2, 3) || fragments[0].ensemble == nodes(4, 2, 3))
            #expect(fragments[1].ensemble == nodes(4, 2, 3))
            try await writer.close()
            #expect(try await cluster.queue(context).isEmpty)
            try await cluster.lose(2)
            try await cluster.check(writer.ledger, has: count)
        }
    }

    @Test func aWriterTakesANodeThatCameAfterTheLoss() async throws {
        try await RepairCluster.with(3) { cluster in
            let store = cluster.store
            let writer = try await cluster.create { await store.writableNodes() }
            var count = 0
            func append() async throws {
                try await writer.acknowledged(try await writer.append(body(count)))
                count += 1
            }
            try await append()
            try await cluster.lose(1)
            for _ in 0..<10 { try await append() }
            try await cluster.add(4)
            try await until {
                try await append()
                return try await cluster.ledger(writer.ledger).lastFragment.ensemble == nodes(4, 2, 3)
            }
            let context = cluster.context()
            try await cluster.repairAll(context)
            #expect(try await cluster.queue(context).isEmpty)
            try await writer.close()
            try await cluster.lose(2)
            try await cluster.check(writer.ledger, has: count)
        }
    }

    @Test func anOpenLedgerIsClosedOnlyWhenNothingMovesInIt() async throws {
        try await RepairCluster.with(4) { cluster in
            // It knows of no other node, and goes on with two.
            let writer = try await cluster.create()
            for number in 0..<10 { try await writer.append(body(number)) }
            try await writer.acknowledged(EntryID(9))
            try await cluster.lose(1)
            let context = cluster.context()
            let grace = context.options.openLedgerGraceMilliseconds
            let worker = RepairWorker(context)
            try await cluster.repairAll(context)
            for round in 0..<3 {
                try await worker.round(lease: try await cluster.lease())
                try await writer.acknowledged(try await writer.append(body(10 + round)))
                // Readers' news of it come with the next add, or soon.
                let last = EntryID(Int64(10 + round))
                await until {
                    await cluster.client.lastAddConfirmed(of: writer.ledger, on: nodes(2, 3)) == last
                }
                cluster.time.advance(milliseconds: grace)
            }
            #expect(try await cluster.ledger(writer.ledger).state == .open)
            for _ in 0..<2 {
                try await worker.round(lease: try await cluster.lease())
                cluster.time.advance(milliseconds: grace)
            }
            #expect(try await cluster.ledger(writer.ledger).state == .closed(lastEntry: EntryID(12)))
            #expect(try await cluster.queue(context).isEmpty)
            await #expect(throws: LedgerError.self) {
                let entry = try await writer.append(body(13))
                try await writer.acknowledged(entry)
            }
            writer.stop()
            try await cluster.lose(2)
            try await cluster.check(writer.ledger, has: 13)
        }
    }

    @Test func aLedgerThatLostTwoNodesGetsBothBack() async throws {
        try await RepairCluster.with(5) { cluster in
            let ledger = try await cluster.write(600, (3, 3, 3))
            try await cluster.lose(1, 2)
            let context = cluster.context()
            try await cluster.repairAll(context)
            // While one is repaired, the ledger is claimed.
            let worker = RepairWorker(context)
            try await worker.round(lease: try await cluster.lease())
            #expect(try await cluster.queue(context).isEmpty)
            let ensemble = try await cluster.ledger(ledger).fragments[0].ensemble
            #expect(Set(ensemble) == Set(nodes(3, 4, 5)))
            try await cluster.lose(3)
            try await cluster.check(ledger, has: 600)
        }
    }

    @Test func anOperatorDoesNotWaitForTheGrace() async throws {
        try await RepairCluster.with(4) { cluster in
            let ledger = try await cluster.write(10)
            let context = cluster.context()
            let address = "\(try #require(cluster.addresses[LogNodeID(1)]))"
            #expect(try await context.queue.order(LogNodeID(1)) == .registered(address: address))
            try await cluster.lose(1)
            #expect(try await context.queue.order(LogNodeID(1)) == .queued(new: 1, ledgers: 1))
            #expect(try await context.queue.order(LogNodeID(1)) == .queued(new: 0, ledgers: 1))
            // A look within the grace leaves the order as it is.
            try await RepairAuditor(context).audit()
            try await RepairWorker(context).round(lease: try await cluster.lease())
            #expect(!(try await cluster.ledger(ledger).allNodes.contains(LogNodeID(1))))
        }
    }

    @Test func nodesThatAreLostOneAfterTheOtherLoseNothing() async throws {
        for seed in Seeds.seeds(count: 3) {
            Seeds.announce("nodesThatAreLostOneAfterTheOtherLoseNothing", seed)
            var random = SeededRandom(seed: seed)
            try await RepairCluster.with(5) { cluster in
                let context = cluster.context()
                var alive = Array(UInt64(1)...5)
                var ledgers: [(LedgerID, Int)] = []
                for step in UInt64(0)..<8 {
                    let sizes = [(3, 3, 2), (4, 3, 2), (4, 2, 2), (2, 2, 2)].randomElement(using: &random)!
                    let ensemble = alive.shuffled(using: &random).prefix(sizes.0).map(LogNodeID.init)
                    let count = Int.random(in: 0...600, using: &random)
                    ledgers.append((try await cluster.write(count, sizes, on: ensemble), count))
                    let lost = alive.randomElement(using: &random)!
                    try await cluster.lose(lost)
                    alive.removeAll { $0 == lost }
                    try await cluster.repairAll(context)
                    #expect(try await cluster.queue(context).isEmpty)
                    try await cluster.add(6 + step)
                    alive.append(6 + step)
                    for (ledger, count) in ledgers {
                        #expect(try await cluster.ledger(ledger).allNodes.isSubset(of: alive.map { LogNodeID($0) }))
                        try await cluster.check(ledger, has: count)
                    }
                }
            }
        }
    }

    @Test func aLedgerThatIsGoneLeavesTheQueue() async throws {
        try await RepairCluster.with(3) { cluster in
            let ledger = try await cluster.write(10)
            let context = cluster.context()
            #expect(try await context.queue.put(ledger, LogNodeID(9), .dead))
            #expect(!(try await context.queue.put(ledger, LogNodeID(9), .dead)))
            try await RepairWorker(context).round(lease: try await cluster.lease())
            #expect(try await cluster.queue(context).isEmpty)
        }
    }
}

/// For a task of the same test.
struct UncheckedBox<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) { self.value = value }
}
