// How a ledger's writer, reader or recovery ends without success. All of it is final for the object that says so.

package import CisternLogProtocol
package import CisternPrimitives

package enum LedgerError: Error, Equatable, Sendable, CustomStringConvertible {
    /// `causes`: what log nodes last failed with, for people; empty when none did.
    case failed(LedgerID, LedgerFailure, causes: String)
    /// The writer was closed by its owner: it takes no more entries.
    case writerClosed(LedgerID)
    /// The owner stopped it: what is not acknowledged may be in the ledger or not.
    case stopped(LedgerID)
    case entryTooLarge(LedgerID, bytes: Int, max: Int)

    /// What the protocol says, when it was the protocol.
    package var failure: LedgerFailure? {
        if case .failed(_, let failure, _) = self { failure } else { nil }
    }

    /// Too few nodes answered: more of them may be up in a moment.
    var mayPass: Bool {
        switch failure {
        case .notFenced, .undecided, .notEnoughNodes: true
        case .fenced, .deleted, .unreadable, .conflict, .metadata, nil: false
        }
    }

    package var description: String {
        switch self {
        case .failed(let ledger, let failure, let causes):
            "ledger \(ledger): \(LedgerError.advice(failure))" + (causes.isEmpty ? "" : " (\(causes))")
        case .writerClosed(let ledger):
            "ledger \(ledger) is closed by this writer and takes no more entries; write to a new ledger"
        case .stopped(let ledger):
            "ledger \(ledger) was let go by its owner before the end; recover it to know what it holds"
        case .entryTooLarge(let ledger, let bytes, let max):
            "an entry of \(bytes) bytes for ledger \(ledger), at most \(max) fit; append it in parts"
        }
    }

    private static func advice(_ failure: LedgerFailure) -> String {
        switch failure {
        case .fenced: "another process recovers or has closed it; stop writing, a newer attempt owns the log"
        case .deleted: "it is not in metadata any more; open a ledger that is in its log"
        case .undecided(let entry):
            "too few log nodes answered to know whether \(entry) exists; recover again when more of them are up"
        case .unreadable(let entry):
            "\(entry) exists and none of its log nodes gave it; bring them back or repair the ledger, then read again"
        case .notFenced:
            "too few log nodes answered to be sure that its writer is stopped; recover again when more of them are up"
        case .notEnoughNodes: "too few log nodes take entries for an ack quorum; bring log nodes back, then try again"
        case .conflict(let entry): "a log node holds another value of \(entry): two writers of one ledger; report this"
        case .metadata(let error): "its metadata is not what the protocol allows: \(error); report this"
        }
    }
}
