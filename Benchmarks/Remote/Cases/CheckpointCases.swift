// Checkpoints, restarts and rescales of a server whose state is small and large: what they cost must not depend on it. And what the
// server's memory comes to when stores come and go. Absolute bars, no peer.

import CisternBenchKit
import CisternClient
import CisternPrimitives
import Foundation

enum CheckpointSuite {
    static let name = "checkpoint"
    static let cases = ["checkpoint_p99", "restart", "rescale", "server_memory"]
    static let bars: [String: CaseBar] = [
        "checkpoint_p99": .atMost(50_000, .p99), "restart": .atMost(200, .openTime),
        "rescale": .atMost(200, .openTime), "server_memory": .atMost(1.1, .memoryToBudget),
    ]
}

/// One state size.
struct StateMeasurement {
    var checkpoints = Latencies()
    var restarts = Latencies()
    var rescales = Latencies()
    var upload = Latencies()
    var diskBytes: UInt64 = 0
}

struct CheckpointCases {
    static let groupCount = 128
    static let valueBytes = 1000
    static let incrementBytes = 10_000_000
    static let restarts = 5
    static let parallelisms = [2, 3, 5, 2]

    let directory: String
    let bytes: Int
    let checkpoints: Int
    let data: RemoteData

    private var entries: Int { bytes / (RemoteData.storeKeyBytes + CheckpointCases.valueBytes) }
    private var dataPath: String { directory + "/data" }

    /// - Parameter store: the server uploads to a snapshot store meanwhile.
    func run(uploading: Bool) async throws -> StateMeasurement {
        let options = uploading ? ["--snapshot-store", "file://" + directory + "/store"] : []
        var measured = StateMeasurement()
        var served = try Served.cistern(data: dataPath, log: "buffered", options: options)
        var epoch: UInt64 = 1
        try await load(served, epoch)
        served.settle()
        served.stop()

        served = try Served.cistern(data: dataPath, log: "synced", options: options)
        epoch += 1
        var handle = try await checkpoint(served, epoch, &measured)
        served.stop()
        for _ in 0..<CheckpointCases.restarts {
            epoch += 1
            let began = wallNanoseconds()
            served = try Served.cistern(data: dataPath, log: "synced", options: options)
            let worker = try await Worker.attach(served, index: 0, of: 1, epoch, restoring: nil)
            try await worker.read(firstNumbers[0], data)
            measured.restarts.add(wallNanoseconds() - began)
            worker.session.abandon()
            await worker.client.close()
            served.stop()
        }
        served = try Served.cistern(data: dataPath, log: "synced", options: options)
        var handles = [handle]
        for (step, parallelism) in CheckpointCases.parallelisms.enumerated() {
            epoch += 1
            let (nanoseconds, next) = try await rescale(served, to: parallelism, epoch, from: handles, step)
            // The first one only makes the two that the next begins with.
            if step > 0 { measured.rescales.add(nanoseconds) }
            handles = next
        }
        handle = handles[0]
        measured.diskBytes = settledDiskBytes(dataPath)
        served.stop()
        return measured
    }

    /// A number of each key group, so that every worker has something to read.
    private var firstNumbers: [UInt64] {
        var found = [UInt64?](repeating: nil, count: CheckpointCases.groupCount)
        var number: UInt64 = 0
        while found.contains(where: { $0 == nil }) {
            let group = KeyGroup.group(ofKey: data.userKey(number), count: CheckpointCases.groupCount)
            if found[Int(group)] == nil { found[Int(group)] = number }
            number += 1
        }
        return found.compactMap(\.self)
    }

    private func load(_ served: Served, _ epoch: UInt64) async throws {
        let worker = try await Worker.attach(served, index: 0, of: 1, epoch, restoring: [])
        for number in 0..<UInt64(entries) { try await worker.write(number, 0, data) }
        try await worker.session.flush()
        try await worker.session.detach()
        await worker.client.close()
    }

    /// The last handle. Older ones are released as they are subsumed.
    private func checkpoint(
        _ served: Served, _ epoch: UInt64, _ measured: inout StateMeasurement
    ) async throws -> SnapshotHandle {
        let worker = try await Worker.attach(served, index: 0, of: 1, epoch, restoring: nil)
        var last: SnapshotHandle?
        // The first has everything for the store; the others only what is new.
        for number in 0...UInt64(checkpoints) {
            for index in 0..<UInt64(CheckpointCases.incrementBytes / CheckpointCases.valueBytes) {
                let place = scatter(number << 32 | index) % UInt64(entries)
                try await worker.write(place, number + 1, data)
            }
            let began = wallNanoseconds()
            let handle = try await worker.session.snapshot(checkpoint: number + 1)
            if number > 0 { measured.checkpoints.add(wallNanoseconds() - began) }
            if let last { try await worker.client.releaseSnapshots(store: Worker.store, [last]) }
            last = handle
        }
        worker.session.abandon()
        await worker.client.close()
        guard let last else { throw BenchFailure("no checkpoint was taken") }
        return last
    }

