import CisternClient
import CisternPrimitives
import CisternTransport
import CisternWire
import CisternWireMessages
import NIOCore
import NIOPosix
import Synchronization
import Testing

/// `ModelServer` behind real sockets and frames. Its faults cut real connections.
final class ModelService: FrameService {
    private let server: ModelServer
    private var connection: ServerConnection!
    private var epoch: UInt64 = 0

    init(_ server: ModelServer) { self.server = server }

    func opened(_ connection: ServerConnection) { self.connection = connection }
    func closed(_ reason: String) {}

    func received(_ request: FrameHeader, body: UnsafeRawBufferPointer) {
        do {
            let fault = server.state.withLock { $0.draw() }
            if fault == .lostBefore { return connection.close(reason: "cut before the request") }
            if fault == .busy {
                return connection.replyError(to: request, ErrorBody(.busy, "busy", retryMilliseconds: 1))
            }
            let answers = try answer(request, body)
            if fault == .lostAfter { return connection.close(reason: "cut before the reply") }
            for (index, answer) in answers.enumerated() {
                connection.reply(to: request, more: index < answers.count - 1, body: answer)
            }
        } catch let error as ErrorBody {
            connection.replyError(to: request, error)
        } catch {
            connection.replyError(to: request, ErrorBody(.badMessage, "\(error)"))
        }
    }

    private var now: UInt64 { server.time.wallMilliseconds }

    private func answer(_ request: FrameHeader, _ body: UnsafeRawBufferPointer) throws -> [[UInt8]] {
        switch request.opcode {
        case .attach: return [try attach(try ControlMessage.decode(Cistern_V1_Attach.self, from: body))]
        case .writeBatch: return [try write(try WriteBatchMessage.decode(body))]
        case .multiGet: return [multiGet(try MultiGetMessage.decode(body))]
        case .scan:
            let scan = try ScanMessage.decode(body)
            return [
                page(
                    ScanRequest(
                        start: Array(scan.start), end: Array(scan.end), entriesMax: scan.entriesMax,
                        keysOnly: scan.keysOnly, watermark: scan.watermark)
                ).bytes
            ]
        case .keyIndex:
            let index = try KeyIndexMessage.decode(body)
            var pages: [[UInt8]] = []
            var start = Array(index.start)
            repeat {
                let (bytes, next) = page(
                    ScanRequest(start: start, end: [], entriesMax: 0, keysOnly: true, watermark: index.watermark))
                pages.append(bytes)
                start = next
            } while !start.isEmpty
            let damaged = server.state.withLock { state -> Int in
                defer { state.damagedIndexPage = 0 }
                return state.damagedIndexPage
            }
            if damaged > 0 { pages[damaged - 1] = [0xFF] }
            return pages
        case .snapshot:
            let snapshot = try ControlMessage.decode(Cistern_V1_Snapshot.self, from: body)
            var reply = Cistern_V1_SnapshotReply()
            reply.handle = server.state.withLock { $0.snapshot(snapshot.checkpoint, snapshot.sequence) }.rawValue
            return [ControlMessage.encode(reply)]
        case .registerState:
            let message = try ControlMessage.decode(Cistern_V1_RegisterState.self, from: body)
            var reply = Cistern_V1_RegisterStateReply()
            reply.state = message.state
            reply.state.id = UInt32(
                server.state.withLock {
                    $0.register(message.state.name, StateKind(rawValue: UInt8(message.state.kind.rawValue))!)
                })
            return [ControlMessage.encode(reply)]
        case .putDictionary:
            let message = try ControlMessage.decode(Cistern_V1_PutDictionary.self, from: body)
            var reply = Cistern_V1_PutDictionaryReply()
            reply.id = server.state.withLock {
                $0.putDictionary(UInt16(message.stateID), message.dictionaryBytes)
            }
            return [ControlMessage.encode(reply)]
        case .getDictionary:
            let message = try ControlMessage.decode(Cistern_V1_GetDictionary.self, from: body)
            let bytes = server.state.withLock { $0.dictionaries.first { $0.id == message.id }?.bytes }
            guard let bytes else { throw ErrorBody(.noSuchDictionary, "dictionary \(message.id)") }
            return [ControlMessage.encode(Cistern_V1_GetDictionaryReply(stateID: 1, dictionaryBytes: bytes))]
        default: return [[]]
        }
    }

