// The value of a list state: elements one behind the other, so that adding is appending and the server only concatenates.
//
//   ┌─────────────┬──────────────────────┬──────────┐ ┌─────────────┬────────────
//   │ varint size │ u64 element's expiry │ envelope │ │ varint size │ …
//   └─────────────┴──────────────────────┴──────────┘ └─────────────┴────────────
//
// Expiries of elements are those that the tree stores (proto-spec/entries.md, expiry rules), so that they follow a changed time
// to live as the whole does.
//
// In the write buffer and the value cache the same layout holds the serializer's bytes in place of the envelope.

package import CisternCompression
internal import CisternPrimitives

package enum ListFormat {
    static func appendElement(_ bytes: [UInt8], expiry: Expiry, to output: inout [UInt8]) {
        appendHeader(size: bytes.count, expiry: expiry, to: &output)
        output.append(contentsOf: bytes)
    }

    private static func appendHeader(size: Int, expiry: Expiry, to output: inout [UInt8]) {
        StateKey.appendVarint(UInt64(size), to: &output)
        for shift in stride(from: UInt64(0), to: 64, by: 8) {
            output.append(UInt8(truncatingIfNeeded: expiry.rawValue >> shift))
        }
    }

    /// The elements' places in `list`; nil when the bytes are not a list.
    static func elements(of list: ArraySlice<UInt8>) -> [(bytes: Range<Int>, expiry: Expiry)]? {
        unsafe list.withUnsafeBytes { memory -> [(bytes: Range<Int>, expiry: Expiry)]? in
            var reader = unsafe ByteReader(memory)
            var elements: [(bytes: Range<Int>, expiry: Expiry)] = []
            while let next = next(&reader) {
                let start = list.startIndex + reader.offset - next.size
                elements.append((start..<(start + next.size), next.expiry))
            }
            return reader.isAtEnd ? elements : nil
        }
    }

    /// Reads one element and leaves the reader behind it; nil at the end and at damage, where the reader stays put.
    private static func next(_ reader: inout ByteReader) -> (size: Int, expiry: Expiry)? {
        let start = reader
        guard let size = reader.readVarint(), let expiry = reader.readInteger(as: UInt64.self),
            size <= UInt64(reader.remaining), reader.skip(Int(size))
        else {
            reader = start
            return nil
        }
        return (Int(size), Expiry(rawValue: expiry))
    }

    /// Serializer's bytes → envelopes.
    static func seal(_ list: UnsafeRawBufferPointer, with encoder: EnvelopeEncoder, into output: inout [UInt8]) {
        var reader = unsafe ByteReader(list)
        var envelope: [UInt8] = []
        while let element = next(&reader) {
            let bytes = unsafe UnsafeRawBufferPointer(
                rebasing: list[(reader.offset - element.size)..<reader.offset])
            envelope.removeAll(keepingCapacity: true)
            unsafe encoder.encode(bytes, into: &envelope)
            appendElement(envelope, expiry: element.expiry, to: &output)
        }
        invariant(reader.isAtEnd, "the write buffer holds whole elements")
    }

    /// Envelopes → serializer's bytes.
    package static func open(_ list: [UInt8], with decoder: EnvelopeDecoder) throws(EnvelopeError) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(list.count * 2)
        let result = unsafe list.withUnsafeBytes { memory -> Result<Int, EnvelopeError> in
            do throws(EnvelopeError) {
                return .success(try unsafe open(memory, with: decoder, into: &output))
            } catch {
                return .failure(error)
            }
        }
        _ = try result.get()
        return output
    }

    private static func open(
        _ list: UnsafeRawBufferPointer, with decoder: EnvelopeDecoder, into output: inout [UInt8]
    ) throws(EnvelopeError) -> Int {
        var reader = unsafe ByteReader(list)
        var plain: [UInt8] = []
        while let element = next(&reader) {
            let bytes = unsafe UnsafeRawBufferPointer(
                rebasing: list[(reader.offset - element.size)..<reader.offset])
            plain.removeAll(keepingCapacity: true)
            try unsafe decoder.decode(bytes, into: &plain)
            appendElement(plain, expiry: element.expiry, to: &output)
        }
        guard reader.isAtEnd else {
            throw .damaged(codec: .raw, detail: "list of \(list.count) bytes is broken at byte \(reader.offset)")
        }
        return output.count
    }
}
