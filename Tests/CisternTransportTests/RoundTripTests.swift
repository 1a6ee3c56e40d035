// Our client against our listener, over TCP and a Unix socket.

import CisternTransport
import CisternWire
import CisternWireMessages
import Foundation
import NIOCore
import Synchronization
import Testing

private func connected(
    _ server: TestServer, _ configure: (inout ClientTransportOptions) -> Void = { _ in }
) async throws -> ClientConnection {
    var options = ClientTransportOptions()
    configure(&options)
    return try await ClientConnection.connect(server.endpoint, group: TestGroup.shared, options: options)
}

private func bytes(_ reply: Reply) -> [UInt8] { reply.withBody { [UInt8]($0) } }

@Suite struct RoundTripTests {
    @Test func helloTellsWhoTheServerIsAndWhatItAllows() async throws {
        try await withServer { server in
            let client = try await connected(server)
            #expect(client.hello.server == "test 1" && client.hello.serverID == "id-1" && client.hello.version == 1)
            #expect(client.hello.features == 1 && client.hello.wallMilliseconds > 0)
            #expect(Int(client.hello.requestsMax) == WireLimits.requestsMaxDefault)
            await client.close()
            #expect(!client.isOpen)
        }
    }

    @Test func aRequestIsAnsweredOverTCP() async throws {
        try await withServer { server in
            let client = try await connected(server)
            let reply = try await client.request(.multiGet, body: [1, 2, 3])
            #expect(bytes(reply) == [1, 2, 3])
            await client.close()
        }
    }

