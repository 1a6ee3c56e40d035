import CisternPrimitives
import CisternWire
import CisternWireMessages
import Foundation
import SwiftProtobuf
import Testing

private func multiGet(_ keys: [[UInt8]], epoch: UInt64 = 3, watermark: UInt64 = 4) -> [UInt8] {
    var encoder = MultiGetEncoder()
    for key in keys { key.withUnsafeBytes { encoder.append($0) } }
    return encoder.encode(epoch: epoch, watermark: watermark)
}

private typealias Found = (value: [UInt8], expiry: UInt64)

private func reply(_ values: [Found?]) -> [UInt8] {
    var encoder = MultiGetReplyEncoder()
    for value in values {
        guard let value else {
            encoder.appendAbsent()
            continue
        }
        value.value.withUnsafeBytes { encoder.append(value: $0, expiry: Expiry(rawValue: value.expiry)) }
    }
    return encoder.encode()
}

private func page(_ entries: [OwnedEntry], keysOnly: Bool, next: [UInt8]) -> [UInt8] {
    var encoder = ScanPageEncoder()
    for entry in entries {
        entry.withView { view in
            if keysOnly {
                encoder.appendKey(view.key, expiry: view.expiry)
            } else {
                encoder.append(key: view.key, value: view.value, expiry: view.expiry)
            }
        }
    }
    encoder.setNext(next)
    return encoder.encode()
}

private func scan(
    start: [UInt8], end: [UInt8], _ configure: (inout ScanMessage) -> Void = { _ in }
) -> [UInt8] {
    start.withUnsafeBytes { start in
        end.withUnsafeBytes { end in
            var message = ScanMessage()
            message.start = start
            message.end = end
            configure(&message)
            return message.encode()
        }
    }
}

/// Runs a decoder over every truncation, changes of every byte and random bytes. `check` fails the test when it accepts
/// what the generated code does not, and returns whether it accepted.
private func torture(_ good: [UInt8], _ random: inout SeededRandom, check: ([UInt8]) -> Void) {
    for cut in 0...good.count { check(Array(good[..<cut])) }
    for index in good.indices {
        for change in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF] as [UInt8] {
            var changed = good
            changed[index] ^= change
            check(changed)
        }
    }
    for _ in 0..<3000 { check(random.bytes(0...40)) }
}

@Suite struct ReadMessageTests {
    @Test func multiGetEqualsTheGeneratedCode() throws {
        var random = seeded("multiGetEqualsTheGeneratedCode")
        for _ in 0..<200 {
            let keys = random.entries(0...30).map(\.key)
            let bytes = multiGet(keys)
            var other = Cistern_V1_MultiGet()
            other.epoch = 3
            other.watermark = 4
            other.keyEnds = ends(keys)
            other.keys = Data(keys.flatMap { $0 })
            #expect(bytes == (try other.serializedBytes() as [UInt8]))
            let back = try bytes.withUnsafeBytes { body in
                let message = try MultiGetMessage.decode(body)
                return (message.epoch, message.watermark, (0..<message.keys.count).map { [UInt8](message.keys[$0]) })
            }
            #expect(back.0 == 3 && back.1 == 4 && back.2 == keys)
        }
    }

    @Test func multiGetReplyEqualsTheGeneratedCode() throws {
        var random = seeded("multiGetReplyEqualsTheGeneratedCode")
        for _ in 0..<200 {
            let values: [Found?] = random.entries(0...30).map { $0.kind == .delete ? nil : ($0.value, $0.expiry) }
            let bytes = reply(values)
            var other = Cistern_V1_MultiGetReply()
            other.found = Data(values.map { $0 == nil ? 0 : 1 })
            other.valueEnds = ends(values.map { $0?.value ?? [] })
            if values.contains(where: { $0.map { $0.expiry != 0 } ?? false }) {
                other.expiries = values.map { $0?.expiry ?? 0 }
            }
            other.values = Data(values.flatMap { $0?.value ?? [] })
            #expect(bytes == (try other.serializedBytes() as [UInt8]))
            try bytes.withUnsafeBytes { body in
                let message = try MultiGetReplyMessage.decode(body)
                #expect(message.count == values.count)
                for (index, value) in values.enumerated() {
                    let found = message[index]
                    #expect(found.map { [UInt8]($0.value) } == value?.value)
                    #expect(found?.expiry.rawValue == value?.expiry)
                }
            }
        }
    }

