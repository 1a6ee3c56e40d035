// The border between a log node and its network: requests in batches in, answers in batches out, neither side waits.

/// What a log node's network side talks to. May be called from any thread; requests of one client come in their order.
package protocol LogNodeService: AnyObject, Sendable {
    /// Hands over requests in their order. Does not wait.
    func submit(_ requests: [LogNodeCall], from client: any LogNodeServiceClient)
    /// The client is gone: what it waits for is dropped.
    func disconnected(_ client: any LogNodeServiceClient)
}

/// One connection, as the node sees it.
package protocol LogNodeServiceClient: AnyObject, Sendable {
    /// Answers, in the order in which they were ready, on the node's thread. Must not wait.
    func deliver(_ answers: [LogNodeAnswer])
}

package struct LogNodeCall: Sendable {
    /// Chosen by the client, unique among what it waits for; the answer carries it.
    package var id: UInt64
    package var request: NodeRequest

    package init(id: UInt64, request: NodeRequest) {
        self.id = id
        self.request = request
    }
}

package struct LogNodeAnswer: Sendable {
    package var id: UInt64
    package var reply: NodeReply

    package init(id: UInt64, reply: NodeReply) {
        self.id = id
        self.reply = reply
    }
}
