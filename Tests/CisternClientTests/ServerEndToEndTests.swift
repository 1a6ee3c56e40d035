import CisternClient
import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import Foundation
import Logging
import Testing

/// A real server in this process, on a disk in memory, behind a Unix socket whose path stays when the server is replaced.
final class ServerBackend: ModelBackend {
    let time = ManualTime()
    let endpoint: Endpoint
    private var files: MemoryFileSystem
    private var server: StateServer?
    private var isTroubled = false
    private let seed: UInt64
    private(set) var powerCuts = 0
    private(set) var restarts = 0

    init(seed: UInt64) {
        self.seed = seed
        files = MemoryFileSystem(seed: seed)
        endpoint = .unix(
            path:
                "/tmp/cistern-client-\(ProcessInfo.processInfo.processIdentifier)-\(UInt64.random(in: 0...UInt64.max)).sock"
        )
    }

    var violations: [String] { [] }

    func start() async throws {
        var configuration = ServerConfiguration()
        configuration.dataDirectory = "/data"
        configuration.listen = ["\(endpoint)"]
        configuration.memtableBytes = 1 << 20
        configuration.blockCacheBytes = 4 << 20
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        server = try await StateServer.start(configuration, fileSystem: files, time: time, logger: logger)
    }

    func stop() async {
        await server?.shutdown()
        server = nil
    }

    /// Stops in order and starts on the same disk.
    func restart() async throws {
        restarts += 1
        await stop()
        try await start()
    }

    /// What was not synced is gone, as after kill -9 and a power cut together. Nothing is acknowledged meanwhile: the next
    /// sync fails before the disk is copied.
    func cutPower() async throws {
        powerCuts += 1
        files.failPower(atSync: files.syncCount + 1)
        let survivor = files.afterPowerCut(seed: seed &+ UInt64(powerCuts))
        await stop()
        files = survivor
        try await start()
    }

    func attach(
        epoch: UInt64, restoring: [SnapshotHandle]?, _ change: (inout ClientConfiguration) -> Void
    ) async throws -> KeyedStateSession {
        try await attach("store", WireTests.range, epoch: epoch, restoring: restoring, change)
    }

    func attach(
        _ store: String, _ range: KeyGroupRange, epoch: UInt64, restoring: [SnapshotHandle]?,
        _ change: (inout ClientConfiguration) -> Void = { _ in }
    ) async throws -> KeyedStateSession {
        var configuration = ClientConfiguration(endpoint: "\(endpoint)")
        configuration.writeBufferBytes = 600
        configuration.writeBufferEntries = 9
        configuration.batchesInFlight = 3
        configuration.valueCacheBytes = 4000
        change(&configuration)
        return try await KeyedStateSession.attach(
            over: WireTree(
                servers: ServerList([endpoint], ClientTransportOptions()), configuration: configuration, time: time),
            request: AttachRequest(
                store: store, keyGroupCount: 8, keyGroups: range, epoch: epoch, writer: "w\(range)",
                restoring: restoring),
            configuration: configuration, environment: time.environment)
    }

    func setTrouble(_ isOn: Bool) { isTroubled = isOn }

    func disturb(_ random: inout SeededRandom) async throws {
        guard isTroubled else { return }
        if Bool.random(using: &random) { try await restart() } else { try await cutPower() }
    }
}

@Suite(.timeLimit(.minutes(5))) struct ServerEndToEndTests {
    @Test(arguments: 0..<6)
    func everyStateEqualsTheModelOverARealServerThatIsRestartedAndLosesPower(run: Int) async throws {
        let seed = testSeed(77) &+ UInt64(run) &* 7919
        let backend = ServerBackend(seed: seed)
        try await backend.start()
        do {
            try await ModelRun(seed: seed, backend).run(operations: 400)
        } catch {
            Issue.record("seed \(seed), run \(run): \(error)")
        }
        print("restarts \(backend.restarts), power cuts \(backend.powerCuts)")
        await backend.stop()
    }

    @Test func aKilledWorkerComesBackAtAnotherParallelismWithExactlyTheRightCounts() async throws {
        let backend = ServerBackend(seed: 5)
        try await backend.start()
        var expected: [Int: Int64] = [:]
        var random = SeededRandom(seed: testSeed(5))
        let records = (0..<3000).map { _ in Int.random(in: 0..<150, using: &random) }

        /// Counts `records[from..<to]` with `workers` sessions, each its key groups; returns their snapshots.
        func count(
            _ range: Range<Int>, workers: Int, epoch: UInt64, restoring: [SnapshotHandle], checkpoint: UInt64
        ) async throws -> [SnapshotHandle] {
            var handles: [SnapshotHandle] = []
            for worker in 0..<workers {
                let groups = KeyGroup.range(ofWorker: worker, parallelism: workers, count: 8)
                let session = try await backend.attach("counts", groups, epoch: epoch, restoring: restoring)
                let counts = try await session.reducingState("counts", .int64) { $0 + $1 }
                for record in records[range] where groups.contains(KeyGroup.group(ofKey: user(record), count: 8)) {
                    try session.setCurrentKey(user(record))
                    try await counts.add(1)
                }
                handles.append(try await session.snapshot(checkpoint: checkpoint))
                // Work behind the checkpoint that the crash takes back.
                for record in records[range].prefix(100)
                where groups.contains(KeyGroup.group(ofKey: user(record), count: 8)) {
                    try session.setCurrentKey(user(record))
                    try await counts.add(1000)
                }
                #expect(session.metrics.absentReadRPCs == 0)
                session.abandon()
            }
            return handles
        }

        for record in records { expected[record, default: 0] += 1 }
        let first = try await count(0..<1000, workers: 2, epoch: 1, restoring: [], checkpoint: 1)
        let second = try await count(1000..<2000, workers: 3, epoch: 2, restoring: first, checkpoint: 2)
        let third = try await count(2000..<3000, workers: 1, epoch: 3, restoring: second, checkpoint: 3)
        let session = try await backend.attach(
            "counts", KeyGroupRange(first: 0, last: 7), epoch: 4, restoring: third
        ) { $0.keyIndex = .verify }
        let counts = try await session.reducingState("counts", .int64) { $0 + $1 }
        var found: [Int: Int64] = [:]
        for record in 0..<200 {
            try session.setCurrentKey(user(record))
            if let count = try await counts.get() { found[record] = count }
        }
        #expect(found == expected)
        #expect(session.metrics.verifyChecks == 200 && session.metrics.verifyDisagreements == 0)
        let zombie = await #expect(throws: ClientError.self) {
            _ = try await backend.attach("counts", KeyGroupRange(first: 0, last: 7), epoch: 3, restoring: nil)
        }
        #expect(zombie?.code == .fenced)
        let wrongCut = await #expect(throws: ClientError.self) {
            _ = try await backend.attach("counts", KeyGroupRange(first: 0, last: 3), epoch: 9, restoring: nil)
        }
        #expect(wrongCut?.code == .rangeMismatch)
        session.abandon()
        await backend.stop()
    }
}
