// What clients send to log nodes and log nodes to clients, where the first byte of an input chooses the message; and the files of a log node.

import CisternLogNode
import CisternLogProtocol
import CisternLogWire
import CisternPrimitives
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
        FuzzTarget(
            name: "journal-segment", seeds: { [try GoldenFile.bytes("journal-segment-v1.hex")] }, run: readSegment),
        FuzzTarget(name: "journal-index", seeds: { [try GoldenFile.bytes("journal-index-v1.hex")] }, run: readIndex),
        FuzzTarget(
            name: "journal-deleted", seeds: { [try GoldenFile.bytes("journal-deleted-v1.hex")] }, run: readDeleted),
        FuzzTarget(
            name: "journal-cookie", seeds: { [try GoldenFile.bytes("journal-cookie-v1.hex")] }, run: readCookie),
    ]
}

/// With and without right checksums of the records, whatever the segments around it say.
private func readSegment(_ input: [UInt8]) {
    let header = SegmentHeader.decode(input)
    let segment = header?.segment ?? 5
    let expected: [SegmentScan.End] = [.open, .unknown, .sealed(bytes: UInt64(input.count) / 2, checksum: 1)]
    for expecting in expected {
        let scan = SegmentScan(input, segment: segment, header: header, expecting: expecting)
        for placed in scan.records where placed.offset + placed.length > input.count {
            broken("a record reaches beyond the segment")
        }
    }
}

private func readIndex(_ input: [UInt8]) {
    var bytes = input
    if bytes.count >= 44 { setChecksum(&bytes, at: bytes.count - 4, of: 0..<bytes.count - 4) }
    guard let index = SegmentIndex.decode(bytes) else { return }
    guard SegmentIndex.decode(index.encoded()) == index else {
        broken("an index does not come back from its own encoding")
    }
}

private func readDeleted(_ input: [UInt8]) {
    var bytes = input
    if bytes.count >= 20 { setChecksum(&bytes, at: bytes.count - 4, of: 0..<bytes.count - 4) }
    guard let deleted = DeletedLedgers.decode(bytes) else { return }
    guard deleted.encoded() == bytes else {
        broken("a list of deleted ledgers does not come back from its own encoding")
    }
}

private func readCookie(_ input: [UInt8]) {
    var bytes = input
    if bytes.count == 32 { setChecksum(&bytes, at: 28, of: 0..<28) }
    guard let cookie = LogNodeCookie.decode(bytes) else { return }
    guard cookie.encoded() == bytes else { broken("a cookie does not come back from its own encoding") }
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
