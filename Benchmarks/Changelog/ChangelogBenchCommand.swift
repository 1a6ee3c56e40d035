// cistern-bench-changelog: writers, recoveries and readers of ledgers on log nodes in processes of their own, beside raw writes.
//
//   run   ─► for each repeat and case: raw write + fdatasync, then ours, on the same disk
//             failover_5gb: a development cluster of `cistern`, which must be built beside this program
//   node  ─► one log node on a loopback port, until its input ends; then it says what it used

import ArgumentParser
import CisternBenchKit
import CisternLogProtocol
import Foundation

@main
struct ChangelogBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cistern-bench-changelog",
        abstract: "Runs the changelog service beside raw writes, and writes a JSON object a line.",
        subcommands: [RunCommand.self, NodeCommand.self], defaultSubcommand: RunCommand.self)
}

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "run", abstract: "Runs the suite.")

    @Flag(help: "A tenth of the entries: minutes become seconds.")
    var quick = false

    @Option(help: "Times each case runs.")
    var repeats = 3

    @Option(help: "Where the lines go; table and plot beside them.")
    var out = "Benchmarks/out/changelog.jsonl"

    @Option(help: "Only cases whose name begins with this.")
    var filter = ""

    func run() async throws {
        let cases = ChangelogCase.allCases.filter { $0.rawValue.hasPrefix(filter) }
        guard !cases.isEmpty else { throw ValidationError("there is no case \(filter)…") }
        let root = (URL(fileURLWithPath: out).path as NSString).deletingLastPathComponent + "/changelog-nodes"
        try? FileManager.default.removeItem(atPath: root)
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: root) }
        print("suite   changelog\(quick ? ", quick" : ""), \(repeats) repeats, load \(loadAverage())")
        var results = Results(
            suite: "changelog", peerNames: [.peer: "raw write + fdatasync"], bars: ChangelogCase.bars)
        for repetition in 1...repeats {
            for name in cases {
                let began = wallNanoseconds()
                let directory = "\(root)/\(name)"
                try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
                let context = CaseRun(name: name, directory: directory, isQuick: quick)
                if let raw = try context.raw() { results.add(raw, .peer) }
                results.add(try await context.ours(), .ours)
                try FileManager.default.removeItem(atPath: directory)
                let seconds = String(format: "%.1f", (wallNanoseconds() - began) / 1e9)
                print("repeat  \(repetition) of \(repeats): \(name), \(seconds) s, load \(loadAverage())")
            }
        }
        let lines = results.lines()
        try ResultLine.write(lines, to: out)
        let table = Report.table(lines)
        print("\n" + table)
        let base = (out as NSString).deletingPathExtension
        try (table + "\n").write(toFile: base + ".md", atomically: true, encoding: .utf8)
        try Report.plot(lines, title: "changelog: Cistern beside raw writes").write(
            toFile: base + ".svg", atomically: true, encoding: .utf8)
    }
}

enum ChangelogCase: String, CaseIterable {
    case append1 = "append_1"
    case append1000 = "append_1000"
    case appendLarge = "append_large"
    case quorum1 = "quorum_1"
    case quorum1000 = "quorum_1000"
    case writeAmplification = "write_amplification"
    case recovery1000 = "recovery_1000"
    case restoreRead = "restore_read"
    case persistP99 = "persist_p99"
    case failover5GB = "failover_5gb"

    var sizes: QuorumSizes {
        switch self {
        case .append1, .append1000, .appendLarge, .writeAmplification: QuorumSizes(ensemble: 1, write: 1, ack: 1)
        case .quorum1, .quorum1000, .recovery1000, .restoreRead, .persistP99, .failover5GB:
            QuorumSizes(ensemble: 3, write: 3, ack: 2)
        }
    }

    static let bars: [String: CaseBar] = [
        // At most twice the raw latency.
        ChangelogCase.append1.rawValue: .ratio(0.5, .p50),
        ChangelogCase.append1000.rawValue: .atLeast(250_000, .operationsPerSecond),
        ChangelogCase.appendLarge.rawValue: .ratio(0.5, .throughput),
        ChangelogCase.quorum1.rawValue: .atMost(600, .p50),
        // Three times the best of a real BookKeeper.
        ChangelogCase.quorum1000.rawValue: .atLeast(96_000, .operationsPerSecond),
        ChangelogCase.writeAmplification.rawValue: .atMost(1.15, .writeAmplification),
        ChangelogCase.recovery1000.rawValue: .atMost(20, .openTime),
        // Ten times a real BookKeeper.
        ChangelogCase.restoreRead.rawValue: .atLeast(290, .throughput),
        ChangelogCase.persistP99.rawValue: .atMost(20_000, .p99),
        ChangelogCase.failover5GB.rawValue: .atMost(2000, .openTime),
    ]
}
