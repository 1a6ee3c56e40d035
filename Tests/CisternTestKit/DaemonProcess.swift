// The built `cistern` as another process, for what only a process can show: signals, kill -9, exit codes, its output.

package import CisternTransport
import Foundation

package struct DaemonProcessError: Error, CustomStringConvertible {
    package let description: String
}

package enum CisternBinary {
    /// `CISTERN_BINARY`, or the program that was built beside the tests.
    package static let path: String = {
        if let given = ProcessInfo.processInfo.environment["CISTERN_BINARY"] { return given }
        let tests = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        return tests.deletingLastPathComponent().appending(path: "cistern").path
    }()

    package struct Output {
        package let status: Int32
        package let output: String
        package let error: String
    }

    /// Runs to the end. `environment` is added to nothing: the child sees only that.
    package static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Output {
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

/// A daemon, killed at the latest when nobody refers to it any more.
package final class DaemonProcess {
    package let endpoints: [Endpoint]
    /// Where its admin port is, if it said so.
    package let admin: Endpoint?
    private let process = Process()

    /// Returns when the daemon has printed `lines` lines that tell where it listens.
    package init(_ arguments: [String], lines: Int) throws {
        process.executableURL = URL(filePath: CisternBinary.path)
        process.arguments = arguments
        process.environment = [:]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        var text = ""
        func addresses(_ prefix: String) -> [Endpoint] {
            text.split(separator: "\n").compactMap { line in
                line.hasPrefix(prefix) ? Endpoint(String(line.dropFirst(prefix.count))) : nil
            }
        }
        while text.count(where: { $0 == "\n" }) < lines {
            let chunk = pipe.fileHandleForReading.availableData
            guard !chunk.isEmpty else {
                process.waitUntilExit()
                throw DaemonProcessError(description: "the daemon ended after printing \"\(text)\"")
            }
            text += String(decoding: chunk, as: UTF8.self)
        }
        endpoints = addresses("listening on ")
        admin = addresses("admin on ").first
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    package func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

    /// Sends the signal and returns how the process ended: its exit status, or minus the signal that killed it.
    package func end(by signal: Int32) -> Int32 {
        send(signal)
        process.waitUntilExit()
        return process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
    }
}

/// A directory of its own for a test, removed when the test is over.
package final class TemporaryDirectory {
    package let path: String

    package init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: "cistern-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Every file below, by path.
    package func files() -> [String] {
        let names = FileManager.default.enumerator(atPath: path)?.compactMap { $0 as? String } ?? []
        return names.map { path + "/" + $0 }.filter { file in
            var isDirectory: ObjCBool = false
            return FileManager.default.fileExists(atPath: file, isDirectory: &isDirectory) && !isDirectory.boolValue
        }.sorted()
    }
}
