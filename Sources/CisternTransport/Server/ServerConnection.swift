// One connection of a server: a synchronous handler that parses frames in place from the read buffer, hands requests to the
// service and gathers replies into one write for each read.
//
//   socket ─ read ─► FrameParser ─► HELLO, PING: answered here
//                                └► request ─ credits ─► FrameService.received
//   socket ◄─ one write for each read ◄─ FrameOutput ◄─ reply(to:) / replyError(to:)
//
// Backpressure: when the client does not take its replies, the channel becomes unwritable; from then on nothing is read and
// what was read already waits unparsed, so that memory is bounded by `unsentBytesHigh`, one gathered buffer, one read and
// the reply of one request. A service whose own queues are full holds reads back the same way (`holdReads`).
//
// Errors: bytes that are not the protocol are answered with one error frame about the connection; then the connection is
// half-closed and what still arrives is thrown away, because closing at once would reset the connection and lose the error
// frame on its way.
//
// Threading: everything on the connection's event loop.

internal import CisternPrimitives
package import CisternWire
internal import CisternWireMessages
internal import Logging
package import NIOCore
package import SwiftProtobuf

package final class ServerConnection: ChannelDuplexHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private enum Phase {
        case waitingForHello
        case open
        /// Told of an error or of the end; reads are thrown away.
        case closing
        case closed
    }

    package let eventLoop: any EventLoop
    /// Unique among the connections of a listener.
    package let id: UInt64

    private let service: any FrameService
    private let options: ServerTransportOptions
    private let admitted: Bool

    private var context: ChannelHandlerContext?
    private var phase = Phase.waitingForHello
    private var parser = FrameParser(frameBytesMax: WireLimits.helloFrameBytesMax, checksumRequired: true)
    private var output: FrameOutput
    private var checksums = true
    private var clientFrameBytesMax = WireLimits.helloFrameBytesMax
    private var credits: CreditAccount
    private var keepAlive: KeepAlive
    private var keepAliveTask: Scheduled<Void>?
    private var handshakeTask: Scheduled<Void>?
    private var lingerTask: Scheduled<Void>?
    /// What the client may do, as its token says; decided by HELLO.
    package private(set) var grant = AccessGrant(name: "", scopes: [])
    private var lastRequestID: UInt64 = 0
    // Set by GO_AWAY: requests above it are refused.
    private var lastAcceptedID: UInt64?

    // Reading. `stalled` holds what was read and waits until the client takes replies again.
    private var stalled: [ByteBuffer] = []
    private var isReading = false
    private var isResuming = false
    private var readIsHeld = false
    private var serviceHoldsReads = false
    private var isFlushScheduled = false
    private var unwritableTicks: Int64 = 0

    // The service hears of the end once, and never from inside one of its own calls.
    private var serviceIsOpen = false
    private var serviceDepth = 0
    private var toldWritable = true
    private var closeReason: String?

    /// `admitted` false answers with BUSY and closes: the server has its maximum of connections.
    package init(
        id: UInt64 = 0, eventLoop: any EventLoop, allocator: ByteBufferAllocator = ByteBufferAllocator(),
        options: ServerTransportOptions, service: any FrameService, admitted: Bool = true
    ) {
        options.validate()
        self.id = id
        self.eventLoop = eventLoop
        self.options = options
        self.service = service
        self.admitted = admitted
        output = FrameOutput(allocator: allocator)
        credits = CreditAccount(
            requestsMax: options.requestsMax, kibMax: options.bytesMax / WireLimits.creditUnitBytes)
        keepAlive = KeepAlive(missedMax: options.keepAlive.missedMax)
    }

    // MARK: - What the service uses

    /// False while the client does not take its replies: hold back fragments of streams until `writabilityChanged`.
    package var isWritable: Bool { phase == .open && channelIsWritable }

    /// Requests that were delivered and not answered yet.
    package var requestsOutstanding: Int { credits.requests }

    /// Largest reply frame the client takes, header included. A larger reply is answered with LIMIT_EXCEEDED instead.
    package var replyFrameBytesMax: Int { clientFrameBytesMax }

    /// While held, nothing is read from the client, and what was read already waits unparsed: for a service that has enough
    /// to do. Also from within one of the service's calls.
    package func holdReads(_ held: Bool) {
        serviceHoldsReads = held
        if !held && !isReading { resume() }
    }

    /// Answers with `size` bytes that `fill` writes in place. `more` says that further frames of this answer follow.
    package func reply(
        to request: FrameHeader, more: Bool = false, size: Int, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        guard phase == .open else { return }
        guard size + FrameHeader.size <= clientFrameBytesMax else {
            replyError(
                to: request,
                ErrorBody(
                    .limitExceeded,
                    "the answer takes a frame of \(size + FrameHeader.size) bytes, the client takes \(clientFrameBytesMax)"
                ))
            return
        }
        let header = FrameHeader(
            opcodeByte: request.opcodeByte | Opcode.replyBit, flags: more ? .more : [], requestID: request.requestID,
            argument: settle(request, more: more), bodySize: size)
        unsafe output.append(header, checksum: checksums, fill: fill)
        replyWasGathered()
    }

    package func reply(to request: FrameHeader, more: Bool = false, body: [UInt8]) {
        unsafe body.withUnsafeBytes { source in
            unsafe reply(to: request, more: more, size: source.count) { target in
                if let base = source.baseAddress {
                    unsafe target.baseAddress!.copyMemory(from: base, byteCount: source.count)
                }
            }
        }
    }

    /// Answers with a control message.
    package func reply(to request: FrameHeader, message: some Message) {
        reply(to: request, body: ControlMessage.encode(message))
    }

    /// Answers with a typed error; it ends the answer, also after fragments.
    package func replyError(to request: FrameHeader, _ error: ErrorBody) {
        guard phase == .open else { return }
        appendError(to: request, error, credit: settle(request, more: false))
    }

    /// Tells the client to finish what is in flight and to connect again. Requests sent later are refused as DRAINING.
    package func sendGoAway(reason: String, reconnectMilliseconds: UInt32 = ErrorCode.draining.retryMilliseconds) {
        guard phase == .open, lastAcceptedID == nil else { return }
        lastAcceptedID = lastRequestID
        var message = Cistern_V1_GoAway()
        message.lastRequest = lastRequestID
        message.reason = reason
        message.reconnectMilliseconds = reconnectMilliseconds
        let body = ControlMessage.encode(message)
        output.append(.request(.goAway, id: 0, bodySize: body.count), checksum: checksums, body: body)
        flush()
    }

    /// Sends what is gathered, then closes.
    package func close(reason: String) {
        guard phase == .open || phase == .waitingForHello else { return }
        beginClosing(reason: reason)
    }

    // MARK: - Replies

    /// Gives the credit of an answered request back; returns it for the reply's header.
    private func settle(_ request: FrameHeader, more: Bool) -> UInt32 {
        if more { return 0 }
        credits.giveBack(kib: request.costKiB)
        return UInt32(request.costKiB)
    }

    private func appendError(to request: FrameHeader, _ error: ErrorBody, credit: UInt32) {
        let body = ControlMessage.encode(error)
        let header = FrameHeader(
            opcodeByte: request.opcodeByte | Opcode.replyBit, flags: .error, requestID: request.requestID,
            argument: credit, bodySize: body.count)
        output.append(header, checksum: checksums, body: body)
        replyWasGathered()
    }

    private func replyWasGathered() {
        if output.count >= ServerTransportOptions.gatheredBytesMax {
            flush()
        } else if !isReading && !isFlushScheduled {
            // Replies of later work: all that complete in this turn of the loop leave together.
            isFlushScheduled = true
            eventLoop.assumeIsolated().execute {
                self.isFlushScheduled = false
                self.flush()
            }
        }
    }

    private func flush() {
        guard let context, let buffer = output.take() else { return }
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    private var channelIsWritable: Bool { context?.channel.isWritable ?? false }
    private var mayRead: Bool { channelIsWritable && !serviceHoldsReads }

    // MARK: - Frames

    private func handle(_ frame: Frame) {
        let header = frame.header
        guard phase == .open else {
            handleHello(frame)
            return
        }
        guard let opcode = header.opcode else {
            appendError(
                to: header,
                ErrorBody(
                    .unsupportedOpcode,
                    "request \(header.requestID) has opcode \(header.opcodeByte), which this server does not have"),
                credit: UInt32(header.costKiB))
            return
        }
        if opcode.isConnectionControl || header.isReply {
            handleConnectionFrame(opcode, frame)
        } else {
            handleRequest(header, frame)
        }
    }

    private func handleRequest(_ header: FrameHeader, _ frame: Frame) {
        if let lastAcceptedID, header.requestID > lastAcceptedID {
            appendError(
                to: header,
                ErrorBody(.draining, "request \(header.requestID) came after GO_AWAY and was not carried out"),
                credit: UInt32(header.costKiB))
            return
        }
        guard credits.take(kib: header.costKiB) else {
            // Answered like any request, then closed: the two sides do not count alike.
            let error = ErrorBody(
                .creditExceeded,
                "request \(header.requestID) of \(header.costKiB) KiB goes beyond the credit: \(credits.requests) of "
                    + "\(credits.requestsMax) requests and \(credits.kib) of \(credits.kibMax) KiB are outstanding")
            appendError(to: header, error, credit: UInt32(header.costKiB))
            beginClosing(reason: error.summary)
            return
        }
        lastRequestID = max(lastRequestID, header.requestID)
        serviceDepth += 1
        unsafe service.received(header, body: frame.body)
        leaveService()
    }

    private func handleConnectionFrame(_ opcode: Opcode, _ frame: Frame) {
        switch (opcode, frame.header.isReply) {
        case (.ping, false):
            guard unsafe frame.body.count <= WireLimits.pingBodyBytesMax else {
                let size = unsafe frame.body.count
                fail(
                    ErrorBody(.limitExceeded, "PING of \(size) bytes, at most \(WireLimits.pingBodyBytesMax) allowed"))
                return
            }
            let header = unsafe FrameHeader(
                opcodeByte: Opcode.ping.rawValue | Opcode.replyBit, requestID: frame.header.requestID, argument: 0,
                bodySize: frame.body.count)
            unsafe output.append(header, checksum: checksums, body: frame.body)
            replyWasGathered()
        case (.ping, true):
            break  // The answer to our PING: that bytes came is all it tells.
        case (.hello, false):
            fail(ErrorBody(.badMessage, "HELLO was sent twice on one connection"))
        default:
            fail(ErrorBody(.badMessage, "frame \(opcode) of a client is not a request"))
        }
    }

    private func handleHello(_ frame: Frame) {
        guard frame.header.opcode == .hello, !frame.header.isReply else {
            fail(
                ErrorBody(
                    .helloRequired, "the first frame of a connection has opcode \(frame.header.opcodeByte), not HELLO"))
            return
        }
        do {
            let hello = unsafe try ControlMessage.decode(Cistern_V1_Hello.self, from: frame.body)
            let agreement = try ServerHandshake(options: options).answer(hello)
            open(agreement, frame.header)
        } catch let error as WireError {
            fail(ErrorBody(error))
        } catch let refusal as HandshakeRefusal {
            appendError(to: frame.header, refusal.error, credit: 0)
            beginClosing(reason: refusal.error.summary)
        } catch {
            fail(ErrorBody(.internalError, "\(error)"))
        }
    }

    private func open(_ agreement: ServerHandshake.Agreement, _ request: FrameHeader) {
        let body = ControlMessage.encode(agreement.reply)
        let header = FrameHeader(
            opcodeByte: Opcode.hello.rawValue | Opcode.replyBit, requestID: request.requestID, argument: 0,
            bodySize: body.count)
        // HELLO frames carry a checksum in any case.
        output.append(header, checksum: true, body: body)
        checksums = agreement.checksums
        clientFrameBytesMax = agreement.clientFrameBytesMax
        grant = agreement.grant
        parser.frameBytesMax = options.frameBytesMax
        parser.checksumRequired = agreement.checksums
        phase = .open
        handshakeTask?.cancel()
        handshakeTask = nil
        scheduleKeepAlive()
        serviceIsOpen = true
        serviceDepth += 1
        service.opened(self)
        leaveService()
    }

    // MARK: - The end

    /// Answers with an error about the connection and closes it.
    private func fail(_ error: ErrorBody) {
        let body = ControlMessage.encode(error)
        let header = FrameHeader(
            opcodeByte: Opcode.connection.rawValue | Opcode.replyBit, flags: .error, requestID: 0, argument: 0,
            bodySize: body.count)
        output.append(header, checksum: true, body: body)
        beginClosing(reason: error.summary)
    }

    private func beginClosing(reason: String) {
        guard phase != .closing, phase != .closed, let context else { return }
        phase = .closing
        stalled.removeAll()
        tellService(reason)
        let flushed = context.eventLoop.makePromise(of: Void.self)
        context.writeAndFlush(wrapOutboundOut(output.take() ?? ByteBuffer()), promise: flushed)
        let halfClosed = context.eventLoop.makePromise(of: Void.self)
        flushed.futureResult.assumeIsolated().whenComplete { _ in
            guard let context = self.context else { return }
            context.close(mode: .output, promise: halfClosed)
        }
        halfClosed.futureResult.assumeIsolated().whenFailure { _ in
            self.context?.close(promise: nil)
        }
        lingerTask = eventLoop.assumeIsolated().scheduleTask(in: options.lingerTimeout) {
            self.context?.close(promise: nil)
        }
        // What still comes is read, so that the peer's end is seen.
        releaseRead()
    }

    private func finish(_ reason: String) {
        guard phase != .closed else { return }
        phase = .closed
        stalled.removeAll()
        for task in [keepAliveTask, handshakeTask, lingerTask] { task?.cancel() }
        keepAliveTask = nil
        handshakeTask = nil
        lingerTask = nil
        tellService(reason)
    }

    private func tellService(_ reason: String) {
        if closeReason == nil { closeReason = reason }
        guard serviceIsOpen, serviceDepth == 0, let closeReason else { return }
        serviceIsOpen = false
        service.closed(closeReason)
    }

    private func leaveService() {
        serviceDepth -= 1
        if let closeReason {
            tellService(closeReason)
        } else {
            tellWritability()
        }
    }

    /// A write inside a call of the service may change this several times; the service hears of the outcome after it.
    private func tellWritability() {
        guard serviceIsOpen, serviceDepth == 0, toldWritable != channelIsWritable else { return }
        toldWritable = channelIsWritable
        serviceDepth += 1
        service.writabilityChanged(toldWritable)
        leaveService()
    }

    // MARK: - Keep-alive

    private func scheduleKeepAlive() {
        keepAliveTask = eventLoop.assumeIsolated().scheduleTask(in: options.keepAlive.interval) {
            self.keepAliveTick()
        }
    }

    private func keepAliveTick() {
        guard phase == .open else { return }
        if !channelIsWritable {
            // Nothing is read from this client, so its silence means nothing; its not reading does.
            unwritableTicks += 1
            let limit = options.stalledReaderTimeout.nanoseconds
            if unwritableTicks * options.keepAlive.interval.nanoseconds >= limit {
                abort("the client took no replies for \(limit / 1_000_000) ms")
                return
            }
        } else if serviceHoldsReads {
            // Nothing is read because of us: silence means nothing, and the client does read.
            unwritableTicks = 0
        } else {
            unwritableTicks = 0
            switch keepAlive.tick() {
            case .nothing: break
            case .ping:
                output.append(
                    .request(.ping, id: 0, bodySize: 0), checksum: checksums, body: [])
                flush()
            case .giveUp:
                let silence = options.keepAlive.interval * (options.keepAlive.missedMax + 1)
                abort("the client was silent for \(silence.nanoseconds / 1_000_000) ms and answered no PING")
                return
            }
        }
        scheduleKeepAlive()
    }

    /// Closes without a word: the peer does not read.
    private func abort(_ reason: String) {
        if closeReason == nil { closeReason = reason }
        context?.close(promise: nil)
    }

    // MARK: - ChannelHandler

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { start() }
    }

    package func handlerRemoved(context: ChannelHandlerContext) {
        finish("the connection was taken down")
        self.context = nil
    }

    package func channelActive(context: ChannelHandlerContext) {
        start()
        context.fireChannelActive()
    }

    private func start() {
        guard handshakeTask == nil, phase == .waitingForHello else { return }
        guard admitted else {
            fail(ErrorBody(.busy, "the server has its maximum of \(options.connectionsMax) connections"))
            return
        }
        handshakeTask = eventLoop.assumeIsolated().scheduleTask(in: options.handshakeTimeout) {
            guard self.phase == .waitingForHello else { return }
            let limit = self.options.handshakeTimeout.nanoseconds / 1_000_000
            self.fail(ErrorBody(.helloRequired, "no HELLO came within \(limit) ms"))
        }
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        keepAlive.inbound()
        isReading = true
        let buffer = unwrapInboundIn(data)
        if !stalled.isEmpty {
            stalled.append(buffer)
        } else if let rest = parse(buffer) {
            stalled.append(rest)
        }
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        completeRead()
        resume()
    }

    /// Ends one read: batch work of the service, then one write for all replies.
    private func completeRead() {
        if serviceIsOpen {
            serviceDepth += 1
            service.readComplete()
            leaveService()
        }
        isReading = false
        flush()
    }

    /// Parses what waits, until the client stops taking replies.
    private func parseStalled() {
        var index = 0
        let buffers = stalled
        stalled.removeAll()
        while index < buffers.count {
            let rest = parse(buffers[index])
            index += 1
            if let rest {
                stalled = [rest] + buffers[index...]
                return
            }
            if phase == .closing || phase == .closed { return }
        }
    }

    /// Delivers the frames of one buffer; returns what must wait.
    private func parse(_ buffer: ByteBuffer) -> ByteBuffer? {
        let consumed = unsafe buffer.withUnsafeReadableBytes { unsafe consume($0) }
        if consumed == buffer.readableBytes || phase == .closing || phase == .closed { return nil }
        var rest = buffer
        rest.moveReaderIndex(forwardBy: consumed)
        return rest
    }

    private func consume(_ input: UnsafeRawBufferPointer) -> Int {
        var offset = 0
        while phase == .waitingForHello || phase == .open {
            if !mayRead { return offset }
            do {
                guard let frame = unsafe try parser.next(in: input, from: &offset) else { break }
                handle(frame)
            } catch {
                fail(ErrorBody(error))
            }
        }
        return input.count
    }

    package func read(context: ChannelHandlerContext) {
        if phase != .closing && (!mayRead || !stalled.isEmpty) {
            readIsHeld = true
        } else {
            context.read()
        }
    }

    private func releaseRead() {
        guard readIsHeld else { return }
        readIsHeld = false
        context?.read()
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        tellWritability()
        if !isReading { resume() }
        context.fireChannelWritabilityChanged()
    }

    /// Goes on with what waited for the client, as long as it takes replies. A write may call back into this.
    private func resume() {
        guard !isResuming else { return }
        isResuming = true
        while mayRead && !stalled.isEmpty {
            isReading = true
            parseStalled()
            completeRead()
        }
        isResuming = false
        if mayRead { releaseRead() }
    }

    package func channelInactive(context: ChannelHandlerContext) {
        let partial = parser.partialBytes
        finish(
            closeReason
                ?? (partial > 0
                    ? "the connection was cut after \(partial) bytes of a frame" : "the client closed the connection"))
        context.fireChannelInactive()
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        abort("\(error)")
    }
}
