import CisternPrimitives
import CisternWire
import CisternWireMessages
import Foundation
import SwiftProtobuf
import Testing

private func decoded(
    _ bytes: [UInt8]
) throws(WireError) -> (entries: [OwnedEntry], epoch: UInt64, sequence: UInt64, watermark: UInt64) {
    let result: Result<([OwnedEntry], UInt64, UInt64, UInt64), WireError> = bytes.withUnsafeBytes { body in
        do throws(WireError) {
            let batch = try WriteBatchMessage.decode(body)
            let entries = (0..<batch.columns.count).map { OwnedEntry(batch.columns[$0]) }
            return .success((entries, batch.epoch, batch.sequence, batch.watermark))
        } catch {
            return .failure(error)
        }
    }
    let value = try result.get()
    return (value.0, value.1, value.2, value.3)
}

/// What the hand codec accepts, the generated code must accept with the same content. True when it was accepted.
@discardableResult
private func agreesWithGeneratedCode(_ bytes: [UInt8]) -> Bool {
    guard let hand = try? decoded(bytes) else { return false }
    guard let other = try? Cistern_V1_WriteBatch(serializedBytes: bytes) else {
        Issue.record("accepted what the generated code refuses: \(bytes)")
        return true
    }
    let expiries = other.expiries.isEmpty ? [UInt64](repeating: 0, count: hand.entries.count) : other.expiries
    #expect(hand.epoch == other.epoch && hand.sequence == other.sequence && hand.watermark == other.watermark)
    #expect(ends(hand.entries.map(\.key)) == other.keyEnds && hand.entries.flatMap(\.key) == [UInt8](other.keys))
    #expect(ends(hand.entries.map(\.value)) == other.valueEnds)
    #expect(hand.entries.flatMap(\.value) == [UInt8](other.values))
    #expect(hand.entries.map(\.kind.rawValue) == [UInt8](other.kinds) && hand.entries.map(\.expiry) == expiries)
    return true
}

private let sample = [
    OwnedEntry([0, 1, 2], .put, expiry: 99, [7, 7]), OwnedEntry([0, 1, 3], .delete),
    OwnedEntry([0, 2], .append, [1, 2, 3, 4]),
]

@Suite struct WriteBatchTests {
    @Test func bytesEqualThoseOfTheGeneratedCode() throws {
        var random = seeded("bytesEqualThoseOfTheGeneratedCode")
        for round in 0..<300 {
            let entries = random.entries(0...60)
            let epoch = round % 5 == 0 ? 0 : random.next()
            let bytes = handEncoded(entries, epoch: epoch, sequence: UInt64(round), watermark: UInt64(round / 2))
            let other = generated(entries, epoch: epoch, sequence: UInt64(round), watermark: UInt64(round / 2))
            #expect(bytes == (try other.serializedBytes() as [UInt8]))
            let back = try decoded(bytes)
            #expect(back.entries == entries && back.epoch == epoch && back.sequence == UInt64(round))
        }
    }

    @Test func largeColumnsKeepTheirLengthVarints() throws {
        for size in [127, 128, 16_383, 16_384, 300_000] {
            let entries = [OwnedEntry([1], .put, [UInt8](repeating: 3, count: size))]
            let bytes = handEncoded(entries, epoch: 1, sequence: 1, watermark: 0)
            #expect(bytes == (try generated(entries, epoch: 1, sequence: 1, watermark: 0).serializedBytes() as [UInt8]))
            #expect(try decoded(bytes).entries == entries)
        }
    }

    @Test func anEncoderIsReusedAfterReset() {
        var encoder = WriteBatchEncoder()
        for entry in sample { entry.withView { encoder.append($0) } }
        #expect(encoder.count == 3 && encoder.contentBytes == 14)
        let first = encoder.encode(epoch: 1, sequence: 2, watermark: 3)
        encoder.reset()
        #expect(encoder.encode(epoch: 0, sequence: 0, watermark: 0).isEmpty)
        for entry in sample { entry.withView { encoder.append($0) } }
        #expect(encoder.encode(epoch: 1, sequence: 2, watermark: 3) == first)
    }

    @Test func fieldsComeInAnyOrder() throws {
        var random = seeded("fieldsComeInAnyOrder")
        let bytes = handEncoded(sample, epoch: 5, sequence: 6, watermark: 7)
        let fields = splitFields(bytes)
        #expect(fields.count == 9)
        for _ in 0..<100 {
            let shuffled = fields.shuffled(using: &random).flatMap { $0 }
            let back = try decoded(shuffled)
            #expect(back.entries == sample && back.epoch == 5 && back.sequence == 6 && back.watermark == 7)
        }
    }

    @Test func unknownFieldsAreSkipped() throws {
        let bytes = handEncoded(sample, epoch: 5, sequence: 6, watermark: 7)
        let unknown: [[UInt8]] = [
            [0x78, 0x96, 0x01], [0x79, 1, 2, 3, 4, 5, 6, 7, 8], [0x7A, 2, 9, 9], [0x7D, 1, 2, 3, 4],
            [0xF8, 0xFF, 0xFF, 0xFF, 0x0F, 0x01],
        ]
        for field in unknown {
            #expect(try decoded(field + bytes).entries == sample)
            #expect(try decoded(bytes + field).entries == sample)
        }
    }

