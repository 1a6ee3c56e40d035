// How long a restore takes: opening a directory with two trees, and making a tree out of the middle of both their snapshots,
// each with a first read. An absolute bar, and the same at a tenth of the size: neither may depend on how much state there is.

import CisternBenchKit
import CisternFileSystem
import CisternLSM
import CisternPrimitives
import Foundation

struct OpenCases: CaseGroup {
    static let valueBytes = 1000
    static let repeats = 5
    private static let halves = [0..<64, 64..<128]
    /// The part of both halves that the united tree takes.
    private static let middle = 32..<96

    let name = "open"
    let cases = ["open_5gb", "clip_union_5gb"]
    let sides = [Side.ours]
    let isRepeated = false

    func run(_ context: CaseContext) throws {
        let sizes: [(metric: Metric, bytes: Int)] =
            context.isQuick
            ? [(.openTimeSmall, 250_000_000), (.openTime, 1_000_000_000)]
            : [(.openTimeSmall, 500_000_000), (.openTime, 5_000_000_000)]
        var opening: [Metric: Double] = [:]
        var uniting: [Metric: Double] = [:]
        for (metric, bytes) in sizes {
            let path = context.directory + "/open"
            let meter = ProcessMeter()
            let workload = Workload(entries: bytes / (Workload.keyBytes + OpenCases.valueBytes), seed: context.seed)
            let handles = try build(path, workload)
            var openTimes = Latencies()
            var unionTimes = Latencies()
            for _ in 0..<OpenCases.repeats {
                let (open, union) = try openAndUnite(path, workload, handles)
                openTimes.add(open)
                unionTimes.add(union)
            }
            opening[metric] = openTimes.quantile(0.5) / 1e6
            uniting[metric] = unionTimes.quantile(0.5) / 1e6
            for common in [Metric.diskBytes, .peakRSS, .bytesWritten] {
                let value =
                    common == .diskBytes
                    ? Double(diskBytes(path)) : common == .peakRSS ? meter.peakBytes : meter.bytesWritten
                opening[common] = value
                uniting[common] = value
            }
            try FileManager.default.removeItem(atPath: path)
        }
        context.record("open_5gb", opening)
        context.record("clip_union_5gb", uniting)
    }

    /// Two trees of half the key groups each, written in the order of their keys, and a snapshot of each.
    private func build(_ path: String, _ workload: Workload) throws -> [String] {
        let session = try Session(path)
        var handles: [String] = []
        let perGroup = UInt64(workload.entries) / Workload.keyGroups
        for groups in OpenCases.halves {
            let tree = try session.create(groups, from: [])
            let batch = WriteBatch(entriesMax: PointCases.batchEntries)
            var sequence: UInt64 = 0
            for group in groups {
                for number in 0..<perGroup {
                    let index = number * Workload.keyGroups + UInt64(group)
                    let (key, value) = batch.add(
                        .put, keyBytes: Workload.keyBytes, valueBytes: OpenCases.valueBytes)
                    OpenCases.key(index, into: key)
                    workload.value(index, 0, bytes: OpenCases.valueBytes, into: value)
                    guard batch.count == PointCases.batchEntries || number == perGroup - 1 else { continue }
                    sequence += 1
                    try session.write(batch, to: tree, sequence: sequence)
                    batch.reset()
                }
            }
            handles.append(try session.snapshot(tree))
        }
        session.close()
        return handles
    }

    private func openAndUnite(
        _ path: String, _ workload: Workload, _ handles: [String]
    ) throws -> (open: Double, union: Double) {
        let start = wallNanoseconds()
        let session = try Session(path)
        for tree in session.engine.treeInfos() where tree.identity.store == "bench" {
            let opened = try session.open(tree.id)
            try read(session, opened, group: UInt64(tree.identity.keyGroups.first), workload)
        }
        let opened = wallNanoseconds()
        let united = try session.create(OpenCases.middle, from: handles)
        for group in [UInt64(OpenCases.middle.lowerBound), UInt64(OpenCases.middle.upperBound - 1)] {
            try read(session, united, group: group, workload)
        }
        let done = wallNanoseconds()
        try session.retire(united)
        session.close()
        return (opened - start, done - opened)
    }

    private func read(_ session: Session, _ tree: Tree, group: UInt64, _ workload: Workload) throws {
        try withKey { key in
            OpenCases.key(group, into: key)
            var result = LookupResult()
            let clock = ExpiryClock(processing: nowMilliseconds(), event: 0)
            let name = UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)
            _ = try tree.get(name, clock: clock, into: &result)
            try workload.check(result.finish(clock)?.value, group, bytes: OpenCases.valueBytes)
        }
    }

    /// In the order of their numbers within a key group, so that filling needs no merges.
    private static func key(_ index: UInt64, into key: UnsafeMutableRawPointer) {
        key.storeBytes(of: UInt16(index % Workload.keyGroups).bigEndian, as: UInt16.self)
        key.storeBytes(of: Workload.valueState.bigEndian, toByteOffset: 2, as: UInt16.self)
        key.storeBytes(of: 18, toByteOffset: 4, as: UInt8.self)
        key.storeBytes(of: (index / Workload.keyGroups).bigEndian, toByteOffset: 5, as: UInt64.self)
        key.storeBytes(of: index, toByteOffset: 13, as: UInt64.self)
        key.storeBytes(of: 0, toByteOffset: 21, as: UInt16.self)
        key.storeBytes(of: 0, toByteOffset: 23, as: UInt8.self)
    }
}

/// An engine whose trees come and go.
private final class Session {
    let engine: Engine
    private let owner = PumpedExecutor()

    init(_ path: String) throws {
        engine = try Engine.open(
            EngineStore.options(path, StoreSettings()), fileSystem: PosixFileSystem(), time: SystemTime())
    }

    func open(_ id: TreeID) throws -> Tree {
        let opened = Box<Result<Tree, EngineError>>()
        engine.openTree(id, executor: owner) { opened.set($0) }
        return try owner.wait { opened.value }.get()
    }

    func create(_ groups: Range<Int>, from handles: [String]) throws -> Tree {
        let identity = EngineStore.identity(groups)
        let made = Box<Result<Tree, EngineError>>()
        engine.createTree(
            identity, epoch: EngineStore.epoch, writer: "bench", from: handles.map { SnapshotReference(handle: $0) },
            executor: owner
        ) { made.set($0) }
        return try owner.wait { made.value }.get()
    }

    func write(_ batch: WriteBatch, to tree: Tree, sequence: UInt64) throws {
        try EngineStore.write(batch, to: tree, sequence: sequence, owner)
    }

    func snapshot(_ tree: Tree) throws -> String {
        let taken = Box<Result<SnapshotInfo, EngineError>>()
        tree.snapshot(checkpoint: 1) { taken.set($0) }
        return try owner.wait { taken.value }.get().handle
    }

    func retire(_ tree: Tree) throws {
        let retired = Box<Result<Void, EngineError>>()
        engine.retireTree(tree.id) { retired.set($0) }
        try owner.wait { retired.value }.get()
    }

    func close() {
        engine.close()
        owner.run()
    }
}
