// A request on its way from a caller to the connection's event loop.

package import CisternWire
package import NIOCore

package struct OutgoingRequest: Sendable {
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

    @safe enum Body: Sendable {
        case bytes([UInt8])
        /// Written into the frame when it is sent: what it is made from is not copied before.
        case inPlace(size: Int, fill: @Sendable (UnsafeMutableRawBufferPointer) -> Void)

        var size: Int {
            switch self {
            case .bytes(let bytes): bytes.count
            case .inPlace(let size, _): size
            }
        }
    }

    let opcode: Opcode
    let tree: UInt32
    let body: Body
    let deadline: NIODeadline?
    let sink: Sink

    var header: FrameHeader { .request(opcode, id: 0, tree: tree, bodySize: body.size) }
}

extension OutgoingRequest {
    /// A request of a batch. `fill` gets `size` bytes to write, once, on the event loop; `completion` is called once.
    package init(
        _ opcode: Opcode, size: Int, deadline: NIODeadline?,
        fill: @escaping @Sendable (UnsafeMutableRawBufferPointer) -> Void,
        completion: @escaping @Sendable (Result<Reply, TransportError>) -> Void
    ) {
        self.init(
            opcode: opcode, tree: 0, body: unsafe .inPlace(size: size, fill: fill), deadline: deadline,
            sink: .single(completion))
    }

    /// Ends a request that was not handed to a connection.
    package func fail(_ error: TransportError) { sink.fail(error) }
}
