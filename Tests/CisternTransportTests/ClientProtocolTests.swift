// Our client against servers that misbehave.

import CisternTransport
import CisternWire
import CisternWireMessages
import NIOCore
import Synchronization
import Testing

private func connect(
    _ server: RawServer, _ configure: (inout ClientTransportOptions) -> Void = { _ in }
) async throws(TransportError) -> ClientConnection {
    var options = ClientTransportOptions()
    configure(&options)
    return try await ClientConnection.connect(server.endpoint, group: TestGroup.shared, options: options)
}

/// The error of `body`, nil when it throws none.
private func failure(_ body: () async throws(TransportError) -> Void) async -> TransportError? {
    do {
        try await body()
        return nil
    } catch {
        return error
    }
}

/// Greets, waits for one request, and answers with what `answer` sends; the client's error is returned.
private func failureOfOneRequest(
    _ answer: @escaping @Sendable (RawPeer, RawFrame) throws -> Void
) async throws -> TransportError? {
    let server = try RawServer { peer in
        try peer.welcome()
        guard let request = try peer.readFrame() else { return }
        try answer(peer, request)
        _ = try peer.readToEnd()
    }
    let client = try await connect(server)
    let error = await failure { () throws(TransportError) in _ = try await client.request(.multiGet, body: [1]) }
    await client.close()
    return error
}

@Suite struct ClientProtocolTests {
    @Test func aDamagedReplyFailsEverythingAndClosesTheConnection() async throws {
        let server = try RawServer { peer in
            try peer.welcome()
            guard let request = try peer.readFrame(), try peer.readFrame() != nil else { return }
            let header = FrameHeader(
                opcodeByte: request.header.opcodeByte | Opcode.replyBit, requestID: request.header.requestID,
                argument: 0,
                bodySize: 1)
            var frame = header.frame(body: [1])
            frame[24] ^= 0xFF
            try peer.send(frame)
            _ = try peer.readToEnd()
        }
        let client = try await connect(server)
        async let first = failure { () throws(TransportError) in _ = try await client.request(.multiGet, body: [1]) }
        async let second = failure { () throws(TransportError) in _ = try await client.request(.multiGet, body: [2]) }
        for error in await [first, second] {
            guard case .protocolViolation(.badChecksum) = error else {
                Issue.record("\(String(describing: error))")
                return
            }
        }
        #expect(!client.isOpen)
    }

