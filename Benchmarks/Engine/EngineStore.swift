// Our engine as it runs in the server: a tree on its owner's thread (the benchmark's), background lanes, log off.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import Foundation
import Synchronization

final class EngineStore: BenchStore {
    private let engine: Engine
    private let owner = PumpedExecutor()
    private let tree: Tree
    private let path: String
    private var sequence: UInt64 = 0
    private var checkpoint: UInt64 = 0
    private var result = LookupResult()

    init(_ path: String) throws {
        self.path = path
        var options = EngineOptions(directory: path)
        options.log = .off
        options.memtableBytes = 64 << 20
        options.blockCacheBytes = 256 << 20
        engine = try Engine.open(options, fileSystem: PosixFileSystem(), time: SystemTime())
        let groups = KeyGroupRange(first: 0, last: UInt16(Workload.keyGroups - 1))
        let identity = TreeIdentity(store: "bench", keyGroups: groups, keyGroupCount: Int(Workload.keyGroups))
        let made = Box<Result<Tree, EngineError>>()
        engine.createTree(identity, epoch: 1, writer: "bench", from: [], executor: owner) { made.set($0) }
        tree = try owner.wait { made.value }.get()
    }

    func put(_ batch: PutBatch) throws {
        owner.run()
        while true {
            let outcome = try apply(batch)
            guard case .busy = outcome else { break }
            owner.waitForWork()
        }
        sequence += 1
    }

    private func apply(_ batch: PutBatch) throws -> WriteOutcome {
        let kinds = [UInt8](repeating: EntryKind.put.rawValue, count: batch.count)
        return try batch.keys.withUnsafeBytes { keys in
            try batch.values.withUnsafeBytes { values in
                try batch.keyEnds.withUnsafeBytes { keyEnds in
                    try batch.valueEnds.withUnsafeBytes { valueEnds in
                        try kinds.withUnsafeBytes { kinds in
                            guard
                                let columns = EntryColumns(
                                    keyEnds: keyEnds, valueEnds: valueEnds, kinds: kinds,
                                    expiries: UnsafeRawBufferPointer(start: nil, count: 0), keys: keys, values: values)
                            else { throw BenchFailure(description: "the columns of a batch do not fit together") }
                            return try tree.write(
                                columns, epoch: 1, sequence: sequence + 1, watermark: 0, durable: { _ in })
                        }
                    }
                }
            }
        }
    }

    private let clock = ExpiryClock(processing: SystemTime().wallMilliseconds, event: 0)

    func get(_ key: [UInt8]) throws -> Int {
        let isThere = try key.withUnsafeBytes { try tree.get($0, clock: clock, into: &result) }
        guard isThere, let found = result.finish(clock) else { return -1 }
        return found.value.count
    }

    func scan(_ key: [UInt8], prefix: Int, limit: Int) throws -> Int {
        var count = 0
        let start = Array(key[..<prefix])
        // The smallest key behind all that begin with `start`. A map's key never is all 255s.
        var end = start
        while end.last == 255 { end.removeLast() }
        end[end.count - 1] += 1
        _ = try tree.scan(
            from: start, to: end, clock: clock, limits: ScanLimits(entriesMax: limit, bytesMax: .max)
        ) { _ in
            count += 1
            return true
        }
        return count
    }

    /// A snapshot flushes the memtable; then compaction runs until nothing changes.
    func settle() throws {
        checkpoint += 1
        let taken = Box<Result<SnapshotInfo, EngineError>>()
        tree.snapshot(checkpoint: checkpoint) { taken.set($0) }
        let info = try owner.wait { taken.value }.get()
        _ = engine.releaseSnapshots([info.handle])
        var seen = tree.statistics
        var quiet = 0
        while quiet < 40 {
            owner.run()
            usleep(5000)
            let now = tree.statistics
            let isIdle = now == seen && now.levels[0].files < 4
            quiet = isIdle ? quiet + 1 : 0
            seen = now
        }
    }

    func bytesOnDisk() -> UInt64 { diskBytes(path) }

    func close() {
        engine.close()
        owner.run()
    }
}

/// The owner's queue, run by the benchmark's thread between operations, as an event loop runs its tasks between reads.
final class PumpedExecutor: TreeExecutor {
    private let queue = Mutex<[@Sendable () -> Void]>([])
    private let arrived = DispatchSemaphore(value: 0)

    func execute(_ work: @escaping @Sendable () -> Void) {
        queue.withLock { $0.append(work) }
        arrived.signal()
    }

    func run() {
        while true {
            let work = queue.withLock { queue -> [@Sendable () -> Void] in
                defer { queue.removeAll(keepingCapacity: true) }
                return queue
            }
            if work.isEmpty { return }
            for item in work { item() }
        }
    }

    func waitForWork() {
        _ = arrived.wait(timeout: .now() + .milliseconds(100))
        run()
    }

    func wait<Value>(_ value: () -> Value?) -> Value {
        while true {
            run()
            if let value = value() { return value }
            waitForWork()
        }
    }
}

final class Box<Value: Sendable>: Sendable {
    private let stored = Mutex<Value?>(nil)
    var value: Value? { stored.withLock { $0 } }
    func set(_ value: Value) { stored.withLock { $0 = value } }
}

func diskBytes(_ path: String) -> UInt64 {
    guard let walk = FileManager.default.enumerator(atPath: path) else { return 0 }
    var sum: UInt64 = 0
    for case let name as String in walk {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path + "/" + name)
        if attributes?[.type] as? FileAttributeType == .typeRegular { sum += attributes?[.size] as? UInt64 ?? 0 }
    }
    return sum
}
