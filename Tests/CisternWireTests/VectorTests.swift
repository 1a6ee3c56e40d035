// proto-spec/vectors/wire: one annotated frame of every kind. The frames of the fixtures below must be these bytes, and
// these bytes must decode to the fixtures. `CISTERN_WRITE_VECTORS=1 swift test --filter VectorTests` writes the files of
// kinds that are new; a file that is there is never rewritten: the protocol does not change under its clients.

import CisternPrimitives
import CisternWire
import CisternWireMessages
import Foundation
import SwiftProtobuf
import Testing

private let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("proto-spec/vectors/wire")

struct Vector: Sendable, CustomTestStringConvertible {
    let name: String
    let title: String
    let header: FrameHeader
    let body: [UInt8]
    /// Names of the body's fields by number, for the annotation.
    let fields: [String]
    /// Decodes a body and says what is wrong with it; nil when it is the fixture.
    let check: @Sendable ([UInt8]) throws -> String?

    var testDescription: String { name }
    var frame: [UInt8] { header.frame(body: body) }
}

private func control<M: Message & Equatable>(
    _ name: String, _ title: String, _ opcode: Opcode, reply: Bool = false, flags: FrameFlags = [], id: UInt64 = 7,
    argument: UInt32 = 0, _ fields: [String], _ message: M
) -> Vector {
    let body = ControlMessage.encode(message)
    return Vector(
        name: name, title: title,
        header: FrameHeader(
            opcodeByte: opcode.rawValue | (reply ? Opcode.replyBit : 0), flags: flags, requestID: id,
            argument: argument, bodySize: body.count),
        body: body, fields: fields
    ) { bytes in
        let back = try bytes.withUnsafeBytes { try ControlMessage.decode(M.self, from: $0) }
        return back == message ? nil : "\(back)"
    }
}

private func data(
    _ name: String, _ title: String, _ opcode: Opcode, reply: Bool = false, flags: FrameFlags = [],
    argument: UInt32 = 0,
    _ fields: [String], _ body: [UInt8], _ check: @escaping @Sendable ([UInt8]) throws -> String?
) -> Vector {
    Vector(
        name: name, title: title,
        header: FrameHeader(
            opcodeByte: opcode.rawValue | (reply ? Opcode.replyBit : 0), flags: flags, requestID: 9, argument: argument,
            bodySize: body.count),
        body: body, fields: fields, check: check)
}

private func build<M: Message>(_ type: M.Type, _ fill: (inout M) -> Void) -> M {
    var message = M()
    fill(&message)
    return message
}

private let entries = [
    OwnedEntry(Array("\u{0}\u{3}a".utf8), .put, expiry: 1_700_000_000_000, Array("one".utf8)),
    OwnedEntry(Array("\u{0}\u{3}b".utf8), .delete),
    OwnedEntry(Array("\u{0}\u{5}c".utf8), .append, Array("+2".utf8)),
]

private let descriptor = build(Cistern_V1_StateDescriptor.self) {
    $0.id = 2
    $0.name = "visits"
    $0.kind = .map
    $0.ttlMilliseconds = 60_000
}

private let descriptorWithClock = build(Cistern_V1_StateDescriptor.self) {
    $0 = descriptor
    $0.ttlClock = .event
}

