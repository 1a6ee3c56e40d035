// The remote tree behind a connection: frames out, frames in, and every transport and server error turned into what the
// session's recovery understands. It makes no decision about repeating; it keeps one connection and one tree handle.
//
// Threading: the connection and the handle are guarded by `state`; completions come on the connection's event loop.

package import CisternPrimitives
internal import CisternTransport
internal import CisternWire
internal import CisternWireMessages
internal import NIOCore
internal import NIOPosix
internal import SwiftProtobuf
internal import Synchronization

package final class WireTree: RemoteTree {
    private struct State {
        var connection: ClientConnection?
        var tree: UInt32 = 0
        var epoch: UInt64 = 0
        var isClosed = false
        var sent: UInt64 = 0
        var received: UInt64 = 0
    }

    private struct Link {
        let connection: ClientConnection
        let tree: UInt32
        let epoch: UInt64
    }

    private let choice: ServerChoice
    private let deadline: Duration
    private let time: any TimeSource
    /// Guarded by itself.
    private let state = Mutex(State())

    package init(
        servers: ServerList, configuration: ClientConfiguration, time: any TimeSource
    ) {
        choice = ServerChoice(servers)
        self.time = time
        deadline = .milliseconds(configuration.requestTimeoutMilliseconds)
    }

    package var traffic: (sent: UInt64, received: UInt64) { state.withLock { ($0.sent, $0.received) } }

    package func attach(_ request: AttachRequest) async throws(RemoteError) -> AttachAnswer {
        drop()
        guard !state.withLock({ $0.isClosed }) else { throw .fatal(Self.closedError) }
        let message = message(request)
        let body = ControlMessage.encode(message)
        let connection: ClientConnection
        let (reply, helloNanoseconds): (Cistern_V1_AttachReply, UInt64)
        do throws(TransportError) {
            (connection, (reply, helloNanoseconds)) = try await choice.connect(group: Self.eventLoop) {
                [self] connection, _ throws(TransportError) in
                let helloNanoseconds = time.monotonicNanoseconds
                countSent(body.count)
                // Building a tree from many snapshots takes as long as it takes; the keep-alive finds a dead server.
                let reply = try await connection.request(.attach, tree: 0, body: body, deadline: nil)
                countReceived(reply.body.readableBytes)
                return (try reply.decode(Cistern_V1_AttachReply.self), helloNanoseconds)
            }
        } catch {
            throw RemoteError(error, "attach to \(request.store) at \(choice.endpoint)")
        }
        let isClosed = state.withLock { state -> Bool in
            if state.isClosed { return true }
            state.connection = connection
            state.tree = reply.tree
            state.epoch = request.epoch
            return false
        }
        if isClosed {
            await connection.close()
            throw .fatal(Self.closedError)
        }
        let elapsed = (time.monotonicNanoseconds - helloNanoseconds) / 1_000_000
        return try answer(reply, wallMilliseconds: connection.hello.wallMilliseconds + elapsed)
    }

    private func message(_ request: AttachRequest) -> Cistern_V1_Attach {
        var message = Cistern_V1_Attach()
        message.store = request.store
        message.keyGroupCount = UInt32(request.keyGroupCount)
        message.keyGroupFirst = UInt32(request.keyGroups.first)
        message.keyGroupLast = UInt32(request.keyGroups.last)
        message.epoch = request.epoch
        message.writer = request.writer
        message.restoring = request.restoring != nil
        message.restore = (request.restoring ?? []).map(\.rawValue)
        return message
    }

    private func answer(
        _ reply: Cistern_V1_AttachReply, wallMilliseconds: UInt64
    ) throws(RemoteError) -> AttachAnswer {
        var states: [RemoteState] = []
        for state in reply.states {
            guard let id = UInt16(exactly: state.id),
                let kind = StateKind(rawValue: UInt8(clamping: state.kind.rawValue))
            else {
                throw .fatal(
                    ClientError(
                        .incompatible, .fixTheCall,
                        "the server knows a state \(state.name) of kind \(state.kind) and id \(state.id), which this "
                            + "client does not: upgrade the client"))
            }
            states.append(RemoteState(id: id, name: state.name, kind: kind))
        }
        return AttachAnswer(
            lastSequence: reply.lastSequence, resumed: reply.resumed, states: states,
            dictionaries: reply.dictionaries.map { ($0.id, UInt16(clamping: $0.stateID)) },
            watermark: reply.watermark, restoreMicroseconds: reply.restoreMicroseconds,
            wallMilliseconds: wallMilliseconds, timeToLiveChanges: reply.ttlChanges)
    }

    package func write(
        _ batch: SealedBatch, sequence: UInt64, watermark: UInt64,
        completion: @escaping @Sendable (RemoteError?) -> Void
    ) {
        let link: Link
        do throws(RemoteError) { link = try self.link() } catch { return completion(error) }
        let body = batch.encode(epoch: link.epoch, sequence: sequence, watermark: watermark)
        countSent(body.count)
        link.connection.send(.writeBatch, tree: link.tree, body: body, deadline: deadline) { result in
            switch result {
            case .success(let reply):
                self.countReceived(reply.body.readableBytes)
                completion(nil)
            case .failure(let error): completion(self.failed(link.connection, error, "write batch \(sequence)"))
            }
        }
    }

    package func multiGet(_ keys: KeyColumns, watermark: UInt64) async throws(RemoteError) -> ValueColumns {
        let link = try self.link()
        let body = keys.encode(epoch: link.epoch, watermark: watermark)
        let reply = try await exchange(link, .multiGet, body, "read \(keys.count) keys")
        return unsafe try decode(link, reply) { body throws(WireError) -> ValueColumns in
            ValueColumns(try unsafe MultiGetReplyMessage.decode(body))
        }
    }

    package func scan(_ request: ScanRequest) async throws(RemoteError) -> EntryPage {
        let link = try self.link()
        let body = unsafe request.start.withUnsafeBytes { start -> [UInt8] in
            unsafe request.end.withUnsafeBytes { end -> [UInt8] in
                var message = ScanMessage()
                message.epoch = link.epoch
                message.watermark = request.watermark
                unsafe message.start = unsafe start
                unsafe message.end = unsafe end
                message.entriesMax = request.entriesMax
                message.keysOnly = request.keysOnly
                return message.encode()
            }
        }
        let reply = try await exchange(link, .scan, body, "scan")
        return unsafe try decode(link, reply, EntryPage.decode)
    }

    package func keyIndex(
        from start: [UInt8], watermark: UInt64, onPage: @escaping @Sendable (EntryPage) -> Void
    ) async throws(RemoteError) {
        let link = try self.link()
        let body = unsafe start.withUnsafeBytes { start -> [UInt8] in
            var message = KeyIndexMessage()
            message.epoch = link.epoch
            message.watermark = watermark
            unsafe message.start = unsafe start
            return message.encode()
        }
        countSent(body.count)
        let damage = Mutex<RemoteError?>(nil)
        do {
            // No deadline: the stream is as long as the state. A dead peer is found by the connection's keep-alive.
            try await link.connection.stream(.keyIndex, tree: link.tree, body: body) { reply in
                self.countReceived(reply.body.readableBytes)
                // Pages behind a damaged one would hide that its keys are missing.
                if damage.withLock({ $0 != nil }) { return }
                do throws(RemoteError) {
                    unsafe onPage(try self.decode(link, reply, EntryPage.decode))
                } catch {
                    damage.withLock { $0 = error }
                }
            }
        } catch {
            throw failed(link.connection, error, "load the key index")
        }
        if let damage = damage.withLock({ $0 }) { throw damage }
    }

    package func snapshot(checkpoint: UInt64, sequence: UInt64) async throws(RemoteError) -> SnapshotHandle {
        let link = try self.link()
        var message = Cistern_V1_Snapshot()
        message.epoch = link.epoch
        message.checkpoint = checkpoint
        message.sequence = sequence
        let reply: Cistern_V1_SnapshotReply = try await ask(link, .snapshot, message)
        return SnapshotHandle(rawValue: reply.handle)
    }

    package func register(
        name: String, kind: StateKind, ttl: StateTimeToLive
    ) async throws(RemoteError) -> RegisterAnswer {
        var message = Cistern_V1_RegisterState()
        message.state.name = name
        message.state.kind = Cistern_V1_StateKind(rawValue: Int(kind.rawValue)) ?? .unspecified
        message.state.ttlMilliseconds = ttl.milliseconds
        message.state.ttlClock = ttl.isEventTime ? .event : .processing
        let reply: Cistern_V1_RegisterStateReply = try await ask(try link(), .registerState, message)
        guard let id = UInt16(exactly: reply.state.id) else {
            throw .fatal(
                ClientError(.incompatible, .fixTheCall, "the server gave state \(name) the id \(reply.state.id)"))
        }
        var rules: [ExpiryRule] = []
        for rule in reply.expiryRules {
            guard let rule = Self.rule(rule, of: id) else {
                throw .fatal(
                    ClientError(
                        .incompatible, .fixTheCall,
                        "the server gave state \(name) an expiry rule that is none: key groups "
                            + "\(rule.keyGroupFirst)...\(rule.keyGroupLast), counted with "
                            + "\(rule.storedTtlMilliseconds) ms"))
            }
            rules.append(rule)
        }
        return RegisterAnswer(id: id, timeToLiveChanges: reply.ttlChanges, expiryRules: rules)
    }

    private static func rule(_ message: Cistern_V1_ExpiryRule, of state: UInt16) -> ExpiryRule? {
        let bounds = 1...StateTimeToLive.millisecondsMax
        guard let first = UInt16(exactly: message.keyGroupFirst), let last = UInt16(exactly: message.keyGroupLast),
            first <= last, bounds.contains(message.storedTtlMilliseconds),
            message.ttlMilliseconds <= bounds.upperBound
        else { return nil }
        var rule = ExpiryRule(
            keyGroups: KeyGroupRange(first: first, last: last), state: state,
            storedTTL: message.storedTtlMilliseconds, ttl: message.ttlMilliseconds,
            isEventTime: message.ttlClock == .event)
        rule.endedProcessing = message.endedProcessing
        rule.endedEvent = message.endedEvent
        rule.expiryOfNever = Expiry(rawValue: message.expiryOfNever)
        return rule
    }

    package func putDictionary(state: UInt16, bytes: [UInt8]) async throws(RemoteError) -> UInt32 {
        let message = Cistern_V1_PutDictionary(stateID: UInt32(state), dictionaryBytes: bytes)
        let reply: Cistern_V1_PutDictionaryReply = try await ask(try link(), .putDictionary, message)
        return reply.id
    }

    package func dictionary(id: UInt32) async throws(RemoteError) -> [UInt8] {
        var message = Cistern_V1_GetDictionary()
        message.id = id
        let reply: Cistern_V1_GetDictionaryReply = try await ask(try link(), .getDictionary, message)
        return reply.dictionaryBytes
    }

    package func detach() async throws(RemoteError) {
        let link = try self.link()
        var message = Cistern_V1_Detach()
        message.epoch = link.epoch
        let _: Cistern_V1_DetachReply = try await ask(link, .detach, message)
    }

    package func close() {
        state.withLock { $0.isClosed = true }
        drop()
    }

    // MARK: The connection

    /// The loop that the caller runs on (`WorkerLoop`), else one of the process's.
    private static var eventLoop: any EventLoop {
        MultiThreadedEventLoopGroup.currentEventLoop ?? MultiThreadedEventLoopGroup.singleton.next()
    }

    private static var closedError: ClientError { ClientError(.closed, .fixTheCall, "the session was closed") }

    private func link() throws(RemoteError) -> Link {
        let link = state.withLock { state -> Link? in
            state.connection.map { Link(connection: $0, tree: state.tree, epoch: state.epoch) }
        }
        guard let link else { throw .disconnected(reason: "there is no connection to \(choice.endpoint)") }
        return link
    }

    private func drop() {
        let connection = state.withLock { state -> ClientConnection? in
            defer { state.connection = nil }
            return state.connection
        }
        // Closing ends by itself; what was unanswered fails on the event loop.
        if let connection { Task { await connection.close() } }
    }

    /// A connection on which a request timed out is of no use: the answer may still come, and order is lost.
    private func failed(_ connection: ClientConnection, _ error: TransportError, _ what: String) -> RemoteError {
        let remote = RemoteError(error, what)
        if case .disconnected = remote {
            let isCurrent = state.withLock { $0.connection === connection }
            if isCurrent { drop() }
        }
        return remote
    }

    private func countSent(_ bytes: Int) { state.withLock { $0.sent += UInt64(bytes) } }
    private func countReceived(_ bytes: Int) { state.withLock { $0.received += UInt64(bytes) } }

    private func exchange(
        _ link: Link, _ opcode: Opcode, _ body: [UInt8], _ what: @autoclosure () -> String
    ) async throws(RemoteError) -> Reply {
        countSent(body.count)
        let reply: Reply
        do {
            reply = try await link.connection.request(opcode, tree: link.tree, body: body, deadline: deadline)
        } catch {
            throw failed(link.connection, error, what())
        }
        countReceived(reply.body.readableBytes)
        return reply
    }

    private func decode<Answer>(
        _ link: Link, _ reply: Reply, _ body: (UnsafeRawBufferPointer) throws(WireError) -> Answer
    ) throws(RemoteError) -> Answer {
        do {
            return try unsafe reply.withBody(body)
        } catch {
            throw failed(link.connection, .protocolViolation(error), "decode an answer")
        }
    }

    private func ask<Answer: Message>(
        _ link: Link, _ opcode: Opcode, _ message: some Message
    ) async throws(RemoteError) -> Answer {
        let reply = try await exchange(link, opcode, ControlMessage.encode(message), "\(opcode)")
        do {
            return try reply.decode(Answer.self)
        } catch {
            throw failed(link.connection, error, "decode the answer to \(opcode)")
        }
    }
}

