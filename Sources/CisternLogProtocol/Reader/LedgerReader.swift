// Reads a ledger from an entry on, and follows it while it is written. Never reads beyond the last add confirmed of an open
// ledger, so what it delivers is in the ledger for ever.

package import CisternPrimitives

package struct LedgerReader: Hashable, Sendable {
    package let ledger: LedgerID
    /// What may be read: the last add confirmed as far as this reader knows, or the last entry of the closed ledger. Only rises.
    package private(set) var readable: EntryID

    private var metadata: LedgerMetadata
    private let batch: Int
    private var next: EntryID
    private var range: RangeRead?
    /// Delivery stops here until `demand` raises it.
    private var wanted: EntryID
    /// The range failed, and metadata is asked whether the fragments are others by now.
    private var failure: LedgerFailure?
    /// Which node of the last fragment tells the last add confirmed.
    private var lacPosition = 0
    private var isAskingLAC = false
    private var isDone = false

    package enum Action: Hashable, Sendable {
        case send(NodeRequest, to: LogNodeID)
        case metadata(LedgerMetadataRequest)
        case deliver(first: EntryID, [[UInt8]])
        /// The ledger is closed and all of it is delivered.
        case ended(last: EntryID)
        case failed(LedgerFailure)
    }

    package init(ledger: LedgerID, metadata: LedgerMetadata, from first: EntryID, batch: Int = 1024) {
        precondition(batch >= 1 && batch <= ReadRequest.countMax, "batch of \(batch)")
        self.ledger = ledger
        self.metadata = metadata
        self.batch = batch
        next = first
        wanted = first.rawValue > 0 ? first.previous : .none
        // All before the last fragment was acknowledged before the fragment began.
        readable = metadata.closedLastEntry ?? metadata.lastFragment.firstEntry.previous
    }

    /// Entries up to `last` are wanted: credit for delivery.
    package mutating func demand(through last: EntryID, into actions: inout [Action]) {
        wanted = max(wanted, last)
        pump(into: &actions)
    }

    package mutating func receive(_ reply: NodeReply, from node: LogNodeID, into actions: inout [Action]) {
        guard !isDone, reply.ledger == ledger else { return }
        switch reply {
        case .read(let reply): onRange(into: &actions) { $0.receive(reply, from: node, into: &$1) }
        case .lac(let reply):
            if reply.refusal != nil { return nodeFailed(node, into: &actions) }
            isAskingLAC = false
            let isNews = reply.lac > readable
            if metadata.closedLastEntry == nil { readable = max(readable, reply.lac) }
            // A fenced node will tell nothing new: its ledger is being closed.
            if !isNews && reply.isFenced { return actions.append(.metadata(.get(ledger))) }
            pump(into: &actions)
        case .add: break
        }
    }

    package mutating func nodeFailed(_ node: LogNodeID, into actions: inout [Action]) {
        guard !isDone else { return }
        if isAskingLAC, metadata.lastFragment.ensemble[lacPosition] == node {
            isAskingLAC = false
            lacPosition = (lacPosition + 1) % metadata.sizes.ensemble
        }
        onRange(into: &actions) { $0.nodeFailed(node, into: &$1) }
        // Not again at once: the owner's timer calls `speculate`.
    }

    /// From a timer: what was not answered is asked for elsewhere too.
    package mutating func speculate(into actions: inout [Action]) {
        guard !isDone else { return }
        onRange(into: &actions) { $0.speculate(into: &$1) }
        if range == nil && failure == nil {
            if isAskingLAC { lacPosition = (lacPosition + 1) % metadata.sizes.ensemble }
            isAskingLAC = false
            pump(into: &actions)
        }
    }

    /// Metadata as it is now: the answer to this reader's question, or news from a watch.
    package mutating func receive(_ result: LedgerMetadataResult, into actions: inout [Action]) {
        guard !isDone else { return }
        switch result {
        case .found(let found):
            let isNews = found.value != metadata
            metadata = found.value
            lacPosition %= metadata.sizes.ensemble
            readable = max(readable, metadata.closedLastEntry ?? metadata.lastFragment.firstEntry.previous)
            if let failure, !isNews { return fail(failure, into: &actions) }
            failure = nil
            isAskingLAC = false
            // A range that is on its way goes on: it was made from fragments that hold what they held.
            pump(into: &actions)
        case .missing: fail(.deleted, into: &actions)
        case .written, .conflict, .unavailable:
            if let failure { fail(failure, into: &actions) }
        }
    }

    private mutating func fail(_ failure: LedgerFailure, into actions: inout [Action]) {
        isDone = true
        actions.append(.failed(failure))
    }

    private mutating func pump(into actions: inout [Action]) {
        guard !isDone, range == nil, failure == nil else { return }
        if let last = metadata.closedLastEntry, next > last {
            isDone = true
            return actions.append(.ended(last: last))
        }
        guard next <= wanted else { return }
        if next > readable { return askLAC(into: &actions) }
        let last = min(readable, wanted, next.advanced(by: batch - 1))
        range = RangeRead(ledger: ledger, metadata: metadata, first: next, last: last)
        onRange(into: &actions) { $0.start(into: &$1) }
    }

    private mutating func askLAC(into actions: inout [Action]) {
        guard !isAskingLAC, metadata.closedLastEntry == nil else { return }
        isAskingLAC = true
        let request = ReadLACRequest(ledger: ledger, fence: false, newerThan: readable)
        actions.append(.send(.readLAC(request), to: metadata.lastFragment.ensemble[lacPosition]))
    }

    private mutating func onRange(
        into actions: inout [Action], _ event: (inout RangeRead, inout [RangeRead.Action]) -> Void
    ) {
        guard range != nil else { return }
        var steps: [RangeRead.Action] = []
        event(&range!, &steps)
        for step in steps {
            switch step {
            case .send(let request, let node): actions.append(.send(request, to: node))
            case .deliver(let first, let bodies):
                next = first.advanced(by: bodies.count)
                actions.append(.deliver(first: first, bodies))
            case .finished:
                range = nil
                pump(into: &actions)
            case .failed(let reason):
                range = nil
                failure = reason
                actions.append(.metadata(.get(ledger)))
            }
        }
    }
}
