// The server's handler on an embedded channel: time and writability are moved by hand.

import CisternTransport
import CisternWire
import CisternWireMessages
import NIOCore
import NIOEmbedded
import Testing

private struct Harness {
    let channel: EmbeddedChannel
    let service: TestService
    let recorder: Recorder

    init(_ configure: (inout ServerTransportOptions) -> Void = { _ in }) throws {
        var options = ServerTransportOptions()
        configure(&options)
        recorder = Recorder()
        let loop = EmbeddedEventLoop()
        service = TestService(recorder)
        let connection = ServerConnection(eventLoop: loop, options: options, service: service)
        channel = EmbeddedChannel(handler: connection, loop: loop)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    }

    func receive(_ bytes: [UInt8]) throws { try channel.writeInbound(ByteBuffer(bytes: bytes)) }

    /// One write of the handler, as frames.
    func write() throws -> [RawFrame]? {
        guard let buffer = try channel.readOutbound(as: ByteBuffer.self) else { return nil }
        return try frames(Array(buffer.readableBytesView))
    }

    func greet() throws {
        try receive(RawPeer.hello())
        #expect(try write()?.first?.header.opcode == .hello)
    }
}

private func frames(_ bytes: [UInt8]) throws -> [RawFrame] {
    var parser = FrameParser(frameBytesMax: 64 << 20, checksumRequired: true)
    return try bytes.withUnsafeBytes { input in
        var offset = 0
        var frames: [RawFrame] = []
        while let frame = try parser.next(in: input, from: &offset) {
            frames.append(RawFrame(header: frame.header, body: [UInt8](frame.body)))
        }
        return frames
    }
}

private func multiGet(_ id: UInt64, _ body: [UInt8]) -> [UInt8] {
    FrameHeader.request(.multiGet, id: id, bodySize: body.count).frame(body: body)
}

@Suite struct HandlerTests {
    @Test func allRepliesOfOneReadLeaveInOneWrite() throws {
        let harness = try Harness()
        try harness.greet()
        try harness.receive(multiGet(1, [1]) + multiGet(2, [2]) + multiGet(3, [3]))
        let write = try harness.write()
        #expect(write?.map(\.header.requestID) == [1, 2, 3] && write?.map(\.body) == [[1], [2], [3]])
        #expect(try harness.write() == nil)
        #expect(harness.recorder.state.readCompletes == 2)
        _ = try harness.channel.finish()
    }

    @Test func aStreamCutAnywhereIsAnsweredTheSame() throws {
        let stream = multiGet(1, [1, 2, 3]) + multiGet(2, [])
        for cut in 0...stream.count {
            let harness = try Harness()
            try harness.greet()
            try harness.receive(Array(stream[..<cut]))
            try harness.receive(Array(stream[cut...]))
            var answers: [RawFrame] = []
            while let write = try harness.write() { answers += write }
            #expect(answers.map(\.header.requestID) == [1, 2] && answers[0].body == [1, 2, 3])
            _ = try harness.channel.finish()
        }
    }

    @Test func answersOfLaterWorkLeaveTogether() throws {
        let harness = try Harness()
        try harness.greet()
        for id in 1...5 as ClosedRange<UInt64> {
            try harness.receive(FrameHeader.request(.writeBatch, id: id, bodySize: 0).frame(body: []))
        }
        #expect(try harness.write() == nil)
        harness.service.release()
        #expect(try harness.write() == nil)
        harness.channel.embeddedEventLoop.run()
        #expect(try harness.write()?.count == 5)
        _ = try harness.channel.finish()
    }

    @Test func nothingIsParsedWhileTheClientTakesNoReplies() throws {
        let harness = try Harness()
        try harness.greet()
        harness.channel.isWritable = false
        harness.channel.pipeline.fireChannelWritabilityChanged()
        for id in 1...10 as ClosedRange<UInt64> { try harness.receive(multiGet(id, [1])) }
        #expect(harness.recorder.state.received.isEmpty)
        #expect(try harness.write() == nil)
        harness.channel.isWritable = true
        harness.channel.pipeline.fireChannelWritabilityChanged()
        var answers: [UInt64] = []
        while let write = try harness.write() { answers += write.map(\.header.requestID) }
        #expect(answers == Array(1...10) && harness.recorder.state.writability == [false, true])
        _ = try harness.channel.finish()
    }

