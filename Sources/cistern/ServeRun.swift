// Running the server in the foreground until a signal says stop.

internal import ArgumentParser
internal import CisternServer
internal import CisternTransport
internal import Dispatch
internal import Foundation
internal import Logging

func serve(_ configuration: ServerConfiguration) async throws {
    LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
    var logger = Logger(label: "cistern")
    logger.logLevel = Logger.Level(rawValue: configuration.logLevel) ?? .info
    // Installed before the server is announced, so that a signal right after the line drains.
    let signals = StopSignals()
    let server = try await StateServer.start(configuration, logger: logger)
    for endpoint in server.boundEndpoints { print("listening on \(endpoint)") }
    if let admin = server.adminEndpoint { print("admin on \(admin)") }
    fflush(nil)
    let signal = await signals.next()
    logger.notice("stopping", metadata: ["signal": "\(signal)"])
    await server.drain()
    await server.shutdown()
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
