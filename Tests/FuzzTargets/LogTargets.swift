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
            name: "journal-cookie",
            seeds: { try (1...2).map { try GoldenFile.bytes("journal-cookie-v\($0).hex") } }, run: readCookie),
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
    if bytes.count == 32 || bytes.count == 40 { setChecksum(&bytes, at: bytes.count - 4, of: 0..<(bytes.count - 4)) }
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
    serve(request)
}

/// A node takes whatever a client may ask, before and after it is deleted and fenced.
private func serve(_ request: NodeRequest) {
    var node = LogNode<Int>()
    var actions: [LogNodeAction<Int>] = []
    node.start(journalVerified: true, highestLedger: LedgerID(0), incarnation: 1, into: &actions)
    let fence = NodeRequest.readLAC(ReadLACRequest(ledger: request.ledger, fence: true))
    for (token, request) in [request, request, fence, request, .delete(request.ledger), request].enumerated() {
        node.receive(request, token: token, into: &actions)
        var sequence = JournalSequence.zero
        for action in actions {
            switch action {
            case .append(_, let appended): sequence = appended
            case .read(let token, _, let entries, _):
                node.read(token, results: entries.map { _ in .failed }, into: &actions)
            case .checkLedger(let ledger): node.ledgerChecked(ledger, exists: false, into: &actions)
            case .reply, .discard: break
            }
        }
        node.synced(through: sequence, into: &actions)
        actions = []
    }
}

private func readReply(_ input: [UInt8]) {
    guard let first = input.first, let opcode = Opcode(rawValue: first) else { return }
    let body = Array(input[1...])
    guard let reply = body.withUnsafeBytes({ try? LogReplyBody.decode(opcode, $0) }) else { return }
    // There is one way to write an answer.
    guard LogReplyBody.encode(reply) == body else { broken("an answer is encoded otherwise than it was read") }
    hear(reply)
}

private let nodes = (1...3).map { LogNodeID($0) }

/// The machines of the client side take whatever a node may answer, also what they did not ask.
private func hear(_ reply: NodeReply) {
    guard
        let metadata = try? LedgerMetadata(
            sizes: QuorumSizes(ensemble: 3, write: 3, ack: 2), ensemble: nodes)
    else { return }
    var reader = LedgerReader(ledger: reply.ledger, metadata: metadata, from: .first)
    var readerActions: [LedgerReader.Action] = []
    reader.demand(through: EntryID(100), into: &readerActions)
    var recovery = LedgerRecovery(ledger: reply.ledger, candidates: [])
    var recoveryActions: [RecoveryAction] = []
    recovery.start(into: &recoveryActions)
    recovery.receive(.found(Versioned(metadata, version: 1)), into: &recoveryActions)
    recovery.receive(.written(2), into: &recoveryActions)
    var writer = LedgerWriter(
        ledger: reply.ledger, metadata: Versioned(metadata, version: 1), candidates: [], windowBytes: 1000)
    var writerActions: [WriterAction] = []
    for _ in 0..<3 { _ = writer.append([1], into: &writerActions) }
    for _ in 0..<2 {
        for node in nodes {
            reader.receive(reply, from: node, into: &readerActions)
            recovery.receive(reply, from: node, into: &recoveryActions)
            if case .add(let add) = reply { writer.receive(add, from: node, into: &writerActions) }
        }
    }
}
