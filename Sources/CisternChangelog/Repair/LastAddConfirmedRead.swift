// Asks nodes for a ledger's last add confirmed, once, without a fence: whether a writer is at work.
// Threading: owned by an event loop.

internal import CisternLogProtocol
internal import CisternPrimitives
internal import NIOCore

final class LastAddConfirmedRead: LogNodeCaller {
    private let ledger: LedgerID
    private let connections: LogNodeConnections
    private let end: (EntryID) -> Void
    private var left: Int
    private var highest = EntryID.none

    init(_ ledger: LedgerID, connections: LogNodeConnections, nodes: Int, end: @escaping (EntryID) -> Void) {
        self.ledger = ledger
        self.connections = connections
        self.end = end
        left = nodes
    }

    func start(_ nodes: [LogNodeID]) {
        if nodes.isEmpty { return end(.none) }
        let caller = NIOLoopBound<any LogNodeCaller>(self, eventLoop: connections.eventLoop)
        let deadline = NIODeadline.now() + connections.options.requestTimeout
        let request = NodeRequest.readLAC(ReadLACRequest(ledger: ledger, fence: false))
        for node in nodes { connections.send(request, to: node, deadline: deadline, for: caller) }
        connections.flush()
    }

    func received(_ reply: NodeReply, to request: NodeRequest, from node: LogNodeID) {
        if case .lac(let reply) = reply, reply.refusal == nil { highest = max(highest, reply.lac) }
        answered()
    }

    func failed(_ request: NodeRequest, to node: LogNodeID) { answered() }

    private func answered() {
        left -= 1
        if left == 0 { end(highest) }
    }
}