private let connectionVectors: [Vector] = [
    control(
        "hello", "HELLO: the first frame of a connection", .hello, id: 0,
        ["version_min", "version_max", "features", "client", "frame_bytes_max"],
        build(Cistern_V1_Hello.self) {
            $0.versionMin = 1
            $0.versionMax = 1
            $0.features = 1
            $0.client = "client 1"
            $0.frameBytesMax = 1 << 20
        }),
    control(
        "hello-token", "HELLO with a token", .hello, id: 0,
        ["version_min", "version_max", "features", "client", "frame_bytes_max", "token"],
        build(Cistern_V1_Hello.self) {
            $0.versionMin = 1
            $0.versionMax = 1
            $0.features = 1
            $0.client = "client 1"
            $0.frameBytesMax = 1 << 20
            $0.token = "cst_c2VjcmV0"
        }),
    control(
        "hello-reply", "HELLO answered", .hello, reply: true, id: 0,
        [
            "version", "features", "server", "server_id", "frame_bytes_max", "requests_max", "bytes_max",
            "wall_milliseconds",
        ],
        build(Cistern_V1_HelloReply.self) {
            $0.version = 1
            $0.features = 1
            $0.server = "cistern 1"
            $0.serverID = "b3"
            $0.frameBytesMax = 16_842_752
            $0.requestsMax = 1024
            $0.bytesMax = 1 << 26
            $0.wallMilliseconds = 1_700_000_000_000
        }),
    control(
        "go-away", "GO_AWAY: the server drains", .goAway, id: 0, ["last_request", "reason", "reconnect_milliseconds"],
        build(Cistern_V1_GoAway.self) {
            $0.lastRequest = 41
            $0.reason = "stopping"
            $0.reconnectMilliseconds = 1000
        }),
    data("ping", "PING", .ping, [], []) { $0.isEmpty ? nil : "\($0)" },
    data("pong", "PING answered with its body", .ping, reply: true, [], []) { $0.isEmpty ? nil : "\($0)" },
    control(
        "error", "an ERROR reply to WRITE_BATCH", .writeBatch, reply: true, flags: .error, argument: 1,
        ["code", "class", "retry_milliseconds", "message", "current_epoch", "expected_sequence"],
        ErrorBody(.fenced, "writer w1 of 0...63 has epoch 3", currentEpoch: 4)),
    control(
        "connection-error", "an error about the connection, which ends", .connection, reply: true, flags: .error, id: 0,
        ["code", "class", "retry_milliseconds", "message", "current_epoch", "expected_sequence"],
        ErrorBody(.badMagic, "byte 4 is 0x50")),
]

