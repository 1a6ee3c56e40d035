// The same keys, values and orders for all sides, from one seed. What a measured loop needs is computed before (orders) or
// costs it a few nanoseconds (keys, values): making operations must not hide what they cost.

import CisternBenchKit
import CisternPrimitives

struct Workload: Sendable {
    static let keyBytes = 24
    static let valueBytes = 100
    static let entryBytes = keyBytes + valueBytes
    static let keyGroups: UInt64 = 128
    static let valueState: UInt16 = 1
    static let mapState: UInt16 = 2
    static let listState: UInt16 = 3
    /// User keys under one map key.
    static let mapEntries: UInt64 = 128
    /// Key group, state, size and key, empty namespace: what all entries of a map begin with.
    static let mapPrefixBytes = 14

    let entries: Int
    let seed: UInt64
    private let pool: ValuePool

    init(entries: Int, seed: UInt64) {
        self.entries = entries
        self.seed = seed
        pool = ValuePool(seed: seed)
    }

    /// The store key of a value state's entry: key group, state, 18 bytes of key behind their size, empty namespace. `absent`
    /// gives a key beside it that is never written.
    @inline(__always)
    func valueKey(
        _ index: UInt64, absent: Bool = false, state: UInt16 = Workload.valueState, into key: UnsafeMutableRawPointer
    ) {
        key.storeBytes(of: UInt16(truncatingIfNeeded: index % Workload.keyGroups).bigEndian, as: UInt16.self)
        key.storeBytes(of: state.bigEndian, toByteOffset: 2, as: UInt16.self)
        key.storeBytes(of: 18, toByteOffset: 4, as: UInt8.self)
        key.storeBytes(of: mix(index ^ seed), toByteOffset: 5, as: UInt64.self)
        key.storeBytes(of: (index << 1 | (absent ? 1 : 0)).bigEndian, toByteOffset: 13, as: UInt64.self)
        key.storeBytes(of: 0x6B79, toByteOffset: 21, as: UInt16.self)
        key.storeBytes(of: 0, toByteOffset: 23, as: UInt8.self)
    }

    /// The store key of a map state's entry: neighbours belong to one map.
    @inline(__always)
    func mapKey(_ index: UInt64, into key: UnsafeMutableRawPointer) {
        let map = index / Workload.mapEntries
        let scattered = mix(map ^ seed)
        key.storeBytes(of: UInt16(truncatingIfNeeded: scattered % Workload.keyGroups).bigEndian, as: UInt16.self)
        key.storeBytes(of: Workload.mapState.bigEndian, toByteOffset: 2, as: UInt16.self)
        key.storeBytes(of: 8, toByteOffset: 4, as: UInt8.self)
        // Not one of two maps has the same: the scattering is a permutation.
        key.storeBytes(of: scattered, toByteOffset: 5, as: UInt64.self)
        key.storeBytes(of: 0, toByteOffset: 13, as: UInt8.self)
        key.storeBytes(of: (index % Workload.mapEntries).bigEndian, toByteOffset: 14, as: UInt64.self)
        key.storeBytes(of: 0x6B79, toByteOffset: 22, as: UInt16.self)
    }

    /// An index whose key is in the first eighth of the key groups, so that the keys lie in an eighth of the blocks.
    static func inFirstEighth(_ position: UInt64) -> UInt64 {
        position / (keyGroups / 8) * keyGroups + position % (keyGroups / 8)
    }

    /// Half random, half from a small alphabet, as records of a job are; begins with the index, by which reads are checked.
    @inline(__always)
    func value(
        _ index: UInt64, _ version: UInt64, bytes: Int = Workload.valueBytes, into value: UnsafeMutableRawPointer
    ) {
        pool.copy(index &* 0x9E37_79B9 &+ version &* 0x85EB_CA6B, bytes: bytes, into: value)
        value.storeBytes(of: index, as: UInt64.self)
    }

    /// What every read of a value is checked by.
    @inline(__always)
    func check(_ value: UnsafeRawBufferPointer?, _ index: UInt64, bytes: Int = Workload.valueBytes) throws {
        guard let value, value.count == bytes, value.loadUnaligned(as: UInt64.self) == index else {
            throw BenchFailure("entry \(index) is missing or has another's value")
        }
    }
}

/// Memory that values are cut from.
private final class ValuePool: Sendable {
    private static let bytes = 1 << 20
    private static let valueBytesMax = 64 << 10
    private let memory: SendablePointer

    init(seed: UInt64) {
        let start = UnsafeMutableRawPointer.allocate(
            byteCount: ValuePool.bytes + ValuePool.valueBytesMax, alignment: 16)
        var random = SeededRandom(seed: seed ^ 0x76616C)
        for offset in stride(from: 0, to: ValuePool.bytes + ValuePool.valueBytesMax, by: 16) {
            start.storeBytes(of: random.next(), toByteOffset: offset, as: UInt64.self)
            start.storeBytes(of: 0x2263_6974_7922_3A22, toByteOffset: offset + 8, as: UInt64.self)
        }
        memory = SendablePointer(start)
    }

    deinit { memory.start.deallocate() }

    @inline(__always)
    func copy(_ number: UInt64, bytes: Int, into target: UnsafeMutableRawPointer) {
        let offset = Int(truncatingIfNeeded: number >> 4) & (ValuePool.bytes - 1) & ~7
        target.copyMemory(from: memory.start + offset, byteCount: bytes)
    }
}

/// Memory that is written before it is shared.
struct SendablePointer: @unchecked Sendable {
    let start: UnsafeMutableRawPointer
    init(_ start: UnsafeMutableRawPointer) { self.start = start }
}

@inline(__always)
func mix(_ value: UInt64) -> UInt64 {
    var z = value &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
}

/// Orders of operations, computed before they are measured.
enum Orders {
    /// 0 ..< count in random order.
    static func shuffled(_ count: Int, seed: UInt64) -> [UInt32] {
        var random = SeededRandom(seed: seed)
        var order = (0..<UInt32(count)).map { $0 }
        for position in stride(from: count - 1, to: 0, by: -1) {
            order.swapAt(position, Int(below(UInt64(position) + 1, random.next())))
        }
        return order
    }

    /// `count` numbers below `limit`, each as likely as any other.
    static func uniform(_ count: Int, below limit: Int, seed: UInt64) -> [UInt32] {
        var random = SeededRandom(seed: seed)
        return (0..<count).map { _ in UInt32(below(UInt64(limit), random.next())) }
    }

    /// `count` ranks below `limit` by Zipf's law.
    static func zipf(_ count: Int, below limit: Int, theta: Double, seed: UInt64) -> [UInt32] {
        var zipf = Zipf(count: limit, theta: theta, seed: seed)
        return (0..<count).map { _ in UInt32(zipf.next()) }
    }

    private static func below(_ limit: UInt64, _ random: UInt64) -> UInt64 {
        limit.multipliedFullWidth(by: random).high
    }
}