    /// All workers of a job at once; the time until each has had its first read answered.
    private func rescale(
        _ served: Served, to parallelism: Int, _ epoch: UInt64, from handles: [SnapshotHandle], _ step: Int
    ) async throws -> (Double, [SnapshotHandle]) {
        let numbers = firstNumbers
        let data = data
        let endpoint = served.endpoint
        let began = wallNanoseconds()
        let answers = try await withThrowingTaskGroup(of: (Int, Double, SnapshotHandle).self) { group in
            for index in 0..<parallelism {
                group.addTask {
                    let worker = try await Worker.attach(
                        endpoint, index: index, of: parallelism, epoch, restoring: handles)
                    try await worker.read(numbers[Int(worker.groups.first)], data)
                    let ready = wallNanoseconds()
                    let handle = try await worker.session.snapshot(checkpoint: 1000 + UInt64(step))
                    try await worker.session.detach()
                    await worker.client.close()
                    return (index, ready, handle)
                }
            }
            var answers: [(Int, Double, SnapshotHandle)] = []
            for try await answer in group { answers.append(answer) }
            return answers.sorted { $0.0 < $1.0 }
        }
        return ((answers.map(\.1).max() ?? began) - began, answers.map(\.2))
    }
}

/// A worker of the job, with one state.
private struct Worker {
    static let store = "job"

    let client: StateClient
    let session: KeyedStateSession
    let state: ValueState<[UInt8]>
    let groups: KeyGroupRange

    static func attach(
        _ served: Served, index: Int, of parallelism: Int, _ epoch: UInt64, restoring: [SnapshotHandle]?
    ) async throws -> Worker {
        try await attach(served.endpoint, index: index, of: parallelism, epoch, restoring: restoring)
    }

    static func attach(
        _ endpoint: String, index: Int, of parallelism: Int, _ epoch: UInt64, restoring: [SnapshotHandle]?,
        store: String = Worker.store
    ) async throws -> Worker {
        var configuration = ClientConfiguration(endpoint: endpoint)
        // What is measured is the server's part; the index of five million keys is loaded beside it in a job.
        configuration.keyIndex = .off
        configuration.valueCacheBytes = 0
        let client = try await StateClient.connect(configuration)
        let groups = KeyGroup.range(ofWorker: index, parallelism: parallelism, count: CheckpointCases.groupCount)
        let session = try await client.attach(
            store: store, keyGroupCount: CheckpointCases.groupCount, keyGroups: groups, epoch: epoch,
            writer: "worker-\(index)", restoring: restoring)
        let state = try await session.valueState("value", StateSerializer<[UInt8]>.bytes)
        return Worker(client: client, session: session, state: state, groups: groups)
    }

    func write(_ number: UInt64, _ version: UInt64, _ data: RemoteData) async throws {
        try session.setCurrentKey(data.userKey(number))
        try await state.update(
            [UInt8](unsafeUninitializedCapacity: CheckpointCases.valueBytes) { memory, count in
                let bytes = UnsafeMutableRawBufferPointer(memory)
                var word = scatter(number ^ version << 40)
                for offset in stride(from: 8, to: CheckpointCases.valueBytes - 7, by: 8) {
                    bytes.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
                    word = word &* 0x5851_F42D_4C95_7F2D &+ 1
                }
                bytes.storeBytes(of: number, as: UInt64.self)
                count = CheckpointCases.valueBytes
            })
    }

    func read(_ number: UInt64, _ data: RemoteData) async throws {
        try session.setCurrentKey(data.userKey(number))
        let value = try await state.value()
        guard let value, value.count == CheckpointCases.valueBytes,
            value.withUnsafeBytes({ $0.loadUnaligned(as: UInt64.self) }) == number
        else { throw BenchFailure("entry \(number) is missing or has another's value") }
    }
}

/// Stores are attached, written, read and detached, one after the other; the server's resident memory against its budget.
struct ServerMemoryCase {
    static let budgetBytes = 512 << 20
    static let storeBytes = 1_000_000

    let directory: String
    let stores: Int
    let data: RemoteData

    func run() async throws -> (toBudget: Double, growth: Double) {
        let served = try Served.cistern(
            data: directory + "/memory", log: "buffered",
            options: [
                "--memory-bytes", "\(ServerMemoryCase.budgetBytes)", "--block-cache-bytes",
                "\(ServerMemoryCase.budgetBytes / 2)", "--memtable-bytes", "16MiB",
            ])
        defer { served.stop() }
        let entries = UInt64(ServerMemoryCase.storeBytes / CheckpointCases.valueBytes)
        var samples: [Double] = []
        for store in 0..<stores {
            let worker = try await Worker.attach(
                served.endpoint, index: 0, of: 1, 1, restoring: [], store: "store-\(store)")
            for number in 0..<entries { try await worker.write(number, 0, data) }
            try await worker.session.flush()
            for number in 0..<entries { try await worker.read(number, data) }
            try await worker.session.detach()
            await worker.client.close()
            if store % 10 == 9 { samples.append(served.residentBytes) }
        }
        let half = samples[..<(samples.count / 2)].max() ?? 0
        let rest = samples[(samples.count / 2)...].max() ?? 0
        return ((samples.max() ?? 0) / Double(ServerMemoryCase.budgetBytes), rest / max(half, 1))
    }
}
