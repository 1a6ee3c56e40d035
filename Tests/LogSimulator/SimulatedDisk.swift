// The journal of a simulated node. What was not synced is lost in a crash, but for a part from the front: the hash chain cuts
// a torn or reordered tail where it breaks. Damage takes what was durable: the end of the journal, or records in its middle.

import CisternLogProtocol
import CisternPrimitives

/// The place of an entry.
struct Place: Hashable, Comparable, CustomStringConvertible {
    let ledger: LedgerID
    let entry: EntryID

    static func < (left: Place, right: Place) -> Bool { (left.ledger, left.entry) < (right.ledger, right.entry) }
    var description: String { "\(ledger):\(entry)" }
}

struct SimulatedDisk {
    /// Records of a segment; small, so that short runs seal some.
    static let segmentRecords = 5
    /// The index checkpoint and a second store, whose checkpoints finish in any order.
    static let stores = 2

    private(set) var records: [JournalRecord] = []
    /// Records that a sync has made durable.
    private(set) var durable = 0
    /// Records that the running machine did not write: its sequence numbers begin after them.
    private(set) var replayed = 0
    private(set) var bodies: [Place: [UInt8]] = [:]
    /// Entries that the disk does not give back, until they are stored again.
    private(set) var rotten: Set<Place> = []
    private let rules: ProtocolRules
    private var trim: JournalTrim
    private var sealed = 0
    private var removed: Set<UInt64> = []

    init(rules: ProtocolRules) {
        self.rules = rules
        trim = JournalTrim(stores: SimulatedDisk.stores, mark: 0, rules: rules)
    }

    mutating func append(_ record: JournalRecord) {
        records.append(record)
        if case .add(let ledger, let entry, _, let body) = record {
            bodies[Place(ledger: ledger, entry: entry)] = body
            rotten.remove(Place(ledger: ledger, entry: entry))
        }
    }

    /// Returns the record that nobody will read any more.
    mutating func rot(_ place: Place) -> JournalRecord? {
        guard bodies.removeValue(forKey: place) != nil else { return nil }
        rotten.insert(place)
        return records.first {
            if case .add(place.ledger, place.entry, _, _) = $0 { true } else { false }
        }
    }

    /// All up to `count` records is durable. Returns these that were not before.
    mutating func synced(_ count: Int) -> ArraySlice<JournalRecord> {
        let new = records[durable..<max(durable, count)]
        durable = max(durable, count)
        return new
    }

    var sequence: JournalSequence { JournalSequence(UInt64(max(0, durable - replayed))) }

    /// The machine stops. Returns what was durable and is lost.
    mutating func crash(keeping unsynced: Int, damage: Damage?) -> [JournalRecord] {
        records.removeLast(records.count - durable - unsynced)
        var lost: [JournalRecord] = []
        if !rotten.isEmpty { lost = forgetRotten() }
        durable = records.count
        switch damage {
        case .tail(let count):
            lost += records.suffix(count)
            records.removeLast(min(count, records.count))
        case .rot(let places):
            for place in places.sorted().reversed() where place < records.count {
                lost.append(records.remove(at: place))
            }
        case nil: return lost
        }
        durable = records.count
        moved()
        return lost
    }

    /// What is rotten is not replayed.
    private mutating func forgetRotten() -> [JournalRecord] {
        let isRotten = { [rotten] (record: JournalRecord) in
            guard case .add(let ledger, let entry, _, _) = record else { return false }
            return rotten.contains(Place(ledger: ledger, entry: entry))
        }
        let forgotten = records.filter(isRotten)
        records.removeAll(where: isRotten)
        rotten = []
        moved()
        return forgotten
    }

    /// Records have other places; a node with damage checkpoints anew.
    private mutating func moved() {
        trim = JournalTrim(stores: SimulatedDisk.stores, mark: 0, rules: rules)
        sealed = 0
        removed = []
    }

    enum Damage {
        case tail(Int)
        case rot(Set<Int>)
    }

    /// The journal is read from the mark on. Returns the segment that is needed and gone, nil when all are there.
    mutating func replay(_ each: (JournalRecord) -> Void) -> UInt64? {
        replayed = records.count
        bodies = [:]
        for record in records {
            each(record)
            if case .add(let ledger, let entry, _, let body) = record {
                let place = Place(ledger: ledger, entry: entry)
                if bodies[place] == nil { bodies[place] = body }
            }
        }
        return (trim.mark..<max(trim.mark, UInt64(sealed))).first { removed.contains($0) }
    }

    // MARK: Segments

    /// Seals full segments; returns them.
    mutating func seal() -> [UInt64] {
        var new: [UInt64] = []
        while (sealed + 1) * SimulatedDisk.segmentRecords <= durable {
            let first = sealed * SimulatedDisk.segmentRecords
            let held = records[first..<first + SimulatedDisk.segmentRecords].compactMap { record -> LedgerID? in
                switch record {
                case .add(let ledger, _, _, _), .fence(let ledger), .lac(let ledger, _): ledger
                case .delete, .limbo, .repaired: nil
                }
            }
            trim.sealed(segment: UInt64(sealed), ledgers: Set(held))
            new.append(UInt64(sealed))
            sealed += 1
        }
        return new
    }

    mutating func checkpointed(store: Int, before segment: UInt64) {
        _ = trim.checkpointed(store: store, before: segment)
        collect()
    }

    mutating func deleted(_ ledger: LedgerID) {
        rotten = rotten.filter { $0.ledger != ledger }
        trim.deleted(ledger)
        collect()
    }

    private mutating func collect() { removed.formUnion(trim.takeRemovable()) }
}
