// failover_5gb: a state server of a development cluster is killed and its directory deleted; how long until a worker has its tree at the
// other one, and has read of it. What it reads afterwards must be what was written.

import CisternBenchKit
import CisternClient
import CisternPrimitives
import Foundation

struct FailoverCase {
    let directory: String
    let keys: Int

    /// Keys whose newest value is in the log alone.
    private var behind: Int { min(keys / 10, 100_000) }
    /// So many are compared.
    private static let compared = 100_000

    private func key(_ number: Int) -> [UInt8] { Array("customer-\(number)".utf8) }

    /// 96 bytes that do not compress, and that only the right key has.
    private func value(_ number: Int, version: UInt64) -> [UInt8] {
        var state = UInt64(number) &* 2 &+ version
        var bytes: [UInt8] = []
        bytes.reserveCapacity(96)
        for _ in 0..<12 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            withUnsafeBytes(of: state ^ state >> 29) { bytes += $0 }
        }
        return bytes
    }

    func run() async throws -> [Metric: Double] {
        try dev("up")
        do {
            let values = try await measure()
            try dev("down")
            return values
        } catch {
            _ = try? dev("down")
            throw error
        }
    }

    private func measure() async throws -> [Metric: Double] {
        let addresses = addresses(try dev("status"))
        guard let first = addresses["state-1"], let second = addresses["state-2"] else {
            throw BenchFailure("the development cluster in \(directory) has no two state servers")
        }
        let before = try await attach(first, epoch: 1)
        for number in 0..<keys {
            try before.session.setCurrentKey(key(number))
            try await before.state.update(value(number, version: 1))
        }
        _ = try await before.session.snapshot(checkpoint: 1)
        try await waitForSnapshot()
        for number in 0..<behind {
            try before.session.setCurrentKey(key(number * 7 % keys))
            try await before.state.update(value(number * 7 % keys, version: 2))
        }
        try await before.session.flush()

        try kill("state-1")
        try FileManager.default.removeItem(atPath: directory + "/state-1")
        before.session.abandon()
        await before.client.close()

        let start = wallNanoseconds()
        let after = try await attach(second, epoch: 2)
        try after.session.setCurrentKey(key(keys / 2))
        let found = try await after.state.value()
        let milliseconds = (wallNanoseconds() - start) / 1e6
        guard found != nil else { throw BenchFailure("a key is gone after the failover") }

        let changed = Set((0..<behind).map { $0 * 7 % keys })
        let step = max(1, keys / Self.compared)
        for number in stride(from: 0, to: keys, by: step) {
            try after.session.setCurrentKey(key(number))
            let expected = value(number, version: changed.contains(number) ? 2 : 1)
            guard try await after.state.value() == expected else {
                throw BenchFailure("key \(number) has another value after the failover than before")
            }
        }
        try await after.session.detach()
        await after.client.close()
        return [.openTime: milliseconds]
    }

    private func attach(
        _ address: String, epoch: UInt64
    ) async throws -> (client: StateClient, session: KeyedStateSession, state: ValueState<[UInt8]>) {
        var configuration = ClientConfiguration(endpoint: address)
        configuration.keyIndex = .off
        let client = try await StateClient.connect(configuration)
        let session = try await client.attach(
            store: "customers", keyGroupCount: 128, keyGroups: KeyGroupRange(first: 0, last: 127), epoch: epoch,
            writer: "worker-\(epoch)", restoring: epoch == 1 ? [] : nil)
        return (client, session, try await session.valueState("balance", .bytes))
    }

    /// Its manifest is in the store, and a moment later it is the base.
    private func waitForSnapshot() async throws {
        let files = FileManager.default
        let store = directory + "/snapshots/snapshots"
        while true {
            let namespaces = (try? files.contentsOfDirectory(atPath: store)) ?? []
            let found = namespaces.contains { namespace in
                let manifests = (try? files.contentsOfDirectory(atPath: store + "/" + namespace)) ?? []
                return manifests.contains { !$0.hasSuffix(".tmp") }
            }
            try await Task.sleep(for: .milliseconds(100))
            if found { return }
        }
    }

    // MARK: Processes

    @discardableResult
    private func dev(_ command: String) throws -> String {
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let process = Process()
        process.executableURL = own.appendingPathComponent("cistern")
        process.arguments = ["dev-cluster", command, "--directory", directory]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw BenchFailure("cistern dev-cluster \(command) in \(directory) failed: \(text)")
        }
        return text
    }

    private func addresses(_ output: String) -> [String: String] {
        let words = output.split(separator: "\n").map { $0.split(separator: " ") }
        return Dictionary(
            words.filter { $0.count > 3 && $0[1].hasPrefix("127.") }.map { (String($0[0]), String($0[1])) }
        ) { first, _ in first }
    }

    private func kill(_ member: String) throws {
        let path = directory + "/run/\(member).pid"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        guard let id = text.split(separator: " ").first.flatMap({ Int32($0) }), Foundation.kill(id, SIGKILL) == 0 else {
            throw BenchFailure("\(path) names no process: \(text)")
        }
    }
}
