// One run: four log nodes behind proxies, owners that take a log over from each other while the one before still writes, and faults that
// a seed chooses. Faults last for a time: that is what they are, so this is the one place where a test sleeps.

import CisternChangelog
import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import CisternTransport
import Foundation
import NIOCore
import NIOPosix
import Synchronization
import Testing

/// A file system of its own for a node's directory, small enough to be filled. nil where this process may not mount one.
private final class SmallDisk {
    private let path: String

    init?(_ path: String, mebibytes: Int) {
        self.path = path
        guard (try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)) != nil,
            SmallDisk.run("mount", ["-t", "tmpfs", "-o", "size=\(mebibytes)m", "tmpfs", path])
        else { return nil }
    }

    /// Leaves no room at all.
    func fill() {
        guard FileManager.default.createFile(atPath: path + "/filler", contents: nil),
            let file = FileHandle(forWritingAtPath: path + "/filler")
        else { return }
        let block = Data(repeating: 0, count: 64 << 10)
        while (try? file.write(contentsOf: block)) != nil {}
        try? file.close()
    }

    func empty() { try? FileManager.default.removeItem(atPath: path + "/filler") }

    func unmount() { _ = SmallDisk.run("umount", ["-l", path]) }

    private static func run(_ program: String, _ arguments: [String]) -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }
}

final class LogFaultRun {
    private static let nodes = UInt64(4)
    /// Owners one behind the other, but for the last, which reads.
    private static let owners = UInt64(6)
    private static let log = "orders"

    private let cluster: LogNodeCluster
    private var random: SeededRandom
    private var proxies: [UInt64: CuttingProxy] = [:]
    private var disk: SmallDisk?
    /// The node whose disk may be filled.
    private static let smallNode = UInt64(2)
    private let owners: LogOwners

    init(_ cluster: LogNodeCluster, seed: UInt64) {
        self.cluster = cluster
        random = SeededRandom(seed: seed)
        owners = LogOwners(cluster.ledgers)
    }

    func run() async throws {
        disk = SmallDisk(cluster.path(Self.smallNode), mebibytes: 48)
        defer { disk?.unmount() }
        for node in 1...Self.nodes {
            proxies[node] = try await CuttingProxy.start()
            try start(node)
        }
        var running: [Task<Void, Never>] = []
        for attempt in 1...Self.owners {
            running.append(Task { [owners] in await owners.run(attempt) })
            // Faults while it takes over and writes, and while the one before does not know yet.
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                try await Task.sleep(for: .milliseconds(Int.random(in: 50...400, using: &random)))
                try await fault()
            }
            await owners.waitForAcknowledgements(of: attempt, or: .seconds(3))
        }
        owners.stop()
        for task in running { await task.value }
        let last = Self.owners + 1
        let (found, trimPoint): ([LogEntry], LogSequenceNumber?)
        do {
            (found, trimPoint) = try await owners.readAll(last)
        } catch {
            let picture = await picture()
            Issue.record(
                "the log cannot be read in the end, after \(faults.joined(separator: " ")): \(error)\n\(picture)")
            return
        }
        let history = owners.history
        let problems = history.violations(found: found, trimPoint: trimPoint)
        #expect(problems.isEmpty, "\(problems.count): \(problems.prefix(5))")
        print(
            "history: \(history.events.count) events, \(history.acknowledgedCount) acknowledgements, \(found.count) entries in the "
                + "end, faults: \(faults.joined(separator: " "))")
        #expect(history.acknowledgedCount > 0)
        for proxy in proxies.values { await proxy.close() }
        // Every node ends as it should: a kill is not hidden by a crash.
        for node in 1...Self.nodes { #expect(cluster.end(node, by: SIGTERM) == 0, "node \(node)") }
    }

    /// What somebody would look at.
    private func picture() async -> String {
        var text = ""
        for arguments in [["ls"], ["repairs"], ["verify", "--all"]] {
            let flags = ["--etcd", "\(cluster.etcd.endpoint)", "--cluster", LogNodeCluster.name]
            let output = try? await onOwnThread { try CisternBinary.run(["ledger"] + arguments + flags) }
            text += output.map { $0.output + $0.error } ?? "cistern ledger \(arguments) does not run\n"
        }
        for node in 1...Self.nodes {
            let registration = await cluster.ledgers.registration(of: LogNodeID(node))
            text += "node \(node): \(registration.map { "\($0)" } ?? "not registered")\n"
        }
        return text
    }

    private func start(_ node: UInt64) throws {
        guard let proxy = proxies[node] else { return }
        let process = try cluster.start(
            node,
            ["--advertise", "\(proxy.endpoint)", "--lease", "1s", "--repair-grace", "2s", "--spare-segments", "2"])
        proxy.forward(to: process.endpoints.first)
    }

    // MARK: Faults

    private var faults: [String] = []

    private func pause(_ range: ClosedRange<Int>) async throws {
        try await Task.sleep(for: .milliseconds(Int.random(in: range, using: &random)))
    }

