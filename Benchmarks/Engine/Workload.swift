// The same keys, values and orders for both sides, from one seed.

import CisternPrimitives

struct Workload: Sendable {
    static let keyBytes = 24
    static let valueBytes = 100
    static let keyGroups: UInt64 = 128
    /// User keys under one map key, what `scan` cases page over.
    static let mapEntries: UInt64 = 64

    let entries: Int
    let seed: UInt64

    static var emptyKey: [UInt8] { [UInt8](repeating: 0, count: keyBytes) }
    static var emptyValue: [UInt8] { [UInt8](repeating: 0, count: valueBytes) }

    /// Key `index`: key group, state, a 12-byte map key shared by 64 neighbours, an 8-byte user key. 24 bytes, as a map state
    /// of a job writes them; `odd` gives a key that was never written. Written in place: making keys and values is part of
    /// what both sides are measured with, so it must cost little.
    func key(_ index: UInt64, odd: Bool = false, into bytes: inout [UInt8]) {
        let map = index / Workload.mapEntries
        let scattered = mix(map ^ seed)
        let user = (index % Workload.mapEntries) * 2 + (odd ? 1 : 0)
        _ = bytes.withUnsafeMutableBytes { target -> Bool in
            target.storeBytes(of: UInt16(scattered % Workload.keyGroups).bigEndian, toByteOffset: 0, as: UInt16.self)
            target.storeBytes(of: UInt16(1).bigEndian, toByteOffset: 2, as: UInt16.self)
            target.storeBytes(of: scattered, toByteOffset: 4, as: UInt64.self)
            target.storeBytes(of: UInt32(truncatingIfNeeded: map).bigEndian, toByteOffset: 12, as: UInt32.self)
            target.storeBytes(of: user.bigEndian, toByteOffset: 16, as: UInt64.self)
            return true
        }
    }

    /// The bytes all user keys of the map of `index` begin with.
    static let prefixBytes = 16

    /// Half random, half from a small alphabet, as records of a job are.
    func value(_ index: UInt64, _ version: UInt64, into bytes: inout [UInt8]) {
        var state = mix(index &* 31 &+ version ^ seed)
        _ = bytes.withUnsafeMutableBytes { target -> Bool in
            for offset in stride(from: 0, to: 96, by: 16) {
                state = mix(state)
                target.storeBytes(of: state, toByteOffset: offset, as: UInt64.self)
                target.storeBytes(of: 0x2263_6974_7922_3A22, toByteOffset: offset + 8, as: UInt64.self)
            }
            target.storeBytes(of: UInt32(truncatingIfNeeded: state), toByteOffset: 96, as: UInt32.self)
            return true
        }
    }

    /// A permutation of 0 ..< entries, computed and not stored: a cycle-walked Feistel network.
    func shuffled(_ position: UInt64) -> UInt64 {
        var bits = 2
        while (1 << bits) < entries { bits += 2 }
        let half = UInt64(bits / 2)
        let mask = (UInt64(1) << half) - 1
        var x = position
        repeat {
            var left = x >> half
            var right = x & mask
            for round in 0..<3 as Range<UInt64> {
                (left, right) = (right, left ^ (mix(right ^ (round << 40) ^ seed) & mask))
            }
            x = left << half | right
        } while x >= UInt64(entries)
        return x
    }

    private func mix(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9E37_79B9_7F4A_7C15
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// Ranks 0 ..< count with Zipf's law, by the rejection-free approximation of Gray et al., "Quickly generating billion-record
/// synthetic databases" (SIGMOD 1994).
struct Zipf {
    private let count: Double
    private let theta: Double
    private let alpha: Double
    private let zeta: Double
    private let eta: Double
    private var random: SeededRandom

    init(count: Int, theta: Double, seed: UInt64) {
        self.count = Double(count)
        self.theta = theta
        var sum = 0.0
        for rank in 1...count { sum += power(Double(rank), -theta) }
        zeta = sum
        alpha = 1 / (1 - theta)
        eta = (1 - power(2 / Double(count), 1 - theta)) / (1 - (1 + power(2, -theta)) / sum)
        random = SeededRandom(seed: seed)
    }

    mutating func next() -> UInt64 {
        let u = Double(random.next() >> 11) / Double(1 << 53)
        let scaled = u * zeta
        if scaled < 1 { return 0 }
        if scaled < 1 + power(2, -theta) { return 1 }
        return UInt64(min(count - 1, count * power(eta * u - eta + 1, alpha)))
    }
}
