// What peers send.

import CisternPrimitives
import CisternTestKit
import CisternWire
import CisternWireMessages
import SwiftProtobuf

extension FuzzTarget {
    static let wire = [
        FuzzTarget(name: "frames", seeds: { try frames() }, run: readFrames),
        FuzzTarget(name: "write-batch", seeds: { try bodies("write-batch") }, run: readWriteBatch),
        FuzzTarget(name: "write-batch-reply", seeds: { try bodies("write-batch-reply") }) { body in
            body.withUnsafeBytes { _ = try? WriteBatchReplyMessage.decode($0) }
        },
        FuzzTarget(name: "multi-get", seeds: { try bodies("multi-get") }, run: readMultiGet),
        FuzzTarget(name: "multi-get-reply", seeds: { try bodies("multi-get-reply") }, run: readMultiGetReply),
        FuzzTarget(name: "scan", seeds: { try bodies("scan") }, run: readScan),
        FuzzTarget(name: "scan-page", seeds: { try bodies("scan-page") + bodies("key-index-page") }, run: readScanPage),
        FuzzTarget(name: "key-index", seeds: { try bodies("key-index") }, run: readKeyIndex),
        FuzzTarget(
            name: "control",
            seeds: {
                try controlMessages.enumerated().flatMap { place, message in
                    try bodies(message.vector).map { [UInt8(place)] + $0 }
                }
            }, run: readControl),
    ]
}

private let dataVectors = [
    "write-batch", "write-batch-reply", "multi-get", "multi-get-reply", "scan", "scan-page", "key-index",
    "key-index-page",
]

private func frames() throws -> [[UInt8]] {
    try (dataVectors + controlMessages.map(\.vector)).map { try GoldenFile.bytes("wire/\($0).hex") }
}

private func bodies(_ vector: String) throws -> [[UInt8]] {
    [Array(try GoldenFile.bytes("wire/\(vector).hex").dropFirst(FrameHeader.size))]
}

/// The same stream whole and in two pieces gives the same frames.
private func readFrames(_ input: [UInt8]) {
    let cut = input.isEmpty ? 0 : Int(input[0]) * input.count / 256
    for checksumRequired in [false, true] {
        let whole = parse([input], checksumRequired)
        let pieces = parse([Array(input[..<cut]), Array(input[cut...])], checksumRequired)
        if whole != pieces { broken("a stream in two pieces gives other frames") }
    }
}

private func parse(_ pieces: [[UInt8]], _ checksumRequired: Bool) -> [[UInt8]] {
    var parser = FrameParser(frameBytesMax: 1 << 20, checksumRequired: checksumRequired)
    var found: [[UInt8]] = []
    for piece in pieces {
        // Memory of its own, so that a frame that outlives it is seen.
        let isBroken = piece.withUnsafeBytes { bytes in
            var offset = 0
            do {
                while let frame = try parser.next(in: bytes, from: &offset) { found.append(Array(frame.body)) }
                return false
            } catch {
                return true
            }
        }
        if isBroken { break }
    }
    return found
}

private func readWriteBatch(_ input: [UInt8]) {
    input.withUnsafeBytes { body in
        guard let message = try? WriteBatchMessage.decode(body) else { return }
        touch(message.columns)
    }
}

private func readMultiGet(_ input: [UInt8]) {
    input.withUnsafeBytes { body in
        guard let message = try? MultiGetMessage.decode(body) else { return }
        for index in 0..<message.keys.count { touch(message.keys[index]) }
    }
}

private func readMultiGetReply(_ input: [UInt8]) {
    input.withUnsafeBytes { body in
        guard let message = try? MultiGetReplyMessage.decode(body) else { return }
        for index in 0..<message.count { if let found = message[index] { touch(found.value) } }
    }
}

private func readScan(_ input: [UInt8]) {
    input.withUnsafeBytes { body in
        guard let message = try? ScanMessage.decode(body) else { return }
        touch(message.start)
        touch(message.end)
    }
}

private func readScanPage(_ input: [UInt8]) {
    input.withUnsafeBytes { body in
        guard let message = try? ScanPageMessage.decode(body) else { return }
        touch(message.next)
        for index in 0..<message.count {
            touch(message[index])
            _ = message.expiry(index)
        }
    }
}

private func readKeyIndex(_ input: [UInt8]) {
    input.withUnsafeBytes { body in
        guard let message = try? KeyIndexMessage.decode(body) else { return }
        touch(message.start)
    }
}

private struct ControlMessageKind: Sendable {
    let vector: String
    let decode: @Sendable (UnsafeRawBufferPointer) -> Void

    init<M: Message & Equatable>(_ vector: String, _ type: M.Type) {
        self.vector = vector
        decode = { body in
            guard let message = try? ControlMessage.decode(M.self, from: body) else { return }
            let again = ControlMessage.encode(message)
            guard let same = again.withUnsafeBytes({ try? ControlMessage.decode(M.self, from: $0) }), same == message
            else { broken("\(M.protoMessageName) does not come back from its own encoding") }
        }
    }
}

/// By the first byte of an input. New ones go to the end, so that inputs keep their meaning.
private let controlMessages = [
    ControlMessageKind("hello", Cistern_V1_Hello.self),
    ControlMessageKind("hello-reply", Cistern_V1_HelloReply.self),
    ControlMessageKind("attach", Cistern_V1_Attach.self),
    ControlMessageKind("attach-reply", Cistern_V1_AttachReply.self),
    ControlMessageKind("detach", Cistern_V1_Detach.self),
    ControlMessageKind("detach-reply", Cistern_V1_DetachReply.self),
    ControlMessageKind("register-state", Cistern_V1_RegisterState.self),
    ControlMessageKind("register-state-reply", Cistern_V1_RegisterStateReply.self),
    ControlMessageKind("put-dictionary", Cistern_V1_PutDictionary.self),
    ControlMessageKind("put-dictionary-reply", Cistern_V1_PutDictionaryReply.self),
    ControlMessageKind("get-dictionary", Cistern_V1_GetDictionary.self),
    ControlMessageKind("get-dictionary-reply", Cistern_V1_GetDictionaryReply.self),
    ControlMessageKind("snapshot", Cistern_V1_Snapshot.self),
    ControlMessageKind("snapshot-reply", Cistern_V1_SnapshotReply.self),
    ControlMessageKind("release-snapshot", Cistern_V1_ReleaseSnapshot.self),
    ControlMessageKind("release-snapshot-reply", Cistern_V1_ReleaseSnapshotReply.self),
    ControlMessageKind("list-snapshots", Cistern_V1_ListSnapshots.self),
    ControlMessageKind("list-snapshots-reply", Cistern_V1_ListSnapshotsReply.self),
    ControlMessageKind("go-away", Cistern_V1_GoAway.self),
    ControlMessageKind("error", Cistern_V1_ErrorBody.self),
]

private func readControl(_ input: [UInt8]) {
    guard let first = input.first, Int(first) < controlMessages.count else { return }
    input.withUnsafeBytes { controlMessages[Int(first)].decode(UnsafeRawBufferPointer(rebasing: $0[1...])) }
}
