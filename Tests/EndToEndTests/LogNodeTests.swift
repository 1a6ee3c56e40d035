// `cistern log-node` as an operator runs it: real processes, a real etcd, kill -9, SIGTERM, directories that do not fit.

import CisternChangelog
import CisternDaemon
import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import CisternTransport
import Foundation
import NIOCore
import NIOPosix
import Testing

@Suite(.serialized, .enabled(if: EtcdProcess.program != nil, "etcd is not in PATH: install etcd-server"))
struct LogNodeTests {
    private static let three = QuorumSizes(ensemble: 3, write: 3, ack: 2)

    private func append(_ numbers: Range<Int>, to writer: LedgerWriterHandle) async throws {
        for number in numbers { _ = try await writer.append(entryBody(number)) }
    }

    @Test func aLedgerIsCompleteAfterANodeWasKilledAndCameBack() async throws {
        try await LogNodeCluster.with(3) { cluster in
            let writer = try await cluster.writer(Self.three, on: [1, 2, 3])
            try await append(0..<1_000, to: writer)
            try await writer.acknowledged(EntryID(999))
            #expect(cluster.end(2, by: SIGKILL) == -SIGKILL)
            try await append(1_000..<1_500, to: writer)
            try await writer.acknowledged(EntryID(1_499))

            // At another port: clients find it by its registration.
            try cluster.start(2)
            try await append(1_500..<2_000, to: writer)
            #expect(try await writer.close() == EntryID(1_999))
            let whole = (0..<2_000).map(entryBody)
            #expect(try await cluster.read(writer.ledger) == whole)

            // What it had before its end is there again: with the first node away, entries are read from it.
            #expect(cluster.end(1, by: SIGTERM) == 0)
            #expect(try await cluster.read(writer.ledger) == whole)
        }
    }

    @Test func aLogIsTakenOverWithAllThatWasDurable() async throws {
        try await LogNodeCluster.with(3) { cluster in
            let first = try await Changelog.takeOver(
                "orders", attempt: 1, client: cluster.client, metadata: cluster.ledgers)
            var last: LogSequenceNumber?
            for number in 0..<500 { last = try await first.append(entryBody(number)) }
            try await first.persist(through: try #require(last))
            #expect(cluster.end(3, by: SIGKILL) == -SIGKILL)
            try cluster.start(3)
            let second = try await Changelog.takeOver(
                "orders", attempt: 2, client: cluster.client, metadata: cluster.ledgers)
            let found = Guarded<[[UInt8]]>([])
            try await second.read(from: nil) { entry in found.withLock { $0.append(entry.body) } }
            #expect(found.withLock { $0 } == (0..<500).map(entryBody))
            await #expect(throws: ChangelogError.self) {
                let place = try await first.append([1])
                try await first.persist(through: place)
            }
            try await second.close()
        }
    }

    @Test func sigtermAnswersWhatIsInFlightAndGivesTheRegistrationBack() async throws {
        try await LogNodeCluster.with(1) { cluster in
            let writer = try await cluster.writer(QuorumSizes(ensemble: 1, write: 1, ack: 1), on: [1])
            try await append(0..<2_000, to: writer)
            #expect(cluster.end(1, by: SIGTERM) == 0)
            #expect(await cluster.ledgers.registration(of: LogNodeID(1)) == nil)

            // Sent again, or answered before: each is there once.
            try cluster.start(1)
            #expect(try await writer.close() == EntryID(1_999))
            #expect(try await cluster.read(writer.ledger) == (0..<2_000).map(entryBody))
        }
    }

    @Test func aDirectoryThatIsNotTheNodesIsRefusedWithWhatToDo() async throws {
        try await LogNodeCluster.with(1) { cluster in
            func refusal(_ arguments: [String]) async throws -> String {
                let run = try await onOwnThread { try CisternBinary.run(arguments) }
                #expect(run.status == 1)
                #expect(run.output.isEmpty)
                return run.error
            }
            let locked = try await refusal(cluster.arguments(1))
            #expect(locked.contains("lock"), "\(locked)")
            #expect(cluster.end(1, by: SIGTERM) == 0)
            let empty = try await refusal(cluster.arguments(1, in: cluster.path(9)))
            #expect(empty.contains("log node 1 of cluster test has a directory already"), "\(empty)")
            let other = try await refusal(cluster.arguments(2, in: cluster.path(1)))
            #expect(other.contains("is the directory of log node 1, not of 2"), "\(other)")
            let elsewhere = try await refusal(cluster.arguments(1, cluster: "production"))
            #expect(elsewhere.contains("etcd knows no cluster production"), "\(elsewhere)")
            try cluster.start(1)
        }
    }

    @Test func aNodeWhoseLeaseEndedRegistersAgain() async throws {
        try await LogNodeCluster.with(0) { cluster in
            try cluster.start(1, ["--lease", "2s"])
            let key = cluster.ledgers.keys.node(LogNodeID(1))
            let lease = try #require(try await cluster.metadata.get(key)?.lease)
            try await cluster.metadata.release(lease)
            try await cluster.wait(for: 1) { $0 != nil }
            #expect(try await cluster.metadata.get(key)?.lease != lease)

            // A node that stands still loses its registration by itself.
            cluster.process(1).send(SIGSTOP)
            try await cluster.wait(for: 1) { $0 == nil }
            cluster.process(1).send(SIGCONT)
            try await cluster.wait(for: 1) { $0 != nil }
            #expect(cluster.end(1, by: SIGTERM) == 0)
        }
    }

