// Which states of a tree are only ever looked up by their whole key (value, reducing, aggregating, list): a memtable keeps
// their entries in a hash table. All others, and all it does not know, are kept in order. A store key names its state in
// bytes 2 and 3, big-endian.

internal import CisternPrimitives

package struct PointStates: Sendable, Equatable {
    /// One bit a state; those below 64 are looked at on every operation and have a word of their own.
    private var low: UInt64 = 0
    private var high: [UInt64] = []

    package init() {}

    package init(_ ids: some Sequence<UInt16>) { for id in ids { insert(id) } }

    package mutating func insert(_ id: UInt16) {
        let word = Int(id) / 64
        let bit: UInt64 = 1 << UInt64(id % 64)
        if word == 0 {
            low |= bit
        } else {
            while high.count < word { high.append(0) }
            high[word - 1] |= bit
        }
    }

    package var isEmpty: Bool { low == 0 && high.isEmpty }

    package var ids: [UInt16] { (0...UInt16.max).filter { contains(state: $0) } }

    @inline(__always)
    package func contains(state id: UInt16) -> Bool {
        id < 64 ? (low &>> UInt64(id)) & 1 != 0 : containsHigh(id)
    }

    /// False for keys that are too short to name a state.
    @inline(__always)
    func contains(_ key: UnsafeRawBufferPointer) -> Bool {
        guard key.count >= EngineLimits.keyBytesMin, let base = key.baseAddress else { return false }
        return contains(state: unsafe UInt16(bigEndian: base.loadUnaligned(fromByteOffset: 2, as: UInt16.self)))
    }

    private func containsHigh(_ id: UInt16) -> Bool {
        let word = Int(id) / 64 - 1
        return word < high.count && (high[word] >> UInt64(id % 64)) & 1 != 0
    }
}
