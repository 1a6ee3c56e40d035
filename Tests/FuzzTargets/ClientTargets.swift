// What a client reads back: values in their envelopes, lists of them, its own keys.

import CisternClient
import CisternCompression
import CisternPrimitives
import CisternTestKit

extension FuzzTarget {
    static let client = [
        FuzzTarget(name: "envelope", seeds: { try envelopes().values }, run: readEnvelope),
        FuzzTarget(
            name: "list",
            seeds: { try envelopes().values.map { listElement($0) + listElement([0, 7]) } }, run: readList),
        FuzzTarget(
            name: "state-key",
            seeds: { [[0, 3, 0, 1, 2, 65, 66, 1, 67, 68, 69], [0, 3, 0, 1, 128, 0, 0, 0, 0, 0, 0, 9, 1, 65, 66]] },
            run: readStateKey),
    ]
}

/// proto-spec/vectors/value-envelope.txt: the dictionary, then NAME ENVELOPE RAW.
private func envelopes() throws -> (dictionary: CompressionDictionary, values: [[UInt8]]) {
    var dictionary: CompressionDictionary?
    var values: [[UInt8]] = []
    for line in try GoldenFile.text("value-envelope.txt").split(separator: "\n") where !line.hasPrefix("#") {
        let words = line.split(separator: " ")
        if words[0] == "dictionary", let id = UInt32(words[1]) {
            dictionary = CompressionDictionary(id: id, bytes: bytes(ofHex: words[2]))
        } else {
            values.append(bytes(ofHex: words[1]))
        }
    }
    guard let dictionary else { broken("value-envelope.txt has no dictionary") }
    return (dictionary, values)
}

private func bytes(ofHex text: Substring) -> [UInt8] {
    let digits = Array(text)
    return stride(from: 0, to: digits.count - 1, by: 2).compactMap { UInt8(String(digits[$0...($0 + 1)]), radix: 16) }
}

private let decoder: Guarded<EnvelopeDecoder> = {
    let decoder = EnvelopeDecoder()
    guard let known = try? envelopes() else { broken("value-envelope.txt cannot be read") }
    decoder.add(known.dictionary)
    return Guarded(decoder)
}()

private func readEnvelope(_ input: [UInt8]) {
    guard let value = decoder.withLock({ try? $0.decode(input) }) else { return }
    if value.count > ValueEnvelope.rawSizeMax { broken("a value of \(value.count) bytes") }
}

/// Size as a varint, expiry, envelope.
private func listElement(_ envelope: [UInt8]) -> [UInt8] {
    var size = envelope.count
    var bytes: [UInt8] = []
    while size >= 0x80 {
        bytes.append(UInt8(size & 0x7F) | 0x80)
        size >>= 7
    }
    return bytes + [UInt8(size)] + [UInt8](repeating: 0, count: 8) + envelope
}

private func readList(_ input: [UInt8]) { _ = decoder.withLock { try? ListFormat.open(input, with: $0) } }

private func readStateKey(_ input: [UInt8]) {
    _ = StateKey.decode(input)
    _ = TimerKey.decode(input)
}
