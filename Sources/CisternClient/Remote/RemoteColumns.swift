// Keys and values of one request, one behind the other: a request of a thousand keys takes a few allocations, not thousands.

package import CisternPrimitives

/// Keys of a request: key `i` is `[ends[i - 1], ends[i])`.
package struct KeyColumns: Sendable {
    package private(set) var ends: [UInt32] = []
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package init(_ keys: [[UInt8]]) {
        for key in keys { append(key) }
    }

    package var count: Int { ends.count }

    package mutating func append(_ key: [UInt8]) {
        bytes.append(contentsOf: key)
        ends.append(UInt32(bytes.count))
    }

    package func key(_ index: Int) -> [UInt8] {
        Array(bytes[(index == 0 ? 0 : Int(ends[index - 1]))..<Int(ends[index])])
    }
}

/// What the keys of a request have: one answer a key, in their order.
package struct ValueColumns: Sendable {
    private var ends: [UInt32] = []
    private var bytes: [UInt8] = []
    private var present: [Bool] = []
    private var expiries: [Expiry] = []

    package init() {}

    package mutating func reserve(count: Int, bytes byteCount: Int) {
        ends.reserveCapacity(count)
        present.reserveCapacity(count)
        expiries.reserveCapacity(count)
        bytes.reserveCapacity(byteCount)
    }

    package var count: Int { ends.count }

    package mutating func append(_ value: UnsafeRawBufferPointer, _ expiry: Expiry) {
        unsafe bytes.append(contentsOf: value)
        add(true, expiry)
    }

    package mutating func append(_ value: [UInt8], _ expiry: Expiry) {
        bytes.append(contentsOf: value)
        add(true, expiry)
    }

    package mutating func appendAbsent() { add(false, .never) }

    private mutating func add(_ isPresent: Bool, _ expiry: Expiry) {
        ends.append(UInt32(bytes.count))
        present.append(isPresent)
        expiries.append(expiry)
    }

    package func isPresent(_ index: Int) -> Bool { present[index] }
    package func expiry(_ index: Int) -> Expiry { expiries[index] }

    /// Empty for an absent key. Keeping the slice keeps the whole answer.
    package func value(_ index: Int) -> ArraySlice<UInt8> {
        bytes[(index == 0 ? 0 : Int(ends[index - 1]))..<Int(ends[index])]
    }
}
