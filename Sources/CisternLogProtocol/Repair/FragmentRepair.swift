// Copies one node's part of a fragment from its peers to a target, then swaps the target in. Only for fragments that can have
// no more adds: a fragment before the last one, or any of a closed ledger.

package import CisternPrimitives

package struct FragmentRepair: Hashable, Sendable {
    package let ledger: LedgerID
    package let fragment: Int
    package let node: LogNodeID
    package let target: LogNodeID

    private var metadata: Versioned<LedgerMetadata>
    private var peers: LedgerMetadata
    private let batch: Int
    private let only: EntrySet?
    private var next: EntryID
    private let last: EntryID
    private var range: RangeRead?
    private var unstored: Set<EntryID> = []
    private var isDone = false

    package enum Action: Hashable, Sendable {
        case send(NodeRequest, to: LogNodeID)
        case metadata(LedgerMetadataRequest)
        /// The target holds the node's part and stands in metadata.
        case repaired(LedgerID, fragment: Int)
        case failed(LedgerFailure)
    }

    /// - Parameter only: the entries that `node`, which is the target, has lost; nil: it may have lost any.
    /// - Precondition: the fragment can have no more adds and `node` is in it.
    package init(
        ledger: LedgerID, metadata: Versioned<LedgerMetadata>, fragment: Int, node: LogNodeID, target: LogNodeID,
        only: EntrySet? = nil, batch: Int = 256
    ) {
        precondition(only == nil || node == target, "a part of fragment \(fragment) of \(ledger) is no copy of it")
        guard let last = metadata.value.lastEntry(ofFragment: fragment) else {
            preconditionFailure("repair of fragment \(fragment) of \(ledger), which is written to")
        }
        self.ledger = ledger
        self.metadata = metadata
        self.fragment = fragment
        self.node = node
        self.target = target
        self.batch = batch
        self.only = only
        self.last = last
        peers = metadata.value
        next = metadata.value.fragments[fragment].firstEntry
    }

    package mutating func start(into actions: inout [Action]) { copyOn(into: &actions) }

    package mutating func receive(_ reply: NodeReply, from sender: LogNodeID, into actions: inout [Action]) {
        guard !isDone, reply.ledger == ledger else { return }
        switch reply {
        case .read(let reply): onRange(into: &actions) { $0.receive(reply, from: sender, into: &$1) }
        case .add(let reply):
            guard sender == target else { return }
            if reply.refusal == .conflict { return fail(.conflict(reply.entry), into: &actions) }
            if reply.refusal != nil { return fail(.notEnoughNodes, into: &actions) }
            unstored.remove(reply.entry)
            copyOn(into: &actions)
        case .lac: break
        }
    }

    package mutating func nodeFailed(_ node: LogNodeID, into actions: inout [Action]) {
        guard !isDone else { return }
        if node == target { return fail(.notEnoughNodes, into: &actions) }
        onRange(into: &actions) { $0.nodeFailed(node, into: &$1) }
    }

    package mutating func receive(_ result: LedgerMetadataResult, into actions: inout [Action]) {
        guard !isDone else { return }
        switch result {
        case .written: finish(into: &actions)
        case .conflict, .unavailable: actions.append(.metadata(.get(ledger)))
        case .missing: fail(.deleted, into: &actions)
        case .found(let found):
            metadata = found
            let ensemble =
                found.value.fragments.indices.contains(fragment) ? found.value.fragments[fragment].ensemble : []
            if ensemble.contains(target) && !ensemble.contains(node) { return finish(into: &actions) }
            swap(into: &actions)
        }
    }

    private mutating func copyOn(into actions: inout [Action]) {
        guard !isDone, range == nil, unstored.isEmpty else { return }
        guard let position = peers.fragments[fragment].position(of: node) else { return finish(into: &actions) }
        while next <= last && !isCopied(next, position) { next = next.next }
        if next > last { return node == target ? finish(into: &actions) : swap(into: &actions) }
        var end = next
        while end < last && end.rawValue - next.rawValue + 1 < batch && isCopied(end.next, position) { end = end.next }
        range = RangeRead(ledger: ledger, metadata: peers, first: next, last: end)
        let lost = node
        onRange(into: &actions) {
            $0.start(into: &$1)
            $0.nodeFailed(lost, into: &$1)
        }
    }

    private func isCopied(_ entry: EntryID, _ position: Int) -> Bool {
        peers.sizes.writeSet(of: entry).contains(position) && only?.contains(entry) != false
    }

    private mutating func swap(into actions: inout [Action]) {
        do {
            let new = try metadata.value.replacing(node, with: target, inFragment: fragment)
            actions.append(.metadata(.compareAndSwap(ledger, expected: metadata.version, new: new)))
        } catch {
            fail(.metadata(error), into: &actions)
        }
    }

    private mutating func finish(into actions: inout [Action]) {
        isDone = true
        actions.append(.repaired(ledger, fragment: fragment))
    }

    private mutating func fail(_ failure: LedgerFailure, into actions: inout [Action]) {
        isDone = true
        actions.append(.failed(failure))
    }

    private mutating func onRange(
        into actions: inout [Action], _ event: (inout RangeRead, inout [RangeRead.Action]) -> Void
    ) {
        guard range != nil else { return }
        var steps: [RangeRead.Action] = []
        event(&range!, &steps)
        for step in steps {
            switch step {
            case .send(let request, let peer): actions.append(.send(request, to: peer))
            case .deliver(let first, let bodies):
                for (offset, body) in bodies.enumerated() {
                    let entry = first.advanced(by: offset)
                    unstored.insert(entry)
                    let add = AddRequest(ledger: ledger, entry: entry, lac: .none, body: body, isRecovery: true)
                    actions.append(.send(.add(add), to: target))
                }
                next = first.advanced(by: bodies.count)
            case .finished: range = nil
            case .failed(let failure): return fail(failure, into: &actions)
            }
        }
    }
}
