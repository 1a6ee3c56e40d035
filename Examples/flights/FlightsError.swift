// Why a run of the example failed.

enum FlightsError: Error, CustomStringConvertible {
    case childFailed(name: String, reason: String, log: String)
    case notStarted(name: String, reason: String)
    case noProgress(seconds: Int)
    case killMissed(offset: Int)
    case protocolViolation(String)
    case interrupted

    var description: String {
        switch self {
        case .childFailed(let name, let reason, let log):
            "\(name) ended with \(reason)" + (log.isEmpty ? " and left no message" : "; it said:\n\(log)")
        case .notStarted(let name, let reason):
            "\(name) could not be started: \(reason)"
        case .noProgress(let seconds):
            "no worker has made progress for \(seconds) s: the server does not answer, or the machine is stuck"
        case .killMissed(let offset):
            "all workers had finished before one could be killed at offset \(offset): "
                + "read more flights, or run with --no-kill-worker"
        case .protocolViolation(let what):
            what
        case .interrupted:
            "interrupted; workers and server were stopped"
        }
    }
}
