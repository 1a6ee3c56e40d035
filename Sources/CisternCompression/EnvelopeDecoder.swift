// Envelope → value. Takes any bytes: it throws, never traps, and takes no more memory than the payload can justify. One
// object a session, owned by the session's thread; it knows every dictionary the session has loaded.

internal import CLZ4
internal import CZstd
internal import CisternPrimitives

/// Opens envelopes one by one. Not thread-safe: one owner.
@safe package final class EnvelopeDecoder {
    private let context: OpaquePointer
    private var dictionaries: [UInt32: Prepared] = [:]
    /// A bare frame behind the magic bytes that zstd wants; grown on demand, reused.
    private var frame: [UInt8] = []
    /// Where values are decompressed before they are known to be whole; as large as the largest one so far.
    private var scratch: UnsafeMutableRawBufferPointer

    @safe private struct Prepared {
        let dictionary: CompressionDictionary
        let zstd: OpaquePointer
    }

    package init() {
        unsafe context = ZSTD_createDCtx()!
        unsafe scratch = .allocate(byteCount: 4096, alignment: 16)
    }

    deinit {
        // Freeing cannot fail; the C API returns a size only for symmetry.
        _ = unsafe ZSTD_freeDCtx(context)
        unsafe scratch.deallocate()
        for prepared in dictionaries.values { _ = unsafe ZSTD_freeDDict(prepared.zstd) }
    }

    package func knows(dictionary id: UInt32) -> Bool { dictionaries[id] != nil }

    package func dictionary(_ id: UInt32) -> CompressionDictionary? { dictionaries[id]?.dictionary }

    /// Makes values that name the dictionary readable. The same id again changes nothing: dictionaries are immutable.
    package func add(_ dictionary: CompressionDictionary) {
        guard dictionaries[dictionary.id] == nil else { return }
        let zstd = unsafe ZSTD_createDDict(dictionary.bytes.baseAddress!, dictionary.bytes.count)!
        dictionaries[dictionary.id] = unsafe Prepared(dictionary: dictionary, zstd: zstd)
    }

    /// Appends the value to `output`; on an error `output` is as it was.
    package func decode(_ bytes: UnsafeRawBufferPointer, into output: inout [UInt8]) throws(EnvelopeError) {
        let envelope = try unsafe ValueEnvelope.parse(bytes)
        if envelope.codec == .raw {
            unsafe output.append(contentsOf: envelope.payload)
            return
        }
        var prepared: Prepared?
        if envelope.codec.takesDictionary {
            guard let known = dictionaries[envelope.dictionaryID] else {
                throw .unknownDictionary(id: envelope.dictionaryID)
            }
            prepared = known
        }
        guard unsafe !envelope.payload.isEmpty else {
            throw .damaged(codec: envelope.codec, detail: "it has no payload")
        }
        growScratch(to: envelope.rawSize)
        let target = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[..<envelope.rawSize])
        let written = unsafe decompress(envelope, prepared, into: target)
        guard written == envelope.rawSize else {
            throw .damaged(
                codec: envelope.codec,
                detail: written < 0
                    ? "its payload does not decompress" : "it holds \(written) bytes, announced \(envelope.rawSize)")
        }
        unsafe output.append(contentsOf: UnsafeRawBufferPointer(target))
    }

    private func growScratch(to size: Int) {
        guard unsafe scratch.count < size else { return }
        unsafe scratch.deallocate()
        unsafe scratch = .allocate(byteCount: size, alignment: 16)
    }

    /// The same for an array's bytes.
    package func decode(_ bytes: [UInt8]) throws(EnvelopeError) -> [UInt8] {
        var output: [UInt8] = []
        let result = unsafe bytes.withUnsafeBytes { bytes -> Result<Void, EnvelopeError> in
            do throws(EnvelopeError) { return .success(try unsafe decode(bytes, into: &output)) } catch {
                return .failure(error)
            }
        }
        try result.get()
        return output
    }

    /// Bytes written, or a negative number when the payload is not what the codec makes.
    private func decompress(
        _ envelope: ValueEnvelope, _ prepared: Prepared?, into target: UnsafeMutableRawBufferPointer
    ) -> Int {
        switch envelope.codec {
        case .raw: return -1
        case .lz4:
            return Int(
                unsafe LZ4_decompress_safe(
                    characters(envelope.payload), characters(target), Int32(envelope.payload.count),
                    Int32(target.count)))
        case .lz4WithDictionary, .lz4WithFixedID:
            guard let dictionary = unsafe prepared?.dictionary.bytes else { return -1 }
            return Int(
                unsafe LZ4_decompress_safe_usingDict(
                    characters(envelope.payload), characters(target), Int32(envelope.payload.count),
                    Int32(target.count), characters(dictionary), Int32(dictionary.count)))
        case .zstd, .zstdWithDictionary, .zstdWithFixedID:
            return unsafe decompressZstd(envelope.payload, prepared?.zstd, into: target)
        }
    }

    private func decompressZstd(
        _ payload: UnsafeRawBufferPointer, _ dictionary: OpaquePointer?, into target: UnsafeMutableRawBufferPointer
    ) -> Int {
        frame.removeAll(keepingCapacity: true)
        for shift in stride(from: UInt32(0), to: 32, by: 8) {
            frame.append(UInt8(truncatingIfNeeded: ZstdFrame.magic >> shift))
        }
        unsafe frame.append(contentsOf: payload)
        let size = unsafe frame.withUnsafeBytes { frame -> Int in
            // A nil dictionary is allowed and means none.
            unsafe ZSTD_decompress_usingDDict(
                context, target.baseAddress!, target.count, frame.baseAddress!, frame.count, dictionary)
        }
        return ZSTD_isError(size) == 0 ? size : -1
    }
}
