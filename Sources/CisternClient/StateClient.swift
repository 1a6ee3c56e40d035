// FRONT DOOR of the client: a server's address, and sessions attached through it. Every session has a connection of its own,
// so that one worker's reconnect does not disturb another's; the client keeps one more for store-wide requests.

public import CisternPrimitives
internal import CisternTransport
internal import CisternWire
internal import CisternWireMessages
internal import NIOPosix
internal import Synchronization

/// A snapshot the server keeps.
public struct SnapshotInfo: Hashable, Sendable {
    public let handle: SnapshotHandle
    public let checkpoint: UInt64
    public let keyGroups: KeyGroupRange
    public let bytes: UInt64
    /// Wall clock of the server, milliseconds since 1970.
    public let createdMilliseconds: UInt64
}

/// A connection to a state server. May be shared by all workers of a process.
public final class StateClient: Sendable {
    public let configuration: ClientConfiguration
    private let endpoint: Endpoint
    private let options: ClientTransportOptions
    /// The connection for store-wide requests; guarded by itself.
    private let control: Mutex<ClientConnection?>

    private init(
        _ configuration: ClientConfiguration, _ endpoint: Endpoint, _ options: ClientTransportOptions,
        _ connection: ClientConnection
    ) {
        self.configuration = configuration
        self.endpoint = endpoint
        self.options = options
        control = Mutex(connection)
    }

    /// Checks the settings and that a server answers; tries once.
    /// - Throws: `.limitExceeded` or `.invalidArgument` for a setting, `.unreachable` when no server answers, `.incompatible`
    ///   when it speaks another version.
    public static func connect(_ configuration: ClientConfiguration) async throws(ClientError) -> StateClient {
        try configuration.validate()
        guard let endpoint = Endpoint(configuration.endpoint) else {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "\(configuration.endpoint) is no endpoint; write HOST:PORT, [IPV6]:PORT or unix:/path")
        }
        let options = try configuration.transportOptions(for: endpoint)
        return StateClient(configuration, endpoint, options, try await connection(to: endpoint, options))
    }

    /// Becomes the writer of a key-group range. The newest epoch of a range wins: an older session of it is fenced.
    ///
    /// With a key index, returns when every key is known (a second for some million keys) unless
    /// `ClientConfiguration.keyIndexLoadsInBackground` is set. Tries for `retryForMilliseconds`.
    ///
    /// - Parameters:
    ///   - store: the name of the operator's state; made by its first attach.
    ///   - keyGroupCount: key groups of the store, 1 … 32,768; fixed by the first attach.
    ///   - keyGroups: the range of this worker (`KeyGroup.range(ofWorker:parallelism:count:)`).
    ///   - epoch: higher than that of any earlier session of these key groups; a restarted worker takes a new one.
    ///   - writer: names this session; two sessions never share epoch and writer.
    ///   - restoring: nil goes on with what the server has; otherwise the content becomes exactly the union of these
    ///     snapshots, clipped to the range, at any parallelism; empty starts empty.
    /// - Throws: `.fenced` when a newer epoch owns the range, `.rangeMismatch` when the server's trees are cut differently
    ///   and `restoring` is nil, `.unreachable`, `.unavailable`.
    public func attach(
        store: String, keyGroupCount: Int, keyGroups: KeyGroupRange, epoch: UInt64, writer: String,
        restoring: [SnapshotHandle]?
    ) async throws(ClientError) -> KeyedStateSession {
        let environment = ClientEnvironment()
        let tree = WireTree(
            endpoint: endpoint, configuration: configuration, time: environment.time, options: options)
        let request = AttachRequest(
            store: store, keyGroupCount: keyGroupCount, keyGroups: keyGroups, epoch: epoch, writer: writer,
            restoring: restoring)
        return try await KeyedStateSession.attach(
            over: tree, request: request, configuration: configuration, environment: environment)
    }

    /// Lets the server delete what only these snapshots need. Handles it does not know are fine.
    /// - Returns: how many it knew.
    @discardableResult
    public func releaseSnapshots(
        store: String, _ handles: [SnapshotHandle]
    ) async throws(ClientError) -> Int {
        var message = Cistern_V1_ReleaseSnapshot()
        message.store = store
        message.handles = handles.map(\.rawValue)
        let reply = try await request(.releaseSnapshot, ControlMessage.encode(message), "release snapshots of \(store)")
        do {
            return Int(try reply.decode(Cistern_V1_ReleaseSnapshotReply.self).released)
        } catch {
            throw RemoteError(error, "release snapshots of \(store)").asClientError
        }
    }

    /// The snapshots of a store that are not released.
    public func snapshots(store: String) async throws(ClientError) -> [SnapshotInfo] {
        var message = Cistern_V1_ListSnapshots()
        message.store = store
        let reply = try await request(.listSnapshots, ControlMessage.encode(message), "list snapshots of \(store)")
        do {
            return try reply.decode(Cistern_V1_ListSnapshotsReply.self).items.compactMap { item in
                guard let first = UInt16(exactly: item.keyGroupFirst), let last = UInt16(exactly: item.keyGroupLast),
                    first <= last
                else { return nil }
                return SnapshotInfo(
                    handle: SnapshotHandle(rawValue: item.handle), checkpoint: item.checkpoint,
                    keyGroups: KeyGroupRange(first: first, last: last), bytes: item.bytes,
                    createdMilliseconds: item.createdMilliseconds)
            }
        } catch {
            throw RemoteError(error, "list snapshots of \(store)").asClientError
        }
    }

    /// Closes the client's own connection. Sessions go on: detach or abandon them. Idempotent.
    public func close() async {
        let connection = control.withLock { connection -> ClientConnection? in
            defer { connection = nil }
            return connection
        }
        await connection?.close()
    }

    /// One attempt, after connecting again when the connection was closed meanwhile.
    private func request(_ opcode: Opcode, _ body: [UInt8], _ what: String) async throws(ClientError) -> Reply {
        let open = control.withLock { $0 }.flatMap { $0.isOpen ? $0 : nil }
        let connection: ClientConnection
        if let open {
            connection = open
        } else {
            connection = try await Self.connection(to: endpoint, options)
            let old = control.withLock { current -> ClientConnection? in
                defer { current = connection }
                return current
            }
            await old?.close()
        }
        do {
            return try await connection.request(
                opcode, tree: 0, body: body, deadline: .milliseconds(configuration.requestTimeoutMilliseconds))
        } catch {
            throw RemoteError(error, what).asClientError
        }
    }

    private static func connection(
        to endpoint: Endpoint, _ options: ClientTransportOptions
    ) async throws(ClientError) -> ClientConnection {
        do {
            return try await ClientConnection.connect(
                endpoint, group: MultiThreadedEventLoopGroup.singleton, options: options)
        } catch {
            throw RemoteError(error, "connect to \(endpoint)").asClientError
        }
    }
}
