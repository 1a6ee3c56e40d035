// What a server answers to bytes that no client of ours would send: one typed error, then a defined end, or none.

import CisternPrimitives
import CisternTransport
import CisternWire
import CisternWireMessages
import Foundation
import NIOCore
import Testing

/// The only frame of a connection that was ended by an error about it.
private func connectionError(_ frames: [RawFrame]) -> ErrorBody? {
    guard let last = frames.last, last.header.opcode == .connection, last.header.isReply,
        last.header.requestID == 0
    else { return nil }
    return last.error
}

@Suite struct BadInputTests {
    @Test func aWrongChecksumIsAnsweredAndTheConnectionEnds() async throws {
        try await withServer { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                var frame = FrameHeader.request(.multiGet, id: 1, bodySize: 3).frame(body: [1, 2, 3])
                frame[25] ^= 1
                try peer.sendFrame(.multiGet, id: 9, body: [9])
                try peer.send(frame)
                return try peer.readToEnd()
            }
            // What came before is answered.
            #expect(frames.count == 2 && frames[0].header.requestID == 9 && frames[0].body == [9])
            let error = connectionError(frames)
            #expect(error?.errorCode == .badChecksum && error?.class == .reroute)
            await server.recorder.wait { $0.closed.count == 1 }
            #expect(server.recorder.state.closed[0].hasPrefix("BAD_CRC") && server.recorder.state.received.count == 1)
        }
    }

    @Test func aLengthBeyondTheLimitIsAnsweredBeforeItsBytesCome() async throws {
        try await withServer { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                try peer.send([0xFF, 0xFF, 0xFF, 0x7F, 0xB7])
                return try peer.readToEnd()
            }
            let error = connectionError(frames)
            #expect(error?.errorCode == .frameTooLarge && error?.class == .fatal)
            #expect(error?.message.contains("\(WireLimits.frameBytesMaxDefault)") == true)
        }
    }

    @Test func beforeHelloEvenALegalLengthIsLimited() async throws {
        try await withServer { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.send(
                    FrameHeader.request(.hello, id: 0, bodySize: WireLimits.helloFrameBytesMax)
                        .frame(body: [UInt8](repeating: 0, count: WireLimits.helloFrameBytesMax)))
                return try peer.readToEnd()
            }
            #expect(connectionError(frames)?.errorCode == .frameTooLarge)
        }
    }

    @Test func anUnknownVersionIsRefusedWithBothRanges() async throws {
        try await withServer { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.send(
                    RawPeer.hello {
                        $0.versionMin = 7
                        $0.versionMax = 9
                    })
                return try peer.readToEnd()
            }
            #expect(frames.count == 1 && frames[0].header.opcode == .hello)
            let error = frames.first?.error
            #expect(error?.errorCode == .unsupportedVersion && error?.class == .fatal)
            #expect(error?.message.contains("7 to 9") == true && error?.message.contains("1 to 1") == true)
            #expect(server.recorder.state.opened == 0 && server.recorder.state.closed.isEmpty)
        }
    }

    @Test func anUnknownOpcodeIsAnsweredAndTheConnectionLives() async throws {
        try await withServer { server in
            try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                let header = FrameHeader(opcodeByte: 0x6F, requestID: 5, argument: 0, bodySize: 2000)
                try peer.send(header.frame(body: [UInt8](repeating: 1, count: 2000)))
                let answer = try peer.readFrame()
                #expect(answer?.header.opcodeByte == 0x6F | Opcode.replyBit && answer?.header.requestID == 5)
                #expect(answer?.error?.errorCode == .unsupportedOpcode && answer?.header.creditKiB == 2)
                try peer.sendFrame(.multiGet, id: 6, body: [1])
                #expect(try peer.readFrame()?.body == [1])
            }
        }
    }

    @Test func otherProtocolsAreToldOff() async throws {
        try await withServer { server in
            for garbage in [Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), [0x16, 3, 1, 2, 0, 1, 0, 1]] {
                let frames = try await blocking {
                    let peer = try RawPeer(port: server.port)
                    try peer.send(garbage)
                    return try peer.readToEnd()
                }
                #expect(connectionError(frames)?.errorCode == .badMagic)
            }
        }
    }

    @Test func randomGarbageNeverHurtsOtherConnections() async throws {
        var random = SeededRandom(seed: seed("randomGarbageNeverHurtsOtherConnections"))
        let pieces = (0..<60).map { round -> [UInt8] in
            var bytes = (0..<Int.random(in: 1...300, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            // Half of them with a header that passes for one.
            if round % 2 == 0 && bytes.count > 24 { bytes.replaceSubrange(0..<5, with: [20, 0, 0, 0, 0xB7]) }
            return bytes
        }
        try await withServer { server in
            try await blocking {
                let witness = try RawPeer(port: server.port)
                try witness.greet()
                for (index, garbage) in pieces.enumerated() {
                    let peer = try RawPeer(port: server.port)
                    if index % 3 == 0 { try peer.greet() }
                    try peer.send(garbage)
                    // The server cannot know that short garbage is not the start of a frame: end it from this side.
                    shutdown(peer.descriptor, Int32(SHUT_WR))
                    _ = try? peer.readToEnd()
                    try witness.sendFrame(.multiGet, id: UInt64(index + 1), body: [7])
                    #expect(try witness.readFrame()?.body == [7])
                }
            }
        }
    }

    @Test func theFirstFrameMustBeHello() async throws {
        try await withServer { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.sendFrame(.multiGet, id: 1)
                return try peer.readToEnd()
            }
            #expect(connectionError(frames)?.errorCode == .helloRequired)
        }
    }

    @Test func aDamagedHelloIsATypedError() async throws {
        try await withServer { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.sendFrame(.hello, id: 0, body: [0xFF, 0xFF])
                return try peer.readToEnd()
            }
            #expect(connectionError(frames)?.errorCode == .badMessage)
        }
    }

    @Test func aSecondHelloAndServerFramesOfAClientEndTheConnection() async throws {
        try await withServer { server in
            let bad: [[UInt8]] = [
                RawPeer.hello(), FrameHeader.request(.goAway, id: 0, bodySize: 0).frame(body: []),
                FrameHeader.request(.connection, id: 0, bodySize: 0).frame(body: []),
                FrameHeader(opcodeByte: 0xC1, requestID: 1, argument: 0, bodySize: 0).frame(body: []),
            ]
            for frame in bad {
                let frames = try await blocking {
                    let peer = try RawPeer(port: server.port)
                    try peer.greet()
                    try peer.send(frame)
                    return try peer.readToEnd()
                }
                #expect(connectionError(frames)?.errorCode == .badMessage)
            }
        }
    }

    @Test func flagsOfALaterVersionAndMissingChecksumsEndTheConnection() async throws {
        try await withServer { server in
            let compressed = FrameHeader(
                opcodeByte: 0x41, flags: FrameFlags(rawValue: 8), requestID: 1, argument: 0, bodySize: 0)
            let plain = FrameHeader.request(.multiGet, id: 1, bodySize: 0)
            let cases = [
                (compressed.frame(body: []), ErrorCode.unsupportedFlags),
                (plain.frame(body: [], checksum: false), ErrorCode.badChecksum),
            ]
            for (frame, code) in cases {
                let frames = try await blocking {
                    let peer = try RawPeer(port: server.port)
                    try peer.greet()
                    try peer.send(frame)
                    return try peer.readToEnd()
                }
                #expect(connectionError(frames)?.errorCode == code)
            }
        }
    }

    @Test func aClientWithoutChecksumsIsServedWithoutThem() async throws {
        try await withServer { server in
            try await blocking {
                let peer = try RawPeer(port: server.port)
                let reply = try peer.greet { $0.features = 0 }
                #expect(reply.features == 0)
                try peer.send(FrameHeader.request(.multiGet, id: 1, bodySize: 1).frame(body: [4], checksum: false))
                let answer = try peer.readFrame()
                #expect(answer?.body == [4] && answer?.header.flags.contains(.checksum) == false)
            }
        }
    }

    @Test func moreRequestsThanCreditsEndTheConnection() async throws {
        try await withServer { options in
            options.requestsMax = 2
        } _: { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                #expect(try peer.greet().requestsMax == 2)
                for id in 1...3 as ClosedRange<UInt64> { try peer.sendFrame(.writeBatch, id: id) }
                return try peer.readToEnd()
            }
            #expect(frames.count == 1 && frames[0].header.requestID == 3)
            #expect(frames[0].error?.errorCode == .creditExceeded && frames[0].error?.class == .fatal)
            #expect(server.recorder.state.received.count == 2)
        }
    }

    @Test func moreBytesThanCreditsEndTheConnection() async throws {
        try await withServer { options in
            options.frameBytesMax = 100 << 10
            options.bytesMax = 100 << 10
        } _: { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                let body = [UInt8](repeating: 1, count: 60 << 10)
                try peer.sendFrame(.writeBatch, id: 1, body: body)
                try peer.sendFrame(.writeBatch, id: 2, body: body)
                return try peer.readToEnd()
            }
            #expect(frames.count == 1 && frames[0].header.requestID == 2)
            #expect(frames[0].error?.errorCode == .creditExceeded)
        }
    }

    @Test func theLastAnswerGivesTheCreditBackAndFragmentsDoNot() async throws {
        try await withServer { server in
            try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                try peer.sendFrame(.keyIndex, id: 1, body: [UInt8](repeating: 0, count: 1025))
                let credits = try (0..<3).map { _ in try peer.readFrame()?.header.creditKiB }
                #expect(credits == [0, 0, 2])
            }
        }
    }

    @Test func aConnectionCutInsideAFrameIsSeenAsCut() async throws {
        try await withServer { server in
            try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                let frame = FrameHeader.request(.writeBatch, id: 1, bodySize: 100)
                    .frame(body: [UInt8](repeating: 1, count: 100))
                try peer.send(Array(frame[..<77]))
            }
            await server.recorder.wait { $0.closed.count == 1 }
            #expect(server.recorder.state.closed == ["the connection was cut after 77 bytes of a frame"])
            #expect(server.recorder.state.received.isEmpty)
        }
    }

    @Test func pingIsAnsweredWithItsBodyAndWithoutCredit() async throws {
        try await withServer { options in
            options.requestsMax = 1
        } _: { server in
            try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                try peer.sendFrame(.writeBatch, id: 1)
                for id in 1...3 as ClosedRange<UInt64> {
                    try peer.sendFrame(.ping, id: id, body: [1, 2, 3, 4, 5, 6, 7, UInt8(id)])
                    let pong = try peer.readFrame()
                    #expect(pong?.header.opcode == .ping && pong?.header.isReply == true)
                    #expect(pong?.header.requestID == id && pong?.body.last == UInt8(id))
                }
            }
            #expect(server.recorder.state.received.count == 1)
        }
    }

    @Test func anOversizePingEndsTheConnection() async throws {
        try await withServer { server in
            let frames = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                try peer.sendFrame(.ping, id: 1, body: [UInt8](repeating: 0, count: WireLimits.pingBodyBytesMax + 1))
                return try peer.readToEnd()
            }
            #expect(connectionError(frames)?.errorCode == .limitExceeded)
        }
    }

    @Test func aSlowReaderIsNotReadFromAndLosesNothing() async throws {
        let replySize = 32 << 10
        let requests = 5000
        try await withServer { options in
            options.requestsMax = requests
        } _: { server in
            // 160 MB of answers are asked for, and none is taken until the server stops.
            let peer = try await blocking {
                let peer = try RawPeer(port: server.port, receiveBufferBytes: 64 << 10)
                try peer.greet()
                var stream: [UInt8] = []
                for id in 1...requests {
                    stream += FrameHeader.request(.scan, id: UInt64(id), tree: UInt32(replySize), bodySize: 0)
                        .frame(body: [])
                }
                try peer.send(stream)
                return peer
            }
            await server.recorder.wait { $0.writability.contains(false) }
            // What waits: the high-water mark, one gathered buffer, and the socket buffers of both sides (a few MB).
            #expect(server.recorder.state.received.count * replySize < 24 << 20)
            try await blocking {
                for id in 1...requests {
                    let frame = try peer.readFrame()
                    guard frame?.header.requestID == UInt64(id), frame?.body.count == replySize else {
                        Issue.record("answer \(id) is \(String(describing: frame?.header))")
                        return
                    }
                }
            }
            #expect(server.recorder.state.writability.last == true)
        }
    }

    @Test func aReaderThatStallsForGoodIsClosed() async throws {
        try await withServer { options in
            options.keepAlive.interval = .milliseconds(20)
            options.stalledReaderTimeout = .milliseconds(60)
        } _: { server in
            let peer = try await blocking {
                let peer = try RawPeer(port: server.port, receiveBufferBytes: 32 << 10)
                try peer.greet()
                for id in 1...200 as ClosedRange<UInt64> { try peer.sendFrame(.scan, id: id, tree: 1 << 20) }
                return peer
            }
            await server.recorder.wait { $0.closed.count == 1 }
            #expect(server.recorder.state.closed[0].contains("took no replies"))
            withExtendedLifetime(peer) {}
        }
    }

    @Test func requestsAfterGoAwayAreRefusedAndThoseBeforeAreFinished() async throws {
        try await withServer { server in
            let peer = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                try peer.sendFrame(.writeBatch, id: 4)
                return peer
            }
            await server.recorder.wait { $0.received.count == 1 }
            async let drained: Void = server.listener.drain(reason: "upgrade", grace: .seconds(20))
            let goAway = try await blocking { try peer.readFrame() }
            #expect(goAway?.header.opcode == .goAway && goAway?.header.isReply == false)
            let message = try goAway?.body.withUnsafeBytes {
                try ControlMessage.decode(Cistern_V1_GoAway.self, from: $0)
            }
            #expect(message?.lastRequest == 4 && message?.reason == "upgrade")
            let refused = try await blocking {
                try peer.sendFrame(.multiGet, id: 5, body: [1])
                return try peer.readFrame()
            }
            #expect(refused?.header.requestID == 5 && refused?.error?.errorCode == .draining)
            server.releaseParked()
            let finished = try await blocking { try peer.readFrame() }
            #expect(finished?.header.requestID == 4 && finished?.header.isError == false)
            shutdown(peer.descriptor, Int32(SHUT_RDWR))
            await drained
        }
    }

    @Test func drainEndsConnectionsThatDoNotLeave() async throws {
        try await withServer { server in
            let peer = try await blocking {
                let peer = try RawPeer(port: server.port)
                try peer.greet()
                return peer
            }
            await server.listener.drain(grace: .milliseconds(30))
            let rest = try await blocking { try peer.readToEnd() }
            #expect(rest.map(\.header.opcode) == [.goAway])
            #expect(server.listener.connectionCount == 0)
        }
    }

    @Test func aConnectionThatSaysNothingIsClosed() async throws {
        try await withServer { options in
            options.handshakeTimeout = .milliseconds(20)
        } _: { server in
            let frames = try await blocking { try RawPeer(port: server.port).readToEnd() }
            #expect(connectionError(frames)?.errorCode == .helloRequired)
        }
    }
}

func seed(_ name: String) -> UInt64 {
    let seed =
        ProcessInfo.processInfo.environment["CISTERN_SEED"].flatMap(UInt64.init)
        ?? UInt64.random(in: 1...UInt64(UInt32.max))
    print("\(name): CISTERN_SEED=\(seed)")
    return seed
}
