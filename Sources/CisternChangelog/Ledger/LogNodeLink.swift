// The connection of one event loop to one log node, through its lives: none, being made, open, broken for a while.
// Threading: owned by the event loop.

internal import CisternLogProtocol
internal import CisternLogWire
internal import CisternTransport
internal import CisternWire
internal import NIOCore

final class LogNodeLink {
    private enum State {
        case none
        case connecting
        case open(ClientConnection)
        /// Nothing is tried before this.
        case broken(until: NIODeadline)
    }

    private let node: LogNodeID
    private let connections: LogNodeConnections
    private var state = State.none
    private var requests: [OutgoingRequest] = []
    /// Failures in a row.
    private var failures = 0
    private var connecting: Task<Void, Never>?
    private(set) var lastError: TransportError?

    init(node: LogNodeID, connections: LogNodeConnections) {
        self.node = node
        self.connections = connections
    }

    /// Nothing waits to be flushed.
    var isIdle: Bool { requests.isEmpty }

    private var eventLoop: any EventLoop { connections.eventLoop }
    private var options: LedgerClientOptions { connections.options }

    // MARK: - Requests

    func enqueue(_ request: NodeRequest, _ deadline: NIODeadline?, _ caller: NIOLoopBound<any LogNodeCaller>) {
        let opcode = LogRequestBody.opcode(of: request)
        let link = NIOLoopBound(self, eventLoop: eventLoop)
        let outgoing = unsafe OutgoingRequest(opcode, size: LogRequestBody.size(of: request), deadline: deadline) {
            unsafe LogRequestBody.encode(request, into: $0)
        } completion: { result in
            link.value.answered(request, opcode, result, caller.value)
        }
        requests.append(outgoing)
    }

    func flush() {
        switch state {
        case .open(let connection):
            let batch = requests
            requests.removeAll(keepingCapacity: true)
            connection.send(batch)
        case .connecting: break
        case .none: connect()
        case .broken(let until):
            if until > .now() || connections.isClosed {
                failLater(lastError ?? .closed(reason: "the connection to \(node) is broken"))
            } else {
                connect()
            }
        }
    }

    private func answered(
        _ request: NodeRequest, _ opcode: Opcode, _ result: Result<Reply, TransportError>, _ caller: any LogNodeCaller
    ) {
        do {
            let reply = try result.get()
            failures = 0
            let answer: NodeReply?
            do throws(WireError) {
                answer = unsafe try reply.withBody { (body) throws(WireError) in
                    unsafe try LogReplyBody.decode(opcode, body)
                }
            } catch {
                // An answer that cannot be read is none, and what follows it is not to be trusted either.
                if case .open(let connection) = state { connection.abort(.protocolViolation(error)) }
                throw TransportError.protocolViolation(error)
            }
            // Hints are answered with nothing.
            if let answer { caller.received(answer, to: request, from: node) }
        } catch {
            lastError = error as? TransportError
            caller.failed(request, to: node)
        }
    }

    private func failLater(_ error: TransportError) {
        let batch = requests
        requests.removeAll(keepingCapacity: true)
        if batch.isEmpty { return }
        // Not from inside `send`: the one who asks has not finished asking.
        eventLoop.execute { for request in batch { request.fail(error) } }
    }

    // MARK: - The connection

    private func connect() {
        if connections.isClosed { return failLater(.closed(reason: "the client of the log nodes is closed")) }
        state = .connecting
        let link = NIOLoopBound(self, eventLoop: eventLoop)
        connecting = Task { [node, eventLoop, options, addresses = connections.addresses] in
            let result = await LogNodeLink.connect(node, addresses, eventLoop, options)
            eventLoop.execute { link.value.connected(result) }
        }
    }

    private static func connect(
        _ node: LogNodeID, _ addresses: any LogNodeAddresses, _ loop: any EventLoop, _ options: LedgerClientOptions
    ) async -> Result<ClientConnection, TransportError> {
        guard let endpoint = await addresses.endpoint(of: node) else {
            return .failure(.closed(reason: "log node \(node) has no address; register it, or remove it from use"))
        }
        do throws(TransportError) {
            return .success(try await ClientConnection.connect(endpoint, group: loop, options: options.transport))
        } catch {
            return .failure(error)
        }
    }

    private func connected(_ result: Result<ClientConnection, TransportError>) {
        connecting = nil
        switch result {
        case .failure(let error): broke(error)
        case .success(let connection):
            if connections.isClosed {
                connection.abort(.closed(reason: "the client of the log nodes is closed"))
                return broke(.closed(reason: "the client of the log nodes is closed"))
            }
            state = .open(connection)
            watch(connection)
            flush()
        }
    }

    private func watch(_ connection: ClientConnection) {
        let link = NIOLoopBound(self, eventLoop: eventLoop)
        connection.closeFuture.whenComplete { _ in link.value.ended(connection) }
        connection.onGoAway { _ in link.value.ended(connection) }
    }

    /// The connection is closed, or the node drains: new requests go elsewhere, what is out is still answered.
    private func ended(_ connection: ClientConnection) {
        guard case .open(let current) = state, current === connection else { return }
        broke(lastError ?? .closed(reason: "\(connection.endpoint) closed the connection"))
    }

    private func broke(_ error: TransportError) {
        lastError = error
        let factor = Int64(1) << Int64(min(failures, 16))
        failures += 1
        let delay = min(options.reconnectDelayMin * factor, options.reconnectDelayMax)
        state = .broken(until: .now() + delay)
        failLater(error)
    }

    func close() -> @Sendable () async -> Void {
        let attempt = connecting
        var connection: ClientConnection?
        if case .open(let open) = state { connection = open }
        return { [connection] in
            await attempt?.value
            await connection?.close()
        }
    }
}
