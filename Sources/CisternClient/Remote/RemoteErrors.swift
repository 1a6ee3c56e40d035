// Transport errors and the server's error frames, as the session's recovery and the user see them.

internal import CisternTransport
internal import CisternWire
internal import CisternWireMessages

extension RemoteError {
    /// - Parameter what: what was attempted, for the message.
    init(_ error: TransportError, _ what: String) {
        switch error {
        case .connectFailed, .handshakeFailed, .closed, .deadlineExceeded, .goingAway, .protocolViolation:
            self = .disconnected(reason: "\(error)")
        case .overloaded:
            self = .retryLater(milliseconds: RemoteError.overloadedPauseMilliseconds, reason: "\(error)")
        case .bindFailed, .requestTooLarge:
            self = .fatal(ClientError(.limitExceeded, .fixTheCall, "could not \(what): \(error)"))
        case .remote(let body): self.init(body, what)
        }
    }

    /// Requests of this process wait for credit: the next answers bring some.
    private static let overloadedPauseMilliseconds: UInt64 = 5

    init(_ body: ErrorBody, _ what: String) {
        let message = "could not \(what): \(body.summary)"
        switch body.errorCode {
        case .fenced:
            self = .fatal(ClientError(.fenced, .stop, message, currentEpoch: body.currentEpoch))
        case .sequenceGap: self = .sequenceGap(expected: body.expectedSequence)
        case .rangeMismatch: self = .fatal(ClientError(.rangeMismatch, .attachAgain, message))
        case .lostWrites: self = .fatal(ClientError(.acknowledgedWritesLost, .restoreFromCheckpoint, message))
        case .corruption: self = .fatal(ClientError(.damagedValue, .restoreFromCheckpoint, message))
        case .limitExceeded, .frameTooLarge: self = .fatal(ClientError(.limitExceeded, .fixTheCall, message))
        case .unsupportedVersion, .unsupportedOpcode, .unsupportedFlags, .badMagic, .helloRequired:
            self = .fatal(ClientError(.incompatible, .fixTheCall, message))
        case .unauthenticated, .permissionDenied: self = .fatal(ClientError(.accessDenied, .fixTheCall, message))
        case .stateMismatch, .keyOutOfRange, .badMessage, .badFrame, .noSuchStore, .noSuchSnapshot, .noSuchDictionary,
            .creditExceeded:
            self = .fatal(ClientError(.refused, .fixTheCall, message))
        case .badChecksum, .draining, .busy, .internalError, .notAttached, .readOnly, nil:
            self.init(classOf: body, message)
        }
    }

    /// Codes of a newer protocol are acted on by their class.
    private init(classOf body: ErrorBody, _ message: String) {
        switch body.class {
        case .retry: self = .retryLater(milliseconds: UInt64(body.retryMilliseconds), reason: message)
        case .reroute: self = .disconnected(reason: message)
        case .fenced: self = .fatal(ClientError(.fenced, .stop, message, currentEpoch: body.currentEpoch))
        case .fatal, .unspecified, .UNRECOGNIZED: self = .fatal(ClientError(.refused, .fixTheCall, message))
        }
    }

    /// The error for a call that is not repeated.
    var asClientError: ClientError {
        switch self {
        case .disconnected(let reason): ClientError(.unreachable, .retry, reason)
        case .retryLater(_, let reason): ClientError(.unavailable, .retry, reason)
        case .sequenceGap(let expected): ClientError(.refused, .retry, "the tree waits for batch \(expected)")
        case .fatal(let error): error
        }
    }
}
