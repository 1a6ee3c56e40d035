// A child process: its stdin, its stdout line by line, its end. stderr goes to a file, so that it cannot tear the progress
// bar and is there when something failed.

internal import Foundation
internal import Glibc

enum ChildEvent: Sendable {
    /// Whole lines of stdout, without their newlines, as many as arrived together.
    case lines([String])
    /// After the last line. A sentence such as "exit status 1" or "killed by signal 9".
    case exited(reason: String, isSuccess: Bool)
}

/// Created and told by one task; the thread that reads stdout only calls `onEvent`.
final class ChildProcess: Sendable {
    private static let pieceBytes = 64 << 10

    let processIdentifier: Int32
    let logPath: String
    private let input: FileHandle

    /// Starts `executable`; `onEvent` is called on a thread of the child's own.
    init(
        executable: String, arguments: [String], logPath: String,
        onEvent: @escaping @Sendable (ChildEvent) -> Void
    ) throws {
        try Data().write(to: URL(fileURLWithPath: logPath))
        let log = try FileHandle(forWritingTo: URL(fileURLWithPath: logPath))
        defer { try? log.close() }
        let process = Process()
        let (stdin, stdout) = (Pipe(), Pipe())
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        process.standardInput = stdin
        process.standardOutput = stdout
        process.standardError = log
        try process.run()
        processIdentifier = process.processIdentifier
        self.logPath = logPath
        input = stdin.fileHandleForWriting
        let child = Unshared(process)
        let output = stdout.fileHandleForReading
        Thread.detachNewThread {
            Self.readLines(output) { onEvent(.lines($0)) }
            child.value.waitUntilExit()
            onEvent(Self.ending(of: child.value))
        }
    }

    /// Writes a line to the child's stdin; the pipe stays open.
    func send(line: String) throws {
        try input.write(contentsOf: Data((line + "\n").utf8))
    }

    func kill() { signal(SIGKILL) }
    func terminate() { signal(SIGTERM) }

    /// What the child wrote to stderr; of a long text (a crash with its backtrace) the first and the last lines.
    var logExcerpt: String {
        let text = (try? String(contentsOfFile: logPath, encoding: .utf8)) ?? ""
        let lines = text.split(separator: "\n")
        let kept = lines.count <= 16 ? lines : lines.prefix(10) + ["…"] + lines.suffix(5)
        return kept.joined(separator: "\n")
    }

    private func signal(_ number: Int32) {
        _ = Glibc.kill(processIdentifier, number)  // Fails only when the child has already ended.
    }

    /// Not through `FileHandle.read(upToCount:)`, which waits until it has that many bytes.
    private static func readLines(_ output: FileHandle, _ deliver: ([String]) -> Void) {
        var piece = [UInt8](repeating: 0, count: pieceBytes)
        var rest: [UInt8] = []
        while true {
            let count = unsafe read(output.fileDescriptor, &piece, piece.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            rest.append(contentsOf: piece[..<count])
            guard let end = rest.lastIndex(of: UInt8(ascii: "\n")) else { continue }
            deliver(rest[..<end].split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) })
            rest.removeFirst(end + 1)
        }
    }

    private static func ending(of process: Process) -> ChildEvent {
        let status = process.terminationStatus
        return process.terminationReason == .uncaughtSignal
            ? .exited(reason: "killed by signal \(status)", isSuccess: false)
            : .exited(reason: "exit status \(status)", isSuccess: status == 0)
    }
}

/// Hands a value to the one thread that will use it from then on.
private struct Unshared<Value>: @unchecked Sendable {
    // The creator does not touch `value` after handing it over.
    let value: Value
    init(_ value: Value) { self.value = value }
}
