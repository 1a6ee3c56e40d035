// Value → envelope. One object a state, owned by the session's thread: the contexts are made once and used again, which is
// a quarter of the cost of making them for each value. It is on the path of a flush, not of an update.

internal import CLZ4
internal import CZstd
internal import CisternPrimitives

/// Compresses values one by one. Not thread-safe: one owner.
@safe package final class EnvelopeEncoder {
    /// Values shorter than this stay raw: a compressed envelope's header eats what little they give.
    package static let rawBelowBytes = 32
    /// With a dictionary even short values shrink.
    package static let rawBelowBytesWithDictionary = 12
    /// A compressed envelope must be smaller than the raw one by this part of it (1/16), or reading it costs for nothing.
    package static let gainDivisorMin = 16

    package let compression: Compression
    package let dictionary: CompressionDictionary?

    private let threshold: Int
    private let engine: Engine
    /// Compressed bytes before they are known to pay; grown on demand, reused.
    private var scratch: UnsafeMutableRawBufferPointer

    /// The C state behind each codec. Owned by the encoder.
    @safe private enum Engine {
        case none
        case lz4(state: UnsafeMutableRawPointer)
        /// `prepared` has the dictionary loaded and is never compressed with: each value starts from a copy of it, because
        /// Debian's library has no `LZ4_attach_dictionary`.
        case lz4WithDictionary(prepared: UnsafeMutableRawPointer, working: UnsafeMutableRawPointer, size: Int)
        case zstd(context: OpaquePointer, dictionary: OpaquePointer?)
    }

    package init(_ compression: Compression, dictionary: CompressionDictionary? = nil) {
        self.compression = compression
        self.dictionary = compression == .none ? nil : dictionary
        self.threshold = dictionary == nil ? Self.rawBelowBytes : Self.rawBelowBytesWithDictionary
        unsafe self.scratch = .allocate(byteCount: 4096, alignment: 16)
        switch compression {
        case .none: engine = .none
        case .lz4: engine = Self.makeLZ4(dictionary)
        case .zstd(let level): engine = Self.makeZstd(level: level, dictionary)
        }
    }

    deinit {
        unsafe scratch.deallocate()
        switch engine {
        case .none: break
        case .lz4(let state): unsafe state.deallocate()
        case .lz4WithDictionary(let prepared, let working, _):
            unsafe prepared.deallocate()
            unsafe working.deallocate()
        case .zstd(let context, let dictionary):
            // Freeing cannot fail; the C API returns a size only for symmetry.
            _ = unsafe ZSTD_freeCCtx(context)
            _ = unsafe ZSTD_freeCDict(dictionary)
        }
    }

    /// Appends the envelope of `raw` to `output`: at most one byte longer than `raw`.
    /// - Precondition: `raw` is at most `ValueEnvelope.rawSizeMax` bytes.
    package func encode(_ raw: UnsafeRawBufferPointer, into output: inout [UInt8]) {
        precondition(raw.count <= ValueEnvelope.rawSizeMax, "a value of \(raw.count) bytes")
        if raw.count >= threshold, let (codec, size) = unsafe compress(raw) {
            let idSize = codec.takesDictionary ? dictionary.map { varintSize(Int($0.id)) } ?? 0 : 0
            let envelopeSize = 1 + varintSize(raw.count) + idSize + size
            if envelopeSize + raw.count / Self.gainDivisorMin < raw.count + 1 {
                writeHeader(codec, rawSize: raw.count, into: &output)
                unsafe output.append(contentsOf: UnsafeRawBufferPointer(rebasing: scratch[..<size]))
                return
            }
        }
        output.append(EnvelopeCodec.raw.rawValue)
        unsafe output.append(contentsOf: raw)
    }

    /// The same for an array's bytes.
    package func encode(_ raw: [UInt8], into output: inout [UInt8]) {
        let before = output.count
        let appended = unsafe raw.withUnsafeBytes { bytes -> Int in
            unsafe encode(bytes, into: &output)
            return output.count - before
        }
        invariant(appended > 0, "an envelope has at least a codec byte")
    }

    private func writeHeader(_ codec: EnvelopeCodec, rawSize: Int, into output: inout [UInt8]) {
        output.append(codec.rawValue)
        appendVarint(rawSize, to: &output)
        guard codec.takesDictionary, let dictionary else { return }
        appendVarint(Int(dictionary.id), to: &output)
    }

    private func appendVarint(_ value: Int, to output: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            output.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        output.append(UInt8(truncatingIfNeeded: rest))
    }

    /// Compresses into `scratch`; nil when the codec is none or refuses, and then the value stays raw.
    private func compress(_ raw: UnsafeRawBufferPointer) -> (EnvelopeCodec, Int)? {
        switch engine {
        case .none: return nil
        case .lz4(let state):
            growScratch(to: Int(LZ4_compressBound(Int32(raw.count))))
            let size = unsafe LZ4_compress_fast_extState(
                state, characters(raw), characters(scratch), Int32(raw.count), Int32(scratch.count), 1)
            return size > 0 ? (.lz4, Int(size)) : nil
        case .lz4WithDictionary(let prepared, let working, let stateSize):
            growScratch(to: Int(LZ4_compressBound(Int32(raw.count))))
            unsafe working.copyMemory(from: prepared, byteCount: stateSize)
            let size = unsafe LZ4_compress_fast_continue(
                working.assumingMemoryBound(to: LZ4_stream_t.self), characters(raw), characters(scratch),
                Int32(raw.count), Int32(scratch.count), 1)
            return size > 0 ? (.lz4WithDictionary, Int(size)) : nil
        case .zstd(let context, let prepared):
            growScratch(to: ZSTD_compressBound(raw.count))
            let size = unsafe ZSTD_compress2(
                context, scratch.baseAddress!, scratch.count, raw.baseAddress!, raw.count)
            guard ZSTD_isError(size) == 0, size > ZstdFrame.magicSize else { return nil }
            return (unsafe prepared == nil ? .zstd : .zstdWithDictionary, dropMagic(frameSize: size))
        }
    }

    private func dropMagic(frameSize: Int) -> Int {
        let size = frameSize - ZstdFrame.magicSize
        unsafe scratch.baseAddress!.copyMemory(
            from: scratch.baseAddress! + ZstdFrame.magicSize, byteCount: size)
        return size
    }

    private func growScratch(to size: Int) {
        guard unsafe scratch.count < size else { return }
        unsafe scratch.deallocate()
        unsafe scratch = .allocate(byteCount: size * 2, alignment: 16)
    }

    private static func makeLZ4(_ dictionary: CompressionDictionary?) -> Engine {
        let size = Int(LZ4_sizeofState())
        let state = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
        guard let dictionary else { return unsafe .lz4(state: state) }
        let stream = unsafe LZ4_initStream(state, size)
        invariant(unsafe stream != nil, "LZ4 refused a state of \(size) bytes")
        let loaded = unsafe LZ4_loadDict(stream, characters(dictionary.bytes), Int32(dictionary.bytes.count))
        invariant(loaded >= 0, "LZ4 refused a dictionary")
        let working = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
        return unsafe .lz4WithDictionary(prepared: state, working: working, size: size)
    }

    private static func makeZstd(level: Int, _ dictionary: CompressionDictionary?) -> Engine {
        let context = unsafe ZSTD_createCCtx()!
        // The envelope knows the raw size and the dictionary, so the frame need not say them again.
        for (parameter, value) in [
            (ZSTD_c_compressionLevel, Int32(level)), (ZSTD_c_contentSizeFlag, 0), (ZSTD_c_checksumFlag, 0),
            (ZSTD_c_dictIDFlag, 0),
        ] {
            let result = unsafe ZSTD_CCtx_setParameter(context, parameter, value)
            invariant(ZSTD_isError(result) == 0, "zstd refused a parameter")
        }
        guard let dictionary else { return unsafe .zstd(context: context, dictionary: nil) }
        let prepared = unsafe ZSTD_createCDict(
            dictionary.bytes.baseAddress!, dictionary.bytes.count, Int32(level))!
        let result = unsafe ZSTD_CCtx_refCDict(context, prepared)
        invariant(ZSTD_isError(result) == 0, "zstd refused a dictionary")
        return unsafe .zstd(context: context, dictionary: prepared)
    }
}

enum ZstdFrame {
    /// RFC 8878, section 3.1.1: 0xFD2FB528, little-endian.
    static let magic: UInt32 = 0xFD2F_B528
    static let magicSize = 4
}

/// Of a number below 2³⁵.
func varintSize(_ value: Int) -> Int {
    value < 1 << 7 ? 1 : value < 1 << 14 ? 2 : value < 1 << 21 ? 3 : value < 1 << 28 ? 4 : 5
}

/// LZ4's C interface wants `char *`.
func characters(_ bytes: UnsafeRawBufferPointer) -> UnsafePointer<CChar> {
    unsafe bytes.baseAddress!.assumingMemoryBound(to: CChar.self)
}

func characters(_ bytes: UnsafeMutableRawBufferPointer) -> UnsafeMutablePointer<CChar> {
    unsafe bytes.baseAddress!.assumingMemoryBound(to: CChar.self)
}
