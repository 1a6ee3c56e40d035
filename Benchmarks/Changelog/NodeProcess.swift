// A log node in a process of its own: `node` runs it, `NodeProcess` starts and ends it.

import ArgumentParser
import CisternBenchKit
import CisternFileSystem
import CisternLogNetwork
import CisternLogNode
import CisternLogProtocol
import CisternPrimitives
import CisternTransport
import Foundation
import NIOCore
import NIOPosix

/// What a node used, as it says at its end.
struct NodeUsage: Codable {
    var cpuNanoseconds: Double
    var writtenBytes: Double
    var syncs: UInt64
    var records: UInt64
}

struct NodeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "node", abstract: "Runs a log node; `run` starts it.", shouldDisplay: false)

    @Option var id: UInt64
    @Option var directory: String
    @Option var spares = 2

    func run() async throws {
        let lane = SerialThread(name: "log-node")
        var journal = JournalOptions(directory: directory, node: LogNodeID(id), cluster: 1)
        // In a long run segments of deleted ledgers are used again; here nothing is deleted, so as many are prepared as are written.
        journal.preparedAtStart = spares
        // Metadata is the client's: nothing is deleted here.
        let metadata = LogNodeMetadata(highestLedger: { $0(LedgerID(0)) }, exists: { $1(true) })
        let node = try LogNodeHost(
            LogNodeOptions(journal: journal, isNew: true), fileSystem: PosixFileSystem(), lanes: .threads(),
            lane: lane, metadata: metadata)
        while await NodeCommand.status(node).preparedSegments < spares { try await Task.sleep(nanoseconds: 10_000_000) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await LogNodeListener.bind([.tcp(host: "127.0.0.1", port: 0)], node: node, group: group)
        guard case .tcp(_, let port) = listener.boundEndpoints[0] else { throw BenchFailure("no port") }
        print(port)
        fflush(nil)
        var used = processCPUNanoseconds()
        let meter = ProcessMeter()
        // A line asks for what was used since the last one; the end of the input ends the node.
        while let line = readLine() {
            guard line == "usage" else { continue }
            let status = await NodeCommand.status(node)
            let now = processCPUNanoseconds()
            let usage = NodeUsage(
                cpuNanoseconds: now - used, writtenBytes: meter.bytesWritten, syncs: status.journal.syncs,
                records: status.journal.records)
            used = now
            print(String(decoding: try JSONEncoder().encode(usage), as: UTF8.self))
            fflush(nil)
        }
        await listener.close()
        node.stop()
        try await group.shutdownGracefully()
    }

    private static func status(_ node: LogNodeHost) async -> LogNodeStatus {
        await withCheckedContinuation { continuation in node.status { continuation.resume(returning: $0) } }
    }
}

final class NodeProcess {
    let id: LogNodeID
    let endpoint: Endpoint
    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()

    init(_ number: UInt64, directory: String, spares: Int) throws {
        id = LogNodeID(number)
        let path = "\(directory)/node-\(number)"
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["node", "--id", "\(number)", "--directory", path, "--spares", "\(spares)"]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        guard let line = NodeProcess.line(output), let port = Int(line) else {
            throw BenchFailure("log node \(number) did not start: see above")
        }
        endpoint = .tcp(host: "127.0.0.1", port: port)
    }

    /// Since the last call.
    func usage() throws -> NodeUsage {
        input.fileHandleForWriting.write(Data("usage\n".utf8))
        guard let line = NodeProcess.line(output) else { throw BenchFailure("log node \(id) has ended") }
        return try JSONDecoder().decode(NodeUsage.self, from: Data(line.utf8))
    }

    func stop() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }

    private static func line(_ pipe: Pipe) -> String? {
        var bytes = Data()
        while let byte = try? pipe.fileHandleForReading.read(upToCount: 1), !byte.isEmpty {
            if byte[byte.startIndex] == UInt8(ascii: "\n") { return String(decoding: bytes, as: UTF8.self) }
            bytes += byte
        }
        return nil
    }
}
