// Keys and values of one request, one behind the other: a request of a thousand keys takes a few allocations, not thousands.
// Integers lie as they are sent, little-endian, so a column goes onto the wire and comes from it in one copy.

package import CisternPrimitives
internal import CisternWire

/// Keys of a request: key `i` is `[end of i - 1, end of i)`.
package struct KeyColumns: Sendable {
    private var ends: [UInt32] = []
    private var bytes: [UInt8] = []

    package init() {}

    package init(_ keys: [[UInt8]]) {
        for key in keys { append(key) }
    }

    /// Keys that `write` puts one behind the other into the memory that is left of `bytes`.
    /// - Parameter write: gets a key's number, returns its size; nil ends the making.
    init(
        count: Int, bytes byteCount: Int, _ write: (Int, UnsafeMutableRawBufferPointer) -> Int?
    ) {
        ends.reserveCapacity(count)
        bytes = unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { memory, used in
            let memory = UnsafeMutableRawBufferPointer(memory)
            for number in 0..<count {
                let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[used..<byteCount])
                guard let size = unsafe write(number, rest) else { return }
                precondition(size <= rest.count, "a key of \(size) bytes in the room for \(rest.count)")
                used += size
                ends.append(UInt32(used).littleEndian)
            }
        }
    }

    package var count: Int { ends.count }

    package mutating func append(_ key: [UInt8]) {
        bytes.append(contentsOf: key)
        ends.append(UInt32(bytes.count).littleEndian)
    }

    package func key(_ index: Int) -> [UInt8] { Array(slice(index)) }

    func slice(_ index: Int) -> ArraySlice<UInt8> {
        let start = index == 0 ? 0 : Int(UInt32(littleEndian: ends[index - 1]))
        return bytes[start..<Int(UInt32(littleEndian: ends[index]))]
    }

    /// The body of its frame.
    func encode(epoch: UInt64, watermark: UInt64) -> [UInt8] {
        unsafe ends.withUnsafeBytes { ends in
            unsafe bytes.withUnsafeBytes { keys in
                unsafe MultiGetMessage.encode(epoch: epoch, watermark: watermark, keyEnds: ends, keys: keys)
            }
        }
    }
}

/// What the keys of a request have: one answer a key, in their order.
package struct ValueColumns: Sendable {
    private var ends: [UInt32] = []
    private var bytes: [UInt8] = []
    /// 1 for a key that is there.
    private var found: [UInt8] = []
    /// Empty when none expires.
    private var expiries: [UInt64] = []

    package init() {}

    /// As they came.
    init(_ message: MultiGetReplyMessage) {
        unsafe ends = Self.integers(message.valueEnds)
        unsafe bytes = Self.integers(message.values)
        unsafe found = Self.integers(message.found)
        unsafe expiries = Self.integers(message.expiries)
    }

    private static func integers<Element: FixedWidthInteger>(_ column: UnsafeRawBufferPointer) -> [Element] {
        let count = column.count / MemoryLayout<Element>.size
        return unsafe [Element](unsafeUninitializedCapacity: count) { memory, used in
            unsafe UnsafeMutableRawBufferPointer(memory).copyMemory(from: column)
            used = count
        }
    }

    package var count: Int { ends.count }

    package mutating func append(_ value: [UInt8], _ expiry: Expiry) {
        bytes.append(contentsOf: value)
        add(1, expiry)
    }

    package mutating func appendAbsent() { add(0, .never) }

    private mutating func add(_ isFound: UInt8, _ expiry: Expiry) {
        ends.append(UInt32(bytes.count).littleEndian)
        found.append(isFound)
        expiries.append(expiry.rawValue.littleEndian)
    }

    package func isPresent(_ index: Int) -> Bool { found[index] == 1 }

    package func expiry(_ index: Int) -> Expiry {
        expiries.isEmpty ? .never : Expiry(rawValue: UInt64(littleEndian: expiries[index]))
    }

    /// Empty for an absent key. Keeping the slice keeps the whole answer.
    package func value(_ index: Int) -> ArraySlice<UInt8> {
        let start = index == 0 ? 0 : Int(UInt32(littleEndian: ends[index - 1]))
        return bytes[start..<Int(UInt32(littleEndian: ends[index]))]
    }
}
