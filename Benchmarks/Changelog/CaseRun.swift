// One case, run once: the raw side in this process, ours with nodes in others.

import CisternBenchKit
import CisternChangelog
import CisternFileSystem
import CisternLogNode
import CisternLogProtocol
import CisternPrimitives
import CisternTransport
import Foundation
import NIOPosix
import Synchronization

struct CaseRun {
    let name: ChangelogCase
    let directory: String
    let isQuick: Bool

    private func scaled(_ count: Int) -> Int { isQuick ? max(1, count / 10) : count }

    // MARK: Raw

    /// What the disk does: writes into a file that was written before, and a sync after each.
    func raw() throws -> CaseMeasurement? {
        switch name {
        case .append1:
            let times = try rawWrites(bytes: 1024, count: scaled(2000))
            return CaseMeasurement(name.rawValue, [.p50: times.quantile(0.5) / 1e3, .p99: times.quantile(0.99) / 1e3])
        case .appendLarge:
            let (bytes, count) = (512 << 10, scaled(400))
            let start = wallNanoseconds()
            _ = try rawWrites(bytes: bytes, count: count)
            let seconds = (wallNanoseconds() - start) / 1e9
            return CaseMeasurement(name.rawValue, [.throughput: Double(bytes * count) / 1e6 / seconds])
        default: return nil
        }
    }

    private func rawWrites(bytes: Int, count: Int) throws -> Latencies {
        let path = "\(directory)/raw"
        let size = 64 << 20
        let files = PosixFileSystem()
        let made = try files.createAppend(path)
        for _ in 0..<64 { try made.append([UInt8](repeating: 0, count: 1 << 20)) }
        try made.sync()
        made.close()
        let file = try files.openWrite(path)
        let body = body(bytes)
        var times = Latencies()
        for number in 0..<count {
            let start = wallNanoseconds()
            try body.withUnsafeBytes { try file.write($0, at: UInt64(number * bytes % (size - bytes) & ~511)) }
            try file.sync()
            times.add(wallNanoseconds() - start)
        }
        file.close()
        try files.remove(path)
        return times
    }

