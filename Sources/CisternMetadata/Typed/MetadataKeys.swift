// Where records are: the names of keys. Specification: proto-spec/metadata-records.md.

package import CisternLogProtocol
package import CisternPrimitives

/// Keys of one changelog service, behind a prefix of its own, so that several can share an etcd.
package struct MetadataKeys: Hashable, Sendable {
    package static let logNameBytesMax = 200

    package let root: String

    /// - Precondition: at most 200 visible ASCII characters.
    package init(root: String = "") {
        precondition(
            MetadataLimits.isPrefix(root) && root.utf8.count <= MetadataKeys.logNameBytesMax,
            "a root of \(root.utf8.count) bytes that cannot begin a key")
        self.root = root
    }

    package var ledgerIDs: String { root + "ledger-ids" }
    package var ledgers: String { root + "ledger/" }
    package var nodes: String { root + "node/" }
    package var repairs: String { root + "repair/" }
    /// Held by the node that repairs, with a lease.
    package var repairer: String { root + "repairer" }

    /// Held by the process that works on a ledger's repairs, with a lease.
    package func repairClaim(_ ledger: LedgerID) -> String { root + "repair-claim/" + hexadecimal(ledger.rawValue) }

    package func ledger(_ ledger: LedgerID) -> String { ledgers + hexadecimal(ledger.rawValue) }
    package func log(_ name: String) -> String { root + "log/" + name }
    package func node(_ node: LogNodeID) -> String { nodes + hexadecimal(node.rawValue) }
    package func repair(_ ledger: LedgerID, _ node: LogNodeID) -> String {
        repairs + hexadecimal(ledger.rawValue) + "-" + hexadecimal(node.rawValue)
    }

    /// The ledger of a key that `ledger(_:)` made.
    package func ledger(ofKey key: String) -> LedgerID? {
        guard key.hasPrefix(ledgers) else { return nil }
        let digits = key.dropFirst(ledgers.count)
        guard let value = UInt64(digits, radix: 16), hexadecimal(value) == digits else { return nil }
        return LedgerID(value)
    }

    /// Fixed width, so that keys sort as numbers do.
    private func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
