// A server in process on a free port, and a client that speaks the protocol message by message.

import CisternFileSystem
import CisternMetadata
import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWire
import CisternWireMessages
import Logging
import NIOCore
import NIOPosix
import SwiftProtobuf
import Synchronization

/// One group for the clients of all tests.
let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)

struct ServerHarness {
    let server: StateServer

    static func start(
        _ files: any FileSystem = MemoryFileSystem(), directory: String = "/data",
        metadata: (any MetadataStore)? = nil, _ change: (inout ServerConfiguration) -> Void = { _ in }
    ) async throws -> ServerHarness {
        var configuration = ServerConfiguration()
        configuration.dataDirectory = directory
        configuration.listen = ["127.0.0.1:0"]
        configuration.memtableBytes = 1 << 20
        configuration.blockCacheBytes = 4 << 20
        change(&configuration)
        var logger = Logger(label: "test")
        logger.logLevel = .error
        return ServerHarness(
            server: try await StateServer.start(
                configuration, metadata: metadata, fileSystem: files, logger: logger))
    }

    var endpoint: Endpoint { server.boundEndpoints[0] }

    func connect() async throws -> TestClient { try await TestClient.connect(endpoint) }

    func connect(_ tls: ClientTLS?, token: String = "") async throws -> TestClient {
        var options = ClientTransportOptions()
        options.tls = tls
        options.token = token
        return TestClient(
            connection: try await ClientConnection.connect(endpoint, group: clientGroup, options: options))
    }
}

/// One connection.
struct TestClient: Sendable {
    let connection: ClientConnection

    static func connect(_ endpoint: Endpoint) async throws -> TestClient {
        TestClient(connection: try await ClientConnection.connect(endpoint, group: clientGroup))
    }

    func request<Answer: Message>(
        _ opcode: Opcode, tree: UInt32 = 0, _ message: some Message, _ answer: Answer.Type
    ) async throws -> Answer {
        let reply = try await connection.request(opcode, tree: tree, body: ControlMessage.encode(message))
        return try reply.decode(answer)
    }

    func attach(
        _ store: String = "orders", groups: Int = 8, _ first: UInt16 = 0, _ last: UInt16 = 7, epoch: UInt64 = 1,
        writer: String = "worker", restoring: [String]? = nil
    ) async throws -> TestTree {
        var message = Cistern_V1_Attach()
        message.store = store
        message.keyGroupCount = UInt32(groups)
        message.keyGroupFirst = UInt32(first)
        message.keyGroupLast = UInt32(last)
        message.epoch = epoch
        message.writer = writer
        message.restore = restoring ?? []
        message.restoring = restoring != nil
        let reply = try await request(.attach, message, Cistern_V1_AttachReply.self)
        return TestTree(client: self, reply: reply, epoch: epoch)
    }

    /// Of the store "orders".
    func attach(
        _ first: UInt16, _ last: UInt16, epoch: UInt64 = 1, writer: String = "worker", restoring: [String]? = nil
    ) async throws -> TestTree {
        try await attach("orders", first, last, epoch: epoch, writer: writer, restoring: restoring)
    }

    func release(_ handles: [String], store: String = "orders") async throws -> UInt32 {
        var message = Cistern_V1_ReleaseSnapshot()
        message.store = store
        message.handles = handles
        return try await request(.releaseSnapshot, message, Cistern_V1_ReleaseSnapshotReply.self).released
    }

    func snapshots(store: String = "orders") async throws -> [Cistern_V1_ListSnapshotsReply.Item] {
        var message = Cistern_V1_ListSnapshots()
        message.store = store
        return try await request(.listSnapshots, message, Cistern_V1_ListSnapshotsReply.self).items
    }
}

struct TestEntry: Equatable, Sendable {
    var key: [UInt8]
    var kind = EntryKind.put
    var value: [UInt8] = []
    var expiry = Expiry.never

    /// A key of group `group` for `number`.
    static func put(_ group: UInt16, _ number: Int, _ value: String) -> TestEntry {
        TestEntry(key: testKey(group, number), value: Array(value.utf8))
    }
}

func testKey(_ group: UInt16, _ number: Int) -> [UInt8] {
    let digits = String(number)
    let padded = String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    return [UInt8(group >> 8), UInt8(group & 0xFF), 0, 1] + Array(padded.utf8)
}

/// An attached tree.
struct TestTree: Sendable {
    let client: TestClient
    let reply: Cistern_V1_AttachReply
    let epoch: UInt64

    var handle: UInt32 { reply.tree }

    func write(
        _ sequence: UInt64, _ entries: [TestEntry], watermark: UInt64 = 0, epoch: UInt64? = nil
    ) async throws {
        let body = batch(sequence, entries, watermark: watermark, epoch: epoch ?? self.epoch)
        let reply = try await client.connection.request(.writeBatch, tree: handle, body: body)
        let acknowledged = try reply.withBody { (bytes) throws(WireError) in try WriteBatchReplyMessage.decode(bytes) }
        guard acknowledged.sequence == sequence else { throw HarnessError(description: "acknowledged \(acknowledged)") }
    }

