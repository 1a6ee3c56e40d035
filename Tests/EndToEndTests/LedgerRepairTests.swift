// Nodes that do not come back, as an operator meets them: real processes, a real etcd, kill -9.

import CisternChangelog
import CisternDaemon
import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Foundation
import Testing

@Suite(
    .serialized, .timeLimit(.minutes(2)),
    .enabled(if: EtcdProcess.program != nil, "etcd is not in PATH: install etcd-server"))
struct LedgerRepairTests {
    private static let three = QuorumSizes(ensemble: 3, write: 3, ack: 2)

    private func write(_ count: Int, _ sizes: QuorumSizes, on nodes: [UInt64], _ cluster: LogNodeCluster) async throws
        -> LedgerID
    {
        let writer = try await cluster.writer(sizes, on: nodes)
        for number in 0..<count { _ = try await writer.append(entryBody(number)) }
        try await writer.close()
        return writer.ledger
    }

    /// Waits for the moment in which none of the ledgers names the node.
    private func wait(until node: UInt64, isGoneFrom ledgers: [LedgerID], _ cluster: LogNodeCluster) async throws {
        func names() async throws -> Bool {
            for ledger in ledgers {
                guard case .found(let found) = await cluster.ledgers.ask(.get(ledger)) else { return true }
                if found.value.allNodes.contains(LogNodeID(node)) { return true }
            }
            return false
        }
        let prefix = cluster.ledgers.keys.ledgers
        let page = try await cluster.metadata.list(prefix: prefix, after: nil, limit: 1)
        if try await !names() { return }
        for try await _ in cluster.metadata.watch(prefix: prefix, from: page.version + 1) where try await !names() {
            return
        }
    }

    @Test func theLedgersOfANodeThatIsKilledForGoodAreWholeOnTheOthers() async throws {
        try await LogNodeCluster.with(0) { cluster in
            for node in UInt64(1)...4 { try cluster.start(node, ["--repair-grace", "1s", "--lease", "1s"]) }
            var ledgers: [LedgerID] = []
            for _ in 0..<3 { ledgers.append(try await write(500, Self.three, on: [1, 2, 3], cluster)) }
            #expect(cluster.end(1, by: SIGKILL) == -SIGKILL)
            try await wait(until: 1, isGoneFrom: ledgers, cluster)
            // One more may go now.
            #expect(cluster.end(2, by: SIGKILL) == -SIGKILL)
            for ledger in ledgers { #expect(try await cluster.read(ledger) == (0..<500).map(entryBody)) }
            var repaired = 0
            for node in UInt64(3)...4 {
                let admin = "\(try #require(cluster.process(node).admin))"
                let metrics = try await AdminClient.get("/metrics", from: admin)
                #expect(metrics.contains("cistern_log_repair_ledgers{state=\"lost\"} 0\n"))
                repaired += metrics.contains("cistern_log_repair_auditor 1\n") ? 1 : 0
            }
            #expect(repaired <= 1)
        }
    }

    @Test func anOperatorHasLedgersRepairedAtOnceAndSeesWhatIsLost() async throws {
        try await LogNodeCluster.with(0) { cluster in
            for node in UInt64(1)...4 { try cluster.start(node, ["--lease", "1s"]) }
            func ledger(_ arguments: String...) async throws -> CisternBinary.Output {
                let flags = ["--etcd", "\(cluster.etcd.endpoint)", "--cluster", LogNodeCluster.name]
                return try await onOwnThread { try CisternBinary.run(["ledger"] + arguments + flags) }
            }
            let whole = try await write(500, Self.three, on: [1, 2, 3], cluster)
            let only = try await write(10, QuorumSizes(ensemble: 1, write: 1, ack: 1), on: [1], cluster)
            let refused = try await ledger("repair", "1")
            #expect(refused.status == 1 && refused.error.contains("stop it first"), "\(refused.error)")
            #expect(cluster.end(1, by: SIGTERM) == 0)
            let ordered = try await ledger("repair", "1")
            #expect(ordered.status == 0 && ordered.output.contains("2 ledgers of log node 1"), "\(ordered)")
            try await wait(until: 1, isGoneFrom: [whole], cluster)
            #expect(try await cluster.read(whole) == (0..<500).map(entryBody))
            let prefix = cluster.ledgers.keys.repairs
            let page = try await cluster.metadata.list(prefix: prefix, after: nil, limit: 10)
            var changes = cluster.metadata.watch(prefix: prefix, from: page.version + 1).makeAsyncIterator()
            var listed = try await ledger("repairs").output
            while !listed.contains("lost") || listed.count(where: { $0 == "\n" }) != 1 {
                _ = try await changes.next()
                listed = try await ledger("repairs").output
            }
            #expect(listed.contains("ledger \(only.rawValue)  node 1  the node is gone  lost: no copy is left"))
            // Back with its disk: nothing is lost.
            try cluster.start(1)
            while !listed.isEmpty {
                _ = try await changes.next()
                listed = try await ledger("repairs").output
            }
            #expect(try await cluster.read(only) == (0..<10).map(entryBody))
        }
    }
}
