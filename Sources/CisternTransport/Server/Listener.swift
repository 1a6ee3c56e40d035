// The server's sockets: binds endpoints, makes a `ServerConnection` with a service for each client, drains and closes them.
//
// Threading: may be called from anywhere; the table of connections is guarded by a mutex, each connection lives on its loop.

internal import Glibc
package import Logging
package import NIOCore
internal import NIOPosix
internal import Synchronization

package final class Listener: Sendable {
    private struct State {
        var channels: [any Channel] = []
        var unixPaths: [String] = []
        var connections: [UInt64: Member] = [:]
        var nextID: UInt64 = 0
        var isClosing = false
    }

    private struct Member {
        let channel: any Channel
        let connection: NIOLoopBound<ServerConnection>
    }

    private let group: any EventLoopGroup
    private let options: ServerTransportOptions
    private let logger: Logger
    private let service: @Sendable (any EventLoop) -> any FrameService
    private let state = Mutex(State())
    /// Where the server listens, with the ports the system gave. Immutable after `bind`.
    private let bound = Mutex<[Endpoint]>([])

    private init(
        group: any EventLoopGroup, options: ServerTransportOptions, logger: Logger,
        service: @escaping @Sendable (any EventLoop) -> any FrameService
    ) {
        self.group = group
        self.options = options
        self.logger = logger
        self.service = service
    }

    /// Listens on all endpoints, or on none and throws. `service` is called on the loop of each new connection.
    package static func bind(
        _ endpoints: [Endpoint], group: any EventLoopGroup, options: ServerTransportOptions = ServerTransportOptions(),
        logger: Logger = Logger(label: "cistern.transport"),
        service: @escaping @Sendable (any EventLoop) -> any FrameService
    ) async throws(TransportError) -> Listener {
        options.validate()
        let listener = Listener(group: group, options: options, logger: logger, service: service)
        for endpoint in endpoints {
            do throws(TransportError) {
                try await listener.listen(on: endpoint)
            } catch {
                await listener.close()
                throw error
            }
        }
        return listener
    }

    /// In the order they were asked for.
    package var boundEndpoints: [Endpoint] { bound.withLock { $0 } }

    package var connectionCount: Int { state.withLock { $0.connections.count } }

    // MARK: - Sockets

    private func listen(on endpoint: Endpoint) async throws(TransportError) {
        do {
            let channel: any Channel
            let actual: Endpoint
            switch endpoint {
            case .tcp(let host, let port):
                channel = try await bootstrap(isTCP: true).bind(host: host, port: port).get()
                actual = .tcp(host: host, port: channel.localAddress?.port ?? port)
            case .unix(let path):
                // A socket file that a killed server left is removed, one that answers is not.
                if await Listener.answers(path: path, group: group) {
                    throw TransportError.bindFailed(endpoint: endpoint, reason: "another server listens there")
                }
                channel = try await bootstrap(isTCP: false)
                    .bind(unixDomainSocketPath: path, cleanupExistingSocketFile: true).get()
                actual = endpoint
            }
            state.withLock { state in
                state.channels.append(channel)
                if case .unix(let path) = endpoint { state.unixPaths.append(path) }
            }
            bound.withLock { $0.append(actual) }
        } catch let error as TransportError {
            throw error
        } catch {
            throw .bindFailed(endpoint: endpoint, reason: "\(error)")
        }
    }

    /// True when somebody listens on the Unix socket.
    package static func answers(path: String, group: any EventLoopGroup) async -> Bool {
        do {
            let probe = ClientBootstrap(group: group).connectTimeout(.seconds(1))
            let channel = try await probe.connect(unixDomainSocketPath: path).get()
            channel.close(promise: nil)
            return true
        } catch {
            return false  // Nobody there is what is hoped for.
        }
    }

    private func bootstrap(isTCP: Bool) -> ServerBootstrap {
        let watermark = ChannelOptions.Types.WriteBufferWaterMark(
            low: options.unsentBytesLow, high: options.unsentBytesHigh)
        let base = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: ServerTransportOptions.acceptBacklog)
            .childChannelOption(.writeBufferWaterMark, value: watermark)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try self.accept(channel, isTCP: isTCP) }
            }
        if !isTCP { return base }
        return
            base
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
    }

    /// On the loop of the new connection.
    private func accept(_ channel: any Channel, isTCP: Bool) throws {
        let loop = channel.eventLoop
        let (id, admitted) = state.withLock { state -> (UInt64, Bool) in
            state.nextID += 1
            return (state.nextID, state.connections.count < options.connectionsMax && !state.isClosing)
        }
        let connection = ServerConnection(
            id: id, eventLoop: loop, allocator: channel.allocator, options: options, service: service(loop),
            admitted: admitted)
        let member = Member(channel: channel, connection: NIOLoopBound(connection, eventLoop: loop))
        state.withLock { $0.connections[id] = member }
        channel.closeFuture.whenComplete { _ in
            _ = self.state.withLock { $0.connections.removeValue(forKey: id) }
        }
        if isTCP, let tls = options.tls { try channel.pipeline.syncOperations.addHandler(tls.makeHandler()) }
        try channel.pipeline.syncOperations.addHandler(connection)
    }

    // MARK: - The end

    /// Stops accepting, sends GO_AWAY, waits until the clients have finished and left; what is left after `grace` is closed.
    package func drain(reason: String = "the server is stopping", grace: TimeAmount = .seconds(5)) async {
        await stopAccepting()
        let members = state.withLock { Array($0.connections.values) }
        logger.debug("draining", metadata: ["connections": "\(members.count)"])
        // The grace begins when the last was told: a loop may be busy for a while.
        for member in members {
            await Listener.wait(
                for: member.channel.eventLoop.submit { member.connection.value.sendGoAway(reason: reason) })
        }
        let deadline = group.next().scheduleTask(in: grace) {
            for member in members { member.channel.close(promise: nil) }
        }
        for member in members { await Listener.wait(for: member.channel.closeFuture) }
        deadline.cancel()
    }

    /// Closes every socket at once. Idempotent.
    package func close() async {
        await stopAccepting()
        let members = state.withLock { Array($0.connections.values) }
        for member in members {
            member.channel.close(promise: nil)
            await Listener.wait(for: member.channel.closeFuture)
        }
    }

    private func stopAccepting() async {
        let (channels, paths) = state.withLock { state -> ([any Channel], [String]) in
            defer {
                state.channels = []
                state.unixPaths = []
                state.isClosing = true
            }
            return (state.channels, state.unixPaths)
        }
        for channel in channels {
            channel.close(promise: nil)
            await Listener.wait(for: channel.closeFuture)
        }
        // A path that is gone already is as good as one that is removed here.
        for path in paths { _ = unsafe unlink(path) }
    }

    /// The end of a channel, however it came.
    private static func wait(for future: EventLoopFuture<Void>) async {
        await withCheckedContinuation { continuation in
            future.whenComplete { _ in continuation.resume() }
        }
    }
}
