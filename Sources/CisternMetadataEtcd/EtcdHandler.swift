// One HTTP connection: a request, then its answer line by line. Answers of calls are one line, a watch's are many.

internal import NIOCore
internal import NIOHTTP1

/// Why there is no answer, or which one.
enum EtcdFailure: Error {
    /// Nothing of the request has reached a member.
    case notSent(String)
    /// What was sent may have been done.
    case noAnswer(String)
    /// The member's own answer: a gRPC status.
    case refused(code: Int, message: String)
    /// The answer is larger than the limit; a smaller page is not.
    case tooLarge
    /// A watch from before `oldest`.
    case compacted(oldest: UInt64)

    var detail: String {
        switch self {
        case .notSent(let detail), .noAnswer(let detail): detail
        case .refused(let code, let message): "\(message) (gRPC status \(code))"
        case .tooLarge: "the answer is larger than \(EtcdHandler.lineBytesMax) bytes"
        case .compacted(let oldest): "changes before \(oldest) are not kept any more"
        }
    }
}

struct EtcdLine: Sendable {
    let status: UInt
    let bytes: ByteBuffer
}

/// Owned by its event loop.
final class EtcdHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    static let lineBytesMax = 32 << 20
    /// Beyond so many bytes that nobody has asked for, nothing is read.
    private static let bufferedBytesMax = 1 << 20

    private let endpoint: String
    private var context: ChannelHandlerContext?
    private var status: UInt = 0
    private var buffered = ByteBuffer()
    /// Of `buffered`, without a line's end.
    private var scanned = 0
    private var hasEnded = true
    private var isPaused = false
    private var failure: EtcdFailure?
    private var waiting: EventLoopPromise<EtcdLine?>?

    init(endpoint: String) { self.endpoint = endpoint }

    /// True when another request may be sent.
    var isIdle: Bool { hasEnded && failure == nil && context != nil && buffered.readableBytes == 0 }

    func send(_ head: HTTPRequestHead, _ body: ByteBuffer) {
        guard let context else { return }
        hasEnded = false
        status = 0
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    /// The next line of the answer, nil at its end.
    /// - Precondition: the line before has come.
    func nextLine(_ promise: EventLoopPromise<EtcdLine?>) {
        precondition(waiting == nil, "two wait for the next line of one answer")
        waiting = promise
        deliver()
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): status = head.status.code
        case .body(var part):
            guard buffered.readableBytes + part.readableBytes <= EtcdHandler.lineBytesMax else {
                failure = .tooLarge
                return context.close(promise: nil)
            }
            buffered.writeBuffer(&part)
        case .end: hasEnded = true
        }
        deliver()
        if buffered.readableBytes > EtcdHandler.bufferedBytesMax, waiting == nil { setPaused(true) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(.noAnswer("\(endpoint) has closed the connection"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(.noAnswer("the connection to \(endpoint) failed: \(error)"))
        context.close(promise: nil)
    }

    private func end(_ reason: EtcdFailure) {
        if failure == nil { failure = reason }
        deliver()
    }

    private func setPaused(_ paused: Bool) {
        guard paused != isPaused, let context else { return }
        isPaused = paused
        // It fails only on a channel that is closed, whose end comes by itself.
        context.channel.setOption(.autoRead, value: !paused).whenFailure { _ in }
        if !paused { context.read() }
    }

    private func deliver() {
        guard let promise = waiting else { return }
        if let line = takeLine() {
            waiting = nil
            promise.succeed(line)
        } else if hasEnded, failure == nil {
            waiting = nil
            promise.succeed(nil)
        } else if let failure {
            waiting = nil
            promise.fail(failure)
        } else {
            setPaused(false)
        }
    }

    private func takeLine() -> EtcdLine? {
        let view = buffered.readableBytesView
        let found = view[(view.startIndex + scanned)...].firstIndex(of: UInt8(ascii: "\n"))
        guard let found else {
            scanned = view.count
            guard hasEnded, let rest = buffered.readSlice(length: view.count), rest.readableBytes > 0
            else {
                return nil
            }
            scanned = 0
            buffered.clear()
            return EtcdLine(status: status, bytes: rest)
        }
        scanned = 0
        let line = buffered.readSlice(length: found - view.startIndex)
        buffered.moveReaderIndex(forwardBy: 1)
        if buffered.readableBytes == 0 {
            buffered.clear()
        } else if buffered.readerIndex > EtcdHandler.bufferedBytesMax {
            buffered.discardReadBytes()
        }
        return line.map { EtcdLine(status: status, bytes: $0) }
    }
}
