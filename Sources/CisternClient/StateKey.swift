// Store keys: where an entry lives. Bytewise order groups them by key group, then state, then key. proto-spec: the server
// relies on the first two bytes only.
//
//   ┌──────────────────┬─────────────────┬──────────────────┬────────────────────────┬──────────────────┐
//   │ key group u16 BE │ state id u16 BE │ varint len ‖ key │ varint len ‖ namespace │ user key (rest)  │
//   └──────────────────┴─────────────────┴──────────────────┴────────────────────────┴──────────────────┘
//   A timer: key group ‖ state id ‖ i64 BE timestamp, sign bit flipped ‖ varint len ‖ key ‖ namespace (rest)

internal import CisternPrimitives

/// The parts of a store key, copied out of it.
package struct StateKey: Equatable {
    var keyGroup: UInt16
    var stateID: UInt16
    var key: [UInt8]
    var namespace: [UInt8]
    var userKey: [UInt8]

    static let prefixSize = 4

    /// `key group ‖ state id`: what all entries of a state in a key group start with.
    static func prefix(keyGroup: UInt16, stateID: UInt16) -> [UInt8] {
        [
            UInt8(truncatingIfNeeded: keyGroup >> 8), UInt8(truncatingIfNeeded: keyGroup),
            UInt8(truncatingIfNeeded: stateID >> 8), UInt8(truncatingIfNeeded: stateID),
        ]
    }

    /// The smallest key behind everything that starts with `prefix`; empty when there is none.
    static func end(ofPrefix prefix: [UInt8]) -> [UInt8] {
        var end = prefix
        while let last = end.popLast() {
            if last < 0xFF {
                end.append(last + 1)
                return end
            }
        }
        return []
    }

    /// - Precondition: `storeKey` begins with a key group.
    static func group(of storeKey: [UInt8]) -> UInt16 { UInt16(storeKey[0]) << 8 | UInt16(storeKey[1]) }

    static func stateID(of storeKey: UnsafeRawBufferPointer) -> UInt16? {
        guard storeKey.count >= prefixSize else { return nil }
        return unsafe UInt16(storeKey[2]) << 8 | UInt16(storeKey[3])
    }

    /// nil when the bytes are not a store key of a value, list, map, reducing or aggregating state.
    package static func decode(_ storeKey: [UInt8]) -> StateKey? {
        unsafe storeKey.withUnsafeBytes { bytes -> StateKey? in
            var reader = unsafe ByteReader(bytes)
            guard let group = reader.readInteger(as: UInt16.self), let state = reader.readInteger(as: UInt16.self),
                let key = unsafe reader.readLengthPrefixed(), let namespace = unsafe reader.readLengthPrefixed(),
                let userKey = unsafe reader.readBytes(reader.remaining)
            else { return nil }
            return unsafe StateKey(
                keyGroup: group.byteSwapped, stateID: state.byteSwapped, key: Array(key),
                namespace: Array(namespace), userKey: Array(userKey))
        }
    }

    /// Bytes of `varint len ‖ bytes` for so many bytes.
    static func lengthPrefixedSize(_ count: Int) -> Int {
        // 7 bits a byte of the length; `| 1` because 0 takes one byte as well.
        (70 - (UInt64(count) | 1).leadingZeroBitCount) / 7 + count
    }

    /// Bytes that `write` writes.
    static func size(key: Int, namespace: Int) -> Int {
        prefixSize + lengthPrefixedSize(key) + lengthPrefixedSize(namespace)
    }

    /// Writes a store key without user key to the start of `memory`.
    /// - Precondition: `memory` has at least `size` bytes.
    static func write(
        keyGroup: UInt16, stateID: UInt16, key: UnsafeRawBufferPointer, namespace: UnsafeRawBufferPointer,
        into memory: UnsafeMutableRawBufferPointer
    ) {
        unsafe writePrefix(keyGroup: keyGroup, stateID: stateID, into: memory)
        let end = unsafe writeLengthPrefixed(key, into: memory, at: prefixSize)
        _ = unsafe writeLengthPrefixed(namespace, into: memory, at: end)
    }

    static func writePrefix(keyGroup: UInt16, stateID: UInt16, into memory: UnsafeMutableRawBufferPointer) {
        let prefix = UInt32(keyGroup) << 16 | UInt32(stateID)
        unsafe memory.storeBytes(of: prefix.bigEndian, as: UInt32.self)
    }

    /// Returns where what follows begins.
    private static func writeLengthPrefixed(
        _ bytes: UnsafeRawBufferPointer, into memory: UnsafeMutableRawBufferPointer, at start: Int
    ) -> Int {
        var offset = start
        var rest = UInt64(bytes.count)
        while rest >= 0x80 {
            unsafe memory.storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, toByteOffset: offset, as: UInt8.self)
            rest >>= 7
            offset += 1
        }
        unsafe memory.storeBytes(of: UInt8(truncatingIfNeeded: rest), toByteOffset: offset, as: UInt8.self)
        unsafe UnsafeMutableRawBufferPointer(rebasing: memory[(offset + 1)...]).copyMemory(from: bytes)
        return offset + 1 + bytes.count
    }

    static func appendLengthPrefixed(_ bytes: [UInt8], to output: inout [UInt8]) {
        appendVarint(UInt64(bytes.count), to: &output)
        output.append(contentsOf: bytes)
    }

    static func appendVarint(_ value: UInt64, to output: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            output.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        output.append(UInt8(truncatingIfNeeded: rest))
    }
}

/// A persisted timer's key.
package struct TimerKey {
    /// Flipping the sign bit makes the bytewise order of big-endian numbers the order of signed ones.
    static func encode(keyGroup: UInt16, stateID: UInt16, time: Int64, key: [UInt8], namespace: [UInt8]) -> [UInt8] {
        var bytes = StateKey.prefix(keyGroup: keyGroup, stateID: stateID)
        bytes.reserveCapacity(bytes.count + 8 + 2 + key.count + namespace.count)
        let ordered = UInt64(bitPattern: time) ^ (1 << 63)
        for shift in stride(from: UInt64(56), through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: ordered >> shift))
        }
        StateKey.appendLengthPrefixed(key, to: &bytes)
        bytes.append(contentsOf: namespace)
        return bytes
    }

    /// nil when the bytes are not a timer's key.
    package static func decode(_ storeKey: [UInt8]) -> (time: Int64, key: [UInt8], namespace: [UInt8])? {
        guard storeKey.count >= StateKey.prefixSize + 8 else { return nil }
        return unsafe storeKey.withUnsafeBytes { bytes -> (time: Int64, key: [UInt8], namespace: [UInt8])? in
            var reader = unsafe ByteReader(bytes)
            guard reader.skip(StateKey.prefixSize), let ordered = reader.readInteger(as: UInt64.self),
                let key = unsafe reader.readLengthPrefixed(), let namespace = unsafe reader.readBytes(reader.remaining)
            else { return nil }
            let time = Int64(bitPattern: ordered.byteSwapped ^ (1 << 63))
            return unsafe (time, Array(key), Array(namespace))
        }
    }
}
