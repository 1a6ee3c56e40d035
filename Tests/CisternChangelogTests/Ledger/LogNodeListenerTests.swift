// A log node's network against peers that are broken, greedy or slow.

import CisternLogNetwork
import CisternLogProtocol
import CisternLogWire
import CisternPrimitives
import CisternTestKit
import CisternTransport
import CisternWire
import NIOCore
import NIOPosix
import Synchronization
import Testing

private func withNode(
    _ configure: (inout LogNodeListenerOptions) -> Void = { _ in },
    _ test: (MemoryLogNode, LogNodeListener) async throws -> Void
) async throws {
    var options = LogNodeListenerOptions()
    configure(&options)
    let node = MemoryLogNode()
    let listener = try await LogNodeListener.bind(
        [.tcp(host: "127.0.0.1", port: 0)], node: node, group: TestGroup.shared, options: options)
    do {
        try await test(node, listener)
    } catch {
        await listener.close()
        throw error
    }
    await listener.close()
}

private func connect(_ listener: LogNodeListener, token: String = "") async throws -> ClientConnection {
    var options = ClientTransportOptions()
    options.token = token
    return try await ClientConnection.connect(
        listener.boundEndpoints[0], group: TestGroup.shared, options: options)
}

extension ClientConnection {
    fileprivate func ask(_ request: NodeRequest) async throws(TransportError) -> NodeReply? {
        let opcode = LogRequestBody.opcode(of: request)
        let reply = try await self.request(opcode, body: LogRequestBody.encode(request))
        return reply.withBody { try? LogReplyBody.decode(opcode, $0) }
    }
}

private func add(_ entry: Int64, size: Int = 3) -> NodeRequest {
    .add(
        AddRequest(
            ledger: ledger, entry: EntryID(entry), lac: EntryID(entry - 1), body: body(Int(entry), size: size),
            isRecovery: false))
}

private func read(_ first: Int64, _ count: Int, bytesMax: Int = 1 << 20, fence: Bool = false) -> NodeRequest {
    .read(ReadRequest(ledger: ledger, first: EntryID(first), count: count, bytesMax: bytesMax, fence: fence))
}

extension NodeRequest {
    fileprivate func isAdd(from first: EntryID) -> Bool {
        if case .add(let add) = self { add.entry >= first } else { false }
    }
}

private let stored = NodeReply.add(AddReply(ledger: ledger, entry: .first, refusal: nil))

