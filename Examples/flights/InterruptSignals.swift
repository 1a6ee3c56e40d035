// SIGINT, SIGTERM and SIGHUP as calls, so that a run that is interrupted takes its children with it.

internal import Dispatch
internal import Glibc

struct InterruptSignals {
    private let sources: [any DispatchSourceSignal]

    init(_ interrupted: @escaping @Sendable () -> Void) {
        // A write to a worker that has just been killed must fail, not end this process.
        signal(SIGPIPE, SIG_IGN)
        sources = [SIGINT, SIGTERM, SIGHUP].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler(handler: interrupted)
            source.resume()
            return source
        }
    }

    func cancel() {
        for source in sources { source.cancel() }
    }
}

extension InterruptSignals {
    /// A child inherits what its parent ignores; a worker is stopped by SIGTERM.
    static func restoreDefaults() {
        for number in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] { signal(number, SIG_DFL) }
    }
}
