import CisternChangelog
import CisternLogProtocol
import CisternLogRepair
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Testing

@Suite(.timeLimit(.minutes(1))) struct RepairPaceTests {
    @Test func copiesTakeNoMoreThanTheirRateAndOneAnswer() async throws {
        try await RepairCluster.with(4) { cluster in
            let count = 2_000
            let ledger = try await cluster.write(count, size: 1_000)
            try await cluster.lose(1)
            let timers = ManualTimers()
            let rate: UInt64 = 500_000
            let pace = timers.pace(bytesPerSecond: rate)
            let context = cluster.context(pace: pace)
            let begin = timers.time.monotonicNanoseconds
            let repairing = Task { [cluster = UncheckedBox(cluster)] in
                try await cluster.value.repairAll(context)
            }
            // 256 entries an answer.
            let answer: UInt64 = 256 * 1_000
            var waits = 0
            while pace.bytes < UInt64(count) * 1_000 {
                await until { timers.isWaiting || pace.bytes == UInt64(count) * 1_000 }
                let elapsed = (timers.time.monotonicNanoseconds - begin) / 1_000_000
                #expect(pace.bytes <= elapsed * rate / 1_000 + answer)
                if timers.isWaiting {
                    waits += 1
                    timers.advanceToNext()
                }
            }
            try await repairing.value
            #expect(waits >= 7)
            #expect((timers.time.monotonicNanoseconds - begin) / 1_000_000 >= 3_584)
            #expect(context.figures.bytesCopied == UInt64(count) * 1_000)
            try await cluster.check(ledger, has: count, size: 1_000)
        }
    }

    @Test func aRepairThatStopsInTheMiddleIsAnotherOnesWhenItsLeaseIsOver() async throws {
        try await RepairCluster.with(5) { cluster in
            let ledger = try await cluster.write(600)
            try await cluster.lose(1)
            let timers = ManualTimers()
            let first = cluster.context(pace: timers.pace(bytesPerSecond: 1))
            let second = cluster.context()
            let (firstLease, secondLease) = (try await cluster.lease(), try await cluster.lease())
            _ = try await first.queue.put([ledger], of: LogNodeID(1), .dead)
            let stuck = Task { try await RepairWorker(first).round(lease: firstLease) }
            await until { timers.isWaiting }
            // It is at work, as far as anybody knows.
            #expect(try await RepairWorker(second).round(lease: secondLease) == 0)
            #expect(try await cluster.ledger(ledger).allNodes.contains(LogNodeID(1)))
            cluster.time.advance(milliseconds: 10_000)
            try await cluster.metadata.keepAlive(secondLease)
            cluster.time.advance(milliseconds: 10_000)
            await cluster.metadata.expireLeases()
            #expect(try await RepairWorker(second).round(lease: secondLease) == 1)
            let repaired = try await cluster.ledger(ledger)
            #expect(repaired.fragments[0].ensemble == nodes(4, 2, 3))
            #expect(try await cluster.queue(second).isEmpty)
            // The first one was not dead: what it does still is harmless.
            while timers.isWaiting {
                timers.advanceToNext()
                await until { timers.isWaiting || first.figures.ledgersRepaired == 1 }
            }
            _ = await stuck.result
            #expect(try await cluster.ledger(ledger) == repaired)
            try await cluster.lose(2)
            try await cluster.check(ledger, has: 600)
        }
    }

    @Test func aRepairThatIsCancelledEndsAndLeavesTheLedgerAsItWas() async throws {
        try await RepairCluster.with(4) { cluster in
            let ledger = try await cluster.write(600)
            let before = try await cluster.ledger(ledger)
            try await cluster.lose(1)
            let timers = ManualTimers()
            let context = cluster.context(pace: timers.pace(bytesPerSecond: 1))
            let lease = try await cluster.lease()
            _ = try await context.queue.put([ledger], of: LogNodeID(1), .dead)
            let repairing = Task { try await RepairWorker(context).round(lease: lease) }
            await until { timers.isWaiting }
            repairing.cancel()
            _ = await repairing.result
            #expect(try await cluster.ledger(ledger) == before)
            #expect(try await cluster.queue(context).map(\.state) == [.waiting])
        }
    }
}
