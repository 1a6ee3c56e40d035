// What all daemons of the program share: the configuration file, the log on stderr, running in the foreground until a signal says
// stop.

internal import CisternDaemon
internal import Dispatch
internal import Foundation
internal import Logging

/// Settings of a daemon, from its flags, the environment and a file.
func loadSettings<Configuration: DaemonConfiguration>(
    _ type: Configuration.Type, flags: [(key: String, values: [String])], file path: String?
) throws -> Configuration {
    let environment = ProcessInfo.processInfo.environment
    let path = path ?? environment[Configuration.environmentPrefix + "CONFIG"]
    let bytesMax = SettingsLoader<Configuration>.fileBytesMax
    let file = try path.map { (name: $0, text: try readConfigurationFile($0, bytesMax: bytesMax)) }
    return try SettingsLoader<Configuration>.load(flags: flags, environment: environment, file: file)
}

private func readConfigurationFile(_ path: String, bytesMax: Int) throws -> String {
    guard let handle = FileHandle(forReadingAtPath: path) else {
        throw ConfigurationError(
            description: "cannot read the configuration file \(path): it is missing or not readable")
    }
    defer { try? handle.close() }
    let data = try handle.read(upToCount: bytesMax + 1) ?? Data()
    guard data.count <= bytesMax, let text = String(data: data, encoding: .utf8) else {
        throw ConfigurationError(
            description: "the configuration file \(path) is not UTF-8 text of at most \(bytesMax) bytes")
    }
    return text
}

/// One line a setting, as a file takes them.
func printSettings<Configuration: DaemonConfiguration>(_ configuration: Configuration) {
    for option in Configuration.options { print("\(option.key) = \(option.text(configuration))") }
}

/// Starts a daemon, prints `lines` when it serves, and stops it at SIGTERM or SIGINT; one that comes while it starts cancels that.
func runDaemon<Daemon: Sendable>(
    logLevel: String, start: @escaping @Sendable (Logger) async throws -> Daemon, lines: (Daemon) -> [String],
    stop: (Daemon) async throws -> Void
) async throws {
    LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
    var logger = Logger(label: "cistern")
    logger.logLevel = Logger.Level(rawValue: logLevel) ?? .info
    // Installed before the daemon is announced, so that a signal right after the line drains.
    let signals = StopSignals()
    let starting = Task { [logger] in try await start(logger) }
    let signal = Task {
        let name = await signals.next()
        starting.cancel()
        return name
    }
    let daemon: Daemon
    do { daemon = try await starting.value } catch {
        guard starting.isCancelled else { throw error }
        let name = await signal.value
        return logger.notice("stopped while starting", metadata: ["signal": "\(name)"])
    }
    for line in lines(daemon) { print(line) }
    fflush(nil)
    let name = await signal.value
    logger.notice("stopping", metadata: ["signal": "\(name)"])
    try await stop(daemon)
}

/// SIGTERM and SIGINT as values. A second signal stops the process at once.
private struct StopSignals {
    private let stream: AsyncStream<String>
    private let sources: [any DispatchSourceSignal]

    init() {
        let (stream, continuation) = AsyncStream<String>.makeStream()
        self.stream = stream
        sources = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT")].map { number, name in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                continuation.yield(name)
                // The next one has its default effect: whoever waits no longer may end the drain.
                signal(number, SIG_DFL)
            }
            source.resume()
            return source
        }
    }

    func next() async -> String {
        for await name in stream { return name }
        return "end"
    }
}
