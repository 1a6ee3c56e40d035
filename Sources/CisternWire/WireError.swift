// Why bytes that came from a peer could not be taken. Everything here is about input: nothing traps.

package enum WireError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The fifth byte of a frame is not the magic: the peer speaks another protocol.
    case badMagic(found: UInt8)
    case frameTooLarge(bytes: Int, max: Int)
    /// A length that does not even cover the header.
    case frameTooShort(bytes: Int)
    case badChecksum(expected: UInt32, found: UInt32)
    /// Checksums were agreed on in HELLO and this frame has none.
    case checksumMissing
    /// Flags this version does not know; the body cannot be understood without them.
    case unsupportedFlags(UInt16)
    /// A body that is not what its message type says.
    case malformed(message: String, offset: Int, detail: String)
    /// Well formed, and beyond a named limit.
    case limitExceeded(message: String, limit: String, max: Int, found: Int)

    /// The number this error has on the wire.
    package var code: ErrorCode {
        switch self {
        case .badMagic: .badMagic
        case .frameTooLarge: .frameTooLarge
        case .frameTooShort: .badFrame
        case .badChecksum, .checksumMissing: .badChecksum
        case .unsupportedFlags: .unsupportedFlags
        case .malformed: .badMessage
        case .limitExceeded: .limitExceeded
        }
    }

    package var description: String {
        switch self {
        case .badMagic(let found):
            "byte 4 of a frame is \(hex(found)), not the magic \(hex(FrameHeader.magic)): the peer does not speak the "
                + "Cistern protocol on this port; check the address, and that no TLS or HTTP client points here"
        case .frameTooLarge(let bytes, let max):
            "a frame announces \(bytes) bytes, the limit is \(max): send smaller batches, or raise the limit on the "
                + "receiving side"
        case .frameTooShort(let bytes):
            "a frame announces \(bytes) bytes, fewer than its own header of \(FrameHeader.size): the sender is broken"
        case .badChecksum(let expected, let found):
            "the checksum of a frame is \(hex(found)), its bytes give \(hex(expected)): the frame was damaged on its "
                + "way; connect again and send it again"
        case .checksumMissing:
            "a frame carries no checksum although HELLO agreed on checksums: the sender is broken"
        case .unsupportedFlags(let flags):
            "a frame carries flags \(hex(flags)) that protocol version \(WireVersion.max) does not have: agree on a "
                + "feature in HELLO before using it"
        case .malformed(let message, let offset, let detail):
            "\(message) cannot be decoded at byte \(offset): \(detail)"
        case .limitExceeded(let message, let limit, let max, let found):
            "\(message) exceeds \(limit): \(found) found, at most \(max) allowed"
        }
    }
}

func hex(_ value: some FixedWidthInteger) -> String {
    let digits = String(value, radix: 16, uppercase: true)
    let width = value.bitWidth / 4
    return "0x" + String(repeating: "0", count: Swift.max(0, width - digits.count)) + digits
}