    @Test func nothingIsParsedWhileTheServiceHoldsReads() throws {
        let harness = try Harness { $0.keepAlive.interval = .seconds(10) }
        try harness.greet()
        let connection = try #require(harness.service.connection)
        connection.holdReads(true)
        for id in 1...10 as ClosedRange<UInt64> { try harness.receive(multiGet(id, [1])) }
        #expect(harness.recorder.state.received.isEmpty)
        // Silence is not held against a client that is not read from.
        harness.channel.embeddedEventLoop.advanceTime(by: .seconds(100))
        #expect(try harness.write() == nil && harness.channel.isActive)
        connection.holdReads(false)
        var answers: [UInt64] = []
        while let write = try harness.write() { answers += write.map(\.header.requestID) }
        #expect(answers == Array(1...10))
        _ = try harness.channel.finish()
    }

    @Test func aSilentClientIsPingedAndThenGivenUp() throws {
        let harness = try Harness { $0.keepAlive.interval = .seconds(10) }
        try harness.greet()
        let loop = harness.channel.embeddedEventLoop
        loop.advanceTime(by: .seconds(10))
        #expect(try harness.write() == nil)
        for _ in 0..<2 {
            loop.advanceTime(by: .seconds(10))
            #expect(try harness.write()?.map(\.header.opcode) == [.ping])
        }
        #expect(harness.recorder.state.closed.isEmpty)
        loop.advanceTime(by: .seconds(10))
        #expect(harness.recorder.state.closed == ["the client was silent for 30000 ms and answered no PING"])
        #expect(!harness.channel.isActive)
    }

    @Test func anyBytesCountAsLife() throws {
        let harness = try Harness { $0.keepAlive.interval = .seconds(10) }
        try harness.greet()
        for id in 1...20 as ClosedRange<UInt64> {
            harness.channel.embeddedEventLoop.advanceTime(by: .seconds(10))
            try harness.receive(multiGet(id, []))
        }
        #expect(harness.recorder.state.closed.isEmpty && harness.recorder.state.received.count == 20)
        _ = try harness.channel.finish()
    }

    @Test func helloMustComeInTime() throws {
        let harness = try Harness { $0.handshakeTimeout = .seconds(3) }
        harness.channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        #expect(try harness.write() == nil)
        harness.channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        #expect(try harness.write()?.first?.error?.errorCode == .helloRequired)
    }

    @Test func afterAnErrorNothingMoreIsParsedAndTheLingerEnds() throws {
        let harness = try Harness { $0.lingerTimeout = .seconds(2) }
        try harness.greet()
        try harness.receive([9, 9, 9, 9, 9])
        #expect(try harness.write()?.first?.error?.errorCode == .badMagic)
        #expect(harness.recorder.state.closed.count == 1)
        if harness.channel.isActive {
            try harness.receive(multiGet(1, [1]))
            harness.channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        }
        #expect(harness.recorder.state.received.isEmpty && !harness.channel.isActive)
        #expect(harness.recorder.state.closed.count == 1)
    }

    @Test func theServiceHearsOfTheEndOnceAndOnlyAfterItWasOpened() throws {
        let silent = try Harness()
        _ = try silent.channel.finish()
        #expect(silent.recorder.state.opened == 0 && silent.recorder.state.closed.isEmpty)
        let open = try Harness()
        try open.greet()
        _ = try open.channel.finish()
        #expect(open.recorder.state.opened == 1 && open.recorder.state.closed == ["the client closed the connection"])
    }

    @Test func repliesAfterTheEndGoNowhere() throws {
        let harness = try Harness()
        try harness.greet()
        try harness.receive(FrameHeader.request(.writeBatch, id: 1, bodySize: 0).frame(body: []))
        let connection = try #require(harness.service.connection)
        let parked = harness.service.parked
        _ = try harness.channel.finish()
        connection.reply(to: parked[0], body: [1])
        connection.replyError(to: parked[0], ErrorBody(.busy, ""))
        connection.sendGoAway(reason: "")
        connection.close(reason: "")
        #expect(try harness.write() == nil)
    }
}
