// The envelope around every value: which codec made the payload, and what is needed to undo it. Made and opened by the
// client only; the server stores envelopes and never looks inside. Format page: proto-spec/value-envelope.md.
//
//   raw (0)              ┌────┬─────────────────────────────────────────────┐
//                        │ 00 │ value                                       │
//                        └────┴─────────────────────────────────────────────┘
//   lz4 (1), zstd (2)    ┌────┬─────────────────┬──────────────────────────────┐
//                        │ cc │ varint raw size │ LZ4 block, or bare zstd frame │
//                        └────┴─────────────────┴──────────────────────────────┘
//   with dictionary      ┌────┬─────────────────┬─────────────────┬──────────────┐
//   (5 lz4, 6 zstd)      │ cc │ varint raw size │ varint dict. id │ payload      │
//                        └────┴─────────────────┴─────────────────┴──────────────┘
//   the same, no longer  ┌────┬─────────────────┬───────────────┬──────────────┐
//   written (3 and 4)    │ cc │ varint raw size │ u32 dict. id  │ payload      │
//                        └────┴─────────────────┴───────────────┴──────────────┘
//
// Ids are counted from 1 in each store, so that one byte holds nearly all of them.
// A bare zstd frame lacks the 4 magic bytes: they are the same in every value and would be 7 % of a typical one.

internal import CisternPrimitives

/// The first byte of an envelope. On disk and on the wire: never renumber.
package enum EnvelopeCodec: UInt8, Sendable {
    case raw = 0
    case lz4 = 1
    case zstd = 2
    /// 3 and 4 are read only: their four bytes of a dictionary's id were 3 of the 60 bytes of a value.
    case lz4WithFixedID = 3
    case zstdWithFixedID = 4
    case lz4WithDictionary = 5
    case zstdWithDictionary = 6

    var takesDictionary: Bool { rawValue >= EnvelopeCodec.lz4WithFixedID.rawValue }
    var hasFixedID: Bool { self == .lz4WithFixedID || self == .zstdWithFixedID }
}

/// What the bytes of an envelope say, before anything is decompressed. Borrows the envelope's bytes.
@safe package struct ValueEnvelope {
    /// Bytes of the largest value an envelope may announce: an entry's own limit.
    package static let rawSizeMax = 16 * 1024 * 1024
    /// Codec byte, raw size varint of at most 4 bytes, dictionary id.
    package static let headerSizeMax = 1 + 4 + 5

    package let codec: EnvelopeCodec
    package let rawSize: Int
    /// 0 unless the codec takes a dictionary.
    package let dictionaryID: UInt32
    package let payload: UnsafeRawBufferPointer

    /// Reads the header of any bytes. Memory is not taken, so an absurd size costs nothing.
    /// The value inside of an envelope that holds it as it is; nil for one that has to be decoded.
    package static func rawPayload(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
        guard let codec = bytes.first, codec == EnvelopeCodec.raw.rawValue, bytes.count - 1 <= rawSizeMax else {
            return nil
        }
        return bytes.dropFirst()
    }

    package static func parse(_ bytes: UnsafeRawBufferPointer) throws(EnvelopeError) -> ValueEnvelope {
        var reader = unsafe ByteReader(bytes)
        guard let codecByte = reader.readUInt8() else { throw .truncated(size: bytes.count) }
        guard let codec = EnvelopeCodec(rawValue: codecByte) else { throw .unknownCodec(codecByte) }
        if codec == .raw {
            let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[1...])
            guard payload.count <= rawSizeMax else { throw .tooLarge(rawSize: UInt64(payload.count)) }
            return unsafe ValueEnvelope(codec: .raw, rawSize: payload.count, dictionaryID: 0, payload: payload)
        }
        guard let rawSize = reader.readVarint() else { throw .truncated(size: bytes.count) }
        guard rawSize > 0 else { throw .damaged(codec: codec, detail: "it announces an empty value") }
        guard rawSize <= UInt64(rawSizeMax) else { throw .tooLarge(rawSize: rawSize) }
        var dictionaryID: UInt32 = 0
        if codec.takesDictionary {
            let id = codec.hasFixedID ? reader.readInteger(as: UInt32.self).map(UInt64.init) : reader.readVarint()
            guard let id else { throw .truncated(size: bytes.count) }
            guard let small = UInt32(exactly: id) else {
                throw .damaged(codec: codec, detail: "it names dictionary \(id), ids have 32 bits")
            }
            dictionaryID = small
        }
        let payload = unsafe reader.readBytes(reader.remaining)!
        guard rawSize <= UInt64(largestRawSize(codec: codec, payloadSize: payload.count)) else {
            throw .damaged(
                codec: codec, detail: "\(payload.count) compressed bytes cannot hold \(rawSize) bytes")
        }
        return unsafe ValueEnvelope(
            codec: codec, rawSize: Int(rawSize), dictionaryID: dictionaryID, payload: payload)
    }

    /// The most bytes a payload can expand to, so that a forged size does not take memory the input does not justify.
    /// LZ4: a byte of a match length adds at most 255. zstd: a block of at least 4 bytes holds at most 128 KiB.
    private static func largestRawSize(codec: EnvelopeCodec, payloadSize: Int) -> Int {
        switch codec {
        case .raw: payloadSize
        case .lz4, .lz4WithDictionary, .lz4WithFixedID: payloadSize * 255 + 64
        case .zstd, .zstdWithDictionary, .zstdWithFixedID: (payloadSize / 4 + 1) * 128 * 1024
        }
    }
}

/// Why bytes are not a value. None of these is retried: the bytes are what they are, except an unknown dictionary, which
/// can be fetched.
package enum EnvelopeError: Error, Hashable, Sendable, CustomStringConvertible {
    case truncated(size: Int)
    case unknownCodec(UInt8)
    case tooLarge(rawSize: UInt64)
    case unknownDictionary(id: UInt32)
    case damaged(codec: EnvelopeCodec, detail: String)

    package var description: String {
        switch self {
        case .truncated(let size): "a value envelope of \(size) bytes ends inside its header"
        case .unknownCodec(let byte):
            "a value envelope starts with codec \(byte), which this version does not know: a newer client wrote it"
        case .tooLarge(let rawSize):
            "a value envelope announces \(rawSize) bytes; the limit is \(ValueEnvelope.rawSizeMax)"
        case .unknownDictionary(let id): "a value needs dictionary \(id), which has not been loaded"
        case .damaged(let codec, let detail): "a \(codec) value envelope is damaged: \(detail)"
        }
    }
}
