// The adds that are not acknowledged yet, in the order of their entries, for the writer and for recovery's write-back.

internal import CisternPrimitives

struct PendingAdd: Hashable, Sendable {
    let entry: EntryID
    let body: [UInt8]
    /// Positions of the ensemble that must have it.
    let writeSet: PositionSet
    var sent = PositionSet()
    var acknowledged = PositionSet()

    init(entry: EntryID, body: [UInt8], writeSet: PositionSet) {
        self.entry = entry
        self.body = body
        self.writeSet = writeSet
    }
}

/// A queue of adds with dense ids. Taking from the front is O(1) amortised.
struct PendingAdds: Hashable, Sendable {
    private var adds: [PendingAdd] = []
    private var head = 0

    static func == (left: PendingAdds, right: PendingAdds) -> Bool {
        left.adds[left.head...] == right.adds[right.head...]
    }

    func hash(into hasher: inout Hasher) { hasher.combine(adds[head...]) }

    var count: Int { adds.count - head }
    var isEmpty: Bool { head == adds.count }
    var first: PendingAdd? { isEmpty ? nil : adds[head] }

    subscript(index: Int) -> PendingAdd { adds[head + index] }

    func contains(where matches: (PendingAdd) -> Bool) -> Bool { adds[head...].contains(where: matches) }

    func index(of entry: EntryID) -> Int? {
        guard let first, entry >= first.entry else { return nil }
        let index = Int(entry.rawValue - first.entry.rawValue)
        return index < count ? index : nil
    }

    mutating func append(_ add: PendingAdd) {
        invariant(isEmpty || adds[adds.count - 1].entry.next == add.entry, "a gap before \(add.entry)")
        adds.append(add)
    }

    mutating func removeFirst() {
        head += 1
        if head == adds.count {
            adds.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 64 && head * 2 >= adds.count {
            adds.removeFirst(head)
            head = 0
        }
    }

    mutating func markSent(_ index: Int, to positions: PositionSet) {
        adds[head + index].sent = adds[head + index].sent.union(positions)
    }

    mutating func acknowledge(_ index: Int, from position: Int) { adds[head + index].acknowledged.insert(position) }

    /// Positions that are to be sent to again, unless they acknowledged.
    mutating func markUnsent(at positions: PositionSet) {
        for index in head..<adds.count {
            adds[index].sent = adds[index].sent.subtracting(positions.subtracting(adds[index].acknowledged))
        }
    }

    /// Positions that have other nodes: nothing was sent to them and nothing acknowledged by them.
    mutating func forget(_ positions: PositionSet) {
        for index in head..<adds.count {
            adds[index].sent = adds[index].sent.subtracting(positions)
            adds[index].acknowledged = adds[index].acknowledged.subtracting(positions)
        }
    }
}
