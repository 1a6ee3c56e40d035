// A codec as ours has it, value by value in the client, and what a user of the peer would choose instead: compression of
// blocks in the store.

import CisternBenchKit
import CisternCompression

struct CodecVariant: Sendable {
    let name: String
    let compression: Compression
    let dictionaryBytes: Int
    let peer: BlockCompression

    static let all = [
        CodecVariant(name: "none", compression: .none, dictionaryBytes: 0, peer: .none),
        CodecVariant(name: "lz4", compression: .lz4, dictionaryBytes: 0, peer: .lz4),
        CodecVariant(name: "lz4_dict", compression: .lz4, dictionaryBytes: 8 << 10, peer: .lz4),
        CodecVariant(
            name: "zstd1", compression: .zstd(level: 1), dictionaryBytes: 0, peer: .zstd(level: 1, dictionary: false)),
        CodecVariant(
            name: "zstd1_dict", compression: .zstd(level: 1), dictionaryBytes: 16 << 10,
            peer: .zstd(level: 1, dictionary: true)),
        CodecVariant(
            name: "zstd3", compression: .zstd(level: 3), dictionaryBytes: 0, peer: .zstd(level: 3, dictionary: false)),
        CodecVariant(
            name: "zstd3_dict", compression: .zstd(level: 3), dictionaryBytes: 16 << 10,
            peer: .zstd(level: 3, dictionary: true)),
    ]
}

/// The client's side of a store: values are compressed before they are written and decompressed when they were read. The
/// peer's values stay as they are.
final class ValueCodec {
    private let encoder: EnvelopeEncoder?
    private let decoder: EnvelopeDecoder?
    private var encoded: [UInt8] = []
    private var decoded: [UInt8] = []

    init(_ variant: CodecVariant, _ side: Side, _ records: Records) throws {
        guard side == .ours else {
            encoder = nil
            decoder = nil
            return
        }
        let dictionary = variant.dictionaryBytes > 0 ? try records.dictionary(bytes: variant.dictionaryBytes) : nil
        encoder = EnvelopeEncoder(variant.compression, dictionary: dictionary)
        let decoder = EnvelopeDecoder()
        if let dictionary { decoder.add(dictionary) }
        self.decoder = decoder
    }

    /// What is written for a value; valid during `body`.
    func encode<Result>(_ value: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws -> Result) rethrows
        -> Result
    {
        guard let encoder else { return try body(value) }
        encoded.removeAll(keepingCapacity: true)
        encoder.encode(value, into: &encoded)
        return try encoded.withUnsafeBytes { try body($0) }
    }

    /// How long the value is that was written so; decompresses it.
    func decode(_ stored: UnsafeRawBufferPointer) throws -> Int {
        guard let decoder else { return stored.count }
        decoded.removeAll(keepingCapacity: true)
        try decoder.decode(stored, into: &decoded)
        return decoded.count
    }
}
