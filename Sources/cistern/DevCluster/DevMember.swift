// A process of a development cluster, with its files: run/NAME.pid, run/NAME.address, logs/NAME.log, and its data in NAME.

internal import Foundation

struct DevMember {
    enum State: Equatable {
        case running(DetachedProcess)
        /// It was started and has ended by itself.
        case dead
        case stopped
    }

    /// "log-1".
    let name: String
    /// Of the cluster.
    let directory: String

    var data: String { directory + "/" + name }
    var log: String { directory + "/logs/\(name).log" }
    private var processFile: String { directory + "/run/\(name).pid" }
    private var addressFile: String { directory + "/run/\(name).address" }

    var state: State {
        guard FileManager.default.fileExists(atPath: processFile) else { return .stopped }
        guard let process = DetachedProcess(file: processFile), process.isRunning else { return .dead }
        return .running(process)
    }

    /// Where it serves, then where its admin port is; kept from one start to the next.
    var addresses: [String] {
        guard let text = try? String(contentsOfFile: addressFile, encoding: .utf8) else { return [] }
        return text.split(separator: "\n").map(String.init)
    }

    func remember(_ addresses: [String]) throws {
        let text = addresses.map { $0 + "\n" }.joined()
        try Data(text.utf8).write(to: URL(fileURLWithPath: addressFile), options: .atomic)
    }

    func start(_ program: String, _ arguments: [String]) throws -> DetachedProcess {
        let process = try DetachedProcess.start(program, arguments, output: log)
        try process.write(to: processFile)
        return process
    }

    /// Idempotent; true when it had to be killed.
    func stop(within time: Duration) async throws -> Bool {
        var mustKill = false
        if case .running(let process) = state {
            process.send(SIGTERM)
            mustKill = await !process.hasEnded(within: time)
            if mustKill {
                process.send(SIGKILL)
                // Nothing holds a process that is killed but a disk that does not answer.
                guard await process.hasEnded(within: time) else {
                    throw DevClusterError("\(name) (process \(process.id)) does not end, although it was killed")
                }
            }
        }
        guard state != .stopped else { return false }
        try FileManager.default.removeItem(atPath: processFile)
        return mustKill
    }

    /// What it printed after `prefix`, one for each line.
    func printed(_ prefix: String) -> [String] {
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
    }

    /// Its last words.
    var lastLines: String {
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").suffix(5).joined(separator: "\n")
    }
}

struct DevClusterError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
