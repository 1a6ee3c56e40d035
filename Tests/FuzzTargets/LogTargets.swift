// What clients send to log nodes and log nodes to clients. The first byte of an input chooses the message.

import CisternLogProtocol
import CisternLogWire
import CisternTestKit
import CisternWire

extension FuzzTarget {
    static let log = [
        FuzzTarget(
            name: "log-request",
            seeds: { try inputs(["add", "add-recovery", "read", "read-lac", "write-lac", "delete"]) }, run: readRequest),
        FuzzTarget(
            name: "log-reply",
            seeds: {
                try inputs(["add-reply", "add-reply-fenced", "read-reply", "read-reply-refused", "read-lac-reply"])
            }, run: readReply),
    ]
}

/// The opcode, then the body.
private func inputs(_ vectors: [String]) throws -> [[UInt8]] {
    try vectors.map { name in
        let frame = try GoldenFile.bytes("log-wire/\(name).hex")
        return [frame[5] & ~Opcode.replyBit] + frame[FrameHeader.size...]
    }
}

private func readRequest(_ input: [UInt8]) {
    guard let first = input.first, let opcode = Opcode(rawValue: first) else { return }
    let body = Array(input[1...])
    guard let request = body.withUnsafeBytes({ try? LogRequestBody.decode(opcode, $0) }) else { return }
    let again = LogRequestBody.encode(request)
    guard let same = again.withUnsafeBytes({ try? LogRequestBody.decode(opcode, $0) }), same == request else {
        broken("a request does not come back from its own encoding")
    }
}

private func readReply(_ input: [UInt8]) {
    guard let first = input.first, let opcode = Opcode(rawValue: first) else { return }
    let body = Array(input[1...])
    guard let reply = body.withUnsafeBytes({ try? LogReplyBody.decode(opcode, $0) }) else { return }
    // There is one way to write an answer.
    guard LogReplyBody.encode(reply) == body else { broken("an answer is encoded otherwise than it was read") }
}
