import CisternDaemon
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWire
import CisternWireMessages
import Foundation
import Synchronization
import Testing

/// Sequences that were acknowledged, and a way to wait until there are so many or all were answered.
private final class Acknowledgements: Sendable {
    private struct State {
        var acknowledged: Set<Int> = []
        var answered = 0
        var waiting: (count: Int, continuation: CheckedContinuation<Void, Never>)?
    }
    private let sent: Int
    private let state = Mutex(State())

    init(of sent: Int) { self.sent = sent }

    var all: Set<Int> { state.withLock { $0.acknowledged } }

    func add(_ sequence: Int, isAcknowledged: Bool) {
        let reached = state.withLock { state -> CheckedContinuation<Void, Never>? in
            // A refusal (busy) overtakes acknowledgements that wait for the disk, so it ends nothing.
            if isAcknowledged { state.acknowledged.insert(sequence) }
            state.answered += 1
            guard let waiting = state.waiting,
                state.answered == sent || state.acknowledged.count >= waiting.count
            else { return nil }
            state.waiting = nil
            return waiting.continuation
        }
        reached?.resume()
    }

    func reach(_ count: Int) async {
        await withCheckedContinuation { continuation in
            let isThere = state.withLock { state -> Bool in
                if state.answered == sent || state.acknowledged.count >= count { return true }
                state.waiting = (count, continuation)
                return false
            }
            if isThere { continuation.resume() }
        }
    }
}

@Test(arguments: ["synced", "buffered"])
func killingTheServerLosesNothingAcknowledged(log: String) async throws {
    let directory = try TemporaryDirectory()
    let flags = ["--log", log, "--memtable-bytes", "256KiB", "--block-cache-bytes", "1MiB"]
    var next = 1
    for round in 1...3 {
        let server = try ServerProcess(data: directory.path, flags)
        let client = try await TestClient.connect(server.endpoints[0])
        let tree = try await client.attach()
        // What the server holds may be ahead of what was acknowledged, never behind.
        #expect(tree.reply.lastSequence >= UInt64(next - 1))
        next = Int(tree.reply.lastSequence) + 1
        let acknowledgements = Acknowledgements(of: 600)
        for sequence in next..<(next + 600) {
            let entries = (0..<20).map { TestEntry.put(UInt16($0 % 8), sequence * 20 + $0, "value of \(sequence)") }
                .sorted { $0.key.lexicographicallyPrecedes($1.key) }
            let body = tree.batch(UInt64(sequence), entries, epoch: 1)
            client.connection.send(.writeBatch, tree: tree.handle, body: body) { result in
                if case .success = result {
                    acknowledgements.add(sequence, isAcknowledged: true)
                } else {
                    acknowledgements.add(sequence, isAcknowledged: false)
                }
            }
        }
        await acknowledgements.reach(150 * round)
        #expect(server.end(by: SIGKILL) == -SIGKILL)
        await client.connection.close()
        let newest = max(next - 1, acknowledgements.all.max() ?? 0)
        #expect(!acknowledgements.all.isEmpty)
        next = newest + 1

        let again = try ServerProcess(data: directory.path, flags)
        let back = try await TestClient.connect(again.endpoints[0]).attach()
        #expect(back.reply.resumed)
        #expect(back.reply.lastSequence >= UInt64(newest))
        let found = Set(try await back.scanAll().map(\.key))
        for sequence in 1...newest {
            for index in 0..<20 {
                let key = testKey(UInt16(index % 8), sequence * 20 + index)
                try #require(
                    found.contains(key), "batch \(sequence), acknowledged in round \(round) or before, is lost")
            }
        }
        #expect(found.count == Int(back.reply.lastSequence) * 20)
        #expect(again.end(by: SIGTERM) == 0)
    }
}

@Test(arguments: [SIGTERM, SIGINT])
func aSignalDrainsFlushesAndExitsWithZero(signal: Int32) async throws {
    let directory = try TemporaryDirectory()
    // Without a log only the flush at the end can have kept it.
    let server = try ServerProcess(data: directory.path, ["--log", "off"])
    let tree = try await TestClient.connect(server.endpoints[0]).attach()
    for sequence in 1...50 { try await tree.write(UInt64(sequence), [.put(1, sequence, "v")]) }
    #expect(server.end(by: signal) == 0)
    let again = try ServerProcess(data: directory.path, ["--log", "off"])
    let back = try await TestClient.connect(again.endpoints[0]).attach()
    #expect(back.reply.lastSequence == 50)
    #expect(try await back.scanAll().count == 50)
    #expect(again.end(by: SIGTERM) == 0)
}

@Test func aUnixSocketIsServedAndAStaleOneReplaced() async throws {
    let directory = try TemporaryDirectory()
    let socket = "unix:\(directory.path)/s"
    let listen = ["127.0.0.1:0", socket]
    let killed = try ServerProcess(data: directory.path + "/data", listen: listen)
    #expect(killed.endpoints.map(\.description).last == socket)
    let tree = try await TestClient.connect(killed.endpoints[1]).attach()
    try await tree.write(1, [.put(0, 1, "v")])
    // In use: another server does not take it away.
    let second = try CisternBinary.run(
        ["serve", "--data", directory.path + "/other", "--listen", socket, "--log-level", "error"])
    #expect(second.status != 0)
    #expect(second.error.contains("another server listens there"), "\(second.error)")
    #expect(killed.end(by: SIGKILL) == -SIGKILL)
    let again = try ServerProcess(data: directory.path + "/data", listen: listen)
    let back = try await TestClient.connect(again.endpoints[1]).attach()
    #expect(back.reply.lastSequence == 1)
    #expect(again.end(by: SIGTERM) == 0)
    #expect(!FileManager.default.fileExists(atPath: directory.path + "/s"))
}

@Test func settingsThatCannotWorkStopTheStartWithAReason() throws {
    let directory = try TemporaryDirectory()
    let file = directory.path + "/cistern.conf"
    try "data = \(directory.path)/d\nevent_lops = 1\n".write(toFile: file, atomically: true, encoding: .utf8)
    let cases: [([String], [String: String], String)] = [
        (["serve"], [:], "no data directory"),
        (["serve", "--data", "/x", "--listen", "0.0.0.0:1"], [:], "allow_remote"),
        (["serve", "--config", file], [:], "did you mean event_loops?"),
        (["serve", "--config", directory.path + "/missing"], [:], "cannot read the configuration file"),
        (["serve", "--data", "/x"], ["CISTERN_EVENTLOOPS": "1"], "did you mean CISTERN_EVENT_LOOPS?"),
        (["serve", "--dataa", "/x"], [:], "--dataa"),
        (["serve", "--data", "/proc/none"], [:], "/proc/none"),
    ]
    for (arguments, environment, reason) in cases {
        let result = try CisternBinary.run(arguments, environment: environment)
        #expect(result.status != 0, "\(arguments)")
        #expect(result.error.contains(reason), "\(arguments): \(result.error)")
    }
    let checked = try CisternBinary.run(
        ["serve", "--check", "--event-loops", "3"], environment: ["CISTERN_DATA": "/x", "CISTERN_EVENT_LOOPS": "5"])
    #expect(checked.status == 0)
    #expect(checked.output.contains("event_loops = 3\n"))
    #expect(try CisternBinary.run(["--version"]).output == "cistern \(ServerVersion.number)\n")
}

@Test func everyOptionHasItsFlag() throws {
    let help = try CisternBinary.run(["serve", "--help"]).output
    for option in ServerOption.all { #expect(help.contains(option.flag), "\(option.flag)") }
}
