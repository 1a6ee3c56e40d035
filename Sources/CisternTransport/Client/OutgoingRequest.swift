// A request on its way from a caller to the connection's event loop.

internal import CisternWire
internal import NIOCore

struct OutgoingRequest: Sendable {
    /// What happens with the answer.
    enum Sink: Sendable {
        case single(@Sendable (Result<Reply, TransportError>) -> Void)
        /// Fragments, the last included, then the end.
        case stream(page: @Sendable (Reply) -> Void, end: @Sendable (Result<Void, TransportError>) -> Void)
        /// The caller gave up; the answer only gives its credit back.
        case abandoned

        func fail(_ error: TransportError) {
            switch self {
            case .single(let completion): completion(.failure(error))
            case .stream(_, let end): end(.failure(error))
            case .abandoned: break
            }
        }
    }

    let opcode: Opcode
    let tree: UInt32
    let body: [UInt8]
    let deadline: NIODeadline?
    let sink: Sink

    var header: FrameHeader { .request(opcode, id: 0, tree: tree, bodySize: body.count) }
}
