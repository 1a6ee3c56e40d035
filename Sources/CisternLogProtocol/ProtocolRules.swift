// The rules that keep the protocol safe and that the simulator breaks one at a time, to show that it would notice.
//
// Production code uses `.standard` and nothing else: `.ci/check-layers` lets only the simulator and tests name
// the initialiser that breaks one. A check is one comparison of a byte.

package struct ProtocolRules: Hashable, Sendable {
    /// What each rule says; broken, it is the mutant of that name.
    package enum Rule: UInt8, CaseIterable, Sendable {
        /// A recovery's reads fence the node that answers them.
        case recoveryReadsFence = 1
        /// "Does not exist" needs Qw − Qa + 1 explicit negatives.
        case absenceNeedsCoverage
        /// Recovery writes what it found back to the write quorum before it closes.
        case recoveryWritesBack
        /// A journal that does not verify puts the node into limbo.
        case damageMeansLimbo
        /// A node in limbo accepts no writer's add to a ledger that is older than the limbo.
        case limboFences
        /// An answer of "unknown" is no negative.
        case unknownIsNotAbsent
        /// Ensemble changes made in recovery are written together with CLOSED only.
        case recoveryEnsemblesWaitForClose
        /// No add completes while an ensemble change is on its way to metadata.
        case addsWaitForEnsembleChange
        /// Recovery starts no lower than the first entry of the last fragment − 1.
        case recoveryHasFloor
        /// An entry that cannot be read is unknown, not absent.
        case readErrorIsUnknown
        /// A node that has deleted a ledger refuses adds to it.
        case deletedLedgersRefuseAdds
        /// The journal mark only moves forward.
        case journalMarkOnlyAdvances
        /// A fence is durable before it is answered.
        case fenceIsDurable
        /// An add is durable before it is answered.
        case addIsDurable
        /// Fencing needs an answer from all but Qa − 1 nodes of every write quorum, not of one.
        case fenceCoversEveryQuorum
        /// Adds are acknowledged in the order of their entries.
        case acknowledgeInOrder
        /// Recovery reads from the ensemble in metadata, not from the one that it writes to.
        case recoveryReadsOriginalEnsemble
        /// The last add confirmed does not rise by recovery alone.
        case recoveryKeepsLAC
        /// Garbage collection believes metadata that it read by itself, not a hint.
        case collectionReadsMetadata
        /// A log has no third ledger while the last but one is open.
        case rollsWaitForClose
        /// What a node had to store again after a loss was a fence too.
        case repairFences
    }

    private let broken: UInt8

    /// All rules hold.
    package static let standard = ProtocolRules(broken: 0)

    private init(broken: UInt8) { self.broken = broken }

    /// A mutant. Only for the simulator and tests.
    package init(breaking rule: Rule) { self.init(broken: rule.rawValue) }

    @inline(__always)
    func keep(_ rule: Rule) -> Bool { broken != rule.rawValue }

    /// The broken rule, nil for the true protocol.
    package var mutant: Rule? { Rule(rawValue: broken) }
}
