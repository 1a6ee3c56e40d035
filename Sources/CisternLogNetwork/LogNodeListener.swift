// A log node's sockets. The node itself is behind `LogNodeService`; each connection is a `LogNodeSession`.
//
// Threading: may be called from anywhere.

package import CisternLogProtocol
package import CisternTransport
package import Logging
package import NIOCore

package final class LogNodeListener: Sendable {
    private let listener: Listener
    private let budget: UnansweredBudget

    private init(_ listener: Listener, _ budget: UnansweredBudget) {
        self.listener = listener
        self.budget = budget
    }

    /// Listens on all endpoints, or on none and throws.
    package static func bind(
        _ endpoints: [Endpoint], node: any LogNodeService, group: any EventLoopGroup,
        options: LogNodeListenerOptions = LogNodeListenerOptions(),
        logger: Logger = Logger(label: "cistern.log-node")
    ) async throws(TransportError) -> LogNodeListener {
        let budget = UnansweredBudget(bytesMax: options.nodeUnansweredBytesMax)
        let listener = try await Listener.bind(endpoints, group: group, options: options.transport, logger: logger) {
            _ in
            LogNodeSession(node: node, options: options, budget: budget)
        }
        return LogNodeListener(listener, budget)
    }

    /// In the order they were asked for, with the ports the system gave.
    package var boundEndpoints: [Endpoint] { listener.boundEndpoints }

    package var connectionCount: Int { listener.connectionCount }

    /// Bytes of adds that the node has not answered.
    package var unansweredBytes: Int { budget.bytes }

    /// Tells the clients to go, lets them finish for `grace`, then closes.
    package func drain(grace: TimeAmount = .seconds(5)) async {
        await listener.drain(reason: "the log node is stopping", grace: grace)
    }

    /// Closes every socket at once. Idempotent.
    package func close() async { await listener.close() }
}
