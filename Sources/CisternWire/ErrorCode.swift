// The numbers of error frames, what a client does about each, and the body of the frame.
// On the wire: never renumber. proto-spec/wire.md has the same table; a test compares the two.

internal import CisternPrimitives
package import CisternWireMessages

/// The body of every frame with the error flag.
package typealias ErrorBody = Cistern_V1_ErrorBody
package typealias ErrorClass = Cistern_V1_ErrorBody.Class

package enum ErrorCode: UInt32, CaseIterable, Sendable {
    // The connection. Codes 1–4, 8–11 and 15 end it.
    case badMagic = 1
    case badChecksum = 2
    case frameTooLarge = 3
    case unsupportedVersion = 4
    case unsupportedOpcode = 5
    case badMessage = 6
    case limitExceeded = 7
    case helloRequired = 8
    case unsupportedFlags = 9
    case creditExceeded = 10
    case badFrame = 11
    case draining = 12
    case busy = 13
    case internalError = 14
    /// Ends the connection.
    case unauthenticated = 15
    case permissionDenied = 16

    // Sessions and trees.
    case notAttached = 32
    case fenced = 33
    case rangeMismatch = 34
    case sequenceGap = 35
    case readOnly = 36
    case corruption = 37
    case noSuchStore = 38
    case noSuchSnapshot = 39
    case noSuchDictionary = 40
    case stateMismatch = 41
    case keyOutOfRange = 42
    case lostWrites = 43

    /// The name used in the specification.
    package var name: String {
        switch self {
        case .badMagic: "BAD_MAGIC"
        case .badChecksum: "BAD_CRC"
        case .frameTooLarge: "FRAME_TOO_LARGE"
        case .unsupportedVersion: "UNSUPPORTED_VERSION"
        case .unsupportedOpcode: "UNSUPPORTED_OPCODE"
        case .badMessage: "BAD_MESSAGE"
        case .limitExceeded: "LIMIT_EXCEEDED"
        case .helloRequired: "HELLO_REQUIRED"
        case .unsupportedFlags: "UNSUPPORTED_FLAGS"
        case .creditExceeded: "CREDIT_EXCEEDED"
        case .badFrame: "BAD_FRAME"
        case .draining: "DRAINING"
        case .busy: "BUSY"
        case .internalError: "INTERNAL"
        case .unauthenticated: "UNAUTHENTICATED"
        case .permissionDenied: "PERMISSION_DENIED"
        case .notAttached: "NOT_ATTACHED"
        case .fenced: "FENCED"
        case .rangeMismatch: "RANGE_MISMATCH"
        case .sequenceGap: "SEQUENCE_GAP"
        case .readOnly: "READ_ONLY"
        case .corruption: "CORRUPTION"
        case .noSuchStore: "NO_SUCH_STORE"
        case .noSuchSnapshot: "NO_SUCH_SNAPSHOT"
        case .noSuchDictionary: "NO_SUCH_DICTIONARY"
        case .stateMismatch: "STATE_MISMATCH"
        case .keyOutOfRange: "KEY_OUT_OF_RANGE"
        case .lostWrites: "LOST_WRITES"
        }
    }

    /// What kind of answer this is to the client.
    package var errorClass: ErrorClass {
        switch self {
        case .busy, .readOnly, .internalError: .retry
        case .badChecksum, .draining, .notAttached, .sequenceGap: .reroute
        case .fenced: .fenced
        case .badMagic, .frameTooLarge, .unsupportedVersion, .unsupportedOpcode, .badMessage, .limitExceeded,
            .helloRequired, .unsupportedFlags, .creditExceeded, .badFrame, .rangeMismatch, .corruption, .noSuchStore,
            .noSuchSnapshot, .noSuchDictionary, .stateMismatch, .keyOutOfRange, .lostWrites, .unauthenticated,
            .permissionDenied:
            .fatal
        }
    }

    /// How long to wait before the next try, unless the sender knows better; 0 = at once, or never for a fatal class.
    package var retryMilliseconds: UInt32 {
        switch self {
        case .busy: 50
        case .readOnly: 1000
        case .internalError: 500
        case .draining: 1000
        default: 0  // The others do not depend on time.
        }
    }

    /// What the client should do, in one sentence.
    package var advice: String {
        switch self {
        case .badMagic: "check the address: this port speaks the Cistern protocol only"
        case .badChecksum: "connect again and resend"
        case .frameTooLarge: "send smaller frames, or raise the receiver's limit"
        case .unsupportedVersion: "upgrade the older side"
        case .unsupportedOpcode: "do without the request, or upgrade the server"
        case .badMessage: "fix the client"
        case .limitExceeded: "send less at once, within the named limit"
        case .helloRequired: "send HELLO first"
        case .unsupportedFlags: "agree on the feature in HELLO first"
        case .creditExceeded: "keep within the credits of HELLO and of the replies"
        case .badFrame: "fix the client"
        case .draining: "finish what is in flight, then connect again"
        case .busy: "wait, then send the same request again"
        case .internalError: "send again; if it stays, read the server's log"
        case .unauthenticated: "give the client a token that the server's tokens file lists"
        case .permissionDenied: "give the token the right, or use another token"
        case .notAttached: "attach, then send again"
        case .fenced: "stop: a newer writer owns the range"
        case .rangeMismatch: "restore from snapshots to change the range"
        case .sequenceGap: "attach again and resend from the sequence it reports"
        case .readOnly: "wait: the server writes again by itself when its disk does"
        case .corruption: "restore from a checkpoint"
        case .noSuchStore: "check the store's name"
        case .noSuchSnapshot: "restore from a snapshot that was not released"
        case .noSuchDictionary: "check the dictionary's number and store"
        case .stateMismatch: "register the state under another name, or as the kind it has"
        case .keyOutOfRange: "send keys to the writer that owns their key group"
        case .lostWrites: "restore from a checkpoint: acknowledged writes are missing"
        }
    }
}

extension Cistern_V1_ErrorBody {
    /// The error of `code` with its class and retry advice. `message` says what was attempted, on what, what was found.
    package init(
        _ code: ErrorCode, _ message: String, retryMilliseconds: UInt32? = nil, currentEpoch: UInt64 = 0,
        expectedSequence: UInt64 = 0
    ) {
        self.init()
        self.code = code.rawValue
        self.class = code.errorClass
        self.retryMilliseconds = retryMilliseconds ?? code.retryMilliseconds
        self.message = message
        self.currentEpoch = currentEpoch
        self.expectedSequence = expectedSequence
    }

    package init(_ error: WireError) {
        self.init(error.code, error.description)
    }

    /// nil for a code of a newer protocol: act on the class then.
    package var errorCode: ErrorCode? { ErrorCode(rawValue: code) }

    /// One line for logs and errors: name, message, and what to do.
    package var summary: String {
        guard let known = errorCode else { return "error \(code): \(message)" }
        return "\(known.name): \(message) (\(known.advice))"
    }
}