private let sessionVectors: [Vector] = [
    control(
        "attach", "ATTACH with a restore", .attach,
        [
            "store", "key_group_count", "key_group_first", "key_group_last", "epoch", "writer", "restore", "restoring",
        ],
        build(Cistern_V1_Attach.self) {
            $0.store = "flights"
            $0.keyGroupCount = 128
            $0.keyGroupFirst = 64
            $0.keyGroupLast = 127
            $0.epoch = 3
            $0.writer = "w1"
            $0.restore = ["flights/2/0-127-a", "flights/2/64-127-b"]
            $0.restoring = true
        }),
    control(
        "attach-reply", "ATTACH answered", .attach, reply: true, argument: 1,
        [
            "tree", "last_sequence", "resumed", "states", "dictionaries", "watermark", "restore_microseconds",
            "approximate_entries",
        ],
        build(Cistern_V1_AttachReply.self) {
            $0.tree = 5
            $0.lastSequence = 12
            $0.resumed = true
            $0.states = [descriptor]
            $0.dictionaries = [
                build(Cistern_V1_DictionaryInfo.self) {
                    $0.id = 1
                    $0.stateID = 2
                    $0.size = 8192
                }
            ]
            $0.watermark = 77
            $0.restoreMicroseconds = 850
            $0.approximateEntries = 4000
        }),
    control(
        "detach", "DETACH", .detach, argument: 5, ["epoch"], build(Cistern_V1_Detach.self) { $0.epoch = 3 }),
    control("detach-reply", "DETACH answered", .detach, reply: true, argument: 1, [], Cistern_V1_DetachReply()),
    control(
        "register-state", "REGISTER_STATE", .registerState, argument: 5, ["state"],
        build(Cistern_V1_RegisterState.self) { $0.state = descriptor }),
    control(
        "register-state-reply", "REGISTER_STATE answered", .registerState, reply: true, argument: 1, ["state"],
        build(Cistern_V1_RegisterStateReply.self) { $0.state = descriptor }),
    control(
        "register-state-ttl", "REGISTER_STATE whose time to live holds for what is stored", .registerState, argument: 5,
        ["state"], build(Cistern_V1_RegisterState.self) { $0.state = descriptorWithClock }),
    control(
        "register-state-ttl-reply", "REGISTER_STATE answered with what stored expiries mean", .registerState,
        reply: true,
        argument: 1, ["state", "ttl_changes", "expiry_rules"],
        build(Cistern_V1_RegisterStateReply.self) {
            $0.state = descriptor
            $0.ttlChanges = 4
            $0.expiryRules = [
                build(Cistern_V1_ExpiryRule.self) {
                    $0.keyGroupFirst = 1
                    $0.keyGroupLast = 127
                    $0.storedTtlMilliseconds = 30_000
                    $0.ttlMilliseconds = 60_000
                    $0.ttlClock = .event
                    $0.endedProcessing = 800
                    $0.endedEvent = 900
                    $0.expiryOfNever = 31_000
                }
            ]
        }),
    control(
        "attach-reply-ttl", "ATTACH answered by a tree that has seen changes of times to live", .attach, reply: true,
        argument: 1,
        [
            "tree", "last_sequence", "resumed", "states", "dictionaries", "watermark", "restore_microseconds",
            "approximate_entries", "ttl_changes",
        ],
        build(Cistern_V1_AttachReply.self) {
            $0.tree = 5
            $0.ttlChanges = 3
        }),
    control(
        "put-dictionary", "PUT_DICTIONARY", .putDictionary, argument: 5, ["state_id", "dictionary"],
        Cistern_V1_PutDictionary(stateID: 2, dictionaryBytes: [1, 2, 3])),
    control(
        "put-dictionary-reply", "PUT_DICTIONARY answered", .putDictionary, reply: true, argument: 1, ["id"],
        build(Cistern_V1_PutDictionaryReply.self) { $0.id = 1 }),
    control(
        "get-dictionary", "GET_DICTIONARY", .getDictionary, argument: 5, ["id"],
        build(Cistern_V1_GetDictionary.self) { $0.id = 1 }),
    control(
        "get-dictionary-reply", "GET_DICTIONARY answered", .getDictionary, reply: true, argument: 1,
        ["state_id", "dictionary"], Cistern_V1_GetDictionaryReply(stateID: 2, dictionaryBytes: [1, 2, 3])),
    control(
        "snapshot", "SNAPSHOT", .snapshot, argument: 5, ["epoch", "checkpoint", "sequence"],
        build(Cistern_V1_Snapshot.self) {
            $0.epoch = 3
            $0.checkpoint = 9
            $0.sequence = 12
        }),
    control(
        "snapshot-reply", "SNAPSHOT answered", .snapshot, reply: true, argument: 1,
        ["handle", "bytes_total", "bytes_new", "files"],
        build(Cistern_V1_SnapshotReply.self) {
            $0.handle = "flights/9/64-127-c"
            $0.bytesTotal = 100_000
            $0.bytesNew = 3000
            $0.files = 4
        }),
    control(
        "release-snapshot", "RELEASE_SNAPSHOT", .releaseSnapshot, ["store", "handles"],
        build(Cistern_V1_ReleaseSnapshot.self) {
            $0.store = "flights"
            $0.handles = ["flights/9/64-127-c"]
        }),
    control(
        "release-snapshot-reply", "RELEASE_SNAPSHOT answered", .releaseSnapshot, reply: true, argument: 1, ["released"],
        build(Cistern_V1_ReleaseSnapshotReply.self) { $0.released = 1 }),
    control(
        "list-snapshots", "LIST_SNAPSHOTS", .listSnapshots, ["store"],
        build(Cistern_V1_ListSnapshots.self) { $0.store = "flights" }),
    control(
        "list-snapshots-reply", "LIST_SNAPSHOTS answered", .listSnapshots, reply: true, argument: 1, ["items"],
        build(Cistern_V1_ListSnapshotsReply.self) {
            $0.items = [
                build(Cistern_V1_ListSnapshotsReply.Item.self) {
                    $0.handle = "flights/9/64-127-c"
                    $0.checkpoint = 9
                    $0.keyGroupFirst = 64
                    $0.keyGroupLast = 127
                    $0.bytes = 100_000
                    $0.createdMilliseconds = 1_700_000_000_000
                }
            ]
        }),
]

