import CisternChangelog
import CisternLogNode
import CisternLogProtocol
import CisternLogRepair
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Testing

@Suite(.timeLimit(.minutes(1))) struct NodeMenderTests {
    /// Flips a byte of an entry: in the oldest segment, which the scrubber finds, or in the newest one, which a start finds.
    private func rot(_ node: ClusterNode, newest: Bool = false) throws {
        let segments = node.disk.paths.filter { $0.contains("/journal-") && $0.hasSuffix(".seg") }
        let segment = try #require(newest ? segments.last : segments.first)
        var bytes = try #require(node.disk.contents(segment))
        bytes[2_000] ^= 1
        node.disk.setContents(segment, bytes)
    }

    /// Until the node has written `segments` segments: acknowledgements do not wait for all nodes.
    private func has(_ node: ClusterNode, segments: Int) async {
        let host = node.host!
        await until {
            await withCheckedContinuation { continuation in
                host.status { continuation.resume(returning: $0.segments) }
            } >= segments
        }
    }

    private func scrub(_ node: ClusterNode) async {
        let host = node.host!
        _ = await withCheckedContinuation { continuation in host.scrub { continuation.resume(returning: $0) } }
    }

    @Test func rottenEntriesAreWrittenAnewOnTheSameNode() async throws {
        try await RepairCluster.with(3) { cluster in
            let ledger = try await cluster.write(600, size: 1_000)
            let before = try await cluster.ledger(ledger)
            await has(cluster[1], segments: 3)
            try rot(cluster[1])
            await scrub(cluster[1])
            let damaged = await cluster[1].losses().damaged[ledger]
            #expect(damaged?.isEmpty == false)
            let context = cluster.context()
            let mender = NodeMender(context, host: cluster[1].host)
            #expect(try await mender.mend() == 0)
            #expect(context.figures.entriesCopied == UInt64(damaged?.count ?? 0))
            #expect(await cluster[1].losses().damaged.isEmpty)
            #expect(try await cluster.queue(context).isEmpty)
            #expect(try await cluster.ledger(ledger) == before)
            try await cluster.lose(2, 3)
            try await cluster.check(ledger, has: 600, size: 1_000)
        }
    }

    @Test func rotInWhatAWriterWritesWaitsForItsEnd() async throws {
        try await RepairCluster.with(3) { cluster in
            let writer = try await cluster.create()
            for number in 0..<600 { try await writer.append(body(number, size: 1_000)) }
            try await writer.acknowledged(EntryID(599))
            await has(cluster[1], segments: 3)
            try rot(cluster[1])
            await scrub(cluster[1])
            let context = cluster.context()
            let mender = NodeMender(context, host: cluster[1].host)
            #expect(try await mender.mend() == 1)
            #expect(try await cluster.queue(context).map(\.loss) == [.limbo])
            #expect(context.figures.toMend == 1)
            try await writer.close()
            #expect(try await mender.mend() == 0)
            #expect(try await cluster.queue(context).isEmpty)
        }
    }

    @Test func theOnlyCopyThatRotsIsReportedLost() async throws {
        try await RepairCluster.with(1) { cluster in
            let ledger = try await cluster.write(600, (1, 1, 1), on: nodes(1), size: 1_000)
            try rot(cluster[1])
            await scrub(cluster[1])
            let context = cluster.context()
            let mender = NodeMender(context, host: cluster[1].host)
            for _ in 0..<2 { #expect(try await mender.mend() == 1) }
            let left = try await cluster.queue(context)
            #expect(left.map(\.ledger) == [ledger] && left[0].state == .lost)
            #expect(context.figures.failures == 1)
        }
    }

    @Test func limboEndsWhenTheLedgersAreHereAgain() async throws {
        try await RepairCluster.with(4) { cluster in
            let closed = try await cluster.write(600, size: 1_000)
            let open = try await cluster.create()
            for number in 0..<10 { try await open.append(body(number)) }
            try await open.acknowledged(EntryID(9))
            let elsewhere = try await cluster.write(5, on: nodes(2, 3, 4))
            await has(cluster[1], segments: 3)
            try await cluster.lose(1)
            try rot(cluster[1], newest: true)
            try await cluster.start(1)
            try #require(!cluster[1].host.damage.isEmpty)
            let all = [closed, open.ledger, elsewhere]
            await until { await cluster[1].losses().limboThrough != nil }
            #expect(await cluster[1].losses(among: all).inLimbo == all)
            let context = cluster.context()
            let mender = NodeMender(context, host: cluster[1].host)
            // The writer of the open one may be at work. The client's connection to the node may need a moment.
            try await until { try await mender.mend() == 1 }
            await until { await cluster[1].losses(among: all).inLimbo == [open.ledger, elsewhere] }
            open.stop()
            cluster.time.advance(milliseconds: context.options.openLedgerGraceMilliseconds)
            try await until { try await mender.mend() == 0 }
            await until { await cluster[1].losses(among: all).inLimbo == [elsewhere] }
            #expect(try await cluster.queue(context).isEmpty)
            #expect(try await cluster.ledger(open.ledger).state == .closed(lastEntry: EntryID(9)))
            try await cluster.lose(2, 3)
            try await cluster.check(closed, has: 600, size: 1_000)
            try await cluster.check(open.ledger, has: 10)
        }
    }

    @Test func aNodeInLimboThatIsLostIsRepairedByOthers() async throws {
        try await RepairCluster.with(4) { cluster in
            let ledger = try await cluster.write(10)
            let context = cluster.context()
            #expect(try await context.queue.put(ledger, LogNodeID(1), .limbo))
            try await cluster.lose(1)
            try await cluster.repairAll(context)
            #expect(try await cluster.queue(context).isEmpty)
            #expect(try await cluster.ledger(ledger).fragments[0].ensemble == nodes(4, 2, 3))
        }
    }
}
