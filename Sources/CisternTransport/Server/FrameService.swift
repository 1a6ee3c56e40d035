// What a server does with requests. One service a connection; every call comes on the connection's event loop and must not
// block it.

package import CisternWire

package protocol FrameService: AnyObject {
    /// HELLO is done; requests follow.
    func opened(_ connection: ServerConnection)

    /// One request, never a control frame of the connection itself. Answer it with `connection.reply(to:)` or
    /// `replyError(to:)`, now or later, once: an unanswered request keeps its credit. `body` is valid during the call.
    func received(_ request: FrameHeader, body: UnsafeRawBufferPointer)

    /// All requests of one read were delivered: the moment to do work in batches.
    func readComplete()

    /// The client takes replies again, or stopped. A stream of fragments goes on only while it takes them.
    func writabilityChanged(_ isWritable: Bool)

    /// The last call, once, after `opened`. Replies go nowhere from now on.
    func closed(_ reason: String)
}

extension FrameService {
    package func readComplete() {}
    package func writabilityChanged(_ isWritable: Bool) {}
}