    @Test func aRequestIsAnsweredOverAUnixSocket() async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("cistern-\(UUID().uuidString).sock")
            .path
        try await withServer(endpoint: .unix(path: path)) { server in
            let client = try await connected(server)
            let back1 = try await client.request(.multiGet, body: [4])
            #expect(bytes(back1) == [4])
            await client.close()
        }
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test func aUnixSocketThatAnswersIsNotTakenOver() async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("cistern-\(UUID().uuidString).sock")
            .path
        try await withServer(endpoint: .unix(path: path)) { server in
            await #expect(throws: TransportError.self) {
                _ = try await Listener.bind([.unix(path: path)], group: TestGroup.shared) { _ in TestService(Recorder())
                }
            }
            let client = try await connected(server)
            let back2 = try await client.request(.multiGet, body: [4])
            #expect(bytes(back2) == [4])
            await client.close()
        }
    }

    @Test func manyRequestsOfManyTasksShareAConnection() async throws {
        try await withServer { server in
            let client = try await connected(server)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<20 {
                    group.addTask {
                        for round in 0..<50 {
                            let body = [UInt8](repeating: UInt8(task), count: round * 7)
                            let back3 = try await client.request(.multiGet, body: body)
                            #expect(bytes(back3) == body)
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(server.recorder.state.received.count == 1000)
            await client.close()
        }
    }

    @Test func aBatchIsSentInItsOrderAndWrittenInPlace() async throws {
        try await withServer { server in
            let client = try await connected(server)
            let (stream, continuation) = AsyncStream.makeStream(of: [UInt8].self)
            let batch = (0..<100 as Range<UInt8>).map { number in
                OutgoingRequest(.multiGet, size: 2, deadline: nil) { memory in
                    memory[0] = number
                    memory[1] = 7
                } completion: { result in
                    continuation.yield((try? result.get()).map(bytes) ?? [])
                }
            }
            client.send(batch)
            var answers: [[UInt8]] = []
            for await answer in stream {
                answers.append(answer)
                if answers.count == batch.count { break }
            }
            #expect(answers == (0..<100).map { [$0, 7] })
            await client.close()
            let late = await withCheckedContinuation { continuation in
                client.send([
                    OutgoingRequest(.multiGet, size: 0, deadline: nil, fill: { _ in }) {
                        continuation.resume(returning: $0)
                    }
                ])
            }
            #expect(throws: TransportError.self) { try late.get() }
        }
    }

    @Test func requestsThatGatherAreReadAndAnsweredInBatches() async throws {
        try await withServer { server in
            let client = try await connected(server)
            let done = Recorder()
            for index in 0..<500 {
                client.send(.multiGet, body: [UInt8(index & 255)]) { result in
                    if case .success = result { done.note { $0.opened += 1 } }
                }
            }
            await done.wait { $0.opened == 500 }
            // 500 frames of 25 bytes: a handful of reads, not 500.
            #expect(server.recorder.state.readCompletes < 250)
            await client.close()
        }
    }

    @Test func largeBodiesStraddleReads() async throws {
        try await withServer { server in
            let client = try await connected(server)
            for size in [100_000, 1 << 20, WireLimits.valueBytesMax] {
                let body = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
                let back4 = try await client.request(.multiGet, body: body)
                #expect(bytes(back4) == body)
            }
            await client.close()
        }
    }

    @Test func moreRequestsThanCreditsWaitTheirTurn() async throws {
        try await withServer { options in
            options.requestsMax = 3
        } _: { server in
            let client = try await connected(server)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<100 {
                    group.addTask {
                        let body = [UInt8](repeating: UInt8(index), count: 2000)
                        let back5 = try await client.request(.multiGet, body: body)
                        #expect(bytes(back5) == body)
                    }
                }
                try await group.waitForAll()
            }
            await client.close()
        }
    }

    @Test func byteCreditsHoldLargeRequestsBack() async throws {
        try await withServer { options in
            options.frameBytesMax = 128 << 10
            options.bytesMax = 128 << 10
        } _: { server in
            let client = try await connected(server)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<20 {
                    group.addTask {
                        let body = [UInt8](repeating: UInt8(index), count: 100_000)
                        let back6 = try await client.request(.multiGet, body: body)
                        #expect(bytes(back6) == body)
                    }
                }
                try await group.waitForAll()
            }
            await client.close()
        }
    }

    @Test func aRequestBeyondTheServersFrameLimitIsNotSent() async throws {
        try await withServer { options in
            options.frameBytesMax = 128 << 10
        } _: { server in
            let client = try await connected(server)
            let body = [UInt8](repeating: 1, count: 128 << 10)
            await #expect(throws: TransportError.requestTooLarge(bytes: (128 << 10) + 24, max: 128 << 10)) {
                _ = try await client.request(.multiGet, body: body)
            }
            let back7 = try await client.request(.multiGet, body: [1])
            #expect(bytes(back7) == [1])
            await client.close()
        }
    }

    @Test func anAnswerBeyondTheClientsFrameLimitBecomesATypedError() async throws {
        try await withServer { server in
            let client = try await connected(server) { $0.frameBytesMax = 64 << 10 }
            do {
                _ = try await client.request(.scan, tree: 1 << 20, body: [])
                Issue.record("no error")
            } catch TransportError.remote(let error) {
                #expect(error.errorCode == .limitExceeded)
            }
            let back8 = try await client.request(.multiGet, body: [1])
            #expect(bytes(back8) == [1])
            await client.close()
        }
    }

    @Test func aTypedErrorReachesTheCallerAndTheConnectionLives() async throws {
        try await withServer { server in
            let client = try await connected(server)
            do {
                _ = try await client.request(.snapshot, body: [])
                Issue.record("no error")
            } catch TransportError.remote(let error) {
                #expect(error.errorCode == .busy && error.class == .retry && error.retryMilliseconds == 50)
            }
            let back9 = try await client.request(.multiGet, body: [1])
            #expect(bytes(back9) == [1])
            await client.close()
        }
    }

    @Test func fragmentsComeInOrderAndTheLastEndsTheStream() async throws {
        try await withServer { server in
            let client = try await connected(server)
            let pages = Mutex<[[UInt8]]>([])
            try await client.stream(.keyIndex, body: []) { page in pages.withLock { $0.append(bytes(page)) } }
            #expect(pages.withLock { $0 } == [[1], [2], [3]])
            await client.close()
        }
    }

    @Test func aLongStreamRunsAgainstBackpressureToItsEnd() async throws {
        try await withServer { server in
            let client = try await connected(server)
            let size = Mutex(0)
            // 64 MiB, far beyond what may wait unsent.
            try await client.stream(.attach, tree: 1024, body: []) { page in
                size.withLock { $0 += page.body.readableBytes }
            }
            #expect(size.withLock { $0 } == 1024 * TestService.fragmentSize)
            await client.close()
        }
    }

    @Test func aDeadlinePassesAndTheLateAnswerIsDropped() async throws {
        try await withServer { options in
            options.requestsMax = 2
        } _: { server in
            let client = try await connected(server)
            await #expect(throws: TransportError.deadlineExceeded(operation: "writeBatch")) {
                _ = try await client.request(.writeBatch, body: [], deadline: .milliseconds(20))
            }
            server.releaseParked()
            // Its credit came back: both slots work at once.
            async let first = client.request(.multiGet, body: [1])
            async let second = client.request(.multiGet, body: [2])
            let back10 = try await first
            #expect(bytes(back10) == [1])
            let back11 = try await second
            #expect(bytes(back11) == [2])
            await client.close()
        }
    }

    @Test func aDeadlinePassesForARequestThatWaitsForCredit() async throws {
        try await withServer { options in
            options.requestsMax = 1
        } _: { server in
            let client = try await connected(server)
            async let parked = client.request(.writeBatch, body: [])
            await server.recorder.wait { $0.received.count == 1 }
            await #expect(throws: TransportError.deadlineExceeded(operation: "multiGet")) {
                _ = try await client.request(.multiGet, body: [], deadline: .milliseconds(20))
            }
            server.releaseParked()
            _ = try await parked
            #expect(server.recorder.state.received.count == 1)
            await client.close()
        }
    }

    @Test func whatIsUnansweredFailsWhenTheServerGoes() async throws {
        try await withServer { server in
            let client = try await connected(server)
            async let parked = client.request(.writeBatch, body: [])
            await server.recorder.wait { $0.received.count == 1 }
            await server.listener.close()
            do {
                _ = try await parked
                Issue.record("no error")
            } catch TransportError.closed(let reason) {
                #expect(reason.contains("closed the connection"))
            }
            await #expect(throws: TransportError.self) { _ = try await client.request(.multiGet, body: []) }
            #expect(!client.isOpen)
        }
    }

    @Test func drainFinishesWhatIsInFlightAndRefusesTheRest() async throws {
        try await withServer { server in
            let client = try await connected(server)
            let away = Recorder()
            client.onGoAway { message in away.note { $0.closed.append(message.reason) } }
            async let parked = client.request(.writeBatch, body: [])
            await server.recorder.wait { $0.received.count == 1 }
            async let drained: Void = server.listener.drain(reason: "upgrade", grace: .seconds(20))
            await away.wait { $0.closed == ["upgrade"] }
            await #expect(throws: TransportError.goingAway) { _ = try await client.request(.multiGet, body: []) }
            server.releaseParked()
            _ = try await parked
            await drained
            #expect(server.listener.connectionCount == 0 && !client.isOpen)
            await #expect(throws: TransportError.self) { _ = try await connected(server) }
        }
    }

    @Test func aConnectionBeyondTheMaximumIsTurnedAwayAsBusy() async throws {
        try await withServer { options in
            options.connectionsMax = 1
        } _: { server in
            let first = try await connected(server)
            do {
                _ = try await connected(server)
                Issue.record("no error")
            } catch TransportError.remote(let error) {
                #expect(error.errorCode == .busy)
            }
            let back12 = try await first.request(.multiGet, body: [1])
            #expect(bytes(back12) == [1])
            await first.close()
        }
    }

    @Test func connectingToNobodySaysWhere() async throws {
        let endpoint = try await {
            let server = try await TestServer.start(group: TestGroup.shared)
            await server.listener.close()
            return server.endpoint
        }()
        do {
            _ = try await ClientConnection.connect(endpoint, group: TestGroup.shared)
            Issue.record("no error")
        } catch TransportError.connectFailed(let where_, _) {
            #expect(where_ == endpoint)
        }
    }

    @Test func anAddressInUseIsATypedError() async throws {
        try await withServer { server in
            await #expect(throws: TransportError.self) {
                _ = try await Listener.bind([.tcp(host: "127.0.0.1", port: server.port)], group: TestGroup.shared) {
                    _ in
                    TestService(Recorder())
                }
            }
        }
    }

    @Test func closeIsIdempotent() async throws {
        try await withServer { server in
            let client = try await connected(server)
            await client.close()
            await client.close()
            await server.listener.close()
        }
    }
}
