import CisternChangelog
import CisternLogProtocol
import CisternLogRepair
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Testing

@Suite(.timeLimit(.minutes(1))) struct RepairHostTests {
    private func host(_ cluster: RepairCluster, _ options: RepairOptions, node: ClusterNode? = nil) -> RepairHost {
        let host = RepairHost(
            store: cluster.store, client: cluster.client, node: node?.host, group: testGroup, options: options,
            logger: silent)
        host.start()
        return host
    }

    @Test func oneProcessAuditsAndAnotherFollowsIt() async throws {
        try await RepairCluster.with(4, time: SystemTime()) { cluster in
            var options = RepairOptions()
            options.graceMilliseconds = 0
            options.openLedgerGraceMilliseconds = 0
            options.copyBytesPerSecond = 1 << 30
            let hosts = (0..<3).map { _ in host(cluster, options) }
            await until { hosts.contains { $0.figures.isAuditor } }
            let first = try #require(hosts.first { $0.figures.isAuditor })
            let ledgers = [try await cluster.write(300), try await cluster.write(300)]
            try await cluster.lose(1)
            func isRepaired(_ node: UInt64) async throws -> Bool {
                for ledger in ledgers where try await cluster.ledger(ledger).allNodes.contains(LogNodeID(node)) {
                    return false
                }
                return try await cluster.metadata.list(prefix: cluster.store.keys.repairs, after: nil, limit: 1)
                    .entries.isEmpty
            }
            try await until { try await isRepaired(1) }
            #expect(hosts.count { $0.figures.isAuditor } == 1)
            #expect(hosts.reduce(0) { $0 + $1.figures.ledgersRepaired } == 2)
            await first.stop()
            await until { hosts.contains { $0 !== first && $0.figures.isAuditor } }
            #expect(!first.figures.isAuditor)
            try await cluster.add(5)
            try await cluster.lose(2)
            try await until { try await isRepaired(2) }
            for ledger in ledgers { try await cluster.check(ledger, has: 300) }
            for host in hosts { await host.stop() }
        }
    }

    @Test func aProcessStopsWhileItCopies() async throws {
        try await RepairCluster.with(4, time: SystemTime()) { cluster in
            var options = RepairOptions()
            options.graceMilliseconds = 0
            options.copyBytesPerSecond = 1
            let ledger = try await cluster.write(600)
            try await cluster.lose(1)
            let slow = host(cluster, options, node: cluster[2])
            try await until {
                try await cluster.metadata.get(cluster.store.keys.repairClaim(ledger)) != nil
            }
            await slow.stop()
            #expect(try await cluster.metadata.get(cluster.store.keys.repairClaim(ledger)) == nil)
            #expect(try await cluster.metadata.get(cluster.store.keys.repairer) == nil)
            options.copyBytesPerSecond = 1 << 30
            let quick = host(cluster, options)
            try await until { try await !cluster.ledger(ledger).allNodes.contains(LogNodeID(1)) }
            await quick.stop()
            try await cluster.check(ledger, has: 600)
        }
    }
}
