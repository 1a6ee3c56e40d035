// One side of one group of cases, in a process of its own: heaps stay apart, and the peak of memory is the side's.

import ArgumentParser
import CisternBenchKit
import Foundation

struct MeasureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure", abstract: "Runs one side of one group; `run` starts it.", shouldDisplay: false)

    @Option var suite: Suite
    @Option var group: String
    @Option var side: Side
    @Flag var quick = false
    @Option var seed: UInt64
    @Option var root: String
    @Option var filter = ""
    @Option var result: String

    func run() throws {
        guard let group = suite.groups.first(where: { $0.name == group }) else {
            throw ValidationError("suite \(suite) has no group \(group)")
        }
        let measurements = try MeasureCommand.measure(group, side, quick, seed, root, filter)
        try JSONEncoder().encode(measurements).write(to: URL(fileURLWithPath: result))
    }

    static func measure(
        _ group: any CaseGroup, _ side: Side, _ quick: Bool, _ seed: UInt64, _ root: String, _ filter: String
    ) throws -> [CaseMeasurement] {
        let path = "\(root)/\(group.name)-\(side)"
        try? FileManager.default.removeItem(atPath: path)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        let context = CaseContext(side: side, isQuick: quick, seed: seed, directory: path, filter: filter)
        try group.run(context)
        return context.measurements.filter { context.wants($0.name) }
    }
}

/// Runs `measure` and reads what it measured.
struct MeasureProcess {
    let suite: Suite
    let group: String
    let side: Side
    let quick: Bool
    let seed: UInt64
    let filter: String
    let root: String
    let preload: String?

    func run() throws -> [CaseMeasurement] {
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        let result = "\(root)/\(group)-\(side).json"
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments =
            [
                "measure", "--suite", suite.rawValue, "--group", group, "--side", side.rawValue, "--seed", "\(seed)",
                "--root", root, "--filter", filter, "--result", result,
            ] + (quick ? ["--quick"] : [])
        if let preload {
            process.environment = ProcessInfo.processInfo.environment.merging(["LD_PRELOAD": preload]) { $1 }
        }
        try process.run()
        process.waitUntilExit()
        guard process.terminationReason == .exit, process.terminationStatus == 0 else {
            throw BenchFailure("\(side) failed at \(group): see above")
        }
        defer { try? FileManager.default.removeItem(atPath: result) }
        return try JSONDecoder().decode([CaseMeasurement].self, from: Data(contentsOf: URL(fileURLWithPath: result)))
    }
}

/// Flink's images run RocksDB with jemalloc; where the machine has it, the peer gets it.
struct PeerAllocator {
    let name: String
    let path: String

    static func find() -> PeerAllocator? {
        let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
        return directories.map { $0 + "/libjemalloc.so.2" }.first { FileManager.default.fileExists(atPath: $0) }
            .map { PeerAllocator(name: "jemalloc", path: $0) }
    }
}
