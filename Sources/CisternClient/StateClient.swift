// FRONT DOOR of the client: a server's address, and sessions attached through it. Every session has a connection of its own,
// so that one worker's reconnect does not disturb another's; the client keeps one more for store-wide requests.

public import CisternPrimitives
internal import CisternTransport
internal import CisternWire
internal import CisternWireMessages
internal import NIOPosix
internal import SwiftProtobuf
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

/// A connection to a state server, or to one of several. May be shared by all workers of a process.
public final class StateClient: Sendable {
    public let configuration: ClientConfiguration
    private let servers: ServerList
    /// The connections for store-wide requests; guarded by itself.
    private let control: Mutex<[Endpoint: ClientConnection]>

    private init(_ configuration: ClientConfiguration, _ servers: ServerList, _ connection: ClientConnection) {
        self.configuration = configuration
        self.servers = servers
        control = Mutex([connection.endpoint: connection])
    }

    /// Checks the settings and that a server answers; tries each once.
    /// - Throws: `.limitExceeded` or `.invalidArgument` for a setting, `.unreachable` when no server answers, `.incompatible`
    ///   when it speaks another version.
    public static func connect(_ configuration: ClientConfiguration) async throws(ClientError) -> StateClient {
        try configuration.validate()
        let servers = try ServerList(configuration)
        return StateClient(configuration, servers, try await connection(to: servers))
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
            servers: servers, configuration: configuration, time: environment.time)
        let request = AttachRequest(
            store: store, keyGroupCount: keyGroupCount, keyGroups: keyGroups, epoch: epoch, writer: writer,
            restoring: restoring)
        return try await KeyedStateSession.attach(
            over: tree, request: request, configuration: configuration, environment: environment)
    }

    /// Lets the servers delete what only these snapshots need. Handles they do not know are fine.
    /// - Returns: how many one of them knew, the most of any.
    /// - Throws: when none of them has answered.
    @discardableResult
    public func releaseSnapshots(
        store: String, _ handles: [SnapshotHandle]
    ) async throws(ClientError) -> Int {
        var message = Cistern_V1_ReleaseSnapshot()
        message.store = store
        message.handles = handles.map(\.rawValue)
        let replies: [Cistern_V1_ReleaseSnapshotReply] = try await requestAll(
            .releaseSnapshot, message, "release snapshots of \(store)")
        return replies.map { Int($0.released) }.max() ?? 0
    }

    /// The snapshots of a store that are not released, of all servers that answer.
    /// - Throws: when none of them has answered.
    public func snapshots(store: String) async throws(ClientError) -> [SnapshotInfo] {
        var message = Cistern_V1_ListSnapshots()
        message.store = store
        let replies: [Cistern_V1_ListSnapshotsReply] = try await requestAll(
            .listSnapshots, message, "list snapshots of \(store)")
        var known: Set<SnapshotHandle> = []
        return replies.flatMap(\.items).compactMap { item in
            guard let first = UInt16(exactly: item.keyGroupFirst), let last = UInt16(exactly: item.keyGroupLast),
                first <= last, known.insert(SnapshotHandle(rawValue: item.handle)).inserted
            else { return nil }
            return SnapshotInfo(
                handle: SnapshotHandle(rawValue: item.handle), checkpoint: item.checkpoint,
                keyGroups: KeyGroupRange(first: first, last: last), bytes: item.bytes,
                createdMilliseconds: item.createdMilliseconds)
        }
    }

    /// Closes the client's own connections. Sessions go on: detach or abandon them. Idempotent.
    public func close() async {
        let connections = control.withLock { connections in
            defer { connections = [:] }
            return connections.values.map(\.self)
        }
        for connection in connections { await connection.close() }
    }

    /// One attempt at each server: with replicated trees, what belongs to a store is where its trees were.
    private func requestAll<Answer: Message>(
        _ opcode: Opcode, _ message: some Message, _ what: String
    ) async throws(ClientError) -> [Answer] {
        let body = ControlMessage.encode(message)
        var answers: [Answer] = []
        var failure: ClientError?
        for endpoint in servers.endpoints {
            do throws(ClientError) {
                answers.append(try await request(opcode, body, what, of: endpoint))
            } catch {
                failure = failure ?? error
            }
        }
        if let failure, answers.isEmpty { throw failure }
        return answers
    }

    /// One attempt, after connecting again when the connection was closed meanwhile.
    private func request<Answer: Message>(
        _ opcode: Opcode, _ body: [UInt8], _ what: String, of endpoint: Endpoint
    ) async throws(ClientError) -> Answer {
        let open = control.withLock { $0[endpoint] }.flatMap { $0.isOpen ? $0 : nil }
        let connection: ClientConnection
        if let open {
            connection = open
        } else {
            connection = try await Self.connection(to: ServerList([endpoint], servers.options))
            let old = control.withLock { $0.updateValue(connection, forKey: endpoint) }
            await old?.close()
        }
        do throws(TransportError) {
            let reply = try await connection.request(
                opcode, tree: 0, body: body, deadline: .milliseconds(configuration.requestTimeoutMilliseconds))
            return try reply.decode(Answer.self)
        } catch {
            throw RemoteError(error, what).asClientError
        }
    }

    /// To the first that answers.
    private static func connection(to servers: ServerList) async throws(ClientError) -> ClientConnection {
        let choice = ServerChoice(servers)
        do throws(TransportError) {
            return try await choice.connect(group: MultiThreadedEventLoopGroup.singleton) {
                _, _ throws(TransportError) in
            }.0
        } catch {
            throw RemoteError(error, "connect to \(choice.endpoint)").asClientError
        }
    }
}