    /// One, from its beginning to its end.
    private func fault() async throws {
        let node = UInt64.random(in: 1...Self.nodes, using: &random)
        guard let proxy = proxies[node] else { return }
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
            faults.append("kill\(node)")
            #expect(cluster.end(node, by: SIGKILL) == -SIGKILL)
            proxy.forward(to: nil)
            try await pause(0...600)
            try start(node)
        case 1:
            // Longer than a request's time and the node's lease.
            faults.append("stop\(node)")
            cluster.process(node).send(SIGSTOP)
            try await pause(200...1800)
            cluster.process(node).send(SIGCONT)
        case 2:
            faults.append("cut\(node)")
            proxy.cut(refusing: true)
            try await pause(0...800)
            proxy.set(.passing)
        case 3:
            faults.append("stall\(node)")
            let toNode = Bool.random(using: &random)
            proxy.set(.stalling(toNode: toNode, fromNode: !toNode || Bool.random(using: &random)))
            try await pause(200...1500)
            proxy.set(.passing)
        case 4:
            guard let disk else { return }
            faults.append("full\(Self.smallNode)")
            disk.fill()
            try await pause(200...1000)
            disk.empty()
            try await revive(Self.smallNode)
        default:
            // Two at once: no quorum, nothing is acknowledged, and nothing is lost.
            let other = node % Self.nodes + 1
            faults.append("stop\(node)+cut\(other)")
            cluster.process(node).send(SIGSTOP)
            proxies[other]?.cut(refusing: true)
            try await pause(300...1200)
            proxies[other]?.set(.passing)
            cluster.process(node).send(SIGCONT)
        }
    }

    /// A node whose journal has failed serves nothing until it is started again; it drains on SIGTERM, with exit status 1.
    private func revive(_ node: UInt64) async throws {
        let status = cluster.end(node, by: SIGTERM)
        #expect(status == 0 || status == 1, "node \(node) ended with \(status)")
        try start(node)
    }
}

/// The owners of the log, each with connections of its own, as processes would have.
private final class LogOwners: Sendable {
    private struct State {
        var history = LogHistory()
        var acknowledged: [UInt64: Int] = [:]
        var ended: Set<UInt64> = []
        var isStopped = false
    }

    private static let acknowledgementsMin = 20
    private static let batch = 8

    private let ledgers: LedgerStore
    private let state = Mutex(State())

    init(_ ledgers: LedgerStore) { self.ledgers = ledgers }

    var history: LogHistory { state.withLock { $0.history } }

    func stop() { state.withLock { $0.isStopped = true } }

    private func note(_ event: LogHistory.Event) {
        state.withLock { state in
            state.history.events.append(event)
            if case .acknowledged(let entry) = event { state.acknowledged[entry.attempt, default: 0] += 1 }
        }
    }

    /// Returns when the attempt was told some times that its entries are durable, has lost the log, or does not get on for so long.
    func waitForAcknowledgements(of attempt: UInt64, or limit: Duration) async {
        let deadline = ContinuousClock.now + limit
        while ContinuousClock.now < deadline {
            let isDone = state.withLock { state in
                state.acknowledged[attempt] ?? 0 >= Self.acknowledgementsMin || state.ended.contains(attempt)
            }
            if isDone { return }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    private func client() -> LedgerClient {
        var options = LedgerClientOptions()
        options.requestTimeout = .milliseconds(500)
        options.reconnectDelayMin = .milliseconds(10)
        options.reconnectDelayMax = .milliseconds(200)
        options.retryInterval = .milliseconds(100)
        options.candidatesInterval = .milliseconds(300)
        options.patience = .seconds(20)
        return LedgerClient(
            group: MultiThreadedEventLoopGroup.singleton, addresses: ledgers, metadata: ledgers, options: options)
    }

    private func take(_ attempt: UInt64, _ client: LedgerClient) async throws -> Changelog {
        var options = ChangelogOptions()
        // Ledgers change often.
        options.ledgerBytesMax = 128 << 10
        options.retryInterval = .milliseconds(100)
        options.takeoverTimeout = .seconds(30)
        return try await Changelog.takeOver(
            "orders", attempt: attempt, client: client, metadata: ledgers, options: options)
    }

    /// Takes the log over, reads it, and writes until it is stopped or has lost the log.
    func run(_ attempt: UInt64) async {
        let client = client()
        do {
            note(.takeoverBegan(attempt))
            let log = try await take(attempt, client)
            let (found, trimPoint) = try await read(log)
            note(.takenOver(attempt, trimPoint: trimPoint, found))
            try await write(attempt, log)
            try await log.close()
        } catch {
            // Lost to a newer one, or there were too few nodes: either way nothing more is acknowledged.
        }
        state.withLock { _ = $0.ended.insert(attempt) }
        await client.close()
    }

    private func write(_ attempt: UInt64, _ log: Changelog) async throws {
        var places: [LogSequenceNumber] = []
        while !state.withLock({ $0.isStopped }) {
            let entry = HistoryEntry(attempt: attempt, number: places.count)
            note(.appending(entry))
            let place = try await log.append(entry.body)
            note(.appended(entry, place))
            places.append(place)
            guard places.count % Self.batch == 0 else { continue }
            try await log.persist(through: place)
            note(.acknowledged(entry))
            // As a source that has not endless records: what is written must fit on the small disk.
            try await Task.sleep(for: .milliseconds(4))
            if places.count % 240 == 0 {
                let point = places[places.count - 120]
                note(.truncating(attempt, to: point))
                try await log.truncate(to: point)
            }
        }
    }

    private func read(_ log: Changelog) async throws -> ([LogEntry], LogSequenceNumber?) {
        let trimPoint = await log.trimPoint
        let found = Mutex<[LogEntry]>([])
        try await log.read(from: trimPoint) { entry in found.withLock { $0.append(entry) } }
        return (found.withLock { $0 }, trimPoint)
    }

    /// The log as it is in the end, when all nodes are well.
    func readAll(_ attempt: UInt64) async throws -> ([LogEntry], LogSequenceNumber?) {
        let client = client()
        let deadline = ContinuousClock.now + .seconds(30)
        while true {
            do {
                let log = try await take(attempt, client)
                let result = try await read(log)
                try await log.close()
                await client.close()
                return result
            } catch ChangelogError.tooFewNodes where ContinuousClock.now < deadline {
                // A node that stood still is registered again in a moment.
                try await Task.sleep(for: .milliseconds(100))
            } catch {
                await client.close()
                throw error
            }
        }
    }
}
