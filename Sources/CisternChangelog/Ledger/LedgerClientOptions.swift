// Settings and bounds of ledgers' clients, by name.

package import CisternLogProtocol
package import CisternTransport
package import NIOCore

package struct LedgerClientOptions: Sendable {
    /// Of the connections to log nodes.
    package var transport: ClientTransportOptions
    /// A node that does not answer by then has failed, for the one who asked. Not for requests that wait for news.
    package var requestTimeout: TimeAmount = .seconds(5)
    /// A node that could not be reached is not tried again for so long, doubled with each failure up to the maximum.
    package var reconnectDelayMin: TimeAmount = .milliseconds(50)
    package var reconnectDelayMax: TimeAmount = .seconds(2)
    /// After trouble with a node or with metadata, what is stuck is tried again after this.
    package var retryInterval: TimeAmount = .seconds(1)
    /// Between two questions of a writer in trouble which nodes there are by now.
    package var candidatesInterval: TimeAmount = .seconds(10)
    /// A writer that sent nothing for so long tells readers its last add confirmed.
    package var idleInterval: TimeAmount = .milliseconds(50)
    /// A reader that got nothing for so long asks elsewhere too, and looks at metadata when it waits at the end.
    package var readerInterval: TimeAmount = .milliseconds(500)
    /// A reader that no node gives its next entry, and a recovery that too few nodes answer, ask all of them again for so long before
    /// they fail: nodes restart.
    package var patience: TimeAmount = .seconds(30)
    /// Bytes of a writer's entries that may be unacknowledged; one entry is always let in. A node that is not waited for may have
    /// twice as much unanswered before appends wait for it.
    package var windowBytes = 16 << 20
    /// Entries of a writer that may be unacknowledged.
    package var windowEntries = 16_384
    /// Bytes that a reader fetches ahead of who takes its entries. Entries are judged by the ones before them: a run of
    /// larger ones can exceed it once.
    package var readAheadBytes = 8 << 20

    package init() {
        transport = ClientTransportOptions()
        transport.client = "cistern-ledger"
        transport.connectTimeout = .seconds(2)
        transport.handshakeTimeout = .seconds(2)
    }
}

/// Where log nodes are. Any thread.
package protocol LogNodeAddresses: Sendable {
    /// nil: nobody knows the node. Asked at each connect, so a node may move.
    func endpoint(of node: LogNodeID) async -> Endpoint?
}
