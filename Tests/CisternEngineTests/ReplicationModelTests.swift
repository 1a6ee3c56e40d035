// Trees with a replicated log, against a model: whatever is lost, of processes, power or whole disks, what the log has is what the
// tree holds after it was opened again, no batch twice and none left out, and all that was acknowledged is in the log.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// A log that outlives its owners.
private final class SharedLog: Sendable {
    struct State {
        var entries: [[UInt8]] = []
        /// Items that the owner appended, and that are not durable.
        var pending: [(item: TreeLogItem, completed: @Sendable (Result<Void, EngineError>) -> Void)] = []
        var owner = 0
    }

    let state = Guarded(State())

    /// Some of what was on its way is durable.
    func settle(_ count: Int) {
        let settled = state.withLock { state in
            let settled = Array(state.pending.prefix(count))
            state.pending.removeFirst(settled.count)
            for next in settled { state.entries += TreeLogFormat.encode(next.item, partBytesMax: 200) }
            return settled
        }
        for next in settled { next.completed(.success(())) }
    }

    /// A new owner: what the old one had on its way is there up to some place, and is never told.
    func takeOver(keeping count: Int, partsOfNext: Int) -> Replica {
        state.withLock { state in
            for next in state.pending.prefix(count) {
                state.entries += TreeLogFormat.encode(next.item, partBytesMax: 200)
            }
            if let next = state.pending.dropFirst(count).first {
                let parts = TreeLogFormat.encode(next.item, partBytesMax: 200)
                state.entries += parts.prefix(min(partsOfNext, parts.count - 1))
            }
            state.pending = []
            state.owner += 1
            return Replica(self, state.owner)
        }
    }

    var pendingCount: Int { state.withLock { $0.pending.count } }
    var items: [TreeLogItem] {
        get throws {
            var reader = TreeLogReader()
            return try state.withLock { $0.entries }.compactMap { try reader.add($0, source: "log") }
        }
    }
}

private final class Replica: LogReplica, Sendable {
    private let log: SharedLog
    private let owner: Int

    init(_ log: SharedLog, _ owner: Int) {
        self.log = log
        self.owner = owner
    }

    func append(
        _ item: TreeLogItem, through position: LogPosition?,
        completed: @escaping @Sendable (Result<Void, EngineError>) -> Void
    ) {
        let isOwner = log.state.withLock { state in
            guard state.owner == owner else { return false }
            state.pending.append((item, completed))
            return true
        }
        if !isOwner { completed(.failure(.logLost(detail: "another owner has it"))) }
    }
}

@Suite struct ReplicationModelTests {
    private static let identity = TreeIdentity(
        store: "orders", keyGroups: KeyGroupRange(first: 0, last: 3), keyGroupCount: 4)

    private struct Run {
        var random: SeededRandom
        let log = SharedLog()
        var disk: MemoryFileSystem
        var harness: EngineHarness
        var tree: Tree
        var epoch: UInt64 = 1
        var batches: [OwnedBatch] = []
        var acknowledged = 0
        var waiting: [(number: Int, answer: Answer<Result<Void, EngineError>>)] = []
        var losses = 0

        init(seed: UInt64) throws {
            random = SeededRandom(seed: seed)
            disk = MemoryFileSystem(seed: seed)
            harness = try EngineHarness(Run.options, fileSystem: disk, seed: seed)
            tree = try harness.create(identity)
            connect(log.takeOver(keeping: 0, partsOfNext: 0))
        }

        static var options: EngineOptions {
            var options = smallOptions()
            options.memtableBytes = 64 << 10
            options.log = .synced
            return options
        }

        func connect(_ replica: Replica) {
            let tree = tree
            harness.executor.execute { tree.replicate(to: replica) { _ in } }
            while harness.scheduler.step() {}
        }

        /// Appends show what is replayed twice.
        mutating func write() throws {
            let number = batches.count
            let group = UInt16.random(in: 0...3, using: &random)
            let size = Int.random(in: 1...600, using: &random)
            let batch = OwnedBatch([
                OwnedEntry(makeKey(group, "k\(number % 5)"), .append, Array("\(number),".utf8)),
                OwnedEntry(
                    makeKey(group, "z\(number % 50)"), .put, [UInt8](repeating: UInt8(number & 0xFF), count: size)),
            ])
            let sequence = tree.lastSequence + 1
            let (outcome, answer) = try harness.write(tree, batch, sequence: sequence)
            guard outcome == .applied else { return }
            batches.append(batch)
            waiting.append((number, answer))
        }

        mutating func look() throws {
            while let first = waiting.first, let result = first.answer.value {
                try result.get()
                acknowledged = first.number + 1
                waiting.removeFirst()
            }
        }

