// Reads a run of entries that exist: at or below the last add confirmed, or up to the end of a closed ledger. Asks one
// node for each entry and another one when that fails or is slow; delivers in order.
//
// "Absent" is no answer here: an acknowledged entry may be missing on Qw − Qa of its nodes. When all of them are through
// without the entry, it is unreadable.

package import CisternPrimitives

package struct RangeRead: Hashable, Sendable {
    package let ledger: LedgerID
    package let last: EntryID
    /// The first entry that is not delivered yet.
    package private(set) var next: EntryID

    private let metadata: LedgerMetadata
    private let bytesMax: Int
    /// Of `next` and what follows.
    private var slots: [Slot]
    private var unreachable: Set<LogNodeID> = []

    private struct Slot: Hashable {
        var body: [UInt8]?
        /// Positions of the entry's fragment.
        var asked = PositionSet()
        var waiting = PositionSet()
    }

    /// - Precondition: `first <= last`, and `last` is at or below the last add confirmed.
    package init(
        ledger: LedgerID, metadata: LedgerMetadata, first: EntryID, last: EntryID, bytesMax: Int = 4 << 20
    ) {
        precondition(
            first <= last && last.rawValue - first.rawValue < ReadRequest.countMax, "read of \(first) to \(last)")
        self.ledger = ledger
        self.metadata = metadata
        self.last = last
        self.bytesMax = bytesMax
        next = first
        slots = Array(repeating: Slot(), count: Int(last.rawValue - first.rawValue) + 1)
    }

    package enum Action: Hashable, Sendable {
        case send(NodeRequest, to: LogNodeID)
        /// Entries in order, the first one is `first`.
        case deliver(first: EntryID, [[UInt8]])
        /// All of the range is delivered.
        case finished
        case failed(LedgerFailure)
    }

    package mutating func start(into actions: inout [Action]) { askForAll(into: &actions) }

    package mutating func receive(_ reply: ReadReply, from node: LogNodeID, into actions: inout [Action]) {
        guard reply.ledger == ledger, !slots.isEmpty else { return }
        if reply.refusal != nil { return nodeFailed(node, into: &actions) }
        for (offset, answer) in reply.answers.enumerated() {
            let entry = reply.first.advanced(by: offset)
            guard let index = index(of: entry), let position = metadata.fragment(of: entry).position(of: node) else {
                continue
            }
            slots[index].waiting.remove(position)
            if case .present(let body) = answer, slots[index].body == nil { slots[index].body = body }
        }
        // The answer was cut: what it did not come to is asked for again.
        let end = reply.first.advanced(by: reply.answers.count)
        for index in slots.indices where next.advanced(by: index) >= end && reply.answers.count > 0 {
            guard let position = position(of: node, index), slots[index].waiting.contains(position) else { break }
            slots[index].waiting.remove(position)
            slots[index].asked.remove(position)
        }
        deliver(into: &actions)
        askForAll(into: &actions)
    }

    /// The connection broke, or a read was not answered in time.
    package mutating func nodeFailed(_ node: LogNodeID, into actions: inout [Action]) {
        unreachable.insert(node)
        for index in slots.indices {
            if let position = position(of: node, index) { slots[index].waiting.remove(position) }
        }
        askForAll(into: &actions)
    }

    /// From a timer that is shorter than a time-out: entries that were not answered are asked for at one more node.
    package mutating func speculate(into actions: inout [Action]) {
        request(slots.indices.filter { slots[$0].body == nil }, into: &actions)
    }

    private func index(of entry: EntryID) -> Int? {
        let index = Int(entry.rawValue - next.rawValue)
        return slots.indices.contains(index) ? index : nil
    }

    private func position(of node: LogNodeID, _ index: Int) -> Int? {
        metadata.fragment(of: next.advanced(by: index)).position(of: node)
    }

    private mutating func deliver(into actions: inout [Action]) {
        let ready = slots.prefix { $0.body != nil }.compactMap(\.body)
        guard !ready.isEmpty else { return }
        actions.append(.deliver(first: next, ready))
        slots.removeFirst(ready.count)
        next = next.advanced(by: ready.count)
        if slots.isEmpty { actions.append(.finished) }
    }

    /// Asks for what nobody is asked for; fails when there is nobody left.
    private mutating func askForAll(into actions: inout [Action]) {
        let idle = slots.indices.filter { slots[$0].body == nil && slots[$0].waiting.isEmpty }
        let stuck = request(idle, into: &actions)
        if let stuck {
            actions.append(.failed(.unreadable(next.advanced(by: stuck))))
            slots = []
        }
    }

    /// Sends one request for each run of entries that the same node is to be asked for. Returns the first entry that has no
    /// node left to ask and waits for none.
    @discardableResult
    private mutating func request(_ indices: [Int], into actions: inout [Action]) -> Int? {
        var run: (node: LogNodeID, first: Int, count: Int)?
        var stuck: Int?
        func flush(_ actions: inout [Action]) {
            guard let run else { return }
            let request = ReadRequest(
                ledger: ledger, first: next.advanced(by: run.first), count: run.count, bytesMax: bytesMax, fence: false)
            actions.append(.send(.read(request), to: run.node))
        }
        for index in indices {
            guard let (position, node) = choose(index, preferring: run?.node) else {
                if slots[index].waiting.isEmpty { stuck = stuck ?? index }
                continue
            }
            slots[index].asked.insert(position)
            slots[index].waiting.insert(position)
            if let current = run, current.node == node, current.first + current.count == index {
                run = (node, current.first, current.count + 1)
            } else {
                flush(&actions)
                run = (node, index, 1)
            }
        }
        flush(&actions)
        return stuck
    }

    /// The node to ask for an entry next: the one of the run before it if it may be, else the one that holds most of what follows.
    private func choose(_ index: Int, preferring preferred: LogNodeID?) -> (Int, LogNodeID)? {
        let entry = next.advanced(by: index)
        let ensemble = metadata.fragment(of: entry).ensemble
        var best: (Int, LogNodeID)?
        for attempt in (0..<metadata.sizes.write).reversed() {
            let position = metadata.sizes.position(of: entry, attempt: attempt)
            let node = ensemble[position]
            guard !slots[index].asked.contains(position), !unreachable.contains(node) else { continue }
            if node == preferred { return (position, node) }
            if best == nil { best = (position, node) }
        }
        return best
    }
}