    @Test func nodesServeOnWhileEtcdIsAway() async throws {
        try await LogNodeCluster.with(3) { cluster in
            let writer = try await cluster.writer(Self.three, on: [1, 2, 3])
            try await append(0..<10, to: writer)
            try await writer.acknowledged(EntryID(9))
            cluster.etcd.kill()
            try await append(10..<500, to: writer)
            try await writer.acknowledged(EntryID(499))
            try await cluster.etcd.run()
            #expect(try await writer.close() == EntryID(499))
            #expect(try await cluster.read(writer.ledger) == (0..<500).map(entryBody))
            for node in UInt64(1)...3 { try await cluster.wait(for: node) { $0 != nil } }
        }
    }

    /// Ends a node for ever, and returns when another one has what it had.
    private func lose(_ node: UInt64, in cluster: LogNodeCluster, keeping ensemble: [UInt64]) async throws {
        let writer = try await cluster.writer(QuorumSizes(ensemble: 2, write: 2, ack: 2), on: [1, node])
        try await append(0..<500, to: writer)
        #expect(try await writer.close() == EntryID(499))
        #expect(cluster.end(node, by: SIGKILL) == -SIGKILL)
        try await cluster.wait(for: cluster.ledgers.keys.ledger(writer.ledger)) {
            guard case .found(let found) = await cluster.ledgers.ask(.get(writer.ledger)) else { return false }
            return found.value.fragments.allSatisfy { $0.ensemble == ensemble.map { LogNodeID($0) } }
        }
        // The copies alone are the whole ledger.
        #expect(cluster.end(1, by: SIGTERM) == 0)
        #expect(try await cluster.read(writer.ledger) == (0..<500).map(entryBody))
    }

    @Test func whatALostNodeHeldIsCopiedToAnother() async throws {
        try await LogNodeCluster.with(0) { cluster in
            for node in UInt64(1)...3 { try cluster.start(node, ["--lease", "2s", "--repair-grace", "100ms"]) }
            try await lose(2, in: cluster, keeping: [1, 3])
        }
    }

    @Test func protectedNodesAreUsedAndRepairedWithCertificatesAndTokens() async throws {
        let directory = try TemporaryDirectory()
        let writer = try NewToken(name: "writer", scopes: "write:changelog")
        let peer = try NewToken(name: "peer", scopes: "write:changelog")
        let (tokens, secret) = (directory.path + "/tokens", directory.path + "/peer")
        try [writer, peer].map { $0.line + "\n" }.joined().write(
            toFile: tokens, atomically: true, encoding: .utf8)
        try (peer.token + "\n").write(toFile: secret, atomically: true, encoding: .utf8)
        let flags = [
            "--lease", "2s", "--repair-grace", "100ms", "--tls-certificate", TestCertificates.certificate("server"),
            "--tls-key", TestCertificates.key("server"), "--tokens-file", tokens, "--log-authorities",
            TestCertificates.certificate("authority"), "--log-token-file", secret,
        ]
        func transport(_ token: String) throws -> ClientTransportOptions {
            var options = ClientTransportOptions()
            options.tls = try ClientTLS(
                trustedCertificates: TestCertificates.certificate("authority"), certificate: nil, key: nil,
                serverName: nil)
            options.token = token
            return options
        }
        try await LogNodeCluster.with(0, transport: transport(writer.token)) { cluster in
            for node in UInt64(1)...3 { try cluster.start(node, flags) }
            for wrong in ["", "cst_guessed"] {
                await #expect(throws: TransportError.self) {
                    _ = try await ClientConnection.connect(
                        cluster.process(1).endpoints[0], group: MultiThreadedEventLoopGroup.singleton,
                        options: transport(wrong))
                }
            }
            try await lose(2, in: cluster, keeping: [1, 3])
        }
    }

    @Test func theAdminPortTellsOfTheNode() async throws {
        try await LogNodeCluster.with(1) { cluster in
            let writer = try await cluster.writer(QuorumSizes(ensemble: 1, write: 1, ack: 1), on: [1])
            try await append(0..<100, to: writer)
            try await writer.close()
            let admin = "\(try #require(cluster.process(1).admin))"
            #expect(try await AdminClient.get("/healthz", from: admin) == "ok\n")
            #expect(try await AdminClient.get("/readyz", from: admin) == "serving\n")
            #expect(try await AdminClient.get("/version", from: admin) == ServerVersion.name + "\n")
            let metrics = try await AdminClient.get("/metrics", from: admin)
            for line in [
                "cistern_log_node_requests_total{kind=\"add\"} 100", "cistern_log_node_add_bytes_total 102400",
                "cistern_log_node_registered 1", "cistern_log_node_read_only 0", "cistern_log_node_ledgers 1",
                "cistern_log_node_limbo_ledgers 0", "cistern_ready 1",
            ] { #expect(metrics.contains(line + "\n"), "\(line) in \(metrics)") }
        }
    }

    @Test func aNodeThatWaitsForMetadataEndsWithZero() async throws {
        let directory = try TemporaryDirectory()
        // An etcd that takes connections and says nothing.
        let (connections, connected) = AsyncStream<Void>.makeStream()
        let silent = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                connected.yield()
                return channel.eventLoop.makeSucceededVoidFuture()
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let node = try DaemonProcess(
            [
                "log-node", "run", "--data", directory.path, "--node", "1", "--etcd",
                "127.0.0.1:\(try #require(silent.localAddress?.port))", "--listen", "127.0.0.1:0", "--log-level",
                "critical",
            ], lines: 0)
        for await _ in connections { break }
        #expect(node.end(by: SIGTERM) == 0)
        try await silent.close()
    }

    @Test func aNodeWithoutANumberSaysWhatToGive() async throws {
        let run = try await onOwnThread { try CisternBinary.run(["log-node", "--data", "/nowhere"]) }
        #expect(run.status == 1)
        #expect(run.error.contains("the node has no number"), "\(run.error)")
    }
}
