// A TCP proxy in front of a log node, which cuts connections, refuses new ones, and stops passing on in one direction.

import CisternTransport
import NIOCore
import NIOPosix
import Synchronization

final class CuttingProxy: Sendable {
    enum Mode: Sendable {
        case passing
        /// New connections end at once.
        case refusing
        /// Nothing is passed on to the node, or from it; the connections stay.
        case stalling(toNode: Bool, fromNode: Bool)
    }

    private struct State {
        var target: Endpoint?
        var mode = Mode.passing
        var channels: [ObjectIdentifier: Passage] = [:]
    }

    /// Both ends of a connection.
    private struct Passage {
        let client: any Channel
        let node: any Channel
    }

    private let state = Mutex(State())
    private let server: any Channel
    let endpoint: Endpoint

    private init(_ server: any Channel) throws {
        self.server = server
        guard let port = server.localAddress?.port else { throw EndToEndError("the proxy has no port") }
        endpoint = .tcp(host: "127.0.0.1", port: port)
    }

    static func start() async throws -> CuttingProxy {
        let accept = AcceptBox()
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Accept(accept))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let proxy = try CuttingProxy(server)
        accept.proxy.withLock { $0 = proxy }
        return proxy
    }

    func close() async {
        cut(refusing: true)
        try? await server.close()
    }

    /// Where the node listens now.
    func forward(to target: Endpoint?) { state.withLock { $0.target = target } }

    /// Ends every connection.
    func cut(refusing: Bool) {
        let passages = state.withLock { state in
            state.mode = refusing ? .refusing : .passing
            return Array(state.channels.values)
        }
        for passage in passages {
            passage.client.close(promise: nil)
            passage.node.close(promise: nil)
        }
    }

    func set(_ mode: Mode) {
        let passages = state.withLock { state in
            state.mode = mode
            return Array(state.channels.values)
        }
        for passage in passages { apply(mode, passage) }
    }

    private func apply(_ mode: Mode, _ passage: Passage) {
        var stalled = (toNode: false, fromNode: false)
        if case .stalling(let toNode, let fromNode) = mode { stalled = (toNode, fromNode) }
        CuttingProxy.set(passage.client, reads: !stalled.toNode)
        CuttingProxy.set(passage.node, reads: !stalled.fromNode)
    }

    /// Asks again, because switching it on asks for nothing that has come meanwhile.
    private static func set(_ channel: any Channel, reads: Bool) {
        channel.setOption(.autoRead, value: reads).whenSuccess { if reads { channel.read() } }
    }

    fileprivate func accept(_ client: any Channel) {
        let (target, mode) = state.withLock { ($0.target, $0.mode) }
        if case .refusing = mode { return client.close(promise: nil) }
        guard case .tcp(let host, let port)? = target else { return client.close(promise: nil) }
        ClientBootstrap(group: client.eventLoop).channelOption(.autoRead, value: false)
            .connect(host: host, port: port)
            .flatMapThrowing { [self] node in
                try client.pipeline.syncOperations.addHandler(Forward(to: node))
                try node.pipeline.syncOperations.addHandler(Forward(to: client))
                let passage = Passage(client: client, node: node)
                let id = ObjectIdentifier(client)
                let mode = state.withLock { state in
                    state.channels[id] = passage
                    return state.mode
                }
                client.closeFuture.whenComplete { [self] _ in
                    state.withLock { $0.channels[id] = nil }
                    node.close(promise: nil)
                }
                node.closeFuture.whenComplete { _ in client.close(promise: nil) }
                if case .refusing = mode { client.close(promise: nil) } else { apply(mode, passage) }
            }
            .whenFailure { _ in client.close(promise: nil) }
    }
}

/// A connection that has come.
private final class Accept: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let box: AcceptBox

    init(_ box: AcceptBox) { self.box = box }

    func channelActive(context: ChannelHandlerContext) {
        if let proxy = box.proxy.withLock({ $0 }) {
            proxy.accept(context.channel)
        } else {
            context.close(promise: nil)
        }
    }
}

/// The bootstrap needs the proxy, and the proxy the bootstrap's port.
private final class AcceptBox: Sendable {
    let proxy = Mutex<CuttingProxy?>(nil)
}

private final class Forward: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let peer: any Channel

    init(to peer: any Channel) { self.peer = peer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        peer.writeAndFlush(unwrapInboundIn(data), promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