private let dataVectors: [Vector] = [
    data(
        "write-batch", "WRITE_BATCH of a put that expires, a delete and an append", .writeBatch, argument: 5,
        ["epoch", "sequence", "watermark", "key_ends", "value_ends", "kinds", "expiries", "keys", "values"],
        handEncoded(entries, epoch: 3, sequence: 12, watermark: 77)
    ) { bytes in
        try bytes.withUnsafeBytes { body in
            let batch = try WriteBatchMessage.decode(body)
            let back = (0..<batch.columns.count).map { OwnedEntry(batch.columns[$0]) }
            let other = try Cistern_V1_WriteBatch(serializedBytes: bytes)
            guard other == generated(entries, epoch: 3, sequence: 12, watermark: 77) else { return "\(other)" }
            let same = batch.epoch == 3 && batch.sequence == 12 && batch.watermark == 77 && back == entries
            return same ? nil : "\(back)"
        }
    },
    data(
        "write-batch-reply", "WRITE_BATCH answered", .writeBatch, reply: true, argument: 1, ["sequence"],
        WriteBatchReplyMessage(sequence: 12).encode()
    ) { bytes in
        let back = try bytes.withUnsafeBytes { try WriteBatchReplyMessage.decode($0) }
        return back.sequence == 12 ? nil : "\(back)"
    },
    data(
        "multi-get", "MULTI_GET of two keys", .multiGet, argument: 5, ["epoch", "watermark", "key_ends", "keys"],
        {
            var encoder = MultiGetEncoder()
            for entry in entries[..<2] { entry.key.withUnsafeBytes { encoder.append($0) } }
            return encoder.encode(epoch: 3, watermark: 77)
        }()
    ) { bytes in
        try bytes.withUnsafeBytes { body in
            let message = try MultiGetMessage.decode(body)
            let keys = (0..<message.keys.count).map { [UInt8](message.keys[$0]) }
            let same = message.epoch == 3 && message.watermark == 77 && keys == entries[..<2].map(\.key)
            return same ? nil : "\(keys)"
        }
    },
    data(
        "multi-get-reply", "MULTI_GET answered: present with an expiry, absent", .multiGet, reply: true, argument: 1,
        ["found", "value_ends", "expiries", "values"],
        {
            var encoder = MultiGetReplyEncoder()
            entries[0].withView { encoder.append(value: $0.value, expiry: $0.expiry) }
            encoder.appendAbsent()
            return encoder.encode()
        }()
    ) { bytes in
        try bytes.withUnsafeBytes { body in
            let message = try MultiGetReplyMessage.decode(body)
            let first = message.count == 2 ? message[0] : nil
            let same =
                first.map { [UInt8]($0.value) } == entries[0].value && first?.expiry.rawValue == entries[0].expiry
                && message[1] == nil
            return same ? nil : "\(message)"
        }
    },
    data(
        "scan", "SCAN of keys only", .scan, argument: 5,
        ["epoch", "watermark", "start", "end", "entries_max", "bytes_max", "keys_only"],
        entries[0].key.withUnsafeBytes { start in
            entries[2].key.withUnsafeBytes { end in
                var scan = ScanMessage()
                scan.epoch = 3
                scan.watermark = 77
                scan.start = start
                scan.end = end
                scan.entriesMax = 1000
                scan.bytesMax = 1 << 20
                scan.keysOnly = true
                return scan.encode()
            }
        }
    ) { bytes in
        try bytes.withUnsafeBytes { body in
            let scan = try ScanMessage.decode(body)
            let same =
                [UInt8](scan.start) == entries[0].key && [UInt8](scan.end) == entries[2].key && scan.epoch == 3
                && scan.watermark == 77 && scan.entriesMax == 1000 && scan.bytesMax == 1 << 20 && scan.keysOnly
            return same ? nil : "\(scan)"
        }
    },
    data(
        "scan-page", "SCAN answered: two entries, and where the next page starts", .scan, reply: true, argument: 1,
        ["key_ends", "value_ends", "expiries", "keys", "values", "next"],
        {
            var encoder = ScanPageEncoder()
            for entry in [entries[0], entries[2]] {
                entry.withView { encoder.append(key: $0.key, value: $0.value, expiry: $0.expiry) }
            }
            encoder.setNext([0, 6])
            return encoder.encode()
        }()
    ) { bytes in
        try bytes.withUnsafeBytes { body in
            let page = try ScanPageMessage.decode(body)
            let back = (0..<page.count).map { OwnedEntry(page[$0]) }
            let expected = [entries[0], entries[2]].map { OwnedEntry($0.key, .put, expiry: $0.expiry, $0.value) }
            return back == expected && [UInt8](page.next) == [0, 6] ? nil : "\(back)"
        }
    },
    data(
        "key-index", "KEY_INDEX that goes on after a lost connection", .keyIndex, argument: 5,
        ["epoch", "watermark", "start"],
        entries[1].key.withUnsafeBytes { start in
            var request = KeyIndexMessage()
            request.epoch = 3
            request.watermark = 77
            request.start = start
            return request.encode()
        }
    ) { bytes in
        try bytes.withUnsafeBytes { body in
            let request = try KeyIndexMessage.decode(body)
            let same = request.epoch == 3 && request.watermark == 77 && [UInt8](request.start) == entries[1].key
            return same ? nil : "\(request)"
        }
    },
    data(
        "key-index-page", "KEY_INDEX answered: a fragment of keys only", .keyIndex, reply: true, flags: .more,
        ["key_ends", "value_ends", "expiries", "keys", "values", "next"],
        {
            var encoder = ScanPageEncoder()
            for entry in entries { entry.withView { encoder.appendKey($0.key, expiry: $0.expiry) } }
            return encoder.encode()
        }()
    ) { bytes in
        try bytes.withUnsafeBytes { body in
            let page = try ScanPageMessage.decode(body)
            let back = (0..<page.count).map { OwnedEntry(page[$0]) }
            let expected = entries.map { OwnedEntry($0.key, .put, expiry: $0.expiry) }
            return back == expected && !page.hasValues && page.next.isEmpty ? nil : "\(back)"
        }
    },
]

