import CisternPrimitives
import CisternWire
import Testing

/// Frames copied out of a parser.
private struct OwnedFrame: Equatable {
    var header: FrameHeader
    var body: [UInt8]
}

/// Feeds `pieces` one after another and collects every frame.
private func parse(
    _ pieces: [[UInt8]], frameBytesMax: Int = 1 << 20, checksumRequired: Bool = true
) throws(WireError) -> (frames: [OwnedFrame], partialBytes: Int) {
    var parser = FrameParser(frameBytesMax: frameBytesMax, checksumRequired: checksumRequired)
    var frames: [OwnedFrame] = []
    for piece in pieces {
        let result: Result<[OwnedFrame], WireError> = piece.withUnsafeBytes { input in
            var found: [OwnedFrame] = []
            var offset = 0
            do throws(WireError) {
                while let frame = try parser.next(in: input, from: &offset) {
                    found.append(OwnedFrame(header: frame.header, body: [UInt8](frame.body)))
                }
                return .success(found)
            } catch {
                return .failure(error)
            }
        }
        frames += try result.get()
    }
    return (frames, parser.partialBytes)
}

private func request(_ id: UInt64, _ body: [UInt8], opcode: Opcode = .multiGet, tree: UInt32 = 0) -> [UInt8] {
    FrameHeader.request(opcode, id: id, tree: tree, bodySize: body.count).frame(body: body)
}

@Suite struct FrameParserTests {
    @Test func aFrameComesBackAsItWasSealed() throws {
        let header = FrameHeader(
            opcodeByte: Opcode.scan.rawValue | Opcode.replyBit, flags: [.more], requestID: 0x0102_0304_0506_0708,
            argument: 77, bodySize: 3)
        let parsed = try parse([header.frame(body: [9, 8, 7])])
        #expect(parsed.frames.count == 1)
        let back = parsed.frames[0]
        #expect(back.header.opcode == .scan && back.header.isReply && back.header.hasMore && !back.header.isError)
        #expect(back.header.requestID == header.requestID && back.header.creditKiB == 77 && back.body == [9, 8, 7])
        #expect(back.header.frameSize == 27 && parsed.partialBytes == 0)
    }

    @Test func aStreamCutAtEveryByteGivesTheSameFrames() throws {
        let stream = request(1, []) + request(2, [1, 2, 3]) + request(3, [UInt8](repeating: 5, count: 40))
        let whole = try parse([stream]).frames
        #expect(whole.map(\.header.requestID) == [1, 2, 3])
        for cut in 0...stream.count {
            let parsed = try parse([Array(stream[..<cut]), Array(stream[cut...])])
            #expect(parsed.frames == whole && parsed.partialBytes == 0, "cut at \(cut)")
        }
        #expect(try parse(stream.map { [$0] }).frames == whole)
    }

    @Test func randomPiecesOfRandomFramesGiveTheSameFrames() throws {
        var random = seeded("randomPiecesOfRandomFrames")
        for _ in 0..<50 {
            let bodies = (0..<20).map { _ in random.bytes(0...3000) }
            var stream: [UInt8] = []
            for (index, body) in bodies.enumerated() { stream += request(UInt64(index), body) }
            var pieces: [[UInt8]] = []
            var offset = 0
            while offset < stream.count {
                let size = min(stream.count - offset, Int.random(in: 1...4000, using: &random))
                pieces.append(Array(stream[offset..<(offset + size)]))
                offset += size
            }
            #expect(try parse(pieces).frames.map(\.body) == bodies)
        }
    }

    @Test func frameWithinTheInputIsNotCopied() throws {
        var parser = FrameParser(frameBytesMax: 1 << 20, checksumRequired: true)
        let stream = request(1, [1, 2]) + request(2, [3])
        let starts: [Int?] = stream.withUnsafeBytes { input in
            var offset = 0
            var starts: [Int?] = []
            while let frame = try? parser.next(in: input, from: &offset) {
                starts.append(frame.inputOffset)
                #expect(frame.body.baseAddress == input.baseAddress! + frame.inputOffset!)
            }
            return starts
        }
        #expect(starts == [24, 50])
    }

    @Test func everyFlippedBitOfAFrameIsSeen() {
        let frame = request(7, [1, 2, 3, 4], tree: 5)
        for bit in 0..<(frame.count * 8) {
            var damaged = frame
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            let outcome = Result { () throws(WireError) in try parse([damaged], frameBytesMax: 4096) }
            switch outcome {
            case .success(let parsed):
                // A longer length waits for bytes that never come, and is cut when the connection ends.
                #expect(parsed.frames.isEmpty && parsed.partialBytes == frame.count && bit < 32, "bit \(bit)")
            case .failure(let error):
                switch error {
                case .badChecksum, .checksumMissing: break
                case .badMagic: #expect(bit / 8 == 4)
                case .frameTooLarge, .frameTooShort: #expect(bit < 32)
                default: Issue.record("bit \(bit): \(error)")
                }
            }
        }
    }

