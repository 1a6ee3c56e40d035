// The client's end of a connection: sends requests as far as the credits go, matches replies by id, keeps deadlines.
//
//   callers ─► inbox (mutex, one hop for all that gather) ─► waiting ─ credits ─► in flight ─► reply ─► completion
//
// Threading: everything on the connection's event loop, but the inbox, which is guarded by its mutex. Completions are
// called on the loop and must not block it.

internal import CisternPrimitives
internal import CisternWire
internal import CisternWireMessages
internal import NIOCore
internal import Synchronization

/// Where callers of any thread leave their requests.
final class ClientInbox: Sendable {
    struct State {
        /// Set when the channel was made.
        var handler: NIOLoopBound<ClientHandler>?
        var requests: [OutgoingRequest] = []
        /// Set at the end of the connection: later requests fail with it at once.
        var closed: TransportError?
        var goAway: Cistern_V1_GoAway?
        var goAwayCallbacks: [@Sendable (Cistern_V1_GoAway) -> Void] = []
    }

    let state = Mutex(State())
}

final class ClientHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum Phase {
        case handshaking
        case open
        case closed
    }

    private struct InFlight {
        let opcode: Opcode
        let deadline: NIODeadline?
        var sink: OutgoingRequest.Sink
    }

    private let endpoint: Endpoint
    private let options: ClientTransportOptions
    private let inbox: ClientInbox
    private let handshake: EventLoopPromise<Cistern_V1_HelloReply>
    private let eventLoop: any EventLoop

    private var context: ChannelHandlerContext?
    private var phase = Phase.handshaking
    private var parser: FrameParser
    private var output: FrameOutput
    private var checksums = true
    private var serverFrameBytesMax = WireLimits.helloFrameBytesMax
    private var keepAlive: KeepAlive
    private var keepAliveTask: Scheduled<Void>?
    private var isReading = false
    private var isGoingAway = false
    private var closeReason: TransportError?

    // Credits not in use.
    private var requestCredit = 0
    private var kibCredit = 0
    private var kibMax = 0

    private var nextID: UInt64 = 1
    private var inFlight: [UInt64: InFlight] = [:]
    private var waiting: [OutgoingRequest] = []
    private var waitingStart = 0

    // One timer for all deadlines: it stands at the earliest.
    private var deadlineTask: Scheduled<Void>?
    private var deadlineTaskTime: NIODeadline?

    init(
        endpoint: Endpoint, options: ClientTransportOptions, inbox: ClientInbox, eventLoop: any EventLoop,
        allocator: ByteBufferAllocator, handshake: EventLoopPromise<Cistern_V1_HelloReply>
    ) {
        self.endpoint = endpoint
        self.options = options
        self.inbox = inbox
        self.eventLoop = eventLoop
        self.handshake = handshake
        parser = FrameParser(frameBytesMax: options.frameBytesMax, checksumRequired: true)
        output = FrameOutput(allocator: allocator)
        keepAlive = KeepAlive(missedMax: options.keepAlive.missedMax)
    }

    // MARK: - Requests

    /// Takes over what callers left since the last time.
    func drainInbox() {
        let requests = inbox.state.withLock { state -> [OutgoingRequest] in
            defer { state.requests.removeAll(keepingCapacity: true) }
            return state.requests
        }
        for request in requests { accept(request) }
        sendWaiting()
        if !isReading { flush() }
    }

    private func accept(_ request: OutgoingRequest) {
        if let closeReason {
            request.sink.fail(closeReason)
            return
        }
        if isGoingAway {
            request.sink.fail(.goingAway)
            return
        }
        let header = request.header
        guard header.frameSize <= serverFrameBytesMax, header.costKiB <= kibMax else {
            request.sink.fail(.requestTooLarge(bytes: header.frameSize, max: serverFrameBytesMax))
            return
        }
        let waitingCount = waiting.count - waitingStart
        guard waitingCount < options.waitingRequestsMax else {
            request.sink.fail(.overloaded(waiting: waitingCount))
            return
        }
        waiting.append(request)
        if let deadline = request.deadline { scheduleDeadline(deadline) }
    }

    /// Sends in the order of arrival, as far as the credits go.
    private func sendWaiting() {
        guard phase == .open else { return }
        while waitingStart < waiting.count {
            let request = waiting[waitingStart]
            var header = request.header
            guard requestCredit > 0, header.costKiB <= kibCredit else { break }
            waitingStart += 1
            requestCredit -= 1
            kibCredit -= header.costKiB
            header.requestID = nextID
            nextID += 1
            inFlight[header.requestID] = InFlight(
                opcode: request.opcode, deadline: request.deadline, sink: request.sink)
            switch request.body {
            case .bytes(let bytes): output.append(header, checksum: checksums, body: bytes)
            case .inPlace(_, let fill): unsafe output.append(header, checksum: checksums, fill: fill)
            }
            if output.count >= ServerTransportOptions.gatheredBytesMax { flush() }
        }
        if waitingStart == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            waitingStart = 0
        } else if waitingStart > ClientHandler.waitingSlackMax {
            waiting.removeFirst(waitingStart)
            waitingStart = 0
        }
    }

    /// Sent entries kept in front of the waiting ones before they are moved up.
    private static let waitingSlackMax = 1024

    private func flush() {
        guard let context, let buffer = output.take() else { return }
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    // MARK: - Deadlines

    private func scheduleDeadline(_ deadline: NIODeadline) {
        if let time = deadlineTaskTime, time <= deadline { return }
        deadlineTask?.cancel()
        deadlineTaskTime = deadline
        deadlineTask = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { self.expire() }
    }

    private func expire() {
        deadlineTask = nil
        deadlineTaskTime = nil
        let now = eventLoop.now
        var expired: [(Opcode, OutgoingRequest.Sink)] = []
        var next: NIODeadline?
        for (id, request) in inFlight {
            guard let deadline = request.deadline else { continue }
            if case .abandoned = request.sink { continue }
            if deadline <= now {
                // Stays in the table: its answer, when it comes, gives the credit back.
                inFlight[id]?.sink = .abandoned
                expired.append((request.opcode, request.sink))
            } else {
                next = min(next ?? deadline, deadline)
            }
        }
        var kept: [OutgoingRequest] = []
        for request in waiting[waitingStart...] {
            guard let deadline = request.deadline else {
                kept.append(request)
                continue
            }
            if deadline <= now {
                expired.append((request.opcode, request.sink))
            } else {
                kept.append(request)
                next = min(next ?? deadline, deadline)
            }
        }
        waiting = kept
        waitingStart = 0
        if let next { scheduleDeadline(next) }
        for (opcode, sink) in expired { sink.fail(.deadlineExceeded(operation: "\(opcode)")) }
    }

    // MARK: - Replies

    private func handle(_ frame: Frame, in buffer: ByteBuffer) {
        let header = frame.header
        switch (header.opcode, header.isReply) {
        case (.connection, _):
            fail(remoteError(frame))
        case (.hello, true):
            handleHello(frame)
        case (.goAway, false):
            handleGoAway(frame)
        case (.ping, false):
            let reply = unsafe FrameHeader(
                opcodeByte: Opcode.ping.rawValue | Opcode.replyBit, requestID: header.requestID, argument: 0,
                bodySize: frame.body.count)
            unsafe output.append(reply, checksum: checksums, body: frame.body)
        case (.ping, true):
            break  // That bytes came is all it tells.
        default:
            handleReply(frame, in: buffer)
        }
    }

    private func handleReply(_ frame: Frame, in buffer: ByteBuffer) {
        let header = frame.header
        guard header.isReply, let request = inFlight[header.requestID],
            header.opcodeByte & ~Opcode.replyBit == request.opcode.rawValue
        else {
            violation("a reply to request \(header.requestID) with opcode \(header.opcodeByte), which was not sent")
            return
        }
        if !header.hasMore {
            inFlight[header.requestID] = nil
            requestCredit += 1
            kibCredit += header.creditKiB
        }
        deliver(frame, in: buffer, to: request.sink)
        if !header.hasMore {
            sendWaiting()
            closeWhenDrained()
        }
    }

    private func deliver(_ frame: Frame, in buffer: ByteBuffer, to sink: OutgoingRequest.Sink) {
        if case .abandoned = sink { return }
        if frame.header.isError {
            sink.fail(remoteError(frame))
            return
        }
        let reply = Reply(header: frame.header, body: owned(frame, in: buffer))
        switch sink {
        case .single(let completion):
            guard !frame.header.hasMore else {
                // Only the streams are answered in fragments; the rest of this one goes to nobody.
                inFlight[frame.header.requestID]?.sink = .abandoned
                completion(
                    .failure(
                        .protocolViolation(
                            .malformed(message: "reply", offset: 0, detail: "fragments of an answer that has none"))))
                return
            }
            completion(.success(reply))
        case .stream(let page, let end):
            page(reply)
            if !frame.header.hasMore { end(.success(())) }
        case .abandoned:
            break
        }
    }

    /// The body of a frame that outlives the read: shared with the read buffer when it lies there, copied otherwise.
    private func owned(_ frame: Frame, in buffer: ByteBuffer) -> ByteBuffer {
        if let offset = frame.inputOffset,
            let slice = unsafe buffer.getSlice(at: buffer.readerIndex + offset, length: frame.body.count)
        {
            return slice
        }
        return unsafe ByteBuffer(bytes: frame.body)
    }

    private func remoteError(_ frame: Frame) -> TransportError {
        do {
            return unsafe .remote(try ControlMessage.decode(ErrorBody.self, from: frame.body))
        } catch {
            return .protocolViolation(error)
        }
    }

    private func handleHello(_ frame: Frame) {
        guard phase == .handshaking else {
            violation("HELLO was answered twice")
            return
        }
        if frame.header.isError {
            fail(remoteError(frame))
            return
        }
        do {
            let reply = unsafe try ControlMessage.decode(Cistern_V1_HelloReply.self, from: frame.body)
            guard WireVersion.negotiate(peerMin: reply.version, peerMax: reply.version) == reply.version else {
                fail(
                    .handshakeFailed(
                        endpoint: endpoint, reason: "the server chose version \(reply.version), which was not offered"))
                return
            }
            open(reply)
        } catch {
            fail(.protocolViolation(error))
        }
    }

    private func open(_ reply: Cistern_V1_HelloReply) {
        checksums = WireFeatures(rawValue: reply.features).contains(.checksums)
        parser.checksumRequired = checksums
        serverFrameBytesMax = min(Int(reply.frameBytesMax), WireLimits.frameBytesMaxHard)
        requestCredit = Int(reply.requestsMax)
        kibMax = Int(clamping: reply.bytesMax) / WireLimits.creditUnitBytes
        kibCredit = kibMax
        phase = .open
        scheduleKeepAlive()
        handshake.succeed(reply)
        sendWaiting()
    }

    private func handleGoAway(_ frame: Frame) {
        let message: Cistern_V1_GoAway
        do {
            message = unsafe try ControlMessage.decode(Cistern_V1_GoAway.self, from: frame.body)
        } catch {
            fail(.protocolViolation(error))
            return
        }
        guard !isGoingAway else { return }
        isGoingAway = true
        let unsent = waiting[waitingStart...]
        waiting = []
        waitingStart = 0
        let callbacks = inbox.state.withLock { state in
            state.goAway = message
            defer { state.goAwayCallbacks = [] }
            return state.goAwayCallbacks
        }
        for request in unsent { request.sink.fail(.goingAway) }
        for callback in callbacks { callback(message) }
        closeWhenDrained()
    }

    private func closeWhenDrained() {
        if isGoingAway && inFlight.isEmpty { close(.goingAway) }
    }

    // MARK: - The end

    private func violation(_ detail: String) {
        fail(.protocolViolation(.malformed(message: "frame", offset: 0, detail: detail)))
    }

    private func fail(_ error: TransportError) { close(error) }

    /// Closes; everything unanswered fails with `reason`. Idempotent.
    func close(_ reason: TransportError) {
        finish(reason)
        context?.close(promise: nil)
    }

    private func finish(_ reason: TransportError) {
        guard phase != .closed else { return }
        let wasHandshaking = phase == .handshaking
        phase = .closed
        closeReason = reason
        keepAliveTask?.cancel()
        deadlineTask?.cancel()
        keepAliveTask = nil
        deadlineTask = nil
        let left = inbox.state.withLock { state -> [OutgoingRequest] in
            state.closed = reason
            state.goAwayCallbacks = []
            defer { state.requests = [] }
            return state.requests
        }
        if wasHandshaking { handshake.fail(reason) }
        let unanswered = inFlight.values.map(\.sink) + waiting[waitingStart...].map(\.sink) + left.map(\.sink)
        inFlight = [:]
        waiting = []
        waitingStart = 0
        for sink in unanswered { sink.fail(reason) }
    }

    // MARK: - Keep-alive

    private func scheduleKeepAlive() {
        keepAliveTask = eventLoop.assumeIsolated().scheduleTask(in: options.keepAlive.interval) {
            guard self.phase == .open else { return }
            switch self.keepAlive.tick() {
            case .nothing: break
            case .ping:
                self.output.append(.request(.ping, id: 0, bodySize: 0), checksum: self.checksums, body: [])
                self.flush()
            case .giveUp:
                let silence = self.options.keepAlive.interval * (self.options.keepAlive.missedMax + 1)
                self.close(
                    .closed(
                        reason: "the server was silent for \(silence.nanoseconds / 1_000_000) ms and answered no PING"))
                return
            }
            self.scheduleKeepAlive()
        }
    }

    // MARK: - ChannelHandler

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { sendHello() }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        finish(.closed(reason: "the connection was taken down"))
        self.context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        sendHello()
        context.fireChannelActive()
    }

    private func sendHello() {
        var hello = Cistern_V1_Hello()
        hello.versionMin = WireVersion.min
        hello.versionMax = WireVersion.max
        hello.features = WireFeatures.supported.rawValue
        hello.client = options.client
        hello.token = options.token
        hello.frameBytesMax = UInt32(options.frameBytesMax)
        let body = ControlMessage.encode(hello)
        output.append(.request(.hello, id: 0, bodySize: body.count), checksum: true, body: body)
        flush()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        keepAlive.inbound()
        isReading = true
        let buffer = unwrapInboundIn(data)
        _ = unsafe buffer.withUnsafeReadableBytes { unsafe consume($0, buffer) }
    }

    private func consume(_ input: UnsafeRawBufferPointer, _ buffer: ByteBuffer) -> Int {
        var offset = 0
        while phase != .closed {
            do {
                guard let frame = unsafe try parser.next(in: input, from: &offset) else { break }
                handle(frame, in: buffer)
            } catch {
                fail(.protocolViolation(error))
            }
        }
        return offset
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        flush()
        context.fireChannelReadComplete()
    }

    func channelInactive(context: ChannelHandlerContext) {
        let partial = parser.partialBytes
        finish(
            .closed(
                reason: partial > 0
                    ? "\(endpoint) was cut off after \(partial) bytes of a frame" : "\(endpoint) closed the connection")
        )
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close(.closed(reason: "\(endpoint): \(error)"))
    }
}