@Suite(.timeLimit(.minutes(1))) struct LogNodeListenerTests {
    @Test func everyRequestIsAnswered() async throws {
        try await withNode { node, listener in
            let client = try await connect(listener)
            #expect(try await client.ask(add(0)) == stored)
            #expect(try await client.ask(.writeLAC(ledger, lac: .first)) == nil)
            guard case .read(let found)? = try await client.ask(read(0, 2)) else {
                Issue.record("not a read")
                return
            }
            #expect(found.answers == [.present(body(0, size: 3)), .absent] && !found.isFenced)
            let lac = try await client.ask(.readLAC(ReadLACRequest(ledger: ledger, fence: true)))
            #expect(lac == .lac(ReadLACReply(ledger: ledger, lac: .first, isFenced: true)))
            #expect(try await client.ask(add(1)) == .add(AddReply(ledger: ledger, entry: EntryID(1), refusal: .fenced)))
            #expect(try await client.ask(.delete(ledger)) == nil)
            await client.close()
            await node.wait { $0.disconnects == 1 }
        }
    }

    @Test func garbageEndsItsConnectionWithAnErrorAndNothingElse() async throws {
        try await withNode { node, listener in
            let good = try await connect(listener)
            #expect(try await good.ask(add(0)) == stored)
            for seed in [UInt64(1), 2, 3] {
                var random = SeededRandom(seed: seed)
                var garbage = (0..<200).map { _ in UInt8.random(in: 0...255, using: &random) }
                garbage[4] = 0x50
                let end = try await exchange(garbage, listener)
                #expect(end.contains("the magic"))
            }
            // A frame that was damaged after a good start.
            var frame = FrameHeader.request(.logAdd, id: 1, bodySize: 3).frame(body: [1, 2, 3])
            frame[26] ^= 1
            #expect(try await exchange(frame, listener).contains("checksum"))
            #expect(try await good.ask(add(1)) == .add(AddReply(ledger: ledger, entry: EntryID(1), refusal: nil)))
            await good.close()
        }
    }

    @Test func aBodyThatIsNoneIsRefusedAndTheConnectionLives() async throws {
        try await withNode { node, listener in
            let client = try await connect(listener)
            for (opcode, bytes) in [
                (Opcode.logAdd, [UInt8](repeating: 255, count: 40)), (.logRead, []), (.logDelete, [1]),
            ] {
                await #expect {
                    _ = try await client.request(opcode, body: bytes)
                } throws: { error in
                    guard case .remote(let body)? = error as? TransportError else { return false }
                    return body.errorCode == .badMessage && body.summary.contains("cannot be decoded")
                }
            }
            await #expect {
                _ = try await client.request(.multiGet, body: [])
            } throws: { error in
                guard case .remote(let body)? = error as? TransportError else { return false }
                return body.errorCode == .unsupportedOpcode
            }
            #expect(try await client.ask(add(0)) == stored)
            #expect(node.state.requests.count == 1)
            await client.close()
        }
    }

    @Test func aConnectionWithTooMuchUnansweredIsNotReadFrom() async throws {
        try await withNode {
            $0.unansweredBytesMax = 100_000
            $0.transport.bytesMax = 64 << 20
        } _: { node, listener in
            node.change { $0.holdsSyncs = true }
            let client = try await connect(listener)
            let other = try await connect(listener)
            let answers = Task { try await sendAdds(client, 0..<1000, size: 10_000) }
            // 10 MB are on their way; what the node has is bounded, and another connection is served.
            await node.wait { $0.addBytes > 100_000 }
            #expect(try await other.ask(read(5000, 1)) != nil)
            // What one read of the socket brings comes on top.
            #expect(node.state.addBytes < 100_000 + (4 << 20))
            #expect(listener.unansweredBytes < 100_000 + (4 << 20))
            while node.state.durable < 1000 {
                let before = node.state.addBytes
                node.change { $0.sync() }
                if node.state.journal < 1000 { await node.wait { $0.addBytes > before || $0.journal == 1000 } }
            }
            node.change { $0.holdsSyncs = false }
            #expect(try await answers.value == 1000)
            #expect(listener.unansweredBytes == 0)
            await client.close()
            await other.close()
        }
    }

    @Test func theNodesBoundHoldsForAllConnectionsTogether() async throws {
        try await withNode {
            $0.nodeUnansweredBytesMax = 100_000
        } _: { node, listener in
            node.change { $0.holdsSyncs = true }
            let first = try await connect(listener)
            let second = try await connect(listener)
            let one = Task { try await sendAdds(first, 0..<20, size: 10_000) }
            await node.wait { $0.addBytes > 100_000 }
            // The first connection has filled the node: of the second one no more than a read is taken.
            let two = Task { try await sendAdds(second, 20..<220, size: 100_000) }
            await node.wait { state in state.requests.contains { $0.isAdd(from: EntryID(20)) } }
            #expect(node.state.addBytes < 200_000 + (4 << 20))
            node.change { $0.holdsSyncs = false }
            #expect(try await one.value == 20)
            #expect(try await two.value == 200)
            #expect(listener.unansweredBytes == 0)
            await first.close()
            await second.close()
        }
    }

    @Test func readsWaitForRoomInTheAnswers() async throws {
        try await withNode {
            $0.answerBytesMax = 3 << 20
        } _: { node, listener in
            let client = try await connect(listener)
            _ = try await sendAdds(client, 0..<10, size: 1000)
            node.change { $0.holdsReads = true }
            let answers = Task {
                try await withThrowingTaskGroup(of: Int.self) { group in
                    for _ in 0..<12 {
                        group.addTask {
                            guard case .read(let reply)? = try await client.ask(read(0, 10)) else { return 0 }
                            return reply.answers.count
                        }
                    }
                    return try await group.reduce(0, +)
                }
            }
            await node.wait { $0.heldReads.count == 3 }
            // An add that comes behind them is not held up.
            let last = try await client.ask(add(10))
            #expect(last == .add(AddReply(ledger: ledger, entry: EntryID(10), refusal: nil)))
            #expect(node.state.heldReads.count == 3)
            node.change { $0.holdsReads = false }
            #expect(try await answers.value == 120)
            await client.close()
        }
    }

    @Test func aTokenNeedsTheRightOnTheLogService() async throws {
        try await withNode {
            $0.transport.access = TestAccess()
        } _: { node, listener in
            let reader = try await connect(listener, token: "reader")
            #expect(try await reader.ask(read(0, 1)) != nil)
            for request in [add(0), read(0, 1, fence: true), .delete(ledger), .writeLAC(ledger, lac: .first)] {
                await #expect {
                    _ = try await reader.ask(request)
                } throws: { error in
                    guard case .remote(let body)? = error as? TransportError else { return false }
                    return body.errorCode == .permissionDenied && body.summary.contains("write:changelog")
                }
            }
            let writer = try await connect(listener, token: "writer")
            #expect(try await writer.ask(add(0)) == stored)
            await reader.close()
            await writer.close()
        }
    }

    @Test func whatAClientWaitsForIsDroppedWithIt() async throws {
        try await withNode { node, listener in
            let client = try await connect(listener)
            #expect(try await client.ask(add(0)) == stored)
            let waiting = Task {
                try await client.ask(.readLAC(ReadLACRequest(ledger: ledger, fence: false, newerThan: .first)))
            }
            await node.wait { $0.requests.count == 2 }
            await client.close()
            await #expect(throws: TransportError.self) { _ = try await waiting.value }
            await node.wait { $0.disconnects == 1 }
            #expect(node.state.clients.isEmpty)
        }
    }
}

