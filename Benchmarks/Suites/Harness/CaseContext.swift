// What a case group runs in: one side, one repeat, a directory of its own.

import CisternBenchKit
import Foundation

/// Cases that share a filled store, run by each side in a process of its own.
protocol CaseGroup: Sendable {
    var name: String { get }
    /// As the tables and the JSON name them.
    var cases: [String] { get }
    var sides: [Side] { get }
    /// False for what is slow to prepare and repeats its measurement inside.
    var isRepeated: Bool { get }
    func run(_ context: CaseContext) throws
}

extension CaseGroup {
    var sides: [Side] { [.ours, .peer] }
    var isRepeated: Bool { true }
}

final class CaseContext {
    let side: Side
    let isQuick: Bool
    let seed: UInt64
    let directory: String
    private let filter: String
    private(set) var measurements: [CaseMeasurement] = []

    init(side: Side, isQuick: Bool, seed: UInt64, directory: String, filter: String) {
        self.side = side
        self.isQuick = isQuick
        self.seed = seed
        self.directory = directory
        self.filter = filter
    }

    /// A tenth in a quick run.
    func scaled(_ full: Int) -> Int { isQuick ? full / 10 : full }

    func wants(_ name: String) -> Bool {
        name.hasPrefix(filter) || Suite.oursFrom.contains { $0.key.hasPrefix(filter) && $0.value == name }
    }

    /// Opens the side's store of this name, which may be there from before.
    func open(_ name: String, _ settings: StoreSettings = StoreSettings()) throws -> any BenchStore {
        let path = directory + "/" + name
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return switch side {
        case .ours: try EngineStore(path, settings)
        case .peer: try RocksStore(path, try RocksLibrary.load(), settings)
        case .lmdb: try LMDBStore(path, mapBytes: 8 << 30)
        }
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: directory + "/" + name) }

    func record(_ name: String, _ values: [Metric: Double]) { measurements.append(CaseMeasurement(name, values)) }

    /// Measures a loop of operations and, where `settles`, the background work that it causes: CPU counts until the store is
    /// quiet, wall time is the foreground's.
    func measure(
        _ name: String, operations: Int, _ store: any BenchStore, settles: Bool = false, _ body: () throws -> Void
    ) throws {
        let runs = store.runs
        let meter = ProcessMeter()
        try body()
        let wall = meter.wall
        if settles { try store.settle() }
        let cpu = meter.cpu
        var values: [Metric: Double] = [
            .cpuPerOp: cpu / Double(operations), .wallPerOp: wall / Double(operations), .cpuSeconds: cpu / 1e9,
            .peakRSS: meter.peakBytes, .bytesWritten: meter.bytesWritten,
        ]
        if settles {
            values[.diskBytes] = Double(store.bytesOnDisk())
        } else if runs > 0 {
            values[.runs] = Double(runs)
        }
        record(name, values)
    }
}
