// One client of a log node: decodes a read's worth of requests into one hand-over to the node, writes the answers that gather in
// one flush.
//
//   frames ─► decode ─► calls ── end of a read ─► LogNodeService.submit
//   one write ◄─ encode in place ◄─ answersCame ◄─ LogNodeMailbox.deliver (the node's thread)
//
// Bounds: bytes of adds without an answer (the connection is not read from above it), of this connection and of all; bytes that
// reads allow their answers (further reads wait here, in their order).
//
// Threading: everything on the connection's event loop.

internal import CisternLogProtocol
internal import CisternLogWire
internal import CisternPrimitives
internal import CisternTransport
internal import CisternWire
internal import NIOCore

final class LogNodeSession: FrameService {
    private struct Pending {
        let header: FrameHeader
        /// Bytes of an add.
        var addBytes = 0
        /// Bytes that a read allows its answer.
        var answerBytes = 0
    }

    private let node: any LogNodeService
    private let options: LogNodeListenerOptions
    private let budget: UnansweredBudget
    private let mailbox = LogNodeMailbox()

    private var connection: ServerConnection?
    private var pending: [UInt64: Pending] = [:]
    /// Of the read that goes on.
    private var calls: [LogNodeCall] = []
    private var callBytes = 0
    private var unansweredBytes = 0
    private var nodeIsFull = false
    /// In their order, with what each allows its answer; they are pending already.
    private var waitingReads: [(call: LogNodeCall, answerBytes: Int)] = []
    private var answerBytes = 0

    init(node: any LogNodeService, options: LogNodeListenerOptions, budget: UnansweredBudget) {
        self.node = node
        self.options = options
        self.budget = budget
    }

    // MARK: - FrameService

    func opened(_ connection: ServerConnection) {
        self.connection = connection
        mailbox.open(NIOLoopBound(self, eventLoop: connection.eventLoop))
    }

    func received(_ header: FrameHeader, body: UnsafeRawBufferPointer) {
        guard let connection else { return }
        do {
            guard let opcode = header.opcode, let request = unsafe try LogRequestBody.decode(opcode, body) else {
                return connection.replyError(
                    to: header,
                    ErrorBody(.unsupportedOpcode, "\(name(of: header)) is no request that a log node answers"))
            }
            if let refusal = refusal(of: request, header) { return connection.replyError(to: header, refusal) }
            accept(LogNodeCall(id: header.requestID, request: request), header, connection)
        } catch {
            connection.replyError(to: header, ErrorBody(error))
        }
    }

    func readComplete() {
        if !calls.isEmpty {
            let batch = calls
            calls.removeAll(keepingCapacity: true)
            node.submit(batch, from: mailbox)
        }
        guard callBytes > 0, let connection else { return }
        let loop = NIOLoopBound(self, eventLoop: connection.eventLoop)
        unansweredBytes += callBytes
        let fits = budget.take(callBytes) { loop.eventLoop.execute { loop.value.nodeHasRoom() } }
        callBytes = 0
        // Once is enough: the one that waits already comes back.
        if !fits { nodeIsFull = true }
        holdOrRelease()
    }

    func writabilityChanged(_ isWritable: Bool) {
        if isWritable {
            admitReads()
            readComplete()
        }
    }

    func closed(_ reason: String) {
        connection = nil
        mailbox.close()
        node.disconnected(mailbox)
        budget.giveBack(unansweredBytes)
        unansweredBytes = 0
        callBytes = 0
        calls = []
        waitingReads = []
        pending = [:]
    }

    // MARK: - Requests

    private func refusal(of request: NodeRequest, _ header: FrameHeader) -> ErrorBody? {
        guard let connection else { return nil }
        if pending[header.requestID] != nil {
            return ErrorBody(.badMessage, "request \(header.requestID) has the number of one that is not answered yet")
        }
        let rights: AccessGrant.Rights
        switch request {
        case .read(let read): rights = read.fence ? .write : .read
        case .readLAC(let read): rights = read.fence ? .write : .read
        case .add, .writeLAC, .delete: rights = .write
        }
        if connection.grant.allows(rights, store: options.scope) { return nil }
        let needed = "\(rights == .read ? "read" : "write"):\(options.scope)"
        return ErrorBody(
            .permissionDenied,
            "\(name(of: header)) needs \(needed), which token \"\(connection.grant.name)\" does not have")
    }

    private func accept(_ call: LogNodeCall, _ header: FrameHeader, _ connection: ServerConnection) {
        var entry = Pending(header: header)
        switch call.request {
        case .add:
            entry.addBytes = header.bodySize
            callBytes += header.bodySize
        case .read(let read):
            entry.answerBytes = max(1, read.bytesMax)
            pending[call.id] = entry
            waitingReads.append((call, entry.answerBytes))
            return admitReads()
        case .readLAC: break
        case .writeLAC, .delete:
            calls.append(call)
            return connection.reply(to: header, body: [])
        }
        pending[call.id] = entry
        calls.append(call)
    }

    /// Reads for whose answers there is room become calls.
    private func admitReads() {
        var admitted = 0
        while admitted < waitingReads.count, hasRoom(forAnswer: waitingReads[admitted].answerBytes) {
            answerBytes += waitingReads[admitted].answerBytes
            calls.append(waitingReads[admitted].call)
            admitted += 1
        }
        waitingReads.removeFirst(admitted)
    }

    private func hasRoom(forAnswer bytes: Int) -> Bool {
        guard connection?.isWritable == true else { return false }
        return answerBytes == 0 || answerBytes + bytes <= options.answerBytesMax
    }

    // MARK: - Answers

    /// Writes what gathered.
    func answersCame() {
        let answers = mailbox.take()
        guard let connection else { return }
        var answered = 0
        for answer in answers { answered += write(answer, connection) }
        unansweredBytes -= answered
        if answered > 0 { budget.giveBack(answered) }
        admitReads()
        // Also lets go what is read again.
        readComplete()
        holdOrRelease()
    }

    /// Returns the bytes of the add that this answers.
    private func write(_ answer: LogNodeAnswer, _ connection: ServerConnection) -> Int {
        guard let entry = pending.removeValue(forKey: answer.id) else { return 0 }
        answerBytes -= entry.answerBytes
        invariant(
            entry.header.opcode == LogReplyBody.opcode(of: answer.reply),
            "the node answers request \(answer.id) as if it were another one")
        unsafe connection.reply(to: entry.header, size: LogReplyBody.size(of: answer.reply)) { memory in
            unsafe LogReplyBody.encode(answer.reply, into: memory)
        }
        return entry.addBytes
    }

    // MARK: - Flow

    private func nodeHasRoom() {
        nodeIsFull = false
        holdOrRelease()
    }

    private var isHolding = false

    private func holdOrRelease() {
        let bound = isHolding ? options.unansweredBytesMax / 2 : options.unansweredBytesMax
        let holds = nodeIsFull || unansweredBytes > bound
        guard holds != isHolding else { return }
        isHolding = holds
        connection?.holdReads(holds)
    }

    private func name(of header: FrameHeader) -> String {
        header.opcode.map { "\($0)" } ?? "opcode \(header.opcodeByte)"
    }
}
