// Our engine as it runs in the server: a tree on its owner's thread (the benchmark's) and background lanes.

import CisternBenchKit
import CisternFileSystem
import CisternLSM
import CisternPrimitives
import Synchronization

final class EngineStore: BenchStore {
    static let epoch: UInt64 = 1
    /// As the server learns them from the registered states: map state is the only one that is iterated.
    static let pointStates = PointStates([Workload.valueState, Workload.listState])
    private let engine: Engine
    private let owner = PumpedExecutor()
    private let tree: Tree
    private let path: String
    private let time = AdjustableTime()
    private var clock: ExpiryClock
    private var sequence: UInt64
    private var checkpoints: UInt64 = 0
    // Unchecked: what is measured is the engine, not this class.
    @exclusivity(unchecked) private var result = LookupResult()
    private var scanStart: [UInt8] = []
    private var scanEnd: [UInt8] = []
    private let compaction = CompactionRun()

    /// Opens the tree that is there, or makes one for all key groups.
    init(_ path: String, _ settings: StoreSettings) throws {
        self.path = path
        let options = EngineStore.options(path, settings)
        engine = try Engine.open(options, fileSystem: PosixFileSystem(), time: time)
        let made = Box<Result<Tree, EngineError>>()
        if let known = engine.treeInfos().first {
            engine.openTree(known.id, pointStates: EngineStore.pointStates, executor: owner) { made.set($0) }
        } else {
            engine.createTree(
                EngineStore.identity(0..<Int(Workload.keyGroups)), epoch: EngineStore.epoch, writer: "bench", from: [],
                pointStates: EngineStore.pointStates, executor: owner
            ) { made.set($0) }
        }
        tree = try owner.wait { made.value }.get()
        sequence = tree.lastSequence
        clock = ExpiryClock(processing: time.wallMilliseconds, event: 0)
    }

    static func options(_ path: String, _ settings: StoreSettings) -> EngineOptions {
        var options = EngineOptions(directory: path)
        options.log = settings.logs ? .synced : .off
        options.memtableBytes = settings.memtableBytes
        options.blockCacheBytes = settings.cacheBytes
        options.values.thresholdBytes = settings.valueFileThresholdBytes
        if !settings.compacts {
            options.compaction.levelZeroTrigger = 500
            options.compaction.levelZeroStop = 1000
            options.compaction.garbagePercent = 1000
            options.compaction.deletePercent = 100
            options.compaction.restPercent = 0
        }
        return options
    }

    static func describe() -> String {
        let options = EngineOptions(directory: "")
        return "\(StoreSettings().cacheBytes >> 20) MB cache, \(StoreSettings().memtableBytes >> 20) MB memtables, "
            + "\(options.table.blockSizeBytes >> 10) KB blocks, \(options.table.filterBitsPerKey) bits of filter a key, no log "
            + "unless the case is about it"
    }

    static func identity(_ groups: Range<Int>) -> TreeIdentity {
        TreeIdentity(
            store: "bench",
            keyGroups: KeyGroupRange(first: UInt16(groups.lowerBound), last: UInt16(groups.upperBound - 1)),
            keyGroupCount: Int(Workload.keyGroups))
    }

    func write(_ batch: WriteBatch) throws {
        sequence += 1
        try EngineStore.write(batch, to: tree, sequence: sequence, owner)
    }

    /// Sends a batch until the tree takes it.
    static func write(_ batch: WriteBatch, to tree: Tree, sequence: UInt64, _ owner: PumpedExecutor) throws {
        owner.run()
        guard
            let columns = EntryColumns(
                keyEnds: UnsafeRawBufferPointer(start: batch.keyEnds, count: batch.count * 4),
                valueEnds: UnsafeRawBufferPointer(start: batch.valueEnds, count: batch.count * 4),
                kinds: UnsafeRawBufferPointer(start: batch.kinds, count: batch.count),
                expiries: UnsafeRawBufferPointer(start: batch.expiries, count: batch.expires ? batch.count * 8 : 0),
                keys: UnsafeRawBufferPointer(start: batch.keys, count: batch.keyBytes),
                values: UnsafeRawBufferPointer(start: batch.values, count: batch.valueBytes))
        else { throw BenchFailure("the columns of a batch do not fit together") }
        while true {
            let outcome = try tree.write(
                columns, epoch: EngineStore.epoch, sequence: sequence, watermark: 0, durable: { _ in })
            guard case .busy = outcome else { break }
            owner.waitForWork()
        }
        // The server holds an answer back for so long, and with it the writer.
        let delay = tree.writeDelayMilliseconds
        if delay > 0 { owner.waitForWork(milliseconds: Int(delay)) }
    }