extension SealedBatch {
    /// The body of its frame.
    func encode(epoch: UInt64, sequence: UInt64, watermark: UInt64) -> [UInt8] {
        unsafe columns.keys.withUnsafeBytes { keys -> [UInt8] in
            unsafe columns.values.withUnsafeBytes { values -> [UInt8] in
                var encoder = WriteBatchEncoder()
                var keyStart = 0
                var valueStart = 0
                for index in 0..<count {
                    let keyEnd = Int(columns.keyEnds[index])
                    let valueEnd = Int(columns.valueEnds[index])
                    unsafe encoder.append(
                        EntryView(
                            key: UnsafeRawBufferPointer(rebasing: keys[keyStart..<keyEnd]), kind: kind(index),
                            expiry: expiry(index),
                            value: UnsafeRawBufferPointer(rebasing: values[valueStart..<valueEnd])))
                    keyStart = keyEnd
                    valueStart = valueEnd
                }
                return encoder.encode(epoch: epoch, sequence: sequence, watermark: watermark)
            }
        }
    }
}

extension EntryPage {
    static func decode(_ body: UnsafeRawBufferPointer) throws(WireError) -> EntryPage {
        let message = try unsafe ScanPageMessage.decode(body)
        var page = EntryPage()
        page.keyEnds.reserveCapacity(message.count)
        for index in 0..<message.count {
            let entry = message[index]
            unsafe page.keys.append(contentsOf: entry.key)
            page.keyEnds.append(UInt32(page.keys.count))
            page.expiries.append(entry.expiry.rawValue)
            if message.hasValues {
                unsafe page.values.append(contentsOf: entry.value)
                page.valueEnds.append(UInt32(page.values.count))
            }
        }
        page.next = unsafe Array(message.next)
        return page
    }
}

extension ClientConfiguration {
    /// With TLS as it is configured. Reads files.
    func transportOptions(for endpoint: Endpoint) throws(ClientError) -> ClientTransportOptions {
        var options = ClientTransportOptions()
        options.client = clientName
        options.token = token
        if let tls {
            do throws(TLSError) {
                options.tls = try ClientTLS(
                    trustedCertificates: tls.trustedCertificatesFile, certificate: tls.certificateFile,
                    key: tls.privateKeyFile, serverName: tls.serverName)
            } catch {
                throw ClientError(.invalidArgument, .fixTheCall, "could not connect to \(endpoint): \(error)")
            }
        } else if !token.isEmpty, !endpoint.isLocal, !allowsTokenWithoutTLS {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "could not connect to \(endpoint): everybody on the way could read the token; set tls, or allowsTokenWithoutTLS "
                    + "if the network is trusted")
        }
        return options
    }
}
