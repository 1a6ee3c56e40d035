// proto-spec/vectors/log-wire: one annotated frame of every message, with the answers. `CISTERN_REWRITE=1` writes them.

import CisternLogProtocol
import CisternLogWire
import CisternPrimitives
import CisternTestKit
import CisternWire
import Foundation
import Testing

enum LogMessage: Equatable {
    case request(NodeRequest)
    case reply(NodeReply)

    var opcodeByte: UInt8 {
        switch self {
        case .request(let request): LogRequestBody.opcode(of: request).rawValue
        case .reply(let reply): LogReplyBody.opcode(of: reply).rawValue | Opcode.replyBit
        }
    }

    var body: [UInt8] {
        switch self {
        case .request(let request): LogRequestBody.encode(request)
        case .reply(let reply): LogReplyBody.encode(reply)
        }
    }
}

struct LogVector: Sendable, CustomTestStringConvertible {
    let name: String
    let title: String
    let message: LogMessage
    /// Sizes and names of the body's fields.
    let fields: [(Int, String)]

    init(_ name: String, _ title: String, _ message: LogMessage, _ fields: [(Int, String)]) {
        self.name = name
        self.title = title
        self.message = message
        self.fields = fields
    }

    var testDescription: String { name }

    var frame: [UInt8] {
        let body = message.body
        let credit: UInt32 = message.opcodeByte & Opcode.replyBit == 0 ? 0 : 1
        return FrameHeader(opcodeByte: message.opcodeByte, requestID: 9, argument: credit, bodySize: body.count)
            .frame(body: body)
    }

    var annotated: String {
        let frame = frame
        var page = AnnotatedHex(title: title)
        page.field(frame[0..<4], "length")
        page.field(frame[4..<5], "magic")
        page.field(frame[5..<6], "opcode")
        page.field(frame[6..<8], "flags: CHECKSUM")
        page.field(frame[8..<16], "request id 9")
        page.field(frame[16..<20], "CRC-32C")
        page.field(frame[20..<24], "0 in a request, credit in KiB in an answer")
        var offset = 24
        for (size, name) in fields {
            page.field(frame[offset..<(offset + size)], name)
            offset += size
        }
        if offset < frame.count { page.field(frame[offset...], "not annotated") }
        return page.text
    }
}

private let vectors = [
    LogVector(
        "add", "LOG_ADD of a writer",
        .request(
            .add(AddRequest(ledger: ledger, entry: EntryID(5), lac: EntryID(3), body: [1, 2, 3], isRecovery: false))),
        [(8, "ledger 7"), (8, "entry 5"), (8, "last add confirmed 3"), (4, "flags"), (3, "the entry")]),
    LogVector(
        "add-recovery", "LOG_ADD of a recovery, before anything is confirmed",
        .request(.add(AddRequest(ledger: ledger, entry: .first, lac: .none, body: [], isRecovery: true))),
        [(8, "ledger 7"), (8, "entry 0"), (8, "last add confirmed: none"), (4, "flags: RECOVERY")]),
    LogVector(
        "add-reply", "LOG_ADD answered: the entry is durable",
        .reply(.add(AddReply(ledger: ledger, entry: EntryID(5), refusal: nil))),
        [(8, "ledger 7"), (8, "entry 5"), (1, "not refused")]),
    LogVector(
        "add-reply-fenced", "LOG_ADD refused",
        .reply(.add(AddReply(ledger: ledger, entry: EntryID(5), refusal: .fenced))),
        [(8, "ledger 7"), (8, "entry 5"), (1, "FENCED")]),
    LogVector(
        "read", "LOG_READ that fences",
        .request(.read(ReadRequest(ledger: ledger, first: EntryID(4), count: 3, bytesMax: 4 << 20, fence: true))),
        [(8, "ledger 7"), (8, "first entry 4"), (4, "3 entries"), (4, "4 MiB of bodies"), (4, "flags: FENCE")]),
    LogVector(
        "read-reply", "LOG_READ answered by a fenced node",
        .reply(
            .read(
                ReadReply(
                    ledger: ledger, first: EntryID(4), answers: [.present([9, 8]), .unknown, .absent],
                    lac: EntryID(3), isFenced: true))),
        [
            (8, "ledger 7"), (8, "first entry 4"), (8, "last add confirmed 3"), (1, "flags: FENCED"),
            (1, "not refused"), (4, "3 answers"), (3, "PRESENT, UNKNOWN, ABSENT"), (4, "size of entry 4"),
            (2, "entry 4"),
        ]),
    LogVector(
        "read-reply-refused", "LOG_READ refused",
        .reply(
            .read(
                ReadReply(
                    ledger: ledger, first: EntryID(4), answers: [], lac: .none, isFenced: false, refusal: .deleted))),
        [
            (8, "ledger 7"), (8, "first entry 4"), (8, "last add confirmed: none"), (1, "flags"), (1, "DELETED"),
            (4, "no answers"),
        ]),
    LogVector(
        "read-lac", "LOG_READ_LAC that waits for news",
        .request(.readLAC(ReadLACRequest(ledger: ledger, fence: false, newerThan: EntryID(3)))),
        [(8, "ledger 7"), (8, "newer than 3"), (4, "flags: WAIT")]),
    LogVector(
        "read-lac-reply", "LOG_READ_LAC answered",
        .reply(.lac(ReadLACReply(ledger: ledger, lac: EntryID(4), isFenced: false))),
        [(8, "ledger 7"), (8, "last add confirmed 4"), (1, "flags"), (1, "not refused")]),
    LogVector(
        "write-lac", "LOG_WRITE_LAC", .request(.writeLAC(ledger, lac: EntryID(4))),
        [(8, "ledger 7"), (8, "last add confirmed 4")]),
    LogVector("delete", "LOG_DELETE", .request(.delete(ledger)), [(8, "ledger 7")]),
]

@Suite struct LogWireVectorTests {
    @Test(arguments: vectors) func aFrameEqualsItsVectorBothWays(vector: LogVector) throws {
        let file = "log-wire/\(vector.name).hex"
        #expect(try GoldenFile.difference(file, from: vector.annotated) == nil)
        let golden = try GoldenFile.bytes(file)
        #expect(golden == vector.frame)
        #expect(!vector.annotated.contains("not annotated"))
        var parser = FrameParser(frameBytesMax: 1 << 20, checksumRequired: true)
        let message: LogMessage? = try golden.withUnsafeBytes { input in
            var offset = 0
            let frame = try #require(try parser.next(in: input, from: &offset))
            let opcode = try #require(frame.header.opcode)
            if frame.header.isReply { return try LogReplyBody.decode(opcode, frame.body).map { .reply($0) } }
            return try LogRequestBody.decode(opcode, frame.body).map { .request($0) }
        }
        #expect(message == vector.message)
    }

    @Test func everyFileIsTestedAndEveryOpcodeHasOne() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: "\(GoldenFile.directory)/log-wire")
        #expect(Set(files) == Set(vectors.map { "\($0.name).hex" }))
        let opcodes = vectors.map { $0.message.opcodeByte & ~Opcode.replyBit }
        #expect(Set(opcodes) == Set(Opcode.allCases.filter(\.isOfLogNode).map(\.rawValue)))
    }
}
