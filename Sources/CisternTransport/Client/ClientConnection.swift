// A connection to a server, shared by many callers: requests of any thread travel on it at once, answers come in any order.
// No task and no timer for each request; callers that gather while the loop is busy cross to it in one hop.
//
// Threading: may be called from anywhere. Callbacks come on the event loop (or at once, when the connection is closed
// already) and must not block.

internal import CisternPrimitives
package import CisternWire
package import CisternWireMessages
package import NIOCore
internal import NIOPosix
internal import Synchronization

package final class ClientConnection: Sendable {
    package let endpoint: Endpoint
    /// What the server said in HELLO.
    package let hello: Cistern_V1_HelloReply

    private let channel: any Channel
    private let handler: NIOLoopBound<ClientHandler>
    private let inbox: ClientInbox

    private init(
        endpoint: Endpoint, hello: Cistern_V1_HelloReply, channel: any Channel, handler: NIOLoopBound<ClientHandler>,
        inbox: ClientInbox
    ) {
        self.endpoint = endpoint
        self.hello = hello
        self.channel = channel
        self.handler = handler
        self.inbox = inbox
    }

    package var eventLoop: any EventLoop { channel.eventLoop }
    package var isOpen: Bool { inbox.state.withLock { $0.closed == nil } }
    /// Done when the connection is closed, by whomever.
    package var closeFuture: EventLoopFuture<Void> { channel.closeFuture }

    /// Connects and agrees on a protocol.
    package static func connect(
        _ endpoint: Endpoint, group: any EventLoopGroup, options: ClientTransportOptions = ClientTransportOptions()
    ) async throws(TransportError) -> ClientConnection {
        let inbox = ClientInbox()
        let loop = group.next()
        let handshake = loop.makePromise(of: Cistern_V1_HelloReply.self)
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(options.connectTimeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = ClientHandler(
                        endpoint: endpoint, options: options, inbox: inbox, eventLoop: channel.eventLoop,
                        allocator: channel.allocator, handshake: handshake)
                    let bound = NIOLoopBound(handler, eventLoop: channel.eventLoop)
                    inbox.state.withLock { $0.handler = bound }
                    if let tls = options.tls, case .tcp = endpoint {
                        try channel.pipeline.syncOperations.addHandler(tls.makeHandler(for: endpoint))
                    }
                    try channel.pipeline.syncOperations.addHandler(handler)
                }
            }
        let channel: any Channel
        do {
            switch endpoint {
            case .tcp(let host, let port):
                channel = try await bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .connect(host: host, port: port).get()
            case .unix(let path):
                channel = try await bootstrap.connect(unixDomainSocketPath: path).get()
            }
        } catch {
            // No handler was there to end it; a second end is ignored.
            handshake.fail(TransportError.connectFailed(endpoint: endpoint, reason: "\(error)"))
            throw .connectFailed(endpoint: endpoint, reason: "\(error)")
        }
        return try await finishHandshake(endpoint, channel, handshake.futureResult, inbox, options)
    }

    private static func finishHandshake(
        _ endpoint: Endpoint, _ channel: any Channel, _ hello: EventLoopFuture<Cistern_V1_HelloReply>,
        _ inbox: ClientInbox, _ options: ClientTransportOptions
    ) async throws(TransportError) -> ClientConnection {
        let timeout = channel.eventLoop.scheduleTask(in: options.handshakeTimeout) { channel.close(promise: nil) }
        defer { timeout.cancel() }
        do {
            let reply = try await hello.get()
            guard let handler = inbox.state.withLock({ $0.handler }) else {
                invariantFailed("a channel was made without its handler", file: #fileID, line: #line)
            }
            return ClientConnection(
                endpoint: endpoint, hello: reply, channel: channel, handler: handler, inbox: inbox)
        } catch let error as TransportError {
            channel.close(promise: nil)
            switch error {
            case .closed(let reason): throw .handshakeFailed(endpoint: endpoint, reason: reason)
            default: throw error
            }
        } catch {
            channel.close(promise: nil)
            throw .handshakeFailed(endpoint: endpoint, reason: "\(error)")
        }
    }

    // MARK: - Requests

    /// Sends a request; `completion` is called once.
    package func send(
        _ opcode: Opcode, tree: UInt32 = 0, body: [UInt8], deadline: Duration? = nil,
        completion: @escaping @Sendable (Result<Reply, TransportError>) -> Void
    ) {
        enqueue(opcode, tree, body, deadline, .single(completion))
    }

    /// Sends a request whose answer is a stream of fragments. `page` gets every fragment in order, on the event loop: the
    /// time it takes slows the server down. Then `completion` is called once.
    package func sendStream(
        _ opcode: Opcode, tree: UInt32 = 0, body: [UInt8], deadline: Duration? = nil,
        page: @escaping @Sendable (Reply) -> Void,
        completion: @escaping @Sendable (Result<Void, TransportError>) -> Void
    ) {
        enqueue(opcode, tree, body, deadline, .stream(page: page, end: completion))
    }

    /// Sends a request and waits for the answer.
    package func request(
        _ opcode: Opcode, tree: UInt32 = 0, body: [UInt8], deadline: Duration? = nil
    ) async throws(TransportError) -> Reply {
        let result = await withCheckedContinuation { continuation in
            send(opcode, tree: tree, body: body, deadline: deadline) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Sends a request and waits for the last fragment of the answer.
    package func stream(
        _ opcode: Opcode, tree: UInt32 = 0, body: [UInt8], deadline: Duration? = nil,
        onPage: @escaping @Sendable (Reply) -> Void
    ) async throws(TransportError) {
        let result = await withCheckedContinuation { continuation in
            sendStream(opcode, tree: tree, body: body, deadline: deadline, page: onPage) {
                continuation.resume(returning: $0)
            }
        }
        try result.get()
    }

    /// Sends requests in their order, with one hop and one write for all of them as far as the credits go.
    package func send(_ batch: [OutgoingRequest]) {
        if batch.isEmpty { return }
        let (closed, isFirst) = inbox.state.withLock { state -> (TransportError?, Bool) in
            if let closed = state.closed { return (closed, false) }
            state.requests.append(contentsOf: batch)
            return (nil, state.requests.count == batch.count)
        }
        wake(batch, closed, isFirst)
    }

    private func enqueue(
        _ opcode: Opcode, _ tree: UInt32, _ body: [UInt8], _ deadline: Duration?, _ sink: OutgoingRequest.Sink
    ) {
        let request = OutgoingRequest(
            opcode: opcode, tree: tree, body: .bytes(body), deadline: deadline.map { .now() + TimeAmount($0) },
            sink: sink)
        let (closed, isFirst) = inbox.state.withLock { state -> (TransportError?, Bool) in
            if let closed = state.closed { return (closed, false) }
            state.requests.append(request)
            return (nil, state.requests.count == 1)
        }
        wake(CollectionOfOne(request), closed, isFirst)
    }

    private func wake(_ requests: some Collection<OutgoingRequest>, _ closed: TransportError?, _ isFirst: Bool) {
        if let closed {
            for request in requests { request.sink.fail(closed) }
        } else if isFirst {
            // A caller on the loop itself (a worker that runs there) needs no hop: the frame is written before this returns.
            if eventLoop.inEventLoop {
                handler.value.drainInbox()
            } else {
                eventLoop.execute { self.handler.value.drainInbox() }
            }
        }
    }

    // MARK: - The end

    /// Calls back when the server drains, at once when it does already. What is in flight is finished, then the connection
    /// closes by itself.
    package func onGoAway(_ callback: @escaping @Sendable (Cistern_V1_GoAway) -> Void) {
        let already = inbox.state.withLock { state -> Cistern_V1_GoAway? in
            if state.goAway == nil && state.closed == nil { state.goAwayCallbacks.append(callback) }
            return state.goAway
        }
        if let already { callback(already) }
    }

    /// Closes soon; what is unanswered fails with `error`. Idempotent.
    package func abort(_ error: TransportError) { eventLoop.execute { self.handler.value.close(error) } }

    /// Closes at once; what is unanswered fails with `closed`. Idempotent.
    package func close() async {
        abort(.closed(reason: "this side closed the connection"))
        await withCheckedContinuation { continuation in
            closeFuture.whenComplete { _ in continuation.resume() }
        }
    }
}
