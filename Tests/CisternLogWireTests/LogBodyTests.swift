// Bodies come back as they were, and bytes that are none are refused with a reason.

import CisternLogProtocol
import CisternLogWire
import CisternPrimitives
import CisternTestKit
import CisternWire
import Testing

private func decode(_ opcode: Opcode, request body: [UInt8]) throws -> NodeRequest? {
    try body.withUnsafeBytes { try LogRequestBody.decode(opcode, $0) }
}

private func decode(_ opcode: Opcode, reply body: [UInt8]) throws -> NodeReply? {
    try body.withUnsafeBytes { try LogReplyBody.decode(opcode, $0) }
}

/// What a decoder says about bytes; nil when it takes them.
private func complaint(_ opcode: Opcode, request body: [UInt8]) -> String? {
    do {
        _ = try decode(opcode, request: body)
        return nil
    } catch { return "\(error)" }
}

private func complaint(_ opcode: Opcode, reply body: [UInt8]) -> String? {
    do {
        _ = try decode(opcode, reply: body)
        return nil
    } catch { return "\(error)" }
}

@Suite struct LogBodyTests {
    @Test func requestsComeBackAsTheyWere() throws {
        for seed in Seeds.seeds(count: 1) {
            Seeds.announce("requestsComeBackAsTheyWere", seed)
            var random = SeededRandom(seed: seed)
            for _ in 0..<2000 {
                let request = random.request()
                let body = LogRequestBody.encode(request)
                #expect(body.count == LogRequestBody.size(of: request))
                #expect(try decode(LogRequestBody.opcode(of: request), request: body) == request)
            }
        }
    }

    @Test func repliesComeBackAsTheyWere() throws {
        for seed in Seeds.seeds(count: 1) {
            Seeds.announce("repliesComeBackAsTheyWere", seed)
            var random = SeededRandom(seed: seed)
            for _ in 0..<2000 {
                let reply = random.reply()
                let body = LogReplyBody.encode(reply)
                #expect(body.count == LogReplyBody.size(of: reply))
                #expect(try decode(LogReplyBody.opcode(of: reply), reply: body) == reply)
            }
        }
    }

    @Test func aBodyThatIsCutOrTooLongIsRefused() throws {
        for seed in Seeds.seeds(count: 1) {
            Seeds.announce("aBodyThatIsCutOrTooLongIsRefused", seed)
            var random = SeededRandom(seed: seed)
            for _ in 0..<200 {
                let request = random.request()
                let opcode = LogRequestBody.opcode(of: request)
                let body = LogRequestBody.encode(request)
                // An add's entry has no length of its own: the frame says where it ends.
                if case .add = request {
                    for count in 0..<28 { #expect(complaint(opcode, request: Array(body[..<count])) != nil) }
                } else {
                    for count in 0..<body.count { #expect(complaint(opcode, request: Array(body[..<count])) != nil) }
                    #expect(complaint(opcode, request: body + [0])?.contains("bytes follow its end") == true)
                }
                let reply = random.reply()
                let bytes = LogReplyBody.encode(reply)
                let answered = LogReplyBody.opcode(of: reply)
                for count in 0..<bytes.count { #expect(complaint(answered, reply: Array(bytes[..<count])) != nil) }
                #expect(complaint(answered, reply: bytes + [0])?.contains("bytes follow its end") == true)
            }
        }
    }

    @Test func aKindThatIsNotKnownIsAnErrorAndNoNegative() throws {
        let reply = NodeReply.read(
            ReadReply(ledger: ledger, first: .first, answers: [.absent], lac: .none, isFenced: true))
        var body = LogReplyBody.encode(reply)
        for kind in [UInt8(0)] + (4...255) {
            body[30] = kind
            #expect(complaint(.logRead, reply: body)?.contains("kind \(kind)") == true)
        }
    }

    @Test func aRefusedReadHasNoAnswers() throws {
        let reply = NodeReply.read(
            ReadReply(ledger: ledger, first: .first, answers: [.absent], lac: .none, isFenced: true))
        var body = LogReplyBody.encode(reply)
        body[25] = NodeRefusal.limbo.rawValue
        #expect(complaint(.logRead, reply: body)?.contains("refused") == true)
    }

    @Test func refusalsAndFlagsThatAreNotKnownAreRefused() throws {
        var add = LogReplyBody.encode(.add(AddReply(ledger: ledger, entry: .first, refusal: .conflict)))
        add[16] = 7
        #expect(complaint(.logAdd, reply: add)?.contains("refusal 7") == true)
        var read = LogRequestBody.encode(
            .read(ReadRequest(ledger: ledger, first: .first, count: 1, bytesMax: 1, fence: true)))
        read[24] = 2
        #expect(complaint(.logRead, request: read)?.contains("flags 2") == true)
    }

    @Test func entriesOutsideOfTheirRangeAreRefused() throws {
        let good = LogRequestBody.encode(
            .add(AddRequest(ledger: ledger, entry: EntryID(5), lac: EntryID(4), body: [], isRecovery: false)))
        func with(_ value: Int64, at offset: Int) -> [UInt8] {
            var body = good
            for index in 0..<8 { body[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
            return body
        }
        #expect(complaint(.logAdd, request: good) == nil)
        #expect(complaint(.logAdd, request: with(-1, at: 8))?.contains("the entry is -1") == true)
        #expect(complaint(.logAdd, request: with(Int64.max, at: 8)) != nil)
        #expect(complaint(.logAdd, request: with(Int64.min, at: 16)) != nil)
        #expect(complaint(.logAdd, request: with(-1, at: 0))?.contains("the ledger is") == true)
        #expect(complaint(.logAdd, request: with(1 << 62, at: 0)) != nil)
        #expect(complaint(.logAdd, request: with(5, at: 16))?.contains("not before") == true)
    }

    @Test func aReadBeyondTheLimitIsRefusedAndOneForMoreBytesGetsTheLimit() throws {
        var body = LogRequestBody.encode(
            .read(ReadRequest(ledger: ledger, first: .first, count: 4096, bytesMax: Int.max, fence: false)))
        guard case .read(let read)? = try decode(.logRead, request: body) else {
            Issue.record("not a read")
            return
        }
        #expect(read.bytesMax == LogWireLimits.readBytesMax)
        body[16] = 1
        body[17] = 0x10
        #expect(complaint(.logRead, request: body)?.contains("readEntriesMax") == true)
        body[16] = 0
        body[17] = 0
        #expect(complaint(.logRead, request: body)?.contains("no entry is asked for") == true)
    }

    @Test func theLargestMessagesFitTheDefaultFrame() {
        let add = FrameHeader.size + 28 + LogWireLimits.entryBytesMax
        #expect(add <= WireLimits.frameBytesMaxDefault)
        let columns = 5 * LogWireLimits.readEntriesMax
        let answer = FrameHeader.size + 30 + columns + max(LogWireLimits.readBytesMax, LogWireLimits.entryBytesMax)
        #expect(answer <= WireLimits.frameBytesMaxDefault)
    }

    @Test func requestsOfStateServersAreNone() throws {
        #expect(try decode(.multiGet, request: []) == nil)
        #expect(try decode(.logDelete, reply: []) == nil)
    }
}