    @Test func aReplyThatNobodyAskedForIsAViolation() async throws {
        let error = try await failureOfOneRequest { peer, request in
            var other = request.header
            other.requestID += 1
            try peer.answer(other, body: [])
        }
        guard case .protocolViolation(.malformed) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func aReplyOfAnotherOpcodeIsAViolation() async throws {
        let error = try await failureOfOneRequest { peer, request in
            var other = request.header
            other.opcodeByte = Opcode.scan.rawValue
            try peer.answer(other, body: [])
        }
        guard case .protocolViolation(.malformed) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func fragmentsOfAnAnswerThatHasNoneAreAViolationOfThatRequest() async throws {
        let error = try await failureOfOneRequest { peer, request in
            try peer.answer(request.header, flags: .more, credit: 0, body: [1])
            try peer.answer(request.header, body: [2])
        }
        guard case .protocolViolation = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func anErrorAboutTheConnectionReachesEveryRequest() async throws {
        let error = try await failureOfOneRequest { peer, _ in
            let body = ControlMessage.encode(ErrorBody(.creditExceeded, "too much"))
            let header = FrameHeader(opcodeByte: 0x80, flags: .error, requestID: 0, argument: 0, bodySize: body.count)
            try peer.send(header.frame(body: body))
        }
        guard case .remote(let body) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(body.errorCode == .creditExceeded)
    }

    @Test func aServerCutInsideAFrameIsAClosedConnection() async throws {
        let server = try RawServer { peer in
            try peer.welcome()
            guard let request = try peer.readFrame() else { return }
            let header = FrameHeader(
                opcodeByte: request.header.opcodeByte | Opcode.replyBit, requestID: request.header.requestID,
                argument: 0,
                bodySize: 50)
            try peer.send(Array(header.frame(body: [UInt8](repeating: 1, count: 50))[..<60]))
        }
        let client = try await connect(server)
        let error = await failure { () throws(TransportError) in _ = try await client.request(.multiGet, body: [1]) }
        guard case .closed(let reason) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("60 bytes of a frame"))
    }

    @Test func aServerOfAnotherProtocolIsToldApart() async throws {
        let server = try RawServer { peer in
            try peer.send(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8))
            _ = try? peer.readToEnd()
        }
        let error = await failure { () throws(TransportError) in _ = try await connect(server) }
        #expect(error == .protocolViolation(.badMagic(found: UInt8(ascii: "/"))))
    }

    @Test func aServerThatHangsUpOnHelloFailsTheHandshake() async throws {
        let server = try RawServer { _ in }
        let error = await failure { () throws(TransportError) in _ = try await connect(server) }
        switch error {
        case .handshakeFailed(let endpoint, _): #expect(endpoint == server.endpoint)
        default: Issue.record("\(String(describing: error))")
        }
    }

    @Test func aServerThatNeverAnswersHelloTimesOut() async throws {
        let server = try RawServer { peer in _ = try peer.readToEnd() }
        let error = await failure { () throws(TransportError) in
            _ = try await connect(server) { $0.handshakeTimeout = .milliseconds(20) }
        }
        guard case .handshakeFailed = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func aVersionThatWasNotOfferedIsRefused() async throws {
        let server = try RawServer { peer in
            try peer.welcome { $0.version = 9 }
            _ = try peer.readToEnd()
        }
        let error = await failure { () throws(TransportError) in _ = try await connect(server) }
        guard case .handshakeFailed(_, let reason) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("version 9"))
    }

    @Test func theClientKeepsWithinTheCredits() async throws {
        // The server allows four requests, sees exactly four, answers one, sees one more.
        let seen = Mutex<[Int]>([])
        let server = try RawServer { peer in
            try peer.welcome()
            var requests: [RawFrame] = []
            for _ in 0..<4 { if let request = try peer.readFrame() { requests.append(request) } }
            // A PING of ours comes back behind everything that was sent before it.
            func drained() throws -> Int {
                try peer.sendFrame(.ping, id: 1)
                var count = 0
                while let frame = try peer.readFrame(), frame.header.opcode != .ping {
                    requests.append(frame)
                    count += 1
                }
                return count
            }
            let extra = try drained()
            try peer.answer(requests[0].header, body: [])
            let next = try drained()
            seen.withLock { $0 = [extra, next] }
            for request in requests[1...] { try peer.answer(request.header, body: []) }
            while let request = try peer.readFrame() { try peer.answer(request.header, body: []) }
        }
        let client = try await connect(server)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<10 { group.addTask { _ = try await client.request(.multiGet, body: [1]) } }
            try await group.waitForAll()
        }
        #expect(seen.withLock { $0 } == [0, 1])
        await client.close()
    }

    @Test func aSilentServerIsGivenUpAfterItsPings() async throws {
        let server = try RawServer { peer in
            try peer.welcome()
            while try peer.readFrame() != nil {}
        }
        let client = try await connect(server) {
            $0.keepAlive.interval = .milliseconds(10)
            $0.keepAlive.missedMax = 2
        }
        let error = await failure { () throws(TransportError) in _ = try await client.request(.multiGet, body: [1]) }
        guard case .closed(let reason) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("answered no PING"))
    }

    @Test func aServerThatAnswersPingsIsKept() async throws {
        // The request is answered once it came and two PINGs were answered.
        let server = try RawServer { peer in
            try peer.welcome()
            var pings = 0
            var request: FrameHeader?
            while let frame = try peer.readFrame() {
                if frame.header.opcode == .ping {
                    pings += 1
                    try peer.answer(frame.header, credit: 0, body: frame.body)
                } else {
                    request = frame.header
                }
                if pings >= 2, let asked = request {
                    try peer.answer(asked, body: [9])
                    request = nil
                }
            }
        }
        let client = try await connect(server) { $0.keepAlive.interval = .milliseconds(100) }
        let reply = try await client.request(.multiGet, body: [1])
        #expect(reply.withBody { [UInt8]($0) } == [9])
        await client.close()
    }

    @Test func tooManyWaitingRequestsAreRefused() async throws {
        let server = try RawServer { peer in
            try peer.welcome { $0.requestsMax = 1 }
            while try peer.readFrame() != nil {}
        }
        let client = try await connect(server) { $0.waitingRequestsMax = 3 }
        let errors = Recorder()
        // One hop carries them all: nothing is sent before the last was looked at.
        for _ in 0..<10 {
            client.send(.multiGet, body: []) { result in
                if case .failure(let error) = result { errors.note { $0.closed.append("\(error)") } }
            }
        }
        await errors.wait { !$0.closed.isEmpty }
        #expect(errors.state.closed[0].contains("3 requests wait for credit"))
        await client.close()
    }
}
