// Settings and bounds of repair, by name.

package struct RepairOptions: Sendable {
    /// A node whose registration is gone for so long has lost its ledgers. Counted by the process that audits, from when it first
    /// saw that the node is missing: another one that takes over begins to count anew.
    package var graceMilliseconds: UInt64 = 600_000
    /// The last add confirmed of an open ledger has not moved for so long, and no writer has replaced the node: then nobody writes
    /// to it, and it is recovered.
    package var openLedgerGraceMilliseconds: UInt64 = 600_000
    /// Bytes a second that copies of this process take, all together.
    package var copyBytesPerSecond: UInt64 = 16 << 20
    /// Ledgers that this process repairs at a time.
    package var ledgersAtATime = 2
    /// Between two looks at all ledgers; changes of registrations bring one on at once.
    package var auditMilliseconds: UInt64 = 300_000
    /// What did not succeed is tried again after this.
    package var retryMilliseconds: UInt64 = 30_000
    /// Between two looks at what this process's own node has lost.
    package var mendMilliseconds: UInt64 = 60_000
    /// Between two readings of all that the own node stores; nil: never.
    package var scrubMilliseconds: UInt64? = 24 * 3_600_000
    /// Bytes a second that this takes; 0: as fast as the disk is.
    package var scrubBytesPerSecond: UInt64 = 16 << 20
    /// Of the lease that the auditor's place and claims of ledgers depend on. A process that is gone is followed after this.
    package var leaseMilliseconds: UInt64 = 15_000

    /// Steps of one ledger's repair, each of which is a copy or a recovery, before others get their turn.
    package static let stepsMax = 1_000

    package init() {}
}