    private func body(_ count: Int) -> [UInt8] {
        var random = SeededRandom(seed: 7)
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    // MARK: Ours

    func ours() async throws -> CaseMeasurement {
        if name == .writeAmplification { return try await writeAmplification() }
        if name == .failover5GB {
            let failover = FailoverCase(directory: directory + "/cluster", keys: scaled(45_000_000))
            return CaseMeasurement(name.rawValue, try await failover.run())
        }
        let nodes = try (1...UInt64(name.sizes.ensemble)).map {
            try NodeProcess($0, directory: directory, spares: spares)
        }
        defer { for node in nodes { node.stop() } }
        let cluster = Cluster(nodes)
        let values: [Metric: Double] =
            switch name {
            case .append1, .quorum1: try await oneInFlight(cluster, nodes)
            case .append1000, .quorum1000: try await inFlight(cluster, nodes, 1000, bytes: 1024, scaled(1_000_000))
            case .appendLarge: try await inFlight(cluster, nodes, 16, bytes: 1 << 20, scaled(500))
            case .recovery1000: try await recovery(cluster)
            case .restoreRead: try await restore(cluster)
            case .persistP99: try await persist(cluster)
            case .writeAmplification, .failover5GB: [:]
            }
        await cluster.close()
        return CaseMeasurement(name.rawValue, values)
    }

    /// Segments of 64 MiB that the case fills.
    private var spares: Int {
        switch name {
        case .append1000, .quorum1000: isQuick ? 4 : 20
        case .appendLarge: isQuick ? 3 : 12
        case .restoreRead: isQuick ? 3 : 9
        default: 2
        }
    }

    private func oneInFlight(_ cluster: Cluster, _ nodes: [NodeProcess]) async throws -> [Metric: Double] {
        let writer = await cluster.writer(1, name.sizes)
        let body = body(1024)
        var times = Latencies()
        for number in 0..<scaled(2000) + 50 {
            let start = wallNanoseconds()
            try await writer.acknowledged(try await writer.append(body))
            if number >= 50 { times.add(wallNanoseconds() - start) }
        }
        try await writer.close()
        return [.p50: times.quantile(0.5) / 1e3, .p99: times.quantile(0.99) / 1e3]
    }

    private func inFlight(
        _ cluster: Cluster, _ nodes: [NodeProcess], _ window: Int, bytes: Int, _ count: Int
    ) async throws -> [Metric: Double] {
        let writer = await cluster.writer(1, name.sizes, window: window, bytes: bytes)
        let body = body(bytes)
        try await CaseRun.write(writer, body, window, count / 10)
        for node in nodes { _ = try node.usage() }
        let meter = ProcessMeter()
        try await CaseRun.write(writer, body, window, count)
        let (wall, cpu) = (meter.wall, meter.cpu)
        let nodeCPU = try nodes.map { try $0.usage().cpuNanoseconds }.reduce(0, +)
        try await writer.close()
        return [
            .operationsPerSecond: Double(count) / wall * 1e9, .throughput: Double(count * bytes) / wall * 1e3,
            .clientCPU: cpu / Double(count), .serverCPU: nodeCPU / Double(count),
            .cpuPerOp: (cpu + nodeCPU) / Double(count),
        ]
    }

    /// Appends with up to `window` in flight, until all are acknowledged.
    private static func write(_ writer: LedgerWriterHandle, _ body: [UInt8], _ window: Int, _ count: Int) async throws {
        var last = EntryID.none
        var done = 0
        while done < count {
            if let entry = try writer.append(body, acknowledged: nil) {
                last = entry
                done += 1
            } else {
                try await writer.acknowledged(EntryID(max(0, last.rawValue - Int64(window / 2))))
            }
        }
        try await writer.acknowledged(last)
    }

    /// A writer that stops with 1,000 entries of which no node was told that they are acknowledged.
    private func recovery(_ cluster: Cluster) async throws -> [Metric: Double] {
        var times = Latencies()
        for number in 0..<UInt64(scaled(50)) {
            let writer = await cluster.writer(number + 1, name.sizes, window: 1000)
            try await CaseRun.write(writer, body(1024), 1000, 1000)
            writer.stop()
            let start = wallNanoseconds()
            let found = try await cluster.client.recover(LedgerID(number + 1), candidates: [])
            times.add(wallNanoseconds() - start)
            guard found.last == EntryID(999) else { throw BenchFailure("recovery found \(found.last) of e999") }
        }
        return [.openTime: times.quantile(0.5) / 1e6, .longest: times.quantile(1) / 1e3]
    }

    private func restore(_ cluster: Cluster) async throws -> [Metric: Double] {
        let count = scaled(400_000)
        let writer = await cluster.writer(1, name.sizes, window: 4000)
        try await CaseRun.write(writer, body(1024), 4000, count)
        try await writer.close()
        let metadata = cluster.metadata.stored(LedgerID(1))
        let start = wallNanoseconds()
        let reader = await cluster.client.openReader(LedgerID(1), metadata: metadata)
        var bytes = 0
        while let batch = try await reader.nextBatch() { bytes += batch.bodies.reduce(0) { $0 + $1.count } }
        let wall = wallNanoseconds() - start
        guard bytes == count * 1024 else { throw BenchFailure("\(bytes) bytes were read of \(count * 1024)") }
        return [.throughput: Double(bytes) / wall * 1e3]
    }

    /// Every 5 ms an entry of what came meanwhile, waited for.
    private func persist(_ cluster: Cluster) async throws -> [Metric: Double] {
        let writer = await cluster.writer(1, name.sizes)
        let body = body(16 << 10)
        let times = Mutex(Latencies())
        for _ in 0..<scaled(2000) {
            let start = wallNanoseconds()
            _ = try writer.append(body) { _ in
                let took = wallNanoseconds() - start
                times.withLock { $0.add(took) }
            }
            try await Task.sleep(nanoseconds: 5_000_000)
        }
        try await writer.close()
        return times.withLock {
            [.p50: $0.quantile(0.5) / 1e3, .p99: $0.quantile(0.99) / 1e3, .longest: $0.quantile(1) / 1e3]
        }
    }

    // MARK: Write amplification

    /// A log of ledgers that are deleted as newer ones are written, so that segments are used again: what a long run writes.
    private func writeAmplification() async throws -> CaseMeasurement {
        let existing = Mutex<Set<LedgerID>>([])
        let metadata = LogNodeMetadata(
            highestLedger: { $0(LedgerID(0)) },
            exists: { ledger, answer in answer(existing.withLock { $0.contains(ledger) }) })
        var journal = JournalOptions(directory: "\(directory)/node", node: LogNodeID(1), cluster: 1)
        journal.segmentBytes = 16 << 20
        let node = try LogNodeHost(
            LogNodeOptions(journal: journal, isNew: true), fileSystem: PosixFileSystem(), lanes: .threads(),
            lane: SerialThread(name: "log-node"), metadata: metadata)
        let writer = DirectWriter(node)
        let body = body(16 << 10)
        let perLedger = 1024
        var written = 0.0
        let ledgers = UInt64(max(12, scaled(60)))
        var meter = ProcessMeter()
        for number in 1...ledgers {
            // The first ones fill the stock.
            if number == 6 { (meter, written) = (ProcessMeter(), 0) }
            existing.withLock { ledgers in
                ledgers.insert(LedgerID(number))
                if number > 2 { ledgers.remove(LedgerID(number - 2)) }
            }
            for entry in 0..<perLedger {
                await writer.append(LedgerID(number), EntryID(Int64(entry)), body, inFlight: 32)
                written += Double(body.count)
            }
            for _ in 0..<2 { node.collectGarbage() }
        }
        await writer.drain()
        let amplification = meter.bytesWritten / written
        node.stop()
        return CaseMeasurement(name.rawValue, [.writeAmplification: amplification])
    }
}
