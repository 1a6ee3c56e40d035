// A service whose answers the tests choose by opcode, and a record of what it saw that can be waited for.

import CisternTransport
import CisternWire
import NIOCore
import Synchronization

/// What services of all connections saw. Waiting is by predicate over the whole record, so there is nothing to race with.
final class Recorder: Sendable {
    struct State {
        var opened = 0
        var closed: [String] = []
        var received: [FrameHeader] = []
        var readCompletes = 0
        var writability: [Bool] = []
    }

    private struct Guarded {
        var state = State()
        var waiters: [(id: Int, predicate: @Sendable (State) -> Bool, continuation: CheckedContinuation<Void, Never>)] =
            []
        var nextID = 0
    }

    private let guarded = Mutex(Guarded())

    var state: State { guarded.withLock { $0.state } }

    func note(_ change: (inout State) -> Void) {
        let ready = guarded.withLock { guarded -> [CheckedContinuation<Void, Never>] in
            change(&guarded.state)
            if guarded.waiters.isEmpty { return [] }
            let state = guarded.state
            let done = guarded.waiters.filter { $0.predicate(state) }
            guarded.waiters.removeAll { waiter in done.contains { $0.id == waiter.id } }
            return done.map(\.continuation)
        }
        for continuation in ready { continuation.resume() }
    }

    func wait(_ predicate: @escaping @Sendable (State) -> Bool) async {
        await withCheckedContinuation { continuation in
            let now = guarded.withLock { guarded -> Bool in
                if predicate(guarded.state) { return true }
                guarded.waiters.append((guarded.nextID, predicate, continuation))
                guarded.nextID += 1
                return false
            }
            if now { continuation.resume() }
        }
    }
}

/// multiGet: the body back. scan: as many bytes as the tree field says. keyIndex: three fragments. writeBatch: kept until
/// `release`. snapshot: BUSY. attach: fragments for as long as the client takes them, as many as the tree field says.
final class TestService: FrameService {
    let recorder: Recorder
    private(set) var connection: ServerConnection?
    private(set) var parked: [FrameHeader] = []
    private var streaming: (request: FrameHeader, left: UInt32)?

    static let fragmentSize = 64 << 10

    init(_ recorder: Recorder) { self.recorder = recorder }

    func opened(_ connection: ServerConnection) {
        self.connection = connection
        recorder.note { $0.opened += 1 }
    }

    func received(_ request: FrameHeader, body: UnsafeRawBufferPointer) {
        recorder.note { $0.received.append(request) }
        guard let connection, let opcode = request.opcode else { return }
        switch opcode {
        case .multiGet:
            connection.reply(to: request, body: [UInt8](body))
        case .scan:
            connection.reply(to: request, size: Int(request.tree)) { memory in
                for index in memory.indices { memory[index] = 7 }
            }
        case .keyIndex:
            connection.reply(to: request, more: true, body: [1])
            connection.reply(to: request, more: true, body: [2])
            connection.reply(to: request, body: [3])
        case .writeBatch:
            parked.append(request)
        case .snapshot:
            connection.replyError(to: request, ErrorBody(.busy, "no room"))
        case .attach:
            streaming = (request, request.tree)
            goOnStreaming()
        default:
            connection.replyError(to: request, ErrorBody(.internalError, "the test has no answer to \(opcode)"))
        }
    }

    private func goOnStreaming() {
        guard let connection, var stream = streaming else { return }
        while stream.left > 0 && connection.isWritable {
            stream.left -= 1
            connection.reply(
                to: stream.request, more: stream.left > 0, body: [UInt8](repeating: 5, count: TestService.fragmentSize))
        }
        streaming = stream.left > 0 ? stream : nil
    }

    func release() {
        let requests = parked
        parked = []
        for request in requests { connection?.reply(to: request, body: []) }
    }

    func readComplete() { recorder.note { $0.readCompletes += 1 } }

    func writabilityChanged(_ isWritable: Bool) {
        recorder.note { $0.writability.append(isWritable) }
        if isWritable { goOnStreaming() }
    }

    func closed(_ reason: String) {
        connection = nil
        recorder.note { $0.closed.append(reason) }
    }
}

/// A listener with test services on a loop of its own; `services` run on that loop.
final class TestServer: Sendable {
    let listener: Listener
    let recorder: Recorder
    let group: any EventLoopGroup
    private let services: Mutex<[NIOLoopBound<TestService>]>

    private init(
        _ listener: Listener, _ recorder: Recorder, _ group: any EventLoopGroup, _ registry: ServiceRegistry
    ) {
        self.listener = listener
        self.recorder = recorder
        self.group = group
        self.services = Mutex([])
        self.registry = registry
    }

    private let registry: ServiceRegistry

    static func start(
        group: any EventLoopGroup, endpoint: Endpoint = .tcp(host: "127.0.0.1", port: 0),
        _ configure: (inout ServerTransportOptions) -> Void = { _ in }
    ) async throws -> TestServer {
        var options = ServerTransportOptions()
        options.server = "test 1"
        options.serverID = "id-1"
        configure(&options)
        let recorder = Recorder()
        let registry = ServiceRegistry()
        let listener = try await Listener.bind([endpoint], group: group, options: options) { loop in
            let service = TestService(recorder)
            registry.add(NIOLoopBound(service, eventLoop: loop))
            return service
        }
        return TestServer(listener, recorder, group, registry)
    }

    var endpoint: Endpoint { listener.boundEndpoints[0] }

    var port: Int {
        guard case .tcp(_, let port) = endpoint else { return 0 }
        return port
    }

    /// Answers what the services keep.
    func releaseParked() {
        for service in registry.all { service.eventLoop.execute { service.value.release() } }
    }
}

final class ServiceRegistry: Sendable {
    private let services = Mutex<[NIOLoopBound<TestService>]>([])
    func add(_ service: NIOLoopBound<TestService>) { services.withLock { $0.append(service) } }
    var all: [NIOLoopBound<TestService>] { services.withLock { $0 } }
}

/// Runs `body` with a group of its own and takes everything down after it.
func withServer(
    endpoint: Endpoint = .tcp(host: "127.0.0.1", port: 0),
    _ configure: (inout ServerTransportOptions) -> Void = { _ in },
    _ body: (TestServer) async throws -> Void
) async throws {
    let server = try await TestServer.start(group: TestGroup.shared, endpoint: endpoint, configure)
    do {
        try await body(server)
    } catch {
        await server.listener.close()
        throw error
    }
    await server.listener.close()
}
