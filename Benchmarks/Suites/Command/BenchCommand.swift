// cistern-bench: the engine and its peers on the same operations, in turn.
//
//   run      ─► for each repeat, group of cases and side: a process of its own runs `measure`
//   measure  ─► one side of one group; its measurements go to a file
//   report   ─► table and plot of JSON lines
//   count    ─► hot operations for a tool that counts their instructions

import ArgumentParser
import CisternBenchKit
import Foundation

@main
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cistern-bench",
        abstract: "Runs the engine and its peers in turn on the same data and seed, and writes a JSON object a line.",
        subcommands: [RunCommand.self, MeasureCommand.self, ReportCommand.self, CountCommand.self],
        defaultSubcommand: RunCommand.self)
}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "run", abstract: "Runs a suite.")

    @Option(help: "engine, compaction or codec.")
    var suite = Suite.engine

    @Flag(help: "A tenth of the entries: minutes become seconds.")
    var quick = false

    @Option(help: "Times each side runs a case; the sides alternate.")
    var repeats = 3

    @Option(help: "Seed of keys, values and orders.")
    var seed: UInt64 = 20_130_101

    @Option(help: "Where the lines go. Default: Benchmarks/out/SUITE.jsonl; table and plot beside them.")
    var out: String?

    @Option(help: "Directory for the stores; removed at the end. Default: beside the lines.")
    var directory: String?

    @Option(help: "Only cases whose name begins with this.")
    var filter = ""

    @Option(help: "Runs one side alone in this process, ours, peer or lmdb, for a profiler; writes no lines.")
    var only: Side?

    func run() throws {
        let out = out ?? "Benchmarks/out/\(suite).jsonl"
        let beside = (out as NSString).deletingLastPathComponent
        let root = directory ?? (beside.isEmpty ? "stores" : beside + "/stores")
        let groups = suite.groups.filter { group in group.cases.contains { $0.hasPrefix(filter) } }
        guard !groups.isEmpty else { throw ValidationError("suite \(suite) has no case \(filter)…") }
        if !beside.isEmpty {
            try FileManager.default.createDirectory(atPath: beside, withIntermediateDirectories: true)
        }
        if let only { return try alone(only, groups, root) }

        let library = try RocksLibrary.load()
        let allocator = PeerAllocator.find()
        print("ours    \(EngineStore.describe())")
        print("peer    \(library.name), \(RocksOptions.describe()), \(allocator?.name ?? "the C library's allocator")")
        print("suite   \(suite)\(quick ? ", quick" : ""), seed \(seed), \(repeats) repeats, load \(loadAverage())")
        var results = Results(
            suite: suite.rawValue, peerNames: [.peer: library.name, .lmdb: LMDBStore.name], bars: Suite.bars,
            oursFrom: Suite.oursFrom)
        let began = wallNanoseconds()
        for repetition in 1...repeats {
            for group in groups where repetition == 1 || group.isRepeated {
                let groupBegan = wallNanoseconds()
                // The side that begins changes, so that neither always has the warmer machine.
                for side in repetition % 2 == 1 ? group.sides : group.sides.reversed() {
                    let child = MeasureProcess(
                        suite: suite, group: group.name, side: side, quick: quick, seed: seed, filter: filter,
                        root: root,
                        preload: side == .peer ? allocator?.path : nil)
                    for measurement in try child.run() { results.add(measurement, side) }
                }
                print(
                    "repeat  \(repetition) of \(repeats): \(group.name), \(RunCommand.seconds(groupBegan)) s, load \(loadAverage())"
                )
            }
        }
        print("took    \(RunCommand.seconds(began)) s")
        try? FileManager.default.removeItem(atPath: root)
        let lines = results.lines()
        try ResultLine.write(lines, to: out)
        try ReportCommand.report(lines, out)
    }

    private static func seconds(_ start: Double) -> String {
        String(format: "%.1f", (wallNanoseconds() - start) / 1e9)
    }

    private func alone(_ side: Side, _ groups: [any CaseGroup], _ root: String) throws {
        for repetition in 1...repeats {
            for group in groups where group.sides.contains(side) {
                for measurement in try MeasureCommand.measure(group, side, quick, seed, root, filter) {
                    let values = measurement.values.sorted { $0.key < $1.key }
                        .map { "\($0.key) \(String(format: "%.4g", $0.value))" }
                    print("\(repetition)  \(measurement.name)  \(values.joined(separator: "  "))")
                }
            }
        }
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
        let peer = lines.first { !$0.peerName.isEmpty && $0.peer != nil }?.peerName ?? "peer"
        try Report.plot(lines, title: "\(lines.first?.suite ?? ""): Cistern beside \(peer)").write(
            toFile: base + ".svg", atomically: true, encoding: .utf8)
    }
}

extension Side: ExpressibleByArgument {}
extension Suite: ExpressibleByArgument {}
