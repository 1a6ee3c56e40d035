// The built `cistern` as another process, for what only a process can show: signals, kill -9, exit codes, its output.

import CisternTransport
import Foundation

enum CisternBinary {
    /// `CISTERN_BINARY`, or the program that was built beside the tests.
    static let path: String = {
        if let given = ProcessInfo.processInfo.environment["CISTERN_BINARY"] { return given }
        let tests = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        return tests.deletingLastPathComponent().appending(path: "cistern").path
    }()

    struct Output {
        let status: Int32
        let output: String
        let error: String
    }

    /// Runs to the end. `environment` is added to nothing: the child sees only that.
    static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Output {
        let process = Process()
        process.executableURL = URL(filePath: path)
        process.arguments = arguments
        process.environment = environment
        let output = Pipe()
        let error = Pipe()
        process.standardOutput = output
        process.standardError = error
        try process.run()
        let text = try output.fileHandleForReading.readToEnd() ?? Data()
        let complaint = try error.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return Output(
            status: process.terminationStatus, output: String(decoding: text, as: UTF8.self),
            error: String(decoding: complaint, as: UTF8.self))
    }
}

final class ServerProcess {
    let endpoints: [Endpoint]
    private let process: Process

    /// Returns when the server has printed where it listens.
    init(data: String, listen: [String] = ["127.0.0.1:0"], _ flags: [String] = []) throws {
        process = Process()
        process.executableURL = URL(filePath: CisternBinary.path)
        process.arguments =
            ["serve", "--data", data, "--log-level", "error"] + listen.flatMap { ["--listen", $0] } + flags
        process.environment = [:]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        var text = ""
        var found: [Endpoint] = []
        while found.count < listen.count {
            let chunk = pipe.fileHandleForReading.availableData
            guard !chunk.isEmpty else { throw HarnessError(description: "the server ended after printing \"\(text)\"") }
            text += String(decoding: chunk, as: UTF8.self)
            found = text.split(separator: "\n").compactMap { line in
                line.hasPrefix("listening on ") ? Endpoint(String(line.dropFirst("listening on ".count))) : nil
            }
        }
        endpoints = found
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    /// Sends the signal and returns how the process ended: its exit status, or minus the signal that killed it.
    func end(by signal: Int32) -> Int32 {
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        return process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
    }
}

/// A directory of its own for a test, removed when the test is over.
final class TemporaryDirectory {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: "cistern-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Every file below, by path.
    func files() -> [String] {
        let names = FileManager.default.enumerator(atPath: path)?.compactMap { $0 as? String } ?? []
        return names.map { path + "/" + $0 }.filter { file in
            var isDirectory: ObjCBool = false
            return FileManager.default.fileExists(atPath: file, isDirectory: &isDirectory) && !isDirectory.boolValue
        }.sorted()
    }
}
