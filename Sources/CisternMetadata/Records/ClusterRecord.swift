// Whose log nodes these are: the number of a cluster, and the cookie of each node that ever served in it. Both stay for ever, whether
// the node runs or not; its registration goes with its lease.

package import CisternLogProtocol
package import CisternPrimitives

/// The cluster's number: u64, chosen at random by the first node. Metadata that was lost and begun anew has another one, so nodes do not
/// take it for their own and delete what it does not know.
package struct ClusterRecord: MetadataRecord {
    package let number: UInt64

    package init(number: UInt64) { self.number = number }

    package static var kind: MetadataRecordKind { .cluster }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) { out.writeInteger(number) }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> ClusterRecord {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            ClusterRecord(number: try fields.integer("the number"))
        }
    }
}

/// A node that has a directory: u64 node ‖ 16 bytes cookie.
package struct CookieRecord: MetadataRecord {
    package let node: LogNodeID
    /// Of the node's directory, as in its registration.
    package let cookie: [UInt8]

    /// - Precondition: a cookie of 16 bytes.
    package init(node: LogNodeID, cookie: [UInt8]) {
        precondition(cookie.count == LogNodeRegistration.cookieBytes, "a cookie of \(cookie.count) bytes")
        self.node = node
        self.cookie = cookie
    }

    package static var kind: MetadataRecordKind { .cookie }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) {
        out.writeInteger(node.rawValue)
        out.writeBytes(cookie)
    }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> CookieRecord {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            let node = LogNodeID(try fields.integer("the node"))
            return CookieRecord(node: node, cookie: try fields.bytes(LogNodeRegistration.cookieBytes, "the cookie"))
        }
    }
}
