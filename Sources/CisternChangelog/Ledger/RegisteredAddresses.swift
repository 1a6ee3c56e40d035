// Where log nodes are, as they registered themselves.

package import CisternLogProtocol
package import CisternMetadata
package import CisternTransport

extension LedgerStore: LogNodeAddresses {
    /// nil also when metadata gives no answer; then the store's `report` is told.
    package func endpoint(of node: LogNodeID) async -> Endpoint? {
        await registration(of: node).flatMap { Endpoint($0.address) }
    }
}
