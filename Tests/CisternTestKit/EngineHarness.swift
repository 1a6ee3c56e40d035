// An engine on a scheduler that is stepped by hand, with calls that wait for their completion by stepping.

import CisternFileSystem
import CisternLSM
import CisternPrimitives

/// A value that a completion puts somewhere.
package final class Answer<Value: Sendable>: Sendable {
    private let stored = Guarded<Value?>(nil)
    package init() {}
    package var value: Value? { stored.withLock { $0 } }
    package func set(_ value: Value) { stored.withLock { $0 = value } }
}

package struct TimedOut: Error { package init() {} }

package final class EngineHarness {
    package let scheduler: SteppedScheduler
    package let fileSystem: any FileSystem
    package let engine: Engine
    package let executor: any TreeExecutor
    /// What trees are made and opened with.
    package var pointStates = PointStates()

    package init(
        _ options: EngineOptions, fileSystem: any FileSystem, seed: UInt64, wallMilliseconds: UInt64 = 1_000_000
    ) throws(EngineError) {
        scheduler = SteppedScheduler(seed: seed, wallMilliseconds: wallMilliseconds)
        self.fileSystem = fileSystem
        executor = scheduler.makeExecutor()
        engine = try Engine.open(
            options, fileSystem: fileSystem, time: scheduler.time, lanes: scheduler.makeLanes())
    }

    package func wait<Value: Sendable>(
        _ start: (@escaping @Sendable (Result<Value, EngineError>) -> Void) -> Void
    ) throws -> Value {
        let answer = Answer<Result<Value, EngineError>>()
        start { answer.set($0) }
        guard scheduler.run(until: { answer.value != nil }), let result = answer.value else { throw TimedOut() }
        return try result.get()
    }

    package func create(
        _ identity: TreeIdentity, epoch: UInt64 = 1, writer: String = "w", from handles: [String] = [],
        replacing: [TreeID] = []
    ) throws -> Tree {
        try wait { done in
            engine.createTree(
                identity, epoch: epoch, writer: writer, from: handles.map { SnapshotReference(handle: $0) },
                replacing: replacing, pointStates: pointStates, executor: executor, completion: done)
        }
    }

    package func fork(
        _ identity: TreeIdentity, epoch: UInt64 = 1, writer: String = "w", of source: String, from handles: [String]
    ) throws -> Tree {
        try wait { done in
            engine.forkTree(
                identity, epoch: epoch, writer: writer, of: source,
                from: handles.map { SnapshotReference(handle: $0) }, executor: executor, completion: done)
        }
    }

    package func openSnapshot(_ handle: String) throws -> SnapshotView {
        try wait { done in engine.openSnapshot(handle, completion: done) }
    }

    package func open(_ id: TreeID) throws -> Tree {
        try wait { done in engine.openTree(id, pointStates: pointStates, executor: executor, completion: done) }
    }

    package func snapshot(_ tree: Tree, _ checkpoint: UInt64) throws -> SnapshotInfo {
        try wait { done in tree.snapshot(checkpoint: checkpoint, completion: done) }
    }

    package func close(_ tree: Tree) throws { try wait { done in tree.close(completion: done) } as Void }

    package func retire(_ id: TreeID) throws { try wait { done in engine.retireTree(id, completion: done) } as Void }

    package func setEpoch(_ tree: Tree, _ epoch: UInt64, writer: String) throws {
        try wait { done in tree.setEpoch(epoch, writer: writer, completion: done) } as Void
    }

    /// Applies a batch with the next sequence number; the answer comes when it is durable.
    @discardableResult
    package func write(
        _ tree: Tree, _ batch: OwnedBatch, sequence: UInt64? = nil, watermark: UInt64 = 0
    ) throws(EngineError) -> (outcome: WriteOutcome, durable: Answer<Result<Void, EngineError>>) {
        let answer = Answer<Result<Void, EngineError>>()
        let number = sequence ?? tree.lastSequence + 1
        let result: Result<WriteOutcome, EngineError> = batch.withColumns { columns in
            do throws(EngineError) {
                return .success(
                    try tree.write(
                        columns, epoch: tree.epoch, sequence: number, watermark: watermark, durable: { answer.set($0) })
                )
            } catch {
                return .failure(error)
            }
        }
        return (try result.get(), answer)
    }

    /// Writes and waits until the batch is acknowledged, through busy answers.
    package func writeDurably(_ tree: Tree, _ batch: OwnedBatch, watermark: UInt64 = 0) throws {
        while true {
            let (outcome, durable) = try write(tree, batch, watermark: watermark)
            if case .busy = outcome {
                guard scheduler.step() else { throw TimedOut() }
                continue
            }
            guard scheduler.run(until: { durable.value != nil }), let result = durable.value else { throw TimedOut() }
            return try result.get()
        }
    }

    /// Gives a state a time to live, and waits until that is durable.
    @discardableResult
    package func declare(_ tree: Tree, _ ttl: StateTimeToLive, of state: UInt16) throws -> UInt64 {
        try wait { done in tree.declare(ttl, of: state, completion: done) }
    }

    package func clock(_ tree: Tree) -> ExpiryClock {
        ExpiryClock(processing: scheduler.time.wallMilliseconds, event: tree.watermark)
    }

    package func get(_ tree: Tree, _ key: [UInt8]) throws -> ModelStore.Stored? {
        var result = LookupResult()
        let clock = self.clock(tree)
        let found = try key.withUnsafeBytes { try tree.get($0, clock: clock, into: &result) }
        guard found, let stored = result.finish(clock) else { return nil }
        return ModelStore.Stored(value: Array(stored.value), expiry: stored.expiry)
    }

    /// Everything, in pages of so many entries.
    package func scan(_ tree: Tree, pageEntries: Int = 1000) throws -> [(key: [UInt8], stored: ModelStore.Stored)] {
        var all: [(key: [UInt8], stored: ModelStore.Stored)] = []
        var next: [UInt8]? = []
        while let from = next {
            next = try tree.scan(
                from: from, to: [], clock: clock(tree), limits: ScanLimits(entriesMax: pageEntries, bytesMax: .max)
            ) { entry in
                all.append((Array(entry.key), ModelStore.Stored(value: Array(entry.value), expiry: entry.expiry)))
                return true
            }
        }
        return all
    }
}