    @Test func theLastOfARepeatedFieldWins() throws {
        let bytes = handEncoded(sample, epoch: 5, sequence: 6, watermark: 7)
        let back = try decoded(bytes + [0x09, 1, 0, 0, 0, 0, 0, 0, 0])
        #expect(back.epoch == 1)
    }

    @Test func columnsInPiecesOrNotPackedAreRefusedWithASentence() {
        // key_ends as two fields of one element each, then as single elements.
        for bytes: [UInt8] in [[0x22, 4, 1, 0, 0, 0, 0x22, 4, 2, 0, 0, 0], [0x25, 1, 0, 0, 0]] {
            let error = wireError { () throws(WireError) in _ = try decoded(bytes) }
            guard case .malformed(let message, _, let detail) = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(message == "WriteBatch" && detail.contains("column 4") && error?.code == .badMessage)
        }
    }

    @Test func columnsThatDoNotFitTogetherAreRefused() throws {
        let good = generated(sample, epoch: 1, sequence: 1, watermark: 0)
        let breaks: [(inout Cistern_V1_WriteBatch) -> Void] = [
            { $0.keyEnds[0] = 7 }, { $0.keyEnds[2] += 1 }, { $0.keyEnds.removeLast() }, { $0.valueEnds.append(6) },
            { $0.kinds[0] = 0 }, { $0.kinds[1] = 4 }, { $0.kinds = Data() }, { $0.expiries.removeLast() },
            { $0.keys.removeLast() }, { $0.values.append(1) }, { $0.valueEnds[1] = UInt32.max },
        ]
        for change in breaks {
            var broken = good
            change(&broken)
            let bytes: [UInt8] = try broken.serializedBytes()
            #expect(wireError { () throws(WireError) in _ = try decoded(bytes) }?.code == .badMessage)
        }
    }

    @Test func limitsAreNamedInTheirErrors() throws {
        func limit(_ entries: [OwnedEntry]) -> String? {
            let bytes = handEncoded(entries, epoch: 1, sequence: 1, watermark: 0)
            guard
                case .limitExceeded(_, let limit, _, _) = wireError({ () throws(WireError) in _ = try decoded(bytes) })
            else { return nil }
            return limit
        }
        let longKey = [UInt8](repeating: 1, count: WireLimits.keyBytesMax)
        #expect(limit([OwnedEntry(longKey)]) == nil)
        #expect(limit([OwnedEntry(longKey + [1])]) == "keyBytesMax")
        let largest = [UInt8](repeating: 1, count: WireLimits.valueBytesMax)
        #expect(limit([OwnedEntry([1], .put, largest)]) == nil)
        #expect(limit([OwnedEntry([1], .put, largest + [1])]) == "valueBytesMax")
        #expect(limit([OwnedEntry([1], .put, largest), OwnedEntry([2])]) == "batchBytesMax")
        let many = (0...UInt32(WireLimits.batchEntriesMax)).map { (index: UInt32) -> OwnedEntry in
            let key: [UInt8] = [UInt8(index >> 16), UInt8(index >> 8 & 255), UInt8(index & 255)]
            return OwnedEntry(key)
        }
        #expect(limit(many.dropLast()) == nil)
        #expect(limit(many) == "batchEntriesMax")
    }

    @Test func everyTruncationIsRefusedOrAgrees() {
        let bytes = handEncoded(sample, epoch: 5, sequence: 6, watermark: 7)
        var accepted = 0
        for cut in 0..<bytes.count where agreesWithGeneratedCode(Array(bytes[..<cut])) { accepted += 1 }
        // Nothing but a cut before the first column is a message again.
        #expect(accepted == 4)
    }

    @Test func everyChangedByteIsRefusedOrAgrees() {
        var random = seeded("everyChangedByteIsRefusedOrAgrees")
        let bytes = handEncoded(random.entries(5...10), epoch: 5, sequence: 6, watermark: 7)
        for index in bytes.indices {
            for change in 1...255 as ClosedRange<UInt8> {
                var changed = bytes
                changed[index] ^= change
                agreesWithGeneratedCode(changed)
            }
        }
    }

    @Test func randomBytesAreRefusedOrAgree() {
        var random = seeded("randomBytesAreRefusedOrAgree")
        for _ in 0..<20_000 {
            agreesWithGeneratedCode(random.bytes(0...40))
        }
    }

    @Test func theReplyEqualsTheGeneratedCode() throws {
        for sequence: UInt64 in [0, 1, .max] {
            var other = Cistern_V1_WriteBatchReply()
            other.sequence = sequence
            let bytes = WriteBatchReplyMessage(sequence: sequence).encode()
            #expect(bytes == (try other.serializedBytes() as [UInt8]))
            let back = try bytes.withUnsafeBytes { try WriteBatchReplyMessage.decode($0) }
            #expect(back.sequence == sequence)
        }
    }
}

/// The fields of a message, each with its tag.
func splitFields(_ bytes: [UInt8]) -> [[UInt8]] {
    bytes.withUnsafeBytes { body in
        var reader = ByteReader(body)
        var fields: [[UInt8]] = []
        while !reader.isAtEnd {
            let start = reader.offset
            switch reader.readVarint()! & 7 {
            case 0: _ = reader.readVarint()
            case 1: _ = reader.skip(8)
            case 2: _ = reader.readLengthPrefixed()
            default: _ = reader.skip(4)
            }
            fields.append([UInt8](body[start..<reader.offset]))
        }
        return fields
    }
}
