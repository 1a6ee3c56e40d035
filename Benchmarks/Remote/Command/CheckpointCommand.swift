// The suite `checkpoint`: a state of 0.1 GB, then one of 5 GB, each with a server of its own.

import ArgumentParser
import CisternBenchKit
import Foundation

struct CheckpointCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint", abstract: "Runs the suite checkpoint: checkpoints, restarts, rescales, memory.")

    @Flag(help: "A state of 0.5 GB instead of 5, fewer checkpoints and stores.")
    var quick = false

    @Option(help: "Seed of keys and values.")
    var seed: UInt64 = 20_130_101

    @Option(help: "Where the lines go; table and plot beside them.")
    var out = "Benchmarks/out/checkpoint.jsonl"

    @Option(help: "Only cases whose name begins with this.")
    var filter = ""

    @Flag(inversion: .prefixedNo, help: "The server uploads to a snapshot store meanwhile.")
    var upload = true

    func run() async throws {
        let wanted = CheckpointSuite.cases.filter { $0.hasPrefix(filter) }
        guard !wanted.isEmpty else { throw ValidationError("there is no case \(filter)…") }
        let out = URL(fileURLWithPath: out).path
        let root = (out as NSString).deletingLastPathComponent + "/checkpoint-stores"
        defer { try? FileManager.default.removeItem(atPath: root) }
        print("suite   checkpoint\(quick ? ", quick" : ""), seed \(seed), load \(loadAverage())")
        var results = Results(suite: CheckpointSuite.name, peerNames: [:], bars: CheckpointSuite.bars)
        if wanted != ["server_memory"] {
            let small = try await measure(100_000_000, root)
            let large = try await measure(quick ? 500_000_000 : 5_000_000_000, root)
            for line in CheckpointCommand.lines(small, large) { results.add(line, .ours) }
        }
        if wanted.contains("server_memory") {
            let path = try directory(root)
            let memory = try await ServerMemoryCase(
                directory: path, stores: quick ? 200 : 1000, data: RemoteData(seed: seed)
            ).run()
            results.add(
                CaseMeasurement(
                    "server_memory", [.memoryToBudget: memory.toBudget, .largeToSmall: memory.growth]), .ours)
        }
        let lines = results.lines().filter { wanted.contains($0.caseName) }
        try ResultLine.write(lines, to: out)
        try ReportCommand.report(lines, out)
    }

    private func directory(_ root: String) throws -> String {
        try? FileManager.default.removeItem(atPath: root)
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        return root
    }

    private func measure(_ bytes: Int, _ root: String) async throws -> StateMeasurement {
        let began = wallNanoseconds()
        let cases = CheckpointCases(
            directory: try directory(root), bytes: bytes, checkpoints: quick ? 20 : 100, data: RemoteData(seed: seed))
        let measured = try await cases.run(uploading: upload)
        let seconds = String(format: "%.1f", (wallNanoseconds() - began) / 1e9)
        print("state   \(bytes / 1_000_000) MB: \(seconds) s, load \(loadAverage())")
        return measured
    }

    private static func lines(_ small: StateMeasurement, _ large: StateMeasurement) -> [CaseMeasurement] {
        func times(_ name: String, _ path: KeyPath<StateMeasurement, Latencies>) -> CaseMeasurement {
            let (little, much) = (small[keyPath: path], large[keyPath: path])
            var values: [Metric: Double] = [:]
            values[.openTime] = much.quantile(1) / 1e6
            values[.openTimeSmall] = little.quantile(1) / 1e6
            values[.largeToSmall] = much.quantile(0.5) / max(little.quantile(0.5), 1)
            return CaseMeasurement(name, values)
        }
        var checkpoints: [Metric: Double] = [:]
        checkpoints[.p50] = large.checkpoints.quantile(0.5) / 1e3
        checkpoints[.p99] = large.checkpoints.quantile(0.99) / 1e3
        checkpoints[.p99Small] = small.checkpoints.quantile(0.99) / 1e3
        checkpoints[.longest] = large.checkpoints.quantile(1) / 1e3
        checkpoints[.largeToSmall] = large.checkpoints.quantile(0.5) / max(small.checkpoints.quantile(0.5), 1)
        checkpoints[.diskBytes] = Double(large.diskBytes)
        return [
            CaseMeasurement("checkpoint_p99", checkpoints), times("restart", \.restarts), times("rescale", \.rescales),
        ]
    }
}