    private func attach(_ message: Cistern_V1_Attach) throws -> [UInt8] {
        let request = AttachRequest(
            store: message.store, keyGroupCount: Int(message.keyGroupCount),
            keyGroups: KeyGroupRange(first: UInt16(message.keyGroupFirst), last: UInt16(message.keyGroupLast)),
            epoch: message.epoch, writer: message.writer,
            restoring: message.restoring ? message.restore.map { SnapshotHandle(rawValue: $0) } : nil)
        let answer: AttachAnswer
        do {
            answer = try server.state.withLock { $0.attach(request, wall: now) }.get()
        } catch {
            throw ErrorBody(.fenced, "\(error)", currentEpoch: server.state.withLock { $0.epoch })
        }
        epoch = message.epoch
        var reply = Cistern_V1_AttachReply()
        reply.tree = 1
        reply.lastSequence = answer.lastSequence
        reply.resumed = answer.resumed
        reply.watermark = answer.watermark
        reply.states = answer.states.map { state in
            var descriptor = Cistern_V1_StateDescriptor()
            descriptor.id = UInt32(state.id)
            descriptor.name = state.name
            descriptor.kind = Cistern_V1_StateKind(rawValue: Int(state.kind.rawValue))!
            return descriptor
        }
        reply.dictionaries = answer.dictionaries.map { dictionary in
            var info = Cistern_V1_DictionaryInfo()
            info.id = dictionary.id
            info.stateID = UInt32(dictionary.state)
            return info
        }
        return ControlMessage.encode(reply)
    }

    private func write(_ message: WriteBatchMessage) throws -> [UInt8] {
        try server.state.withLock { state in
            guard message.epoch == state.epoch, epoch == state.epoch else {
                throw ErrorBody(.fenced, "a newer epoch", currentEpoch: state.epoch)
            }
            guard message.sequence <= state.lastSequence + 1 else {
                throw ErrorBody(.sequenceGap, "a batch is missing", expectedSequence: state.lastSequence + 1)
            }
            if message.sequence == state.lastSequence + 1 {
                state.lastSequence = message.sequence
                state.begin(watermark: message.watermark)
                for index in 0..<message.columns.count {
                    let entry = message.columns[index]
                    state.apply(
                        entry.kind, key: Array(entry.key), value: Array(entry.value), expiry: entry.expiry)
                }
            }
        }
        return WriteBatchReplyMessage(sequence: message.sequence).encode()
    }

    private func multiGet(_ message: MultiGetMessage) -> [UInt8] {
        var reply = MultiGetReplyEncoder()
        for index in 0..<message.keys.count {
            let found = server.state.withLock {
                $0.get(Array(message.keys[index]), wall: now, watermark: message.watermark)
            }
            if let found {
                found.bytes.withUnsafeBytes { reply.append(value: $0, expiry: found.expiry) }
            } else {
                reply.appendAbsent()
            }
        }
        return reply.encode()
    }

    private func page(_ request: ScanRequest) -> (bytes: [UInt8], next: [UInt8]) {
        let page = server.state.withLock { $0.page(request, wall: now) }
        var encoder = ScanPageEncoder()
        for index in 0..<page.count {
            let value = request.keysOnly ? [] : page.value(index)
            page.key(index).withUnsafeBytes { key in
                value.withUnsafeBytes { value in
                    if request.keysOnly {
                        encoder.appendKey(key, expiry: page.expiry(index))
                    } else {
                        encoder.append(key: key, value: value, expiry: page.expiry(index))
                    }
                }
            }
        }
        encoder.setNext(page.next)
        return (encoder.encode(), page.next)
    }
}

extension Cistern_V1_ErrorBody: Error {}

/// Runs `body` with a client of a model server that listens on a free port.
func withModelService(
    seed: UInt64 = 1, _ body: (ModelServer, ClientConfiguration) async throws -> Void
) async throws {
    let server = ModelServer(time: ManualTime(), seed: seed)
    let listener = try await Listener.bind(
        [.tcp(host: "127.0.0.1", port: 0)], group: MultiThreadedEventLoopGroup.singleton
    ) { _ in ModelService(server) }
    var configuration = ClientConfiguration(endpoint: "\(listener.boundEndpoints[0])")
    configuration.writeBufferBytes = 2000
    configuration.writeBufferEntries = 20
    configuration.valueCacheBytes = 4000
    configuration.reconnectPauseMilliseconds = 1
    configuration.reconnectPauseMaxMilliseconds = 5
    do {
        try await body(server, configuration)
    } catch {
        Issue.record("\(error)")
    }
    await listener.close()
}

@Suite struct WireTests {
    static let range = KeyGroupRange(first: 0, last: 7)

