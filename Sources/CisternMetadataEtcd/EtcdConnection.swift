// A connection to one member. One exchange at a time; any thread.

internal import CisternTransport
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

final class EtcdConnection: Sendable {
    let endpoint: Endpoint
    private let channel: any Channel
    private let handler: NIOLoopBound<EtcdHandler>

    private init(endpoint: Endpoint, channel: any Channel, handler: NIOLoopBound<EtcdHandler>) {
        self.endpoint = endpoint
        self.channel = channel
        self.handler = handler
    }

    static func connect(
        _ endpoint: Endpoint, group: any EventLoopGroup, tls: ClientTLS?, timeout: TimeAmount
    ) async throws(EtcdFailure) -> EtcdConnection {
        let loop = group.next()
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(timeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            // A watch that hears nothing must notice that its member is gone.
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        try channel.pipeline.syncOperations.addHandler(tls.makeHandler(for: endpoint))
                    }
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(EtcdHandler(endpoint: "\(endpoint)"))
                }
            }
        do {
            let channel: any Channel
            switch endpoint {
            case .tcp(let host, let port):
                channel = try await bootstrap.connect(host: host, port: port).get()
            case .unix(let path): channel = try await bootstrap.connect(unixDomainSocketPath: path).get()
            }
            let handler = try await channel.eventLoop.submit {
                NIOLoopBound(
                    try channel.pipeline.syncOperations.handler(type: EtcdHandler.self), eventLoop: loop)
            }.get()
            return EtcdConnection(endpoint: endpoint, channel: channel, handler: handler)
        } catch {
            throw .notSent("\(endpoint) cannot be connected to: \(error)")
        }
    }

    /// False when the member has closed it, or an answer is not at its end.
    func isIdle() async -> Bool {
        do {
            return try await channel.eventLoop.submit { [handler] in handler.value.isIdle }.get()
        } catch {
            return false
        }
    }

    func send(_ path: String, _ body: [UInt8]) async {
        let host = "\(endpoint)"
        channel.eventLoop.execute { [handler] in
            let headers: HTTPHeaders = [
                "host": host, "content-type": "application/json", "content-length": "\(body.count)",
                // A member that has no leader says so, instead of a watch that hears nothing.
                "grpc-metadata-hasleader": "true",
            ]
            let head = HTTPRequestHead(version: .http1_1, method: .POST, uri: path, headers: headers)
            handler.value.send(head, ByteBuffer(bytes: body))
        }
    }

    /// The next line of the answer, nil at its end. Without one within `timeout`, or when the task is cancelled, the connection
    /// is closed.
    func nextLine(timeout: TimeAmount?) async throws(EtcdFailure) -> EtcdLine? {
        let channel = channel
        let timer = timeout.map {
            channel.eventLoop.scheduleTask(in: $0) { channel.close(promise: nil) }
        }
        defer { timer?.cancel() }
        do {
            return try await withTaskCancellationHandler {
                try await channel.eventLoop.flatSubmit { [handler] in
                    let promise = channel.eventLoop.makePromise(of: EtcdLine?.self)
                    handler.value.nextLine(promise)
                    return promise.futureResult
                }.get()
            } onCancel: {
                channel.close(promise: nil)
            }
        } catch let failure as EtcdFailure {
            throw failure
        } catch {
            throw .noAnswer("the connection to \(endpoint) failed: \(error)")
        }
    }

    func close() { channel.close(promise: nil) }
}
