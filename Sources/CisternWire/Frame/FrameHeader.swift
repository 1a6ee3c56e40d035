// The header of every frame, little-endian. proto-spec/wire.md is the specification.
//
//    0        4      5       6        8                 16           20           24
//    ┌────────┬──────┬───────┬────────┬─────────────────┬────────────┬────────────┬──────────────
//    │ length │ magic│ opcode│ flags  │ request id      │ CRC-32C    │ tree or    │ body …
//    │ u32    │ 0xB7 │ u8    │ u16    │ u64             │ u32        │ credit u32 │ length - 20
//    └────────┴──────┴───────┴────────┴─────────────────┴────────────┴────────────┴──────────────
//
// `length` counts the bytes after itself. The checksum covers bytes 4–15 and 20–end; the length needs none, because a wrong
// one makes the checksum of what it cuts out wrong. The last field is the tree handle in a request and the body bytes
// granted back, in KiB, in the last frame of a reply.

internal import CisternPrimitives

/// Flags of a frame. On the wire: never renumber.
package struct FrameFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    package static let checksum = FrameFlags(rawValue: 1 << 0)
    /// The body is an `ErrorBody`.
    package static let error = FrameFlags(rawValue: 1 << 1)
    /// More frames of this reply follow.
    package static let more = FrameFlags(rawValue: 1 << 2)

    static let known: FrameFlags = [.checksum, .error, .more]
}

package struct FrameHeader: Hashable, Sendable {
    package static let size = 24
    package static let magic: UInt8 = 0xB7
    /// The length field does not count itself.
    static let lengthFieldSize = 4
    static let checksumOffset = 16

    /// Opcode as it is on the wire, with the reply bit.
    package var opcodeByte: UInt8
    package var flags: FrameFlags
    /// Chosen by the side that asks, echoed by the side that answers.
    package var requestID: UInt64
    /// Tree handle in a request, byte credit in KiB in a reply.
    package var argument: UInt32
    package var bodySize: Int

    package init(opcodeByte: UInt8, flags: FrameFlags = [], requestID: UInt64, argument: UInt32, bodySize: Int) {
        self.opcodeByte = opcodeByte
        self.flags = flags
        self.requestID = requestID
        self.argument = argument
        self.bodySize = bodySize
    }

    package static func request(_ opcode: Opcode, id: UInt64, tree: UInt32 = 0, bodySize: Int) -> FrameHeader {
        FrameHeader(opcodeByte: opcode.rawValue, requestID: id, argument: tree, bodySize: bodySize)
    }

    /// nil for an opcode of a newer protocol.
    package var opcode: Opcode? { Opcode(rawValue: opcodeByte & ~Opcode.replyBit) }
    package var isReply: Bool { opcodeByte & Opcode.replyBit != 0 }
    package var isError: Bool { flags.contains(.error) }
    package var hasMore: Bool { flags.contains(.more) }
    package var tree: UInt32 { argument }
    package var creditKiB: Int { Int(argument) }

    /// Size of the whole frame.
    package var frameSize: Int { FrameHeader.size + bodySize }

    /// What the request takes from the byte credit.
    package var costKiB: Int { (bodySize + WireLimits.creditUnitBytes - 1) / WireLimits.creditUnitBytes }

    /// Writes the header into the first 24 bytes of a frame whose body is in place already.
    /// - Precondition: `frame` is as long as the header says.
    package func seal(_ frame: UnsafeMutableRawBufferPointer, checksum: Bool) {
        precondition(frame.count == frameSize, "a frame of \(frame.count) bytes for a header of \(frameSize)")
        precondition(frameSize <= WireLimits.frameBytesMaxHard, "a frame of \(frameSize) bytes")
        let allFlags = checksum ? flags.union(.checksum) : flags
        unsafe frame.storeBytes(of: UInt32(frameSize - FrameHeader.lengthFieldSize).littleEndian, as: UInt32.self)
        unsafe frame.storeBytes(of: FrameHeader.magic, toByteOffset: 4, as: UInt8.self)
        unsafe frame.storeBytes(of: opcodeByte, toByteOffset: 5, as: UInt8.self)
        unsafe frame.storeBytes(of: allFlags.rawValue.littleEndian, toByteOffset: 6, as: UInt16.self)
        unsafe frame.storeBytes(of: requestID.littleEndian, toByteOffset: 8, as: UInt64.self)
        unsafe frame.storeBytes(of: argument.littleEndian, toByteOffset: 20, as: UInt32.self)
        let sum = checksum ? unsafe FrameHeader.checksum(of: UnsafeRawBufferPointer(frame)) : 0
        unsafe frame.storeBytes(of: sum.littleEndian, toByteOffset: FrameHeader.checksumOffset, as: UInt32.self)
    }

    /// A whole frame in an array, for the paths that are not hot.
    package func frame(body: [UInt8], checksum: Bool = true) -> [UInt8] {
        precondition(body.count == bodySize, "a body of \(body.count) bytes for a header of \(bodySize)")
        var bytes = [UInt8](repeating: 0, count: FrameHeader.size)
        bytes.append(contentsOf: body)
        unsafe bytes.withUnsafeMutableBytes { unsafe seal($0, checksum: checksum) }
        return bytes
    }

    /// Checksum of a whole frame.
    static func checksum(of frame: UnsafeRawBufferPointer) -> UInt32 {
        let head = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: frame[4..<checksumOffset]))
        return unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: frame[20...]), seed: head)
    }
}