    @Test func everyKindOfRequestGoesOverTheWire() async throws {
        try await withModelService { server, configuration in
            let client = try await StateClient.connect(configuration)
            var session = try await client.attach(
                store: "store", keyGroupCount: 8, keyGroups: Self.range, epoch: 1, writer: "w", restoring: [])
            var values = try await session.valueState("values", .string, StateOptions(codec: .zstd(level: 1)))
            let lists = try await session.listState("lists", .int64, StateOptions(codec: .lz4))
            let maps = try await session.mapState("maps", .string, .int64)
            let timers = try await session.timerQueue("timers")
            for number in 0..<60 {
                try session.setCurrentKey(user(number))
                #expect(try await values.value() == nil)
                try await values.update(String(repeating: "value \(number) ", count: 20))
                try await lists.addAll([1, 2, Int64(number)])
                try await maps.put("a", Int64(number))
                try await timers.register(at: Int64(number))
            }
            #expect(session.metrics.readRPCs == 0)
            let handle = try await session.snapshot(checkpoint: 1)
            var seen = 0
            try await session.forEach(lists) { _, _, elements in seen += elements.count }
            #expect(seen == 180)
            try await session.detach()

            session = try await client.attach(
                store: "store", keyGroupCount: 8, keyGroups: Self.range, epoch: 2, writer: "w", restoring: [handle])
            #expect(session.metrics.keyIndexKeys == 180)
            values = try await session.valueState("values", .string, StateOptions(codec: .lz4))
            for number in 0..<120 {
                try session.setCurrentKey(user(number))
                #expect(
                    try await values.value()
                        == (number < 60 ? String(repeating: "value \(number) ", count: 20) : nil))
            }
            #expect(session.metrics.absentReadRPCs == 0)
            #expect(try await session.timerQueue("timers").count == 60)
            #expect(session.metrics.bytesSent > 0 && session.metrics.bytesReceived > 0)
            session.abandon()
            await client.close()
            #expect(server.violations == [])
        }
    }

    @Test(arguments: 1...6)
    func connectionsThatAreCutLoseAndRepeatNothing(seed: UInt64) async throws {
        try await withModelService(seed: seed) { server, configuration in
            let client = try await StateClient.connect(configuration)
            server.set(Faults(lostBefore: 60, lostAfter: 60, busy: 60))
            let session = try await client.attach(
                store: "store", keyGroupCount: 8, keyGroups: Self.range, epoch: 1, writer: "w", restoring: [])
            let list = try await session.listState("list", .int64)
            let sum = try await session.reducingState("sum", .int64) { $0 + $1 }
            for number in 0..<600 {
                try session.setCurrentKey(user(number % 37))
                try await list.add(Int64(number))
                try await sum.add(1)
            }
            _ = try await session.snapshot(checkpoint: 1)
            server.set(.none)
            for number in 0..<37 {
                try session.setCurrentKey(user(number))
                #expect(try await list.get() == (0..<600).filter { $0 % 37 == number }.map { Int64($0) })
                #expect(try await sum.get() == Int64((0..<600).filter { $0 % 37 == number }.count))
            }
            #expect(session.metrics.reconnects > 0)
            #expect(server.violations == [])
            session.abandon()
            await client.close()
        }
    }

    @Test func aFencedWorkerLearnsWhoOwnsItsRange() async throws {
        try await withModelService { server, configuration in
            let client = try await StateClient.connect(configuration)
            let old = try await client.attach(
                store: "store", keyGroupCount: 8, keyGroups: Self.range, epoch: 1, writer: "old", restoring: [])
            let state = try await old.valueState("state", .int64)
            try old.setCurrentKey(user(1))
            try await state.update(1)
            let new = try await client.attach(
                store: "store", keyGroupCount: 8, keyGroups: Self.range, epoch: 2, writer: "new", restoring: nil)
            let error = await #expect(throws: ClientError.self) { try await old.flush() }
            #expect(error?.code == .fenced && error?.currentEpoch == 2)
            let refused = await #expect(throws: ClientError.self) {
                _ = try await client.attach(
                    store: "store", keyGroupCount: 8, keyGroups: Self.range, epoch: 1, writer: "other",
                    restoring: nil)
            }
            #expect(refused?.code == .fenced)
            new.abandon()
            await client.close()
        }
    }

    @Test func ofSeveralServersTheOneThatAnswersIsUsed() async throws {
        try await withModelService { _, configuration in
            var configuration = configuration
            configuration.endpoint = "unix:/nowhere/cistern.sock,\(configuration.endpoint),unix:/nowhere/else.sock"
            let client = try await StateClient.connect(configuration)
            let session = try await client.attach(
                store: "store", keyGroupCount: 8, keyGroups: Self.range, epoch: 1, writer: "w", restoring: [])
            let values = try await session.valueState("values", .string)
            try session.setCurrentKey(user(1))
            try await values.update("one")
            let handle = try await session.snapshot(checkpoint: 1)
            // These go to all of them; one that answers is enough.
            _ = try await client.snapshots(store: "store")
            try await client.releaseSnapshots(store: "store", [handle])
            session.abandon()
            await client.close()
        }
    }

    @Test func aServerThatDoesNotAnswerIsNamed() async throws {
        var configuration = ClientConfiguration(endpoint: "unix:/nowhere/cistern.sock")
        configuration.retryForMilliseconds = 0
        let error = await #expect(throws: ClientError.self) { _ = try await StateClient.connect(configuration) }
        #expect(error?.code == .unreachable)
        #expect(error?.message.contains("/nowhere/cistern.sock") == true)
        let wrong = await #expect(throws: ClientError.self) {
            _ = try await StateClient.connect(ClientConfiguration(endpoint: "nonsense"))
        }
        #expect(wrong?.code == .invalidArgument)
        let second = await #expect(throws: ClientError.self) {
            _ = try await StateClient.connect(ClientConfiguration(endpoint: "127.0.0.1:1,nonsense"))
        }
        #expect(second?.code == .invalidArgument && second?.message.contains("nonsense is no endpoint") == true)
    }
}