        /// The tree is opened again: here, after the process or the power, or on another disk.
        mutating func reopen() throws {
            try look()
            let replica = log.takeOver(
                keeping: Int.random(in: 0...log.pendingCount, using: &random),
                partsOfNext: Int.random(in: 0...3, using: &random))
            losses += 1
            let seed = random.next()
            let isElsewhere = losses % 3 == 0
            disk =
                isElsewhere
                ? MemoryFileSystem(seed: seed)
                : losses % 3 == 1 ? disk.afterPowerCut(seed: seed) : disk.afterProcessEnd()
            harness = try EngineHarness(Run.options, fileSystem: disk, seed: seed)
            let raises = Bool.random(using: &random)
            if raises { epoch += 1 }
            if isElsewhere {
                let (executor, engine, epoch) = (harness.executor, harness.engine, epoch)
                tree = try harness.wait { done in
                    engine.createTree(
                        identity, epoch: epoch, writer: "w", from: [], at: LogPosition(epoch: 1, sequence: 0),
                        executor: executor, completion: done)
                }
            } else {
                tree = try harness.open(try #require(harness.engine.treeInfos().first?.id))
            }
            try replay()
            connect(replica)
            if !isElsewhere && raises { try harness.setEpoch(tree, epoch, writer: "w") }
            try compare()
        }

        func replay() throws {
            let tree = tree
            tree.beginReplay()
            for item in try log.items {
                while true {
                    let outcome = try harness.wait { done in tree.replay(item, source: "log", completion: done) }
                    if outcome == .applied { break }
                    guard harness.scheduler.step() else { throw TimedOut() }
                }
            }
        }

        /// The tree holds the batches that are in the log, each once, and those are at least the acknowledged ones.
        mutating func compare() throws {
            var count = 0
            for case .records(let bytes) in try log.items {
                var offset = 0
                while offset < bytes.count {
                    offset += try #require(bytes[offset...].withUnsafeBytes { LogFormat.decodeRecord($0) }).size
                    count += 1
                }
            }
            #expect(count >= acknowledged, "\(acknowledged) batches were acknowledged, and the log has \(count)")
            batches = Array(batches.prefix(count))
            acknowledged = count
            waiting = []
            var model = ModelStore()
            for batch in batches { model.apply(batch) }
            let found = try harness.scan(tree)
            let expected = model.scan(harness.clock(tree))
            #expect(found.map(\.key) == expected.map(\.key))
            #expect(found.map(\.stored) == expected.map(\.stored))
        }
    }

    @Test func whatTheLogHasIsWhatTheTreeHoldsWhateverIsLost() throws {
        for seed in Seeds.seeds(count: 40) {
            Seeds.announce("whatTheLogHasIsWhatTheTreeHoldsWhateverIsLost", seed)
            var run = try Run(seed: seed)
            for _ in 0..<400 {
                switch Int.random(in: 0..<100, using: &run.random) {
                case 0..<50: try run.write()
                case 50..<70: run.log.settle(Int.random(in: 0...5, using: &run.random))
                case 70..<95: for _ in 0..<10 { _ = run.harness.scheduler.step() }
                case 95..<97:
                    _ = try? run.harness.snapshot(run.tree, UInt64(run.losses) * 1000 + UInt64(run.batches.count))
                default: if run.batches.count > 10 { try run.reopen() }
                }
                try run.look()
            }
            try run.reopen()
        }
    }

    @Test func aFileHoldsNothingThatTheLogMayNotHave() throws {
        var run = try Run(seed: 7)
        for _ in 0..<400 {
            try run.write()
            while run.harness.scheduler.step() {}
        }
        // Memtables are full, and nothing of it is durable in the log: it stays in memory.
        #expect(run.tree.statistics.flushes == 0)
        #expect(!run.disk.paths.contains { $0.hasSuffix(".sst") })
        run.log.settle(.max)
        while run.harness.scheduler.step() {}
        #expect(run.tree.statistics.flushes > 0)
        try run.look()
        #expect(run.waiting.isEmpty)
    }

    /// What was replayed may still be on its way to the tree's own segment when the first write comes.
    @Test func theFirstWriteBehindAReplayWaitsForTheLogAsEveryOther() throws {
        var run = try Run(seed: 9)
        for _ in 0..<5 { try run.write() }
        while run.harness.scheduler.step() {}
        run.log.settle(5)
        let replica = run.log.takeOver(keeping: 0, partsOfNext: 0)
        run.disk = MemoryFileSystem(seed: 10)
        run.harness = try EngineHarness(Run.options, fileSystem: run.disk, seed: 10)
        let (harness, identity) = (run.harness, Self.identity)
        let tree = try harness.wait { done in
            harness.engine.createTree(
                identity, epoch: 1, writer: "w", from: [], at: LogPosition(epoch: 1, sequence: 0),
                executor: harness.executor, completion: done)
        }
        run.tree = tree
        // In one turn of the owner: nothing of it has reached the log lane.
        tree.beginReplay()
        for item in try run.log.items { tree.replay(item, source: "log") { #expect((try? $0.get()) == .applied) } }
        tree.replicate(to: replica) { _ in }
        run.waiting = []
        try run.write()
        while run.harness.scheduler.step() {}
        #expect(run.waiting.last?.answer.value == nil, "acknowledged before the log has it")
        #expect(run.log.pendingCount == 1)
        run.log.settle(1)
        while run.harness.scheduler.step() {}
        #expect(run.waiting.last?.answer.value != nil)
    }

    @Test func aTreeThatHasLostItsLogTakesNoWritesAndIsClosedWithoutAFlush() throws {
        var run = try Run(seed: 8)
        for _ in 0..<20 { try run.write() }
        while run.harness.scheduler.step() {}
        run.log.settle(5)
        _ = run.log.takeOver(keeping: 0, partsOfNext: 0)
        try run.write()
        while run.harness.scheduler.step() {}
        #expect(throws: EngineError.self) { try run.write() }
        #expect(throws: EngineError.self) { try run.harness.close(run.tree) }
        #expect(run.tree.statistics.flushes == 0)
    }
}