    @Test func aPresentEmptyValueIsNotAbsent() throws {
        let bytes = reply([([], 0), nil])
        try bytes.withUnsafeBytes { body in
            let message = try MultiGetReplyMessage.decode(body)
            #expect(message[0]?.value.isEmpty == true && message[1] == nil)
        }
    }

    @Test func anAbsentKeyWithAValueIsRefused() throws {
        var other = Cistern_V1_MultiGetReply()
        other.found = Data([0])
        other.valueEnds = [1]
        other.values = Data([1])
        let bytes: [UInt8] = try other.serializedBytes()
        let error = bytes.withUnsafeBytes { body in
            wireError { () throws(WireError) in _ = try MultiGetReplyMessage.decode(body) }
        }
        #expect(error?.code == .badMessage)
    }

    @Test func scanEqualsTheGeneratedCode() throws {
        let bytes = scan(start: [1, 2], end: [3]) {
            $0.epoch = 8
            $0.watermark = 9
            $0.entriesMax = 10
            $0.bytesMax = 11
            $0.keysOnly = true
        }
        var other = Cistern_V1_Scan()
        other.epoch = 8
        other.watermark = 9
        other.start = Data([1, 2])
        other.end = Data([3])
        other.entriesMax = 10
        other.bytesMax = 11
        other.keysOnly = true
        #expect(bytes == (try other.serializedBytes() as [UInt8]))
        #expect(scan(start: [], end: []).isEmpty)
        try bytes.withUnsafeBytes { body in
            let back = try ScanMessage.decode(body)
            #expect([UInt8](back.start) == [1, 2] && [UInt8](back.end) == [3] && back.epoch == 8)
            #expect(back.watermark == 9 && back.entriesMax == 10 && back.bytesMax == 11 && back.keysOnly)
        }
    }

    @Test(arguments: [false, true]) func scanPageEqualsTheGeneratedCode(keysOnly: Bool) throws {
        var random = seeded("scanPageEqualsTheGeneratedCode")
        for _ in 0..<200 {
            let entries = random.entries(0...30)
            let next = random.bytes(0...9)
            let bytes = page(entries, keysOnly: keysOnly, next: next)
            var other = Cistern_V1_ScanPage()
            other.keyEnds = ends(entries.map(\.key))
            other.keys = Data(entries.flatMap(\.key))
            if !keysOnly {
                other.valueEnds = ends(entries.map(\.value))
                other.values = Data(entries.flatMap(\.value))
            }
            if entries.contains(where: { $0.expiry != 0 }) { other.expiries = entries.map(\.expiry) }
            other.next = Data(next)
            #expect(bytes == (try other.serializedBytes() as [UInt8]))
            try bytes.withUnsafeBytes { body in
                let back = try ScanPageMessage.decode(body)
                #expect(back.count == entries.count && [UInt8](back.next) == next)
                #expect(back.hasValues == (!keysOnly && !entries.isEmpty))
                for (index, entry) in entries.enumerated() {
                    let expected = OwnedEntry(entry.key, .put, expiry: entry.expiry, keysOnly ? [] : entry.value)
                    #expect(OwnedEntry(back[index]) == expected)
                }
            }
        }
    }

    @Test func keyIndexEqualsTheGeneratedCode() throws {
        let start: [UInt8] = [5, 6]
        let bytes = start.withUnsafeBytes { start in
            var message = KeyIndexMessage()
            message.epoch = 1
            message.watermark = 2
            message.start = start
            return message.encode()
        }
        var other = Cistern_V1_KeyIndex()
        other.epoch = 1
        other.watermark = 2
        other.start = Data(start)
        #expect(bytes == (try other.serializedBytes() as [UInt8]))
        try bytes.withUnsafeBytes { body in
            let back = try KeyIndexMessage.decode(body)
            #expect(back.epoch == 1 && back.watermark == 2 && [UInt8](back.start) == start)
        }
    }

