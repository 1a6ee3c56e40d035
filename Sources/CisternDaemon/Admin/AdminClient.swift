// One GET to a server's admin port, for tools.

package import CisternTransport
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

package struct AdminClientError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String
}

package enum AdminClient {
    private static let connectSeconds: Int64 = 5
    /// Of an answer; a status of thousands of trees has less.
    private static let bodyBytesMax = 256 << 20

    /// The body of the answer.
    /// - Parameters:
    ///   - address: `HOST:PORT` or `unix:/PATH`.
    ///   - tls: nil: nothing is encrypted. Unix sockets never are.
    ///   - token: of an administrator; empty: none. Not sent where others could read it.
    package static func get(
        _ path: String, from address: String, tls: ClientTLS? = nil, token: String = ""
    ) async throws(AdminClientError) -> String {
        guard let place = Endpoint(address) else {
            throw AdminClientError(description: "\(address) is neither HOST:PORT nor unix:/PATH")
        }
        guard token.isEmpty || tls != nil || place.isLocal else {
            throw AdminClientError(
                description:
                    "everybody on the way to \(address) could read the token: ask over TLS, or on the server's machine")
        }
        let group = MultiThreadedEventLoopGroup.singleton
        let answer = group.next().makePromise(of: Answer.self)
        let bootstrap = ClientBootstrap(group: group).connectTimeout(.seconds(connectSeconds))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls, case .tcp = place {
                        try channel.pipeline.syncOperations.addHandler(tls.makeHandler(for: place))
                    }
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(AnswerCollector(answer, bodyBytesMax))
                }
            }
        do {
            let channel: any Channel =
                switch place {
                case .tcp(let host, let port): try await bootstrap.connect(host: host, port: port).get()
                case .unix(let socket): try await bootstrap.connect(unixDomainSocketPath: socket).get()
                }
            var headers: HTTPHeaders = ["host": "cistern", "connection": "close"]
            if !token.isEmpty { headers.add(name: "authorization", value: "Bearer \(token)") }
            let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: path, headers: headers)
            channel.write(HTTPClientRequestPart.head(head), promise: nil)
            try await channel.writeAndFlush(HTTPClientRequestPart.end(nil)).get()
        } catch {
            answer.fail(error)
            throw AdminClientError(
                description: "cannot ask the admin port \(address): \(error); was the server started with --admin?")
        }
        let found: Answer
        do {
            found = try await answer.futureResult.get()
        } catch {
            throw AdminClientError(description: "the admin port \(address) did not answer \(path): \(error)")
        }
        guard found.code == 200 else {
            throw AdminClientError(
                description: "the admin port \(address) answered \(path) with \(found.code): \(found.body)")
        }
        return found.body
    }

    fileprivate struct Answer: Sendable {
        var code: UInt = 0
        var body = ""
    }
}

/// Owned by the channel's event loop.
private final class AnswerCollector: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart

    private let answer: EventLoopPromise<AdminClient.Answer>
    private let bodyBytesMax: Int
    private var code: UInt = 0
    private var body = ByteBuffer()

    init(_ answer: EventLoopPromise<AdminClient.Answer>, _ bodyBytesMax: Int) {
        self.answer = answer
        self.bodyBytesMax = bodyBytesMax
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): code = head.status.code
        case .body(var part):
            guard body.readableBytes + part.readableBytes <= bodyBytesMax else { return context.close(promise: nil) }
            body.writeBuffer(&part)
        case .end:
            answer.succeed(AdminClient.Answer(code: code, body: String(buffer: body)))
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        // Ignored after an answer.
        answer.fail(ChannelError.eof)
    }
}
