// Settings and bounds of a log node's network, by name.

package import CisternTransport

package struct LogNodeListenerOptions: Sendable {
    /// Of the connections, credits among them.
    package var transport: ServerTransportOptions
    /// Name of the log service: tokens are asked for the right to read or write it, as if it were a store's name.
    package var scope = "changelog"
    /// Bytes of adds of one connection without an answer: above this it is not read from, until half of them are answered. What one
    /// read brought beyond it is taken.
    package var unansweredBytesMax = 16 << 20
    /// The same of all connections together.
    package var nodeUnansweredBytesMax = 256 << 20
    /// Bytes that reads of one connection may have in answers at a time; a read counts with what it allows its answer. One is
    /// always let in.
    package var answerBytesMax = 32 << 20

    package init() {
        transport = ServerTransportOptions()
        transport.server = "cistern-log-node"
        // Adds are small and many: what bounds them is bytes.
        transport.requestsMax = 16_384
    }
}
