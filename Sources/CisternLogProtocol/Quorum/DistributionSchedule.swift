// Which nodes of an ensemble hold an entry: round robin, so that load and reads spread evenly.

package import CisternPrimitives

/// The three sizes of a ledger: ensemble (E), write quorum (Qw) and ack quorum (Qa).
package struct QuorumSizes: Hashable, Sendable, CustomStringConvertible {
    /// E: nodes that entries are spread over.
    package let ensemble: Int
    /// Qw: copies of each entry.
    package let write: Int
    /// Qa: copies that must be durable before an add is acknowledged.
    package let ack: Int

    /// Bound of E: sets of positions are bits of a `UInt32`.
    package static let ensembleMax = 32

    /// - Precondition: `1 <= ack <= write <= ensemble <= ensembleMax`.
    package init(ensemble: Int, write: Int, ack: Int) {
        precondition(
            1 <= ack && ack <= write && write <= ensemble && ensemble <= QuorumSizes.ensembleMax,
            "quorum sizes \(ensemble)/\(write)/\(ack)")
        self.ensemble = ensemble
        self.write = write
        self.ack = ack
    }

    /// Answers that rule out that an ack quorum exists among the others: Qw − Qa + 1.
    package var coverage: Int { write - ack + 1 }

    package var description: String { "\(ensemble)/\(write)/\(ack)" }
}

/// Positions of an ensemble, as bits.
package struct PositionSet: Hashable, Sendable {
    package private(set) var bits: UInt32

    @inlinable package init() { bits = 0 }
    @inlinable package init(bits: UInt32) { self.bits = bits }

    package var count: Int { bits.nonzeroBitCount }
    package var isEmpty: Bool { bits == 0 }
    package func contains(_ position: Int) -> Bool { bits & (1 << UInt32(position)) != 0 }
    package mutating func insert(_ position: Int) { bits |= 1 << UInt32(position) }
    package mutating func remove(_ position: Int) { bits &= ~(1 << UInt32(position)) }
    package func intersection(_ other: PositionSet) -> PositionSet { PositionSet(bits: bits & other.bits) }
    package func union(_ other: PositionSet) -> PositionSet { PositionSet(bits: bits | other.bits) }
    package func subtracting(_ other: PositionSet) -> PositionSet { PositionSet(bits: bits & ~other.bits) }
}

extension QuorumSizes {
    /// Positions of the write set that begins at `start`: `start`, `start + 1`, … modulo E.
    package func writeSet(startingAt start: Int) -> PositionSet {
        let run = UInt64(1) << UInt64(write) - 1
        let shifted = run << UInt64(start)
        let wrapped = shifted | shifted >> UInt64(ensemble)
        return PositionSet(bits: UInt32(truncatingIfNeeded: wrapped & (UInt64(1) << UInt64(ensemble) - 1)))
    }

    /// Positions that hold `entry`.
    package func writeSet(of entry: EntryID) -> PositionSet {
        writeSet(startingAt: Int(entry.rawValue % Int64(ensemble)))
    }

    /// The position to ask `attempt`-th for `entry`; `attempt < write`.
    package func position(of entry: EntryID, attempt: Int) -> Int {
        Int((entry.rawValue + Int64(attempt)) % Int64(ensemble))
    }

    /// Whether `answered` leaves fewer than Qa nodes of *every* write quorum out, so that no ack quorum is without one of them.
    package func covers(_ answered: PositionSet) -> Bool {
        (0..<ensemble).allSatisfy { writeSet(startingAt: $0).intersection(answered).count >= coverage }
    }

    /// Whether `negatives` rule out that `entry` has an ack quorum.
    package func rulesOut(_ entry: EntryID, negatives: PositionSet) -> Bool {
        writeSet(of: entry).intersection(negatives).count >= coverage
    }
}
