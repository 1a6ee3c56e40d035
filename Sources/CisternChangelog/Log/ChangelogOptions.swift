// Settings and errors of logs.

package import CisternLogProtocol
internal import CisternPrimitives

package struct ChangelogOptions: Sendable {
    package var sizes = QuorumSizes(ensemble: 3, write: 3, ack: 2)
    /// A ledger that holds so many bytes is followed by a new one.
    package var ledgerBytesMax = 256 << 20
    /// Until something that got no answer, or found too few nodes, is tried again.
    package var retryInterval = Duration.milliseconds(500)
    /// A takeover gives up after so long.
    package var takeoverTimeout = Duration.seconds(60)

    package init() {}
}

package enum ChangelogError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A newer attempt has the log: this one stops.
    case lost(log: String, attempt: UInt64, to: UInt64?)
    case takeover(log: String, attempt: UInt64, detail: String)
    case tooFewNodes(log: String, found: Int, wanted: Int)
    case ledger(log: String, LedgerError)
    /// The place is in no ledger of the log: it was truncated, or never was.
    case unknownPlace(log: String, LogSequenceNumber)
    case closed(log: String)

    package var description: String {
        switch self {
        case .lost(let log, let attempt, let to):
            "log \(log): attempt \(attempt) has lost it\(to.map { " to attempt \($0)" } ?? ""); stop this attempt"
        case .takeover(let log, let attempt, let detail):
            "log \(log) could not be taken over by attempt \(attempt): \(detail)"
        case .tooFewNodes(let log, let found, let wanted):
            "log \(log): \(found) log nodes take entries and a ledger needs \(wanted); start more of them"
        case .ledger(let log, let error): "log \(log): \(error)"
        case .unknownPlace(let log, let place):
            "log \(log) has no entry at \(place): it was truncated or never written; restore from another checkpoint"
        case .closed(let log): "log \(log) was closed by its owner"
        }
    }
}

/// An entry of a log.
package struct LogEntry: Hashable, Sendable {
    package let place: LogSequenceNumber
    package let body: [UInt8]

    package init(place: LogSequenceNumber, body: [UInt8]) {
        self.place = place
        self.body = body
    }
}
