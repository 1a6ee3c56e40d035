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

    /// Of the cluster with this name: `cistern/NAME/`.
    /// - Precondition: `isClusterName(cluster)`.
    package init(cluster: String) {
        precondition(MetadataKeys.isClusterName(cluster), "a cluster cannot be called that")
        self.init(root: "cistern/\(cluster)/")
    }

    /// What a cluster is called when nobody says.
    package static let clusterNameDefault = "default"
    package static let clusterNameBytesMax = 64

    /// 1 to 64 letters, digits, `-`, `_` and `.` of ASCII.
    package static func isClusterName(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= clusterNameBytesMax
            && name.unicodeScalars.allSatisfy {
                ("a"..."z").contains($0) || ("A"..."Z").contains($0) || ("0"..."9").contains($0)
                    || "-_.".unicodeScalars.contains($0)
            }
    }

    package var cluster: String { root + "cluster" }
    package var ledgerIDs: String { root + "ledger-ids" }
    package var ledgers: String { root + "ledger/" }
    package var logs: String { root + "log/" }
    package var nodes: String { root + "node/" }
    package var repairs: String { root + "repair/" }
    /// Held by the node that repairs, with a lease.
    package var repairer: String { root + "repairer" }

    /// Held by the process that works on a ledger's repairs, with a lease.
    package func repairClaim(_ ledger: LedgerID) -> String { root + "repair-claim/" + hexadecimal(ledger.rawValue) }

    package func ledger(_ ledger: LedgerID) -> String { ledgers + hexadecimal(ledger.rawValue) }
    package func log(_ name: String) -> String { logs + name }
    package func node(_ node: LogNodeID) -> String { nodes + hexadecimal(node.rawValue) }
    package func cookie(_ node: LogNodeID) -> String { root + "cookie/" + hexadecimal(node.rawValue) }
    package func repair(_ ledger: LedgerID, _ node: LogNodeID) -> String {
        repairs + hexadecimal(ledger.rawValue) + "-" + hexadecimal(node.rawValue)
    }

    /// Trees of a store of keyed state.
    package func trees(ofStore store: String) -> String { root + "tree/" + MetadataKeys.escaped(store) + "/" }
    /// - Parameter id: visible ASCII without a slash.
    package func tree(_ id: String, ofStore store: String) -> String { trees(ofStore: store) + id }
    /// What servers share about a store.
    package func catalog(ofStore store: String) -> String { root + "catalog/" + MetadataKeys.escaped(store) + "/" }

    /// Letters, digits, `-`, `_` and `.` as they are, every other byte of its UTF-8 as `%` and two digits.
    static func escaped(_ name: String) -> String {
        var text = ""
        for byte in name.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                text.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = String(byte, radix: 16)
                text += digits.count == 1 ? "%0" + digits : "%" + digits
            }
        }
        return text
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
