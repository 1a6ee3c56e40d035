// Which nodes may take a lost node's place in a ledger: a pure function of registrations and of what nodes hold.

package import CisternLogProtocol
package import CisternMetadata

package enum RepairPlacement {
    /// The best in front: on a host that none of the ledger's other nodes is on, then with the fewest fragments.
    ///
    /// - Parameters:
    ///   - fragments: how many each node holds; 0 for those that are not named.
    ///   - refused: nodes that did not take copies a moment ago.
    package static func targets(
        for metadata: LedgerMetadata, replacing lost: LogNodeID, among nodes: [LogNodeRegistration],
        fragments: [LogNodeID: Int], refused: Set<LogNodeID> = []
    ) -> [LogNodeID] {
        let peers = metadata.fragments.filter { $0.ensemble.contains(lost) }.flatMap(\.ensemble)
        let hosts = Set(nodes.filter { $0.node != lost && peers.contains($0.node) }.map { host($0.address) })
        func rank(_ node: LogNodeRegistration) -> (Int, Int, UInt64) {
            (hosts.contains(host(node.address)) ? 1 : 0, fragments[node.node] ?? 0, node.node.rawValue)
        }
        return nodes.filter { !$0.isReadOnly && $0.node != lost && !refused.contains($0.node) }
            .sorted { rank($0) < rank($1) }.map(\.node)
    }

    /// `host:port` without the port.
    private static func host(_ address: String) -> Substring {
        address.lastIndex(of: ":").map { address[..<$0] } ?? address[...]
    }
}
