// What a frame asks for. 0x00–0x3F are control messages, 0x40–0x5F data messages of a state server, 0x60–0x7F messages of a
// log node; the high bit marks a reply. One table for both services, so that a frame sent to the wrong one is told so.
// On the wire: never renumber.

package enum Opcode: UInt8, CaseIterable, Sendable {
    /// Only as an error frame of the server, about the connection and no request.
    case connection = 0x00
    case hello = 0x01
    /// One-way, server to client.
    case goAway = 0x02
    /// Either side; answered with the same body.
    case ping = 0x03

    case attach = 0x10
    case detach = 0x11
    case registerState = 0x12
    case putDictionary = 0x13
    case getDictionary = 0x14
    case snapshot = 0x15
    case releaseSnapshot = 0x16
    case listSnapshots = 0x17

    case writeBatch = 0x40
    case multiGet = 0x41
    case scan = 0x42
    case keyIndex = 0x43

    case logAdd = 0x60
    case logRead = 0x61
    case logReadLac = 0x62
    case logWriteLac = 0x63
    case logDelete = 0x64

    package static let replyBit: UInt8 = 0x80

    /// True when the frame is part of keeping the connection, takes no credit and never reaches the service.
    package var isConnectionControl: Bool {
        switch self {
        case .connection, .hello, .goAway, .ping: true
        case .attach, .detach, .registerState, .putDictionary, .getDictionary, .snapshot, .releaseSnapshot,
            .listSnapshots, .writeBatch, .multiGet, .scan, .keyIndex, .logAdd, .logRead, .logReadLac, .logWriteLac,
            .logDelete:
            false
        }
    }

    /// True for what a log node is asked.
    package var isOfLogNode: Bool { rawValue >= Opcode.logAdd.rawValue }

    /// What a state server is asked.
    package static let ofStateServer = allCases.filter { !$0.isConnectionControl && !$0.isOfLogNode }
}
