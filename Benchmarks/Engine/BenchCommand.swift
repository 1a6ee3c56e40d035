// cistern-bench: the engine and a peer on the same operations, in turn, in one process.

import ArgumentParser
import Foundation

@main
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cistern-bench",
        abstract: "Runs the engine and RocksDB in turn on the same data and seed, and writes a JSON object a line.")

    @Flag(help: "A tenth of the entries: minutes become seconds.")
    var quick = false

    @Option(help: "Times each side runs a case; the sides alternate.")
    var repeats = 3

    @Option(help: "Seed of keys, values and orders.")
    var seed: UInt64 = 20_130_101

    @Option(help: "Where the lines go.")
    var out = "Benchmarks/out/engine.jsonl"

    @Option(help: "Directory for the stores; removed at the end. Default: beside the lines.")
    var directory: String?

    @Option(help: "Only cases whose name begins with this.")
    var filter = ""

    @Option(help: "Runs one side alone, ours or peer, for a profiler; writes no lines.")
    var only: Side?

    func run() throws {
        let workload = Workload(entries: quick ? 500_000 : 5_000_000, seed: seed)
        let root = directory ?? (out as NSString).deletingLastPathComponent + "/stores"
        let library = try RocksLibrary.load()
        print("peer    \(library.name)")
        print("data    \(workload.entries) entries of 24 B + 100 B, seed \(seed), \(repeats) repeats")
        try FileManager.default.createDirectory(
            atPath: (out as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        var table = ResultTable(peer: library.name)
        for number in 1...repeats {
            // The side that begins changes, so that neither always has the warmer machine.
            let order: [Side] = number % 2 == 1 ? [.ours, .peer] : [.peer, .ours]
            for side in order where only == nil || only == side {
                let path = "\(root)/\(side)"
                try? FileManager.default.removeItem(atPath: path)
                try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
                let store: any BenchStore =
                    switch side {
                    case .ours: try EngineStore(path)
                    case .peer: try RocksStore(path, library)
                    }
                for measured in try EngineCases(workload: workload, filter: filter).run(store) {
                    table.add(measured, side)
                }
                store.close()
                try FileManager.default.removeItem(atPath: path)
            }
            print("repeat  \(number) of \(repeats), load \(ResultTable.load())")
        }
        if only != nil { return }
        try table.write(to: out)
        print(table.text())
    }
}

enum Side: String, ExpressibleByArgument { case ours, peer }
