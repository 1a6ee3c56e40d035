// Cuts a stream of bytes into frames. Pure: no clock, no socket, no callback; any bytes in any pieces.
//
// The caller hands in what it read and pulls frames until there is none. A frame that lies whole within the input is
// returned in place; only a frame that straddles inputs is collected in memory of the parser's own. The length is checked
// against the limit before memory is taken, and memory grows with what arrived, not with what was announced.
//
// Threading: owned by one connection.

internal import CisternPrimitives

/// One frame, borrowed from the input or from the parser: valid until the next call of the parser, or the end of the input.
@safe package struct Frame {
    package let header: FrameHeader
    package let body: UnsafeRawBufferPointer
    /// Where the body starts in the input, nil when it was collected from several inputs.
    package let inputOffset: Int?
}

@safe package struct FrameParser: ~Copyable {
    /// Largest frame taken, header included.
    package var frameBytesMax: Int
    /// Whether a frame without a checksum is refused.
    package var checksumRequired: Bool

    // The straddling frame. `held` has room for `heldCapacity` bytes, the first `heldCount` are there.
    private var held: UnsafeMutableRawPointer?
    private var heldCapacity = 0
    private var heldCount = 0
    // The held bytes were handed out as a frame and go at the next call.
    private var heldIsDelivered = false
    // A broken stream stays broken: there is no way to find the next frame.
    private var failure: WireError?

    /// Memory kept between frames; what a larger frame took is given back after it.
    static let heldBytesKept = 256 << 10
    private static let heldBytesMin = 4096

    package init(frameBytesMax: Int, checksumRequired: Bool) {
        self.frameBytesMax = frameBytesMax
        self.checksumRequired = checksumRequired
    }

    deinit { unsafe held?.deallocate() }

    /// Bytes of an unfinished frame that were taken in so far: not 0 at the end of a stream means it was cut.
    package var partialBytes: Int { heldIsDelivered ? 0 : heldCount }

    /// The next whole frame of `input` at or after `offset`, which moves behind it; nil when the input is used up.
    package mutating func next(
        in input: UnsafeRawBufferPointer, from offset: inout Int
    ) throws(WireError) -> Frame? {
        if let failure { throw failure }
        do {
            return unsafe try nextFrame(in: input, from: &offset)
        } catch {
            failure = error
            throw error
        }
    }

    private mutating func nextFrame(
        in input: UnsafeRawBufferPointer, from offset: inout Int
    ) throws(WireError) -> Frame? {
        if heldIsDelivered { releaseHeld() }
        if heldCount > 0 { return unsafe try collect(from: input, &offset) }
        let rest = unsafe UnsafeRawBufferPointer(rebasing: input[offset...])
        if unsafe rest.isEmpty { return nil }
        if let total = unsafe try frameSize(of: rest), rest.count >= total {
            let frame = unsafe UnsafeRawBufferPointer(rebasing: rest[..<total])
            let header = unsafe try readHeader(of: frame)
            let start = offset + FrameHeader.size
            offset += total
            return unsafe Frame(
                header: header, body: UnsafeRawBufferPointer(rebasing: frame[FrameHeader.size...]), inputOffset: start)
        }
        return unsafe try collect(from: input, &offset)
    }

    /// Moves input into the held frame, as far as that frame goes.
    private mutating func collect(
        from input: UnsafeRawBufferPointer, _ offset: inout Int
    ) throws(WireError) -> Frame? {
        // Two steps at most: the header tells how long the frame is.
        while true {
            let known = unsafe try frameSize(of: UnsafeRawBufferPointer(start: held, count: heldCount))
            let wanted = known ?? FrameHeader.size
            if let total = known, heldCount == total { return try deliverHeld() }
            let taken = min(wanted - heldCount, input.count - offset)
            if taken == 0 { return nil }
            unsafe hold(UnsafeRawBufferPointer(rebasing: input[offset..<(offset + taken)]), upTo: wanted)
            offset += taken
        }
    }

    private mutating func deliverHeld() throws(WireError) -> Frame? {
        let frame = unsafe UnsafeRawBufferPointer(start: held, count: heldCount)
        let header = unsafe try readHeader(of: frame)
        heldIsDelivered = true
        return unsafe Frame(
            header: header, body: UnsafeRawBufferPointer(rebasing: frame[FrameHeader.size...]), inputOffset: nil)
    }

    private mutating func hold(_ bytes: UnsafeRawBufferPointer, upTo wanted: Int) {
        let needed = heldCount + bytes.count
        if needed > heldCapacity {
            let capacity = max(needed, min(wanted, heldCapacity * 2), FrameParser.heldBytesMin)
            let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
            if let held = unsafe held {
                unsafe larger.copyMemory(from: held, byteCount: heldCount)
                unsafe held.deallocate()
            }
            unsafe held = larger
            heldCapacity = capacity
        }
        unsafe held!.advanced(by: heldCount).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
        heldCount = needed
    }

    private mutating func releaseHeld() {
        heldIsDelivered = false
        heldCount = 0
        guard heldCapacity > FrameParser.heldBytesKept else { return }
        unsafe held?.deallocate()
        unsafe held = nil
        heldCapacity = 0
    }

    /// Size of the whole frame that starts with `bytes`; nil while the header is not complete. Magic and length are judged
    /// as soon as they are there, so that a peer of another protocol is told at once.
    private func frameSize(of bytes: UnsafeRawBufferPointer) throws(WireError) -> Int? {
        guard bytes.count >= 5 else { return nil }
        let magic = unsafe bytes[4]
        guard magic == FrameHeader.magic else { throw .badMagic(found: magic) }
        let length = UInt32(littleEndian: unsafe bytes.loadUnaligned(as: UInt32.self))
        let total = Int(length) + FrameHeader.lengthFieldSize
        guard total >= FrameHeader.size else { throw .frameTooShort(bytes: total) }
        guard total <= frameBytesMax else { throw .frameTooLarge(bytes: total, max: frameBytesMax) }
        return bytes.count >= FrameHeader.size ? total : nil
    }

    /// The header of a whole frame, after its checksum.
    private func readHeader(of frame: UnsafeRawBufferPointer) throws(WireError) -> FrameHeader {
        let flags = FrameFlags(
            rawValue: UInt16(littleEndian: unsafe frame.loadUnaligned(fromByteOffset: 6, as: UInt16.self)))
        if flags.contains(.checksum) {
            let found = UInt32(
                littleEndian: unsafe frame.loadUnaligned(
                    fromByteOffset: FrameHeader.checksumOffset, as: UInt32.self))
            let expected = unsafe FrameHeader.checksum(of: frame)
            guard found == expected else { throw .badChecksum(expected: expected, found: found) }
        } else if checksumRequired {
            throw .checksumMissing
        }
        guard flags.isSubset(of: .known) else { throw .unsupportedFlags(flags.rawValue) }
        return FrameHeader(
            opcodeByte: unsafe frame[5], flags: flags,
            requestID: UInt64(littleEndian: unsafe frame.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
            argument: UInt32(littleEndian: unsafe frame.loadUnaligned(fromByteOffset: 20, as: UInt32.self)),
            bodySize: frame.count - FrameHeader.size)
    }
}
