// A process that goes on when the command that started it has ended: in a session of its own, its output in a file, found again by a
// file with its number and the time of its start, so that another process that got the number is left alone.

internal import Foundation
internal import Glibc

struct DetachedProcess: Equatable {
    let id: Int32
    /// Clock ticks since the machine's start, as in /proc.
    let startTicks: UInt64

    /// Between two looks at something that is waited for.
    static let pollInterval = Duration.milliseconds(20)

    /// glibc's `POSIX_SPAWN_SETSID`, a macro that Swift does not see.
    private static let newSession: Int16 = 0x80

    /// Environment names that begin so are not handed on: they would be settings of the child.
    private static let ownPrefix = "CISTERN_"

    /// - Parameter output: of both streams; what was in it is gone.
    static func start(_ program: String, _ arguments: [String], output: String) throws -> DetachedProcess {
        let environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix(ownPrefix) }
            .map { "\($0.key)=\($0.value)" }
        var attributes = posix_spawnattr_t()
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawnattr_init(&attributes)
        unsafe posix_spawn_file_actions_init(&actions)
        defer {
            unsafe posix_spawnattr_destroy(&attributes)
            unsafe posix_spawn_file_actions_destroy(&actions)
        }
        unsafe posix_spawnattr_setflags(&attributes, newSession)
        unsafe posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        unsafe posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
        keepFilesToOurselves()
        var id: pid_t = 0
        let result = unsafe withStrings([program] + arguments) { argv in
            unsafe withStrings(environment) { envp in
                unsafe posix_spawn(&id, program, &actions, &attributes, argv, envp)
            }
        }
        guard result == 0 else {
            throw DevClusterError("\(program) cannot be started: \(unsafe String(cString: strerror(result)))")
        }
        // It is there at least as a child that nobody has waited for.
        guard let started = DetachedProcess.look(id) else {
            throw DevClusterError("\(program) was started as process \(id), of which /proc knows nothing")
        }
        return DetachedProcess(id: id, startTicks: started.startTicks)
    }

    /// What this process was given would stay open with the child, and whoever reads from a pipe would never see its end.
    private static func keepFilesToOurselves() {
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        for descriptor in open.compactMap({ Int32($0) }) where descriptor > STDERR_FILENO {
            // Fails for the one that the listing was read by, which is closed.
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        }
    }

    /// It has not ended.
    var isRunning: Bool {
        guard let found = DetachedProcess.look(id) else { return false }
        return found.startTicks == startTicks && !found.hasEnded
    }

    func send(_ signal: Int32) {
        // Fine when it has just ended, which is looked at anyway.
        if isRunning { _ = kill(id, signal) }
    }

    /// False when it still runs then.
    func hasEnded(within time: Duration) async -> Bool {
        let deadline = ContinuousClock.now + time
        while isRunning {
            if ContinuousClock.now > deadline { return false }
            do { try await Task.sleep(for: DetachedProcess.pollInterval) } catch { return !isRunning }
        }
        return true
    }

    // MARK: The file

    init(id: Int32, startTicks: UInt64) {
        self.id = id
        self.startTicks = startTicks
    }

    /// nil when there is no file, or none that this program wrote.
    init?(file: String) {
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else { return nil }
        let words = text.split(whereSeparator: \.isWhitespace)
        guard words.count == 2, let id = Int32(words[0]), id > 1, let ticks = UInt64(words[1]) else { return nil }
        self.init(id: id, startTicks: ticks)
    }

    func write(to file: String) throws {
        try Data("\(id) \(startTicks)\n".utf8).write(to: URL(fileURLWithPath: file), options: .atomic)
    }

    // MARK: /proc

    private static func look(_ id: Int32) -> (startTicks: UInt64, hasEnded: Bool)? {
        // The name in parentheses may have anything in it.
        guard let text = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8),
            let close = text.lastIndex(of: ")")
        else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ")
        // proc(5): state is field 3, the time of the start field 22.
        guard fields.count > 19, let ticks = UInt64(fields[19]) else { return nil }
        return (ticks, fields[0] == "Z" || fields[0] == "X")
    }
}

/// A list of C strings with nil at its end, for the time of `body`.
private func withStrings<Result>(
    _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    var pointers = unsafe strings.map { unsafe strdup($0) } + [nil]
    defer { for index in unsafe pointers.indices { unsafe free(pointers[index]) } }
    return unsafe pointers.withUnsafeMutableBufferPointer { unsafe body($0.baseAddress!) }
}
