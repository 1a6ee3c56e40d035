// cistern-bench-remote: server and client on a core each, beside Redis and embedded RocksDB.
//
//   run      ─► for each repeat, group and side: a process of its own, pinned to the client's core, runs `measure`
//   measure  ─► one side of one group; starts its server on the server's core
//   report   ─► table and plot of JSON lines

import ArgumentParser
import CisternBenchKit
import CisternClient
import Foundation

@main
struct RemoteBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cistern-bench-remote",
        abstract: "Runs server and client beside Redis and embedded RocksDB, and writes a JSON object a line.",
        subcommands: [RunCommand.self, MeasureCommand.self, CheckpointCommand.self, ReportCommand.self],
        defaultSubcommand: RunCommand.self)
}

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "run", abstract: "Runs the suite.")

    @Flag(help: "A tenth of the entries: minutes become seconds.")
    var quick = false

    @Option(help: "Times each side runs a case; the sides alternate.")
    var repeats = 3

    @Option(help: "Seed of keys, values and orders.")
    var seed: UInt64 = 20_130_101

    @Option(help: "Where the lines go; table and plot beside them.")
    var out = "Benchmarks/out/remote.jsonl"

    @Option(help: "Only groups that have a case whose name begins with this.")
    var filter = ""

    @Option(help: "Runs one side alone, ours or peer, and prints what it measured; for a profiler.")
    var only: Side?

    func run() async throws {
        guard ProcessInfo.processInfo.processorCount >= 2 else {
            throw BenchFailure("the suite needs two cores, one for the server and one for the client")
        }
        let groups = RemoteGroup.allCases.filter { $0.cases.contains { $0.hasPrefix(filter) } }
        guard !groups.isEmpty else { throw ValidationError("there is no case \(filter)…") }
        let root = (out as NSString).deletingLastPathComponent + "/remote-stores"
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: root) }
        let redis = Served.redisName()
        print("peers   \(redis), \(try EmbeddedRocks.name())")
        print("suite   remote\(quick ? ", quick" : ""), seed \(seed), \(repeats) repeats, load \(loadAverage())")
        var results = Results(
            suite: RemoteSuite.name, peerNames: [.peer: redis], bars: RemoteSuite.bars,
            peerNamesByCase: try RemoteSuite.peerNames())
        for repetition in 1...repeats {
            for group in groups {
                let began = wallNanoseconds()
                // The side that begins changes, so that neither always has the warmer machine.
                for side in repetition % 2 == 1 ? [Side.ours, .peer] : [.peer, .ours] where only == nil || only == side
                {
                    for measurement in try measure(group, side, root) { results.add(measurement, side) }
                }
                let seconds = String(format: "%.1f", (wallNanoseconds() - began) / 1e9)
                print("repeat  \(repetition) of \(repeats): \(group), \(seconds) s, load \(loadAverage())")
            }
        }
        let lines = results.lines().filter { $0.caseName.hasPrefix(filter) }
        if only != nil { return print(Report.table(lines)) }
        try ResultLine.write(lines, to: out)
        try ReportCommand.report(lines, out)
    }

    private func measure(_ group: RemoteGroup, _ side: Side, _ root: String) throws -> [CaseMeasurement] {
        let result = "\(root)/\(group)-\(side).json"
        let process = Process()
        let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
        let arguments =
            [
                program, "measure", "--group", group.rawValue, "--side", side.rawValue, "--seed", "\(seed)", "--root",
                root, "--result", result, "--filter", filter,
            ] + (quick ? ["--quick"] : [])
        // Embedded RocksDB has no server, so it gets the server's core for its background work.
        let isEmbedded = side == .peer && [.counter1m, .counter10m, .dedup].contains(group)
        let cores = isEmbedded ? "\(Served.serverCore),\(Served.clientCore)" : "\(Served.clientCore)"
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["taskset", "-c", cores] + arguments
        try process.run()
        process.waitUntilExit()
        guard process.terminationReason == .exit, process.terminationStatus == 0 else {
            throw BenchFailure("\(side) failed at \(group): see above")
        }
        defer { try? FileManager.default.removeItem(atPath: result) }
        return try JSONDecoder().decode([CaseMeasurement].self, from: Data(contentsOf: URL(fileURLWithPath: result)))
    }
}

struct MeasureCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure", abstract: "Runs one side of one group; `run` starts it.", shouldDisplay: false)

    @Option var group: String
    @Option var side: Side
    @Flag var quick = false
    @Option var seed: UInt64
    @Option var root: String
    @Option var result: String
    @Option var filter = ""

    func run() async throws {
        guard let group = RemoteGroup(rawValue: group) else { throw ValidationError("there is no group \(group)") }
        let path = "\(root)/\(group)-\(side)"
        try? FileManager.default.removeItem(atPath: path)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        // Ours is a worker beside its connection; a peer blocks where it is.
        let context = RemoteContext(side: side, isQuick: quick, seed: seed, directory: path, filter: filter)
        let result = URL(fileURLWithPath: result)
        if side == .ours || group == .codec {
            try await WorkerLoop().run { try await MeasureCommand.measure(group, context, result) }
        } else {
            try await MeasureCommand.measure(group, context, result)
        }
    }

    private static func measure(
        _ group: RemoteGroup, _ context: RemoteContext, _ result: URL
    ) async throws {
        switch (group, context.side) {
        case (.wire, .ours): try await WireCases(context).ours()
        case (.wire, _): try WireCases(context).redis()
        case (.counter1m, .ours): try await CounterCase(context, name: "counter_1m", keys: 1_000_000).ours()
        case (.counter1m, _): try CounterCase(context, name: "counter_1m", keys: 1_000_000).rocks()
        case (.counter10m, .ours): try await CounterCase(context, name: "counter_10m", keys: 10_000_000).ours()
        case (.counter10m, _): try CounterCase(context, name: "counter_10m", keys: 10_000_000).rocks()
        case (.dedup, .ours): try await DedupCase(context).ours()
        case (.dedup, _): try DedupCase(context).rocks()
        case (.codec, _): try await CodecCase(context).run()
        }
        try JSONEncoder().encode(context.measurements).write(to: result)
    }
}

struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Prints the table of a file of JSON lines and writes its plot beside it.")

    @Argument(help: "The file.")
    var file: String

    func run() throws { try ReportCommand.report(try ResultLine.read(file), file) }

    static func report(_ lines: [ResultLine], _ path: String) throws {
        let table = Report.table(lines)
        print("\n" + table)
        let base = (path as NSString).deletingPathExtension
        try (table + "\n").write(toFile: base + ".md", atomically: true, encoding: .utf8)
        try Report.plot(lines, title: "remote: Cistern beside its peers").write(
            toFile: base + ".svg", atomically: true, encoding: .utf8)
    }
}

extension Side: ExpressibleByArgument {}
