// What a client asks of a log node and what the node answers. Requests may be lost, repeated and reordered: everything that
// is needed to understand an answer is in it, so that a late or second copy is a fact like the first one.

package import CisternPrimitives

package enum NodeRequest: Hashable, Sendable {
    case add(AddRequest)
    case read(ReadRequest)
    case readLAC(ReadLACRequest)
    /// The last add confirmed, sent when there is no add to carry it. No answer.
    case writeLAC(LedgerID, lac: EntryID)
    /// A hint that the ledger's metadata is gone. No answer: the node looks by itself before it removes anything.
    case delete(LedgerID)

    package var ledger: LedgerID {
        switch self {
        case .add(let request): request.ledger
        case .read(let request): request.ledger
        case .readLAC(let request): request.ledger
        case .writeLAC(let ledger, _), .delete(let ledger): ledger
        }
    }
}

package enum NodeReply: Hashable, Sendable {
    case add(AddReply)
    case read(ReadReply)
    case lac(ReadLACReply)

    package var ledger: LedgerID {
        switch self {
        case .add(let reply): reply.ledger
        case .read(let reply): reply.ledger
        case .lac(let reply): reply.ledger
        }
    }
}

/// Why a node did not do what was asked. None of them says anything about which entries exist.
package enum NodeRefusal: UInt8, Hashable, Sendable, CaseIterable {
    /// The ledger is fenced; only recovery may add. The writer has lost its ledger.
    case fenced = 1
    /// The node has deleted the ledger, or is about to.
    case deleted = 2
    /// The node came back without all it had; it accepts no writer's add to a ledger of before.
    case limbo = 3
    /// Disk reserve reached.
    case readOnly = 4
    /// The journal failed, or the node is starting.
    case unavailable = 5
    /// The entry is stored with another value. A bug of someone; the first value stays.
    case conflict = 6
}

// MARK: - Add

package struct AddRequest: Hashable, Sendable {
    package let ledger: LedgerID
    package let entry: EntryID
    /// The writer's last add confirmed when it sent this. In recovery: the one that recovery began with.
    package let lac: EntryID
    package let body: [UInt8]
    /// From recovery or repair: taken by fenced ledgers too.
    package let isRecovery: Bool

    package init(ledger: LedgerID, entry: EntryID, lac: EntryID, body: [UInt8], isRecovery: Bool) {
        self.ledger = ledger
        self.entry = entry
        self.lac = lac
        self.body = body
        self.isRecovery = isRecovery
    }
}

package struct AddReply: Hashable, Sendable {
    package let ledger: LedgerID
    package let entry: EntryID
    /// nil: the entry is durable on the node.
    package let refusal: NodeRefusal?

    package init(ledger: LedgerID, entry: EntryID, refusal: NodeRefusal?) {
        self.ledger = ledger
        self.entry = entry
        self.refusal = refusal
    }
}

// MARK: - Read

package struct ReadRequest: Hashable, Sendable {
    package let ledger: LedgerID
    package let first: EntryID
    /// Entries asked for, `first` and what follows.
    package let count: Int
    /// The answer is cut before the entry with which bodies exceed this; the first entry is always in it.
    package let bytesMax: Int
    /// Fence the ledger before answering.
    package let fence: Bool

    /// Bound of `count`, so that an answer's memory is bounded too.
    package static let countMax = 4096

    package init(ledger: LedgerID, first: EntryID, count: Int, bytesMax: Int, fence: Bool) {
        self.ledger = ledger
        self.first = first
        self.count = count
        self.bytesMax = bytesMax
        self.fence = fence
    }
}

/// What a node knows of one entry. There is no error beside these: a failed read *is* `unknown`, so that nobody can take
/// it for a negative.
package enum EntryAnswer: Hashable, Sendable {
    case present([UInt8])
    /// The node has never stored it. The only answer that counts as a negative.
    case absent
    /// The node cannot tell: limbo, an I/O error, damage.
    case unknown
}

package struct ReadReply: Hashable, Sendable {
    package let ledger: LedgerID
    package let first: EntryID
    /// Of `first` and what follows: a prefix of what was asked for. Empty when refused.
    package let answers: [EntryAnswer]
    /// The node's last add confirmed.
    package let lac: EntryID
    /// The ledger was durably fenced on the node when it answered: a negative of a node that is not fenced proves nothing.
    package let isFenced: Bool
    package let refusal: NodeRefusal?

    package init(
        ledger: LedgerID, first: EntryID, answers: [EntryAnswer], lac: EntryID, isFenced: Bool,
        refusal: NodeRefusal? = nil
    ) {
        self.ledger = ledger
        self.first = first
        self.answers = answers
        self.lac = lac
        self.isFenced = isFenced
        self.refusal = refusal
    }
}

// MARK: - Last add confirmed

package struct ReadLACRequest: Hashable, Sendable {
    package let ledger: LedgerID
    /// Fence the ledger before answering.
    package let fence: Bool
    /// Answer when the last add confirmed is higher than this; nil: at once.
    package let newerThan: EntryID?

    package init(ledger: LedgerID, fence: Bool, newerThan: EntryID? = nil) {
        self.ledger = ledger
        self.fence = fence
        self.newerThan = newerThan
    }
}

package struct ReadLACReply: Hashable, Sendable {
    package let ledger: LedgerID
    package let lac: EntryID
    package let isFenced: Bool
    package let refusal: NodeRefusal?

    package init(ledger: LedgerID, lac: EntryID, isFenced: Bool, refusal: NodeRefusal? = nil) {
        self.ledger = ledger
        self.lac = lac
        self.isFenced = isFenced
        self.refusal = refusal
    }
}