    @Test func aWrongChecksumNamesBothSums() {
        var frame = request(1, [1, 2, 3])
        frame[26] ^= 1
        let error = wireError { () throws(WireError) in _ = try parse([frame]) }
        guard case .badChecksum(let expected, let found) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(expected != found && error?.code == .badChecksum)
    }

    @Test func frameWithoutAChecksumPassesOnlyWhenNoneIsRequired() throws {
        let frame = FrameHeader.request(.scan, id: 1, bodySize: 1).frame(body: [1], checksum: false)
        #expect(wireError { () throws(WireError) in _ = try parse([frame]) } == .checksumMissing)
        #expect(try parse([frame], checksumRequired: false).frames.count == 1)
    }

    @Test func aLengthBeyondTheLimitIsRefusedByItsHeaderAlone() {
        var frame = request(1, [])
        frame.replaceSubrange(0..<4, with: [0xFF, 0xFF, 0xFF, 0xFF])
        let error = wireError { () throws(WireError) in _ = try parse([Array(frame[..<5])], frameBytesMax: 1000) }
        #expect(error == .frameTooLarge(bytes: 0xFFFF_FFFF + 4, max: 1000))
    }

    @Test func theLimitItselfIsAllowedAndOneByteMoreIsNot() throws {
        let body = [UInt8](repeating: 1, count: 100)
        #expect(try parse([request(1, body)], frameBytesMax: 124).frames.count == 1)
        let error = wireError { () throws(WireError) in _ = try parse([request(1, body)], frameBytesMax: 123) }
        #expect(error == .frameTooLarge(bytes: 124, max: 123))
    }

    @Test func aLengthThatDoesNotCoverTheHeaderIsRefused() {
        for length in UInt8(0)..<20 {
            var frame = request(1, [])
            frame[0] = length
            let error = wireError { () throws(WireError) in _ = try parse([frame]) }
            #expect(error == .frameTooShort(bytes: Int(length) + 4))
        }
    }

    @Test func otherProtocolsAreToldApartByTheirFirstBytes() {
        let http = Array("GET / HTTP/1.1\r\n\r\n".utf8)
        let tls: [UInt8] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01]
        for bytes in [http, tls] {
            let error = wireError { () throws(WireError) in _ = try parse([bytes]) }
            #expect(error == .badMagic(found: bytes[4]))
        }
    }

    @Test func flagsOfALaterVersionAreRefused() {
        let header = FrameHeader(
            opcodeByte: 0x40, flags: FrameFlags(rawValue: 1 << 3), requestID: 1, argument: 0, bodySize: 0)
        let error = wireError { () throws(WireError) in _ = try parse([header.frame(body: [])]) }
        #expect(error == .unsupportedFlags(0b1001))
    }

    @Test func anUnknownOpcodeIsAFrameLikeAnyOther() throws {
        let header = FrameHeader(opcodeByte: 0x6F, requestID: 4, argument: 0, bodySize: 2)
        let frames = try parse([header.frame(body: [1, 2])]).frames
        #expect(frames[0].header.opcode == nil && frames[0].header.opcodeByte == 0x6F && frames[0].body == [1, 2])
    }

    @Test func aBrokenStreamStaysBroken() throws {
        var parser = FrameParser(frameBytesMax: 1000, checksumRequired: true)
        let garbage: [UInt8] = [1, 2, 3, 4, 5, 6]
        let good = request(1, [])
        var offset = 0
        let first = garbage.withUnsafeBytes { input in
            wireError { () throws(WireError) in _ = try parser.next(in: input, from: &offset) }
        }
        offset = 0
        let second = good.withUnsafeBytes { input in
            wireError { () throws(WireError) in _ = try parser.next(in: input, from: &offset) }
        }
        #expect(first == .badMagic(found: 5) && second == first)
    }

    @Test func randomBytesNeverTrap() {
        var random = seeded("randomBytesNeverTrap")
        for _ in 0..<2000 {
            var bytes = random.bytes(0...200)
            // Past the magic and the length every now and then.
            if bytes.count > 5, Bool.random(using: &random) {
                bytes[4] = 0xB7
                bytes[1] = 0
                bytes[2] = 0
                bytes[3] = 0
            }
            _ = wireError { () throws(WireError) in _ = try parse([bytes], checksumRequired: false) }
        }
    }
}