struct TestAccess: AccessControl {
    func grant(token: String) -> AccessGrant? {
        switch token {
        case "reader": AccessGrant(name: token, scopes: [.init(pattern: "changelog", rights: .read)])
        case "writer": AccessGrant(name: token, scopes: [.init(pattern: "change*", rights: [.read, .write])])
        default: nil
        }
    }
}

/// Adds at once; returns how many were stored.
private func sendAdds(_ client: ClientConnection, _ entries: Range<Int64>, size: Int) async throws -> Int {
    let (stream, continuation) = AsyncStream.makeStream(of: Bool.self)
    client.send(
        entries.map { entry in
            let request = add(entry, size: size)
            return OutgoingRequest(.logAdd, size: LogRequestBody.size(of: request), deadline: nil) {
                LogRequestBody.encode(request, into: $0)
            } completion: { result in
                let reply = (try? result.get())?.withBody { try? LogReplyBody.decode(.logAdd, $0) }
                continuation.yield(reply == .add(AddReply(ledger: ledger, entry: EntryID(entry), refusal: nil)))
            }
        })
    var answered = 0
    var good = 0
    for await isGood in stream {
        answered += 1
        if isGood { good += 1 }
        if answered == entries.count { break }
    }
    return good
}

/// Says HELLO and sends bytes that are no frames; returns the text of the error that comes back before the end.
private func exchange(_ bytes: [UInt8], _ listener: LogNodeListener) async throws -> String {
    guard case .tcp(let host, let port) = listener.boundEndpoints[0] else { return "" }
    let channel = try await ClientBootstrap(group: TestGroup.shared).connect(host: host, port: port) { channel in
        channel.eventLoop.makeCompletedFuture {
            try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
        }
    }
    return try await channel.executeThenClose { input, output in
        try await output.write(ByteBuffer(bytes: try GoldenFile.bytes("wire/hello.hex") + bytes))
        var received: [UInt8] = []
        for try await part in input { received += Array(part.readableBytesView) }
        return lastError(received)
    }
}

private func lastError(_ bytes: [UInt8]) -> String {
    var parser = FrameParser(frameBytesMax: 1 << 20, checksumRequired: true)
    return bytes.withUnsafeBytes { input in
        var offset = 0
        var text = "no error"
        while let frame = try? parser.next(in: input, from: &offset) {
            if frame.header.isError, let error = try? ControlMessage.decode(ErrorBody.self, from: frame.body) {
                text = error.summary
            }
        }
        return text
    }
}
