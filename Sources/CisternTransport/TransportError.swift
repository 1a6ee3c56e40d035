// Why a connection or a request came to nothing. The cases say what the caller may do: a request that failed by `closed` or
// `deadlineExceeded` may have been carried out, one that failed by `goingAway` or `overloaded` was not sent.

package import CisternWire

package enum TransportError: Error, Equatable, Sendable, CustomStringConvertible {
    case bindFailed(endpoint: Endpoint, reason: String)
    case connectFailed(endpoint: Endpoint, reason: String)
    /// The peer answered HELLO with something that is not an agreement.
    case handshakeFailed(endpoint: Endpoint, reason: String)
    /// The connection ended before the answer; whether the request was carried out is unknown.
    case closed(reason: String)
    /// The answer did not come in time; whether the request was carried out is unknown.
    case deadlineExceeded(operation: String)
    /// The server drains: the request was not sent; connect again.
    case goingAway
    /// Too many requests wait for credit: the request was not sent.
    case overloaded(waiting: Int)
    case requestTooLarge(bytes: Int, max: Int)
    /// The server answered with a typed error.
    case remote(ErrorBody)
    /// The server sent something that is not the protocol; the connection is closed.
    case protocolViolation(WireError)

    package var description: String {
        switch self {
        case .bindFailed(let endpoint, let reason):
            "cannot listen on \(endpoint): \(reason); choose another address, or stop what listens there"
        case .connectFailed(let endpoint, let reason):
            "cannot connect to \(endpoint): \(reason); check that the server runs and listens there"
        case .handshakeFailed(let endpoint, let reason):
            "\(endpoint) does not agree on a protocol: \(reason)"
        case .closed(let reason):
            "the connection ended before the answer: \(reason); connect again and ask what was carried out"
        case .deadlineExceeded(let operation):
            "no answer to \(operation) within its deadline; it may have been carried out"
        case .goingAway: "the server is draining and the request was not sent; connect again"
        case .overloaded(let waiting):
            "\(waiting) requests wait for credit already and this one was not sent; wait for answers first"
        case .requestTooLarge(let bytes, let max):
            "a request of \(bytes) bytes is larger than the server's limit of \(max); send it in parts"
        case .remote(let body): body.summary
        case .protocolViolation(let error): "the server broke the protocol: \(error)"
        }
    }
}
