// A state server's process is killed and its directory deleted: the other one of a development cluster goes on with its trees. How long
// that takes is measured by `failover_5gb` of the changelog's benchmarks.

import CisternClient
import CisternPrimitives
import CisternTestKit
import FlightsExample
import Foundation
import Testing

@Suite(.serialized, .enabled(if: EtcdProcess.program != nil, "etcd is not in PATH: install etcd-server"))
struct FailoverTests {
    private static let keyGroups = KeyGroupRange(first: 0, last: 127)

    private let keys = 50_000

    private func key(_ number: Int) -> [UInt8] { Array("customer-\(number)".utf8) }

    /// Nothing about it can be guessed from the key's number alone: what is read is what was written.
    private func value(_ number: Int, version: UInt64) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(number) &* 31 &+ version)
        return (0..<96).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    }

    private func attach(
        _ address: String, epoch: UInt64
    ) async throws -> (client: StateClient, session: KeyedStateSession, state: ValueState<[UInt8]>) {
        var configuration = ClientConfiguration(endpoint: address)
        configuration.keyIndex = .off
        let client = try await StateClient.connect(configuration)
        let session = try await client.attach(
            store: "customers", keyGroupCount: 128, keyGroups: Self.keyGroups, epoch: epoch, writer: "worker-\(epoch)",
            restoring: epoch == 1 ? [] : nil)
        return (client, session, try await session.valueState("balance", .bytes))
    }

    /// The manifest of the only snapshot is in the store: what happens in the background has no other sign.
    private func waitForSnapshot(in store: String) async throws {
        while true {
            let namespaces = (try? FileManager.default.contentsOfDirectory(atPath: store + "/snapshots")) ?? []
            for name in namespaces {
                let manifests = try FileManager.default.contentsOfDirectory(atPath: store + "/snapshots/" + name)
                if manifests.contains(where: { !$0.hasSuffix(".tmp") }) { return }
            }
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    @Test func aKilledServerWhoseDiskIsGoneLosesNothing() async throws {
        let cluster = DevClusterTests.Cluster()
        let up = try await cluster.run("up")
        try #require(up.status == 0, "\(up.error)")
        let addresses = DevClusterTests.addresses(up.output)
        let first = try #require(addresses["state-1"])
        let second = try #require(addresses["state-2"])
        let behind = keys / 10

        let before = try await attach(first, epoch: 1)
        for number in 0..<keys {
            try before.session.setCurrentKey(key(number))
            try await before.state.update(value(number, version: 1))
        }
        _ = try await before.session.snapshot(checkpoint: 1)
        try await waitForSnapshot(in: cluster.directory + "/snapshots")
        // These are in the log alone.
        for number in stride(from: 0, to: behind * 7, by: 7) {
            try before.session.setCurrentKey(key(number))
            try await before.state.update(value(number, version: 2))
        }
        try await before.session.flush()

        try await cluster.kill("state-1")
        try FileManager.default.removeItem(atPath: cluster.directory + "/state-1")
        before.session.abandon()
        await before.client.close()

        let after = try await attach(second, epoch: 2)
        let changed = Set(stride(from: 0, to: behind * 7, by: 7))
        var wrong: [Int] = []
        for number in 0..<keys {
            if number % 10_000 == 0 {
                try await after.state.prefetch((number..<min(keys, number + 10_000)).map { key($0) })
            }
            try after.session.setCurrentKey(key(number))
            let expected = value(number, version: changed.contains(number) ? 2 : 1)
            if try await after.state.value() != expected { wrong.append(number) }
        }
        #expect(wrong.isEmpty, "\(wrong.count) of \(keys) keys, the first of them \(wrong.prefix(5))")
        // And it goes on.
        try after.session.setCurrentKey(key(1))
        try await after.state.update(value(1, version: 3))
        try await after.session.flush()
        try await after.session.detach()
        await after.client.close()
        let down = try await cluster.run("down")
        #expect(down.status == 0, "\(down.error)")
    }

    /// The workers know both servers and go on by themselves: no restart, no restore, nothing read twice.
    @Test func theFlightsJobGoesOnAtTheOtherServerAndItsTablesAreRight() async throws {
        let cluster = DevClusterTests.Cluster()
        let up = try await cluster.run("up")
        try #require(up.status == 0, "\(up.error)")
        let addresses = DevClusterTests.addresses(up.output)
        let servers = try [#require(addresses["state-1"]), #require(addresses["state-2"])].joined(separator: ",")

        async let truth = FlightsTruth.shared.value
        async let running = FlightsRun.run(["--server", servers, "--no-kill-worker"])
        try await waitForSnapshot(in: cluster.directory + "/snapshots")
        try await cluster.kill("state-1")
        try FileManager.default.removeItem(atPath: cluster.directory + "/state-1")
        let run = try await running
        try #require(run.status == 0, "\(run.output)")
        for table in TableSchema.all {
            expectEqualRows(table.name, run.tables[table.name] ?? [], try await truth.tables[table.name] ?? [])
        }
        #expect(run.numbers["restores"] == 0)
        #expect(run.numbers["absent_read_rpcs"] == 0)
        let down = try await cluster.run("down")
        #expect(down.status == 0, "\(down.error)")
    }
}
