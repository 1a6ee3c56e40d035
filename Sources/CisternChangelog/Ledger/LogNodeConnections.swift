// One event loop's connections to log nodes: one to each, made when it is needed, for all ledgers of the loop.
//
//   hosts ─ send ─► link ─ flush ─► ClientConnection (one write for all that gathered) ─► log node
//   hosts ◄─ received / failed ◄─ link ◄─ answers, deadlines, the end of the connection
//
// A node that cannot be reached fails what is asked of it at once, until its delay is over: whoever asked decides whether to ask
// again. Nothing is sent twice from here.
//
// Threading: owned by the event loop. Answers and failures never come from inside `send`.

internal import CisternLogProtocol
internal import CisternTransport
internal import NIOCore

/// Who asks log nodes. Both calls come on the event loop, one of them once for each request.
protocol LogNodeCaller: AnyObject {
    func received(_ reply: NodeReply, to request: NodeRequest, from node: LogNodeID)
    /// The request was not answered; whether it was carried out is unknown.
    func failed(_ request: NodeRequest, to node: LogNodeID)
}

final class LogNodeConnections {
    let eventLoop: any EventLoop
    let options: LedgerClientOptions
    let addresses: any LogNodeAddresses

    private var links: [LogNodeID: LogNodeLink] = [:]
    /// Those with requests to flush.
    private var waiting: [LogNodeLink] = []
    private(set) var isClosed = false

    init(eventLoop: any EventLoop, addresses: any LogNodeAddresses, options: LedgerClientOptions) {
        self.eventLoop = eventLoop
        self.addresses = addresses
        self.options = options
    }

    /// Gathers a request for the next `flush`.
    func send(
        _ request: NodeRequest, to node: LogNodeID, deadline: NIODeadline?, for caller: NIOLoopBound<any LogNodeCaller>
    ) {
        let link = links[node] ?? makeLink(node)
        if link.isIdle { waiting.append(link) }
        link.enqueue(request, deadline, caller)
    }

    private func makeLink(_ node: LogNodeID) -> LogNodeLink {
        let link = LogNodeLink(node: node, connections: self)
        links[node] = link
        return link
    }

    /// Sends what gathered.
    func flush() {
        let ready = waiting
        waiting.removeAll(keepingCapacity: true)
        for link in ready { link.flush() }
    }

    /// What the nodes last failed with, for people.
    func causes(_ nodes: some Sequence<LogNodeID>) -> String {
        nodes.sorted().compactMap { node in links[node]?.lastError.map { "\(node): \($0)" } }.joined(separator: "; ")
    }

    /// No connection is made any more. Returns what is to be waited for, on any thread.
    func close() -> [@Sendable () async -> Void] {
        isClosed = true
        // A link holds these connections, so that what comes late finds them.
        defer { links = [:] }
        return links.values.map { $0.close() }
    }
}
