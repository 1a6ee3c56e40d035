// `cistern dev-cluster` as somebody who tries it out: up, a job, down, and what is left of a cluster that was killed.

import CisternTestKit
import Foundation
import Testing

@Suite(.serialized, .enabled(if: EtcdProcess.program != nil, "etcd is not in PATH: install etcd-server"))
struct DevClusterTests {
    /// Ends the cluster at the latest when nobody refers to it any more.
    final class Cluster {
        private let temporary = try! TemporaryDirectory()
        var directory: String { temporary.path + "/cluster" }

        func run(
            _ command: String, path: String? = ProcessInfo.processInfo.environment["PATH"]
        ) async throws -> CisternBinary.Output {
            let arguments = ["dev-cluster", command, "--directory", directory]
            let environment = path.map { ["PATH": $0] } ?? [:]
            return try await onOwnThread { try CisternBinary.run(arguments, environment: environment) }
        }

        /// Returns when the process has ended: a signal is not the end yet.
        func kill(_ member: String) async throws {
            let text = try String(contentsOfFile: directory + "/run/\(member).pid", encoding: .utf8)
            let id = try #require(text.split(separator: " ").first.flatMap { Int32($0) })
            #expect(Foundation.kill(id, SIGKILL) == 0)
            while Cluster.runs(id) { await Task.yield() }
        }

        /// One that nobody has waited for yet has ended, too.
        private static func runs(_ id: Int32) -> Bool {
            guard let text = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8) else { return false }
            return text.split(separator: ")").last?.split(separator: " ").first != "Z"
        }

        deinit {
            _ = try? CisternBinary.run(["dev-cluster", "down", "--directory", directory])
        }
    }

    /// By name.
    static func addresses(_ output: String) -> [String: String] {
        let words = output.split(separator: "\n").map { $0.split(separator: " ", omittingEmptySubsequences: true) }
        return Dictionary(
            words.filter { $0.count > 3 && $0[1].hasPrefix("127.") }.map { (String($0[0]), String($0[1])) }
        ) { first, _ in first }
    }

    @Test func theFlightsJobRunsAgainstItUnchanged() async throws {
        let cluster = Cluster()
        let up = try await cluster.run("up")
        try #require(up.status == 0, "\(up.error)")
        let addresses = Self.addresses(up.output)
        #expect(addresses.keys.sorted() == ["etcd", "log-1", "log-2", "log-3", "state-1", "state-2"])
        #expect(try await cluster.run("status").status == 0)

        let run = try await FlightsRun.run(
            ["--server", try #require(addresses["state-1"])], flights: FlightsRun.someFlights)
        #expect(run.status == 0, "\(run.output)")
        #expect(run.numbers["restores"] == 1)

        let down = try await cluster.run("down")
        #expect(down.status == 0, "\(down.error)")
        #expect(!down.output.contains("was killed"), "\(down.output)")
        let stopped = try await cluster.run("status")
        #expect(stopped.status == 1)
        #expect(!stopped.output.contains("runs"), "\(stopped.output)")
        #expect(try await cluster.run("down").status == 0)
    }

    @Test func aHalfDeadClusterIsMendedByUpAndEndedByDown() async throws {
        let cluster = Cluster()
        let first = try await cluster.run("up")
        try #require(first.status == 0, "\(first.error)")
        for member in ["etcd", "log-2", "state-1"] { try await cluster.kill(member) }
        let status = try await cluster.run("status")
        #expect(status.status == 1)
        #expect(status.output.split(separator: "\n").count { $0.contains("has died") } == 3, "\(status.output)")

        let second = try await cluster.run("up")
        try #require(second.status == 0, "\(second.error)")
        // Everything keeps its place.
        #expect(Self.addresses(second.output) == Self.addresses(first.output))
        #expect(try await cluster.run("status").status == 0)

        for member in ["log-1", "state-2"] { try await cluster.kill(member) }
        let down = try await cluster.run("down")
        #expect(down.status == 0, "\(down.error)")
        #expect(!(try await cluster.run("status")).output.contains("runs"))
    }

    @Test func withoutEtcdItSaysWhatIsMissing() async throws {
        let up = try await Cluster().run("up", path: "/nowhere")
        #expect(up.status == 1)
        #expect(up.error.contains("apt install etcd-server"), "\(up.error)")
    }

    @Test func aDirectoryWithoutAClusterIsNoClusterAndNothingToEnd() async throws {
        let cluster = Cluster()
        let status = try await cluster.run("status")
        #expect(status.status == 1)
        #expect(status.error.contains("there is no cluster in"), "\(status.error)")
        #expect(try await cluster.run("down").status == 0)
    }
}
