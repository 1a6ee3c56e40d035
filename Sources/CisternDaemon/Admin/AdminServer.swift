// The admin port: HTTP/1.1 for health checks, metrics and what else a daemon has to show (`AdminPages`). It listens before the data
// directory is opened, on a thread of its own, so that it answers while everything else is busy.
//
// Only GET and HEAD, no bodies, no state of its own. Limits: `connectionsMax`, an idle time, and NIO's bound on the head of a
// request.
//
// Threading: handlers on the admin loop; `close` from anywhere.

internal import CisternPrimitives
package import CisternTransport
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import Synchronization

package final class AdminServer: Sendable {
    static let connectionsMax = 64
    static let idleSeconds: Int64 = 30
    static let backlog: Int32 = 64

    private let group: MultiThreadedEventLoopGroup
    private let channels = Mutex<(listening: (any Channel)?, open: [ObjectIdentifier: any Channel])>((nil, [:]))
    private let bound = Mutex<Endpoint?>(nil)

    private let security: ServerSecurity?
    private let pages: any AdminPages

    private init(_ security: ServerSecurity?, _ pages: any AdminPages) {
        self.security = security
        self.pages = pages
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    }

    /// Where it listens, with the port the system gave.
    package var endpoint: Endpoint? { bound.withLock { $0 } }

    /// Listens when it returns.
    package static func start(
        _ address: ListenAddress, _ security: ServerSecurity? = nil, pages: any AdminPages
    ) async throws(ServerStartError) -> AdminServer {
        let server = AdminServer(security, pages)
        do {
            try await server.listen(address)
            return server
        } catch {
            await server.close()
            throw ServerStartError(
                description: "cannot listen for admin requests on \(address): \(error); choose another admin address")
        }
    }

    private func listen(_ address: ListenAddress) async throws {
        let tls: ServerTLS? = if case .tcp = address { security?.tls } else { nil }
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: AdminServer.backlog)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard self.admit(channel) else { throw ChannelError.alreadyClosed }
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try pipeline.addHandler(tls.makeHandler()) }
                    try pipeline.addHandler(IdleStateHandler(allTimeout: .seconds(AdminServer.idleSeconds)))
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(AdminHandler(self))
                }
            }
        let channel: any Channel
        switch address {
        case .tcp(let host, let port):
            channel =
                try await bootstrap
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .bind(host: host, port: port).get()
            bound.withLock { $0 = .tcp(host: host, port: channel.localAddress?.port ?? port) }
        case .unix(let path):
            // A socket file that a killed server left is removed, one that answers is not.
            if await Listener.answers(path: path, group: group) {
                throw ServerStartError(description: "another server listens there")
            }
            channel = try await bootstrap.bind(unixDomainSocketPath: path, cleanupExistingSocketFile: true).get()
            bound.withLock { $0 = .unix(path: path) }
        }
        channels.withLock { $0.listening = channel }
    }

    private func admit(_ channel: any Channel) -> Bool {
        let id = ObjectIdentifier(channel)
        let admitted = channels.withLock { channels in
            guard channels.open.count < AdminServer.connectionsMax, channels.listening != nil else { return false }
            channels.open[id] = channel
            return true
        }
        if admitted {
            channel.closeFuture.whenComplete { _ in
                _ = self.channels.withLock { $0.open.removeValue(forKey: id) }
            }
        }
        return admitted
    }

    /// True when the request shows a token of an administrator, or needs none.
    func admits(_ path: String, authorization: String?) -> Bool {
        guard let tokens = security?.tokens, pages.needsToken(path) else { return true }
        guard let token = HTTPCredentials.token(authorization: authorization) else { return false }
        return tokens.grant(token: token)?.isAdmin == true
    }

    func respond(to path: String) async -> AdminResponse { await pages.respond(to: path) }

    /// Stops listening and closes what is open. Idempotent.
    package func close() async {
        let (listening, open) = channels.withLock { channels -> ((any Channel)?, [any Channel]) in
            defer { channels = (nil, [:]) }
            return (channels.listening, Array(channels.open.values))
        }
        for channel in [listening].compactMap({ $0 }) + open {
            channel.close(promise: nil)
            await withCheckedContinuation { continuation in
                channel.closeFuture.whenComplete { _ in continuation.resume() }
            }
        }
        do {
            try await group.shutdownGracefully()
        } catch {
            // Already stopped, which is what was asked for.
        }
    }
}

/// One connection. Owned by its event loop.
private final class AdminHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let server: AdminServer
    private var head: HTTPRequestHead?

    init(_ server: AdminServer) { self.server = server }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body: break  // Nothing that is answered has one; what is sent is dropped as it comes.
        case .end:
            guard let head else { return }
            self.head = nil
            answer(head, context)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard head.method == .GET || head.method == .HEAD else {
            return write(
                AdminResponse(code: 405, body: "\(head.method.rawValue) is not taken here, only GET\n"), head, context)
        }
        let path = String(head.uri.prefix { $0 != "?" })
        guard server.admits(path, authorization: head.headers.first(name: "authorization")) else {
            return write(
                AdminResponse(
                    code: 401,
                    body: "\(path) needs a token with the scope admin, as Bearer or as the password of Basic\n"),
                head, context)
        }
        let server = server
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let eventLoop = context.eventLoop
        Task {
            let response = await server.respond(to: path)
            eventLoop.execute {
                let (handler, context) = bound.value
                handler.write(response, head, context)
            }
        }
    }

    private func write(_ response: AdminResponse, _ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard context.channel.isActive else { return }
        let body = ByteBuffer(string: response.body)
        var headers = HTTPHeaders()
        headers.add(name: "content-type", value: response.contentType)
        headers.add(name: "content-length", value: "\(body.readableBytes)")
        headers.add(name: "cache-control", value: "no-store")
        headers.add(name: "x-content-type-options", value: "nosniff")
        headers.add(name: "content-security-policy", value: response.securityPolicy)
        if response.code == 401 { headers.add(name: "www-authenticate", value: HTTPCredentials.challenge) }
        if response.code == 405 { headers.add(name: "allow", value: "GET, HEAD") }
        if !head.isKeepAlive { headers.add(name: "connection", value: "close") }
        let status = HTTPResponseStatus(statusCode: response.code)
        context.write(
            wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))), promise: nil)
        if head.method != .HEAD { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let written = context.eventLoop.makePromise(of: Void.self)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
        if !head.isKeepAlive {
            let channel = context.channel
            written.futureResult.whenComplete { _ in channel.close(promise: nil) }
        }
    }
}
