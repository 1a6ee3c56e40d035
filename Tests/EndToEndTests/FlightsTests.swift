// The main job against the truth of another program: real processes, real kills, every row compared.

import FlightsExample
import Foundation
import Testing

@Suite(.serialized) struct FlightsTests {
    struct Scenario: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var arguments: [String]
        var attempts: [Int]
        var serverKills = 0
    }

    static let scenarios = [
        Scenario(
            testDescription: "1 worker", arguments: ["--parallelism", "1", "--no-kill-worker"], attempts: [1]),
        Scenario(
            testDescription: "2 workers", arguments: ["--parallelism", "2", "--no-kill-worker"], attempts: [2]),
        Scenario(
            testDescription: "3 workers", arguments: ["--parallelism", "3", "--no-kill-worker"], attempts: [3]),
        Scenario(
            testDescription: "1 worker killed, 1 after", arguments: ["--parallelism", "1", "--rescale-to", "1"],
            attempts: [1, 1]),
        Scenario(
            testDescription: "2 workers, one killed, 3 after", arguments: ["--parallelism", "2", "--rescale-to", "3"],
            attempts: [2, 3]),
        Scenario(
            testDescription: "3 workers, one killed, 2 after", arguments: ["--parallelism", "3", "--rescale-to", "2"],
            attempts: [3, 2]),
        Scenario(
            testDescription: "the server killed",
            arguments: ["--parallelism", "2", "--no-kill-worker", "--kill-server"], attempts: [2], serverKills: 1),
        Scenario(
            testDescription: "the server killed, then a worker", arguments: ["--kill-server"], attempts: [2, 3],
            serverKills: 1),
    ]

    @Test(arguments: scenarios) func theTablesEqualTheTruth(scenario: Scenario) async throws {
        let truth = try await FlightsTruth.shared.value
        let run = try await FlightsRun.run(scenario.arguments)
        try #require(run.status == 0, "\(run.output)")

        for table in TableSchema.all {
            expectEqualRows(table.name, run.tables[table.name] ?? [], truth.tables[table.name] ?? [])
        }
        #expect(run.lists["parallelism"] == scenario.attempts)
        #expect(run.numbers["restores"] == scenario.attempts.count - 1)
        #expect(run.numbers["server_kills"] == scenario.serverKills)
        let checkpoints = FlightsRun.flights / FlightsRun.checkpointEvery
        #expect(try #require(run.numbers["checkpoints"]) >= checkpoints)

        // Write batching: at least a hundred operations for each RPC.
        let operations = try #require(run.numbers["write_operations"])
        let requests = try #require(run.numbers["write_rpcs"])
        #expect(operations > 5 * FlightsRun.flights)
        #expect(requests <= operations / 100, "\(requests) RPCs for \(operations) operations")
        // The key index: not one RPC for a key that does not exist.
        #expect(try #require(run.numbers["absent_reads"]) > FlightsRun.flights)
        #expect(run.numbers["absent_read_rpcs"] == 0)
        #expect(run.numbers["verify_disagreements"] == 0)
    }

    @Test func theKeyIndexAgreesWithTheServer() async throws {
        let run = try await FlightsRun.run(["--verify", "--rescale-to", "3"], flights: FlightsRun.someFlights)
        try #require(run.status == 0, "\(run.output)")
        #expect(try #require(run.numbers["verify_checks"]) > FlightsRun.someFlights)
        #expect(run.numbers["verify_disagreements"] == 0)
    }

    @Test func aSecondRunOnTheSameDirectoryStartsAfresh() async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("flights-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: directory) }
        let arguments = ["--data", directory.path, "--no-kill-worker"]
        let first = try await FlightsRun.run(arguments, flights: FlightsRun.someFlights)
        try #require(first.status == 0, "\(first.output)")
        let second = try await FlightsRun.run(arguments, flights: FlightsRun.someFlights)
        try #require(second.status == 0, "\(second.output)")
        #expect(!first.tables.isEmpty)
        #expect(first.tables == second.tables)
    }

    @Test(arguments: [
        (["--parallelism", "0"], "--parallelism"),
        (["--rescale-to", "3", "--no-kill-worker"], "--rescale-to"),
        (["--server", "127.0.0.1:1", "--kill-server"], "--kill-server"),
        (["--input", "/nonexistent.zst"], "cannot read the flights from /nonexistent.zst"),
        (["--input", "Package.swift"], "Package.swift is damaged"),
    ])
    func aRunThatCannotWorkSaysWhyAndFails(arguments: [String], message: String) async throws {
        let (status, output) = try await onOwnThread { try Program.run(["example", "flights"] + arguments) }
        #expect(status != 0)
        #expect(output.contains(message), "\(output)")
    }

    @Test func aWorkerStartedByHandSaysWhoStartsIt() async throws {
        let (status, output) = try await onOwnThread { try Program.run(["example", "flights-worker"]) }
        #expect(status != 0)
        #expect(output.contains("started by cistern example flights"), "\(output)")
    }
}

func expectEqualRows(_ table: String, _ rows: [String], _ truth: [String]) {
    #expect(!truth.isEmpty)
    guard rows != truth else { return }
    let wrong = Set(rows).subtracting(truth).sorted().prefix(3)
    let missing = Set(truth).subtracting(rows).sorted().prefix(3)
    Issue.record(
        "\(table): \(rows.count) rows, the truth has \(truth.count); wrong \(Array(wrong)), missing \(Array(missing))"
    )
}