let vectors = connectionVectors + sessionVectors + dataVectors

/// Hexadecimal bytes; what follows a `#` is for people.
private func bytes(ofVector text: String) throws -> [UInt8] {
    let digits = text.split(separator: "\n").flatMap { line in
        line.prefix { $0 != "#" }.filter { !$0.isWhitespace }
    }
    try #require(digits.count % 2 == 0)
    return try stride(from: 0, to: digits.count, by: 2).map { index in
        try #require(UInt8(String(digits[index...(index + 1)]), radix: 16))
    }
}

private func annotated(_ vector: Vector) -> String {
    let frame = vector.frame
    var lines = ["# \(vector.title)"]
    func line(_ range: Range<Int>, _ text: String) {
        let hex = frame[range].map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined(separator: " ")
        lines.append(hex.isEmpty ? "# \(text)" : "\(hex)  # \(text)")
    }
    line(0..<4, "length \(frame.count - 4)")
    line(4..<5, "magic")
    let name = vector.header.opcode.map { "\($0)" } ?? "?"
    line(5..<6, "opcode \(name)\(vector.header.isReply ? ", reply" : "")")
    let flags = [("ERROR", FrameFlags.error), ("MORE", .more)].filter { vector.header.flags.contains($0.1) }.map(\.0)
    line(6..<8, "flags \((["CHECKSUM"] + flags).joined(separator: " "))")
    line(8..<16, "request id \(vector.header.requestID)")
    line(16..<20, "CRC-32C of bytes 4-15 and 20-end")
    line(20..<24, "\(vector.header.isReply ? "credit in KiB" : "tree") \(vector.header.argument)")
    var offset = FrameHeader.size
    for field in splitFields(vector.body) {
        let number = Int(field[0] >> 3)
        line(
            offset..<(offset + field.count),
            vector.fields.indices.contains(number - 1) ? vector.fields[number - 1] : "?")
        offset += field.count
    }
    return lines.joined(separator: "\n") + "\n"
}

@Suite struct VectorTests {
    @Test(arguments: vectors) func aFrameEqualsItsVectorBothWays(vector: Vector) throws {
        let file = directory.appendingPathComponent("\(vector.name).hex")
        let isMissing = !FileManager.default.fileExists(atPath: file.path)
        if isMissing && ProcessInfo.processInfo.environment["CISTERN_WRITE_VECTORS"] != nil {
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            try annotated(vector).write(to: file, atomically: true, encoding: .utf8)
        }
        let text = try String(contentsOf: file, encoding: .utf8)
        let golden = try bytes(ofVector: text)
        #expect(golden == vector.frame)
        #expect(text == annotated(vector))
        var parser = FrameParser(frameBytesMax: 1 << 20, checksumRequired: true)
        let (header, body) = try golden.withUnsafeBytes { input in
            var offset = 0
            let frame = try #require(try parser.next(in: input, from: &offset))
            #expect(offset == input.count)
            return (frame.header, [UInt8](frame.body))
        }
        var expected = vector.header
        expected.flags.insert(.checksum)
        #expect(header == expected)
        #expect(try vector.check(body) == nil)
    }

    @Test func everyFileIsTested() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: directory.path)
        #expect(Set(files) == Set(vectors.map { "\($0.name).hex" }))
    }

    @Test func everyOpcodeHasAVector() {
        // Those of log nodes are in vectors/log-wire.
        #expect(Set(vectors.compactMap(\.header.opcode)) == Set(Opcode.allCases.filter { !$0.isOfLogNode }))
    }
}
