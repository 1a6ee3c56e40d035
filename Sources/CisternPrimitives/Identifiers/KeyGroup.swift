// Key groups: the unit in which keyed state is split among workers. The arithmetic is Apache Flink's, so that a worker of
// a Flink job and a Swift worker agree on who owns a key. Vectors: proto-spec/key-groups.md.

/// A contiguous, never empty range of key groups, both ends included.
public struct KeyGroupRange: Hashable, Sendable, CustomStringConvertible {
    public let first: UInt16
    public let last: UInt16

    /// - Precondition: `first <= last`.
    public init(first: UInt16, last: UInt16) {
        precondition(first <= last, "key-group range \(first)...\(last) is empty")
        self.first = first
        self.last = last
    }

    public var count: Int { Int(last) - Int(first) + 1 }

    public func contains(_ group: UInt16) -> Bool { first <= group && group <= last }

    public func contains(_ other: KeyGroupRange) -> Bool { first <= other.first && other.last <= last }

    public func overlaps(_ other: KeyGroupRange) -> Bool { first <= other.last && other.first <= last }

    public func intersection(_ other: KeyGroupRange) -> KeyGroupRange? {
        guard overlaps(other) else { return nil }
        return KeyGroupRange(first: max(first, other.first), last: min(last, other.last))
    }

    public var description: String { "\(first)...\(last)" }
}

public enum KeyGroup {
    /// Highest number of key groups a store may have; Flink's own limit.
    public static let countMax = 32_768

    /// Key group of a key from its 32-bit hash (`key.hashCode()` in Flink): murmur-mixed, modulo the group count.
    public static func group(ofHash hash: Int32, count: Int) -> UInt16 {
        precondition(count > 0 && count <= countMax, "key-group count \(count) is outside 1...\(countMax)")
        return UInt16(Int(murmur(hash)) % count)
    }

    /// Key group of a key of a Swift program: the low 32 bits of the key's `Hash64` go through Flink's rule.
    public static func group(ofKey key: [UInt8], count: Int) -> UInt16 {
        group(ofHash: Int32(truncatingIfNeeded: Hash64.hash(key)), count: count)
    }

    package static func group(ofKey key: UnsafeRawBufferPointer, count: Int) -> UInt16 {
        group(ofHash: Int32(truncatingIfNeeded: unsafe Hash64.hash(key)), count: count)
    }

    /// The range that worker `index` of `parallelism` owns.
    /// - Precondition: `0 <= index < parallelism <= count`.
    public static func range(ofWorker index: Int, parallelism: Int, count: Int) -> KeyGroupRange {
        precondition(parallelism > 0 && parallelism <= count, "parallelism \(parallelism) is outside 1...\(count)")
        precondition(index >= 0 && index < parallelism, "worker \(index) of \(parallelism)")
        let first = (index * count + parallelism - 1) / parallelism
        let last = ((index + 1) * count - 1) / parallelism
        return KeyGroupRange(first: UInt16(first), last: UInt16(last))
    }

    /// The worker that owns a key group.
    public static func worker(of group: UInt16, parallelism: Int, count: Int) -> Int {
        Int(group) * parallelism / count
    }

    /// Flink's `MathUtils.murmurHash`: MurmurHash3 of one 32-bit word, made non-negative.
    static func murmur(_ hash: Int32) -> Int32 {
        var code = UInt32(bitPattern: hash)
        code = code &* 0xCC9E_2D51
        code = code << 15 | code >> 17
        code = code &* 0x1B87_3593
        code = code << 13 | code >> 19
        code = code &* 5 &+ 0xE654_6B64
        code ^= 4
        code ^= code >> 16
        code = code &* 0x85EB_CA6B
        code ^= code >> 13
        code = code &* 0xC2B2_AE35
        code ^= code >> 16
        let mixed = Int32(bitPattern: code)
        if mixed >= 0 { return mixed }
        return mixed == Int32.min ? 0 : -mixed
    }
}
