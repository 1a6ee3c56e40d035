// The parts of a log node's state: what it knows of one ledger, what waits for the journal or for a read, limbo, and the
// ledgers that it has deleted.

internal import CisternPrimitives

/// *Accepted* is what was handed to the journal and decides on what comes after it; *durable* is what answers say.
struct LedgerOnNode<Token: Hashable & Sendable>: Hashable, Sendable {
    var accepted = EntrySet()
    var durable = EntrySet()
    /// Were durable, and the disk does not give them back: unknown until they are stored again.
    var damaged = EntrySet()
    /// Only rises.
    private(set) var acceptedLAC = EntryID.none
    private(set) var lac = EntryID.none
    var isFenced = false
    var isDurablyFenced = false
    /// Missing in metadata when it was last looked at.
    var isQuarantined = false
    /// The delete is on its way to the disk.
    var isDeleting = false
    /// The last add or fence, for answers that must come after it.
    var lastRecord = JournalSequence.zero
    var waiters: [LACWaiter<Token>] = []

    /// An add is handed to the journal.
    mutating func accept(_ entry: EntryID, lac: EntryID, as record: JournalSequence) {
        accepted.insert(entry)
        raiseAccepted(lac)
        lastRecord = record
    }

    /// An add is durable.
    mutating func store(_ entry: EntryID, lac: EntryID) {
        durable.insert(entry)
        damaged.remove(entry)
        raise(lac)
    }

    mutating func raise(_ lac: EntryID) { self.lac = max(self.lac, lac) }
    mutating func raiseAccepted(_ lac: EntryID) { acceptedLAC = max(acceptedLAC, lac) }
}

struct LACWaiter<Token: Hashable & Sendable>: Hashable, Sendable {
    let token: Token
    let newerThan: EntryID
}

/// What is to be done when a record is durable.
enum Waiting<Token: Hashable & Sendable>: Hashable, Sendable {
    case stored(Token, LedgerID, EntryID)
    /// An add of an entry that is there: compare the values.
    case compare(Token, AddRequest)
    case read(Token, ReadRequest)
    case readLAC(Token, ReadLACRequest)
}

struct InFlight<Token: Hashable & Sendable>: Hashable, Sendable {
    let sequence: JournalSequence
    /// Without its body; nil for what only waits.
    let record: JournalRecord?
    var waiting: Waiting<Token>?
}

extension JournalRecord {
    /// The record for as long as it is in flight: the body is the journal's.
    var withoutBody: JournalRecord {
        if case .add(let ledger, let entry, let lac, _) = self { .add(ledger, entry, lac: lac, body: []) } else { self }
    }
}

/// A request that waits for bodies.
enum PendingRead: Hashable, Sendable {
    case compare(AddRequest)
    /// `answers` has what is said of entries that are not in `present`.
    case range(ReadRequest, answers: [EntryAnswer], present: [EntryID], lac: EntryID, isFenced: Bool)

    func reply(_ results: [JournalRead], rules: ProtocolRules) -> NodeReply {
        switch self {
        case .compare(let add):
            let refusal: NodeRefusal? =
                switch results.first {
                case .body(let body): body == add.body ? nil : .conflict
                case .failed, nil: .unavailable
                }
            return .add(AddReply(ledger: add.ledger, entry: add.entry, refusal: refusal))
        case .range(let read, var answers, let present, let lac, let isFenced):
            for (entry, result) in zip(present, results) {
                let offset = Int(entry.rawValue - read.first.rawValue)
                switch result {
                case .body(let body): answers[offset] = .present(body)
                case .failed: answers[offset] = rules.keep(.readErrorIsUnknown) ? .unknown : .absent
                }
            }
            if results.count < present.count {
                answers.removeLast(answers.count - Int(present[results.count].rawValue - read.first.rawValue))
            }
            return .read(
                ReadReply(ledger: read.ledger, first: read.first, answers: answers, lac: lac, isFenced: isFenced))
        }
    }
}

/// Ledgers of which the node may have lost something: all up to the youngest one that there was when it came back, without
/// those that were repaired since. A second limbo takes the repaired ones in again.
struct Limbo: Hashable, Sendable {
    /// The record is on its way to the disk.
    var isPending = false
    private(set) var through: LedgerID?
    private var repaired = LedgerSet()

    func contains(_ ledger: LedgerID) -> Bool {
        guard let through else { return false }
        return ledger <= through && !repaired.contains(ledger)
    }

    func hasRepaired(_ ledger: LedgerID) -> Bool { repaired.contains(ledger) }

    mutating func begin(through ledger: LedgerID) {
        isPending = false
        through = max(ledger, through ?? ledger)
        repaired = LedgerSet()
    }

    mutating func end(_ ledger: LedgerID) { repaired.insert(ledger) }
}

/// A set of ledger ids as runs: deleted ledgers are remembered for ever, and most of their neighbours are deleted too.
struct LedgerSet: Hashable, Sendable {
    private var ids = EntrySet()

    func contains(_ ledger: LedgerID) -> Bool { ids.contains(EntryID(Int64(ledger.rawValue))) }
    mutating func insert(_ ledger: LedgerID) { ids.insert(EntryID(Int64(ledger.rawValue))) }

    var runs: [ClosedRange<LedgerID>] {
        ids.runs.map { LedgerID(UInt64($0.lowerBound))...LedgerID(UInt64($0.upperBound)) }
    }
}