    @Test func damagedMultiGetsAreRefusedOrAgree() {
        var random = seeded("damagedMultiGetsAreRefusedOrAgree")
        torture(multiGet([[1, 2], [1, 3, 4], [2]]), &random) { bytes in
            bytes.withUnsafeBytes { body in
                guard let message = try? MultiGetMessage.decode(body) else { return }
                let keys = (0..<message.keys.count).map { [UInt8](message.keys[$0]) }
                let other = try? Cistern_V1_MultiGet(serializedBytes: bytes)
                #expect(other?.epoch == message.epoch && other?.keyEnds == ends(keys), "\(bytes)")
            }
        }
    }

    @Test func damagedMultiGetRepliesAreRefusedOrAgree() {
        var random = seeded("damagedMultiGetRepliesAreRefusedOrAgree")
        torture(reply([([1, 2], 9), nil, ([], 0), ([3], 0)]), &random) { bytes in
            bytes.withUnsafeBytes { body in
                guard let message = try? MultiGetReplyMessage.decode(body) else { return }
                let values = (0..<message.count).map { message[$0].map { [UInt8]($0.value) } ?? [] }
                let other = try? Cistern_V1_MultiGetReply(serializedBytes: bytes)
                #expect(other?.valueEnds == ends(values), "\(bytes)")
                #expect(other.map { [UInt8]($0.values) } == values.flatMap { $0 }, "\(bytes)")
            }
        }
    }

    @Test func damagedScansAreRefusedOrAgree() {
        var random = seeded("damagedScansAreRefusedOrAgree")
        let good = scan(start: [1, 2], end: [3, 4, 5]) {
            $0.epoch = 7
            $0.entriesMax = 100
            $0.keysOnly = true
        }
        torture(good, &random) { bytes in
            bytes.withUnsafeBytes { body in
                guard let message = try? ScanMessage.decode(body) else { return }
                let other = try? Cistern_V1_Scan(serializedBytes: bytes)
                #expect(other?.epoch == message.epoch && other?.entriesMax == message.entriesMax, "\(bytes)")
                #expect(other.map { [UInt8]($0.start) } == [UInt8](message.start), "\(bytes)")
                #expect(other?.keysOnly == message.keysOnly, "\(bytes)")
            }
        }
    }

    @Test func damagedPagesAreRefusedOrAgree() {
        var random = seeded("damagedPagesAreRefusedOrAgree")
        let entries = [OwnedEntry([1], .put, expiry: 5, [2, 3]), OwnedEntry([2, 2], .put, [])]
        torture(page(entries, keysOnly: false, next: [9]), &random) { bytes in
            bytes.withUnsafeBytes { body in
                guard let message = try? ScanPageMessage.decode(body) else { return }
                let found = (0..<message.count).map { OwnedEntry(message[$0]) }
                let other = try? Cistern_V1_ScanPage(serializedBytes: bytes)
                #expect(other?.keyEnds == ends(found.map(\.key)), "\(bytes)")
                #expect(other.map { [UInt8]($0.values) } == found.flatMap(\.value), "\(bytes)")
                #expect(other.map { [UInt8]($0.next) } == [UInt8](message.next), "\(bytes)")
            }
        }
    }

    @Test func damagedKeyIndexRequestsAreRefusedOrAgree() {
        var random = seeded("damagedKeyIndexRequestsAreRefusedOrAgree")
        let good: [UInt8] = [0x09, 1, 0, 0, 0, 0, 0, 0, 0, 0x1A, 2, 5, 6]
        torture(good, &random) { bytes in
            bytes.withUnsafeBytes { body in
                guard let message = try? KeyIndexMessage.decode(body) else { return }
                let other = try? Cistern_V1_KeyIndex(serializedBytes: bytes)
                #expect(other?.epoch == message.epoch, "\(bytes)")
                #expect(other.map { [UInt8]($0.start) } == [UInt8](message.start), "\(bytes)")
            }
        }
    }
}