    func batch(_ sequence: UInt64, _ entries: [TestEntry], watermark: UInt64 = 0, epoch: UInt64) -> [UInt8] {
        var encoder = WriteBatchEncoder()
        for entry in entries {
            entry.key.withUnsafeBytes { key in
                entry.value.withUnsafeBytes { value in
                    encoder.append(EntryView(key: key, kind: entry.kind, expiry: entry.expiry, value: value))
                }
            }
        }
        return encoder.encode(epoch: epoch, sequence: sequence, watermark: watermark)
    }

    func get(_ keys: [[UInt8]], watermark: UInt64 = 0, epoch: UInt64? = nil) async throws -> [String?] {
        var encoder = MultiGetEncoder()
        for key in keys { key.withUnsafeBytes { encoder.append($0) } }
        let body = encoder.encode(epoch: epoch ?? self.epoch, watermark: watermark)
        let reply = try await client.connection.request(.multiGet, tree: handle, body: body)
        return try reply.withBody { (bytes) throws(WireError) in
            let message = try MultiGetReplyMessage.decode(bytes)
            return (0..<message.count).map { index in message[index].map { String(decoding: $0.value, as: UTF8.self) } }
        }
    }

    func page(
        start: [UInt8] = [], end: [UInt8] = [], entriesMax: UInt32 = 0, bytesMax: UInt32 = 0, keysOnly: Bool = false
    ) async throws -> (entries: [TestEntry], next: [UInt8]) {
        let body = start.withUnsafeBytes { start in
            end.withUnsafeBytes { end in
                var message = ScanMessage()
                message.epoch = epoch
                message.start = start
                message.end = end
                message.entriesMax = entriesMax
                message.bytesMax = bytesMax
                message.keysOnly = keysOnly
                return message.encode()
            }
        }
        let reply = try await client.connection.request(.scan, tree: handle, body: body)
        return try TestTree.decodePage(reply)
    }

    /// Every entry, page by page.
    func scanAll(entriesMax: UInt32 = 0, bytesMax: UInt32 = 0) async throws -> [TestEntry] {
        var all: [TestEntry] = []
        var start: [UInt8] = []
        repeat {
            let (entries, next) = try await page(start: start, entriesMax: entriesMax, bytesMax: bytesMax)
            all += entries
            start = next
        } while !start.isEmpty
        return all
    }

    func keyIndex() async throws -> (keys: [[UInt8]], pages: Int) {
        var message = KeyIndexMessage()
        message.epoch = epoch
        let collected = Mutex<(keys: [[UInt8]], pages: Int)>(([], 0))
        try await client.connection.stream(.keyIndex, tree: handle, body: message.encode()) { reply in
            let keys = (try? TestTree.decodePage(reply).entries.map(\.key)) ?? []
            collected.withLock {
                $0.keys += keys
                $0.pages += 1
            }
        }
        return collected.withLock { $0 }
    }

    static func decodePage(_ reply: Reply) throws -> (entries: [TestEntry], next: [UInt8]) {
        try reply.withBody { (bytes) throws(WireError) in
            let page = try ScanPageMessage.decode(bytes)
            let entries = (0..<page.count).map { index in
                TestEntry(
                    key: Array(page[index].key), kind: page[index].kind, value: Array(page[index].value),
                    expiry: page.expiry(index))
            }
            return (entries, Array(page.next))
        }
    }

    func snapshot(_ checkpoint: UInt64, sequence: UInt64 = 0) async throws -> Cistern_V1_SnapshotReply {
        var message = Cistern_V1_Snapshot()
        message.epoch = epoch
        message.checkpoint = checkpoint
        message.sequence = sequence
        return try await client.request(.snapshot, tree: handle, message, Cistern_V1_SnapshotReply.self)
    }

    func detach() async throws {
        var message = Cistern_V1_Detach()
        message.epoch = epoch
        _ = try await client.request(.detach, tree: handle, message, Cistern_V1_DetachReply.self)
    }

    func register(
        _ name: String, _ kind: Cistern_V1_StateKind, ttlMilliseconds: UInt64 = 0
    ) async throws -> Cistern_V1_StateDescriptor {
        try await register(name, kind, ttlMilliseconds, .unspecified).state
    }

    func register(
        _ name: String, _ kind: Cistern_V1_StateKind, _ ttlMilliseconds: UInt64, _ clock: Cistern_V1_TtlClock
    ) async throws -> Cistern_V1_RegisterStateReply {
        var message = Cistern_V1_RegisterState()
        message.state.name = name
        message.state.kind = kind
        message.state.ttlMilliseconds = ttlMilliseconds
        message.state.ttlClock = clock
        return try await client.request(.registerState, tree: handle, message, Cistern_V1_RegisterStateReply.self)
    }
}

struct HarnessError: Error, CustomStringConvertible {
    let description: String
}

/// The error code a request is refused with; nil when it is answered.
func refusal(_ work: () async throws -> Void) async -> ErrorBody? {
    do {
        try await work()
        return nil
    } catch TransportError.remote(let body) {
        return body
    } catch {
        return ErrorBody(.internalError, "not a typed error: \(error)")
    }
}

func refusalCode(_ work: () async throws -> Void) async -> ErrorCode? { await refusal(work)?.errorCode }
