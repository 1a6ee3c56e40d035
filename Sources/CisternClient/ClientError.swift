// The one error of the client's public interface: what was attempted, what was found, and what to do about it.

/// Why a call of the client failed.
///
/// Lost connections, busy servers and repeated batches are handled inside the client and are not errors until their
/// deadline passes. An error with advice `.stop` or `.restoreFromCheckpoint` is final: every later call of the session
/// throws it again.
public struct ClientError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: String, Hashable, Sendable {
        /// No server answered within `ClientConfiguration.retryForMilliseconds`.
        case unreachable
        /// The server answered, but refused for longer than `ClientConfiguration.retryForMilliseconds` (busy, disk full).
        case unavailable
        /// A newer session owns the key groups.
        case fenced
        /// The store has trees that overlap the asked key groups but are cut differently.
        case rangeMismatch
        /// The server holds less than it acknowledged: it lost its disk, or its log is off and it crashed.
        case acknowledgedWritesLost
        /// The call does not make sense: no current key, a key of another worker, a state registered twice with two kinds.
        case invalidArgument
        /// A key, value or setting beyond a named limit.
        case limitExceeded
        /// The session was detached or abandoned.
        case closed
        /// The server does not know the client's token, or the token may not do this.
        case accessDenied
        /// The server refused the request for a reason of its own.
        case refused
        /// Bytes from the server are not what a client wrote.
        case damagedValue
        /// A serializer threw.
        case serializer
        /// The server speaks another protocol version or lacks a feature.
        case incompatible
        /// The task was cancelled while the call waited.
        case cancelled
    }

    /// What the caller should do.
    public enum Advice: String, Hashable, Sendable {
        /// The same call may succeed later; nothing was lost.
        case retry
        /// Attach with a newer epoch, or with the range the message names.
        case attachAgain
        /// The state is behind what was acknowledged: go back to the last complete checkpoint.
        case restoreFromCheckpoint
        /// Another worker took over: stop this one.
        case stop
        /// The program or its settings are wrong.
        case fixTheCall
    }

    public let code: Code
    public let advice: Advice
    public let message: String
    /// The epoch that owns the key groups, when `code` is `.fenced` and the server said it.
    public let currentEpoch: UInt64?

    public init(_ code: Code, _ advice: Advice, _ message: String, currentEpoch: UInt64? = nil) {
        self.code = code
        self.advice = advice
        self.message = message
        self.currentEpoch = currentEpoch
    }

    public var description: String { "\(code.rawValue): \(message) [advice: \(advice.rawValue)]" }

    /// True when no later call of the session can succeed.
    var isFinal: Bool { advice == .stop || advice == .restoreFromCheckpoint || advice == .attachAgain }
}