    func get(_ key: UnsafeRawBufferPointer) throws -> UnsafeRawBufferPointer? {
        owner.run()
        guard try tree.get(key, clock: clock, into: &result) else { return nil }
        return result.finish(clock)?.value
    }

    func multiGet(_ keys: KeyList) throws -> (found: Int, bytes: Int) {
        owner.run()
        var found = 0
        var bytes = 0
        try tree.multiGet(count: keys.count, clock: clock, scratch: &result, key: { keys[$0] }) { _, value, _ in
            if let value {
                found += 1
                bytes += value.count
            }
            return true
        }
        return (found, bytes)
    }

    func scan(_ prefix: UnsafeRawBufferPointer, limit: Int) throws -> (entries: Int, bytes: Int) {
        owner.run()
        scanStart.removeAll(keepingCapacity: true)
        scanStart.append(contentsOf: prefix)
        scanEnd.removeAll(keepingCapacity: true)
        // The smallest key behind all that begin with the prefix, which never is all 255s.
        var count = prefix.count
        while prefix[count - 1] == 255 { count -= 1 }
        scanEnd.append(contentsOf: prefix[..<count])
        scanEnd[count - 1] += 1
        var entries = 0
        var bytes = 0
        _ = try tree.scan(
            from: scanStart, to: scanEnd, clock: clock, limits: ScanLimits(entriesMax: limit, bytesMax: .max)
        ) { entry in
            entries += 1
            bytes += entry.value.count
            return true
        }
        return (entries, bytes)
    }

    /// A snapshot is the only flush an owner can ask for.
    func flush() throws {
        checkpoints += 1
        let taken = Box<Result<SnapshotInfo, EngineError>>()
        tree.snapshot(checkpoint: checkpoints) { taken.set($0) }
        let info = try owner.wait { taken.value }.get()
        _ = engine.releaseSnapshots([info.handle])
    }

    func settle() throws {
        try flush()
        while true {
            let idle = Box<Bool>()
            tree.whenIdle { idle.set(true) }
            _ = owner.wait { idle.value }
            let compactions = tree.statistics.compactions
            let start = wallNanoseconds()
            while tree.isIdle && wallNanoseconds() - start < Double(settledMilliseconds) * 1e6 {
                owner.waitForWork(milliseconds: 5)
            }
            if tree.isIdle && tree.statistics.compactions == compactions { return }
        }
    }

    var runs: Int { tree.statistics.runs }

    func startCompaction() throws {
        compaction.begin()
        let run = compaction
        tree.compact { result in
            switch result {
            case .success: run.end()
            case .failure(let error): run.end("\(error)")
            }
        }
    }

    var isCompacting: Bool { compaction.isRunning }
    var compactionFailure: String? { compaction.failure }

    func checkpoint(_ number: UInt64, finished: @escaping @Sendable (Double) -> Void) throws {
        // Numbers that `flush` does not use.
        let engine = self.engine
        tree.snapshot(checkpoint: number + (1 << 32)) { result in
            finished(wallNanoseconds())
            if case .success(let info) = result { _ = engine.releaseSnapshots([info.handle]) }
        }
    }

    func pump() { owner.run() }

    /// Wakes when the owner has something to do, as an event loop does.
    func nap() { owner.waitForWork(milliseconds: 1) }

    func advanceClock(milliseconds: UInt64) {
        time.advance(milliseconds)
        clock.processing = time.wallMilliseconds
    }

    var ledgerBytes: Double { Double(engine.memoryUse.totalBytes) }

    func bytesOnDisk() -> UInt64 { settledDiskBytes(path) }

    func close() {
        engine.close()
        owner.run()
    }
}

/// Whether a full compaction is under way, and how it ended.
final class CompactionRun: Sendable {
    private let state = Mutex<(isRunning: Bool, failure: String?)>((false, nil))
    var isRunning: Bool { state.withLock { $0.isRunning } }
    var failure: String? { state.withLock { $0.failure } }
    func begin() { state.withLock { $0 = (true, nil) } }
    func end(_ failure: String? = nil) { state.withLock { $0 = (false, failure) } }
}

/// The system's clock, moved forward by hand.
final class AdjustableTime: TimeSource {
    private let system = SystemTime()
    private let ahead = Atomic<UInt64>(0)
    var monotonicNanoseconds: UInt64 { system.monotonicNanoseconds }
    var wallMilliseconds: UInt64 { system.wallMilliseconds + ahead.load(ordering: .relaxed) }
    func advance(_ milliseconds: UInt64) { ahead.add(milliseconds, ordering: .relaxed) }
}
