// Log nodes, the repair queue and the counter of ledger ids as records.

package import CisternLogProtocol
package import CisternPrimitives

/// A log node as it registers itself.
///
/// u64 node ‖ 16 bytes cookie ‖ u8 flags (bit 0: read-only) ‖ u16 length ‖ address
package struct LogNodeRegistration: MetadataRecord {
    package static let cookieBytes = 16
    package static let addressBytesMax = 255

    package let node: LogNodeID
    /// Compared with that of the node's directory, so that an empty directory cannot take the place of a full one; opaque here.
    package let cookie: [UInt8]
    /// Where clients reach it, as `host:port`.
    package let address: String
    /// It takes no new ledgers and no adds.
    package let isReadOnly: Bool

    /// - Precondition: a cookie of 16 bytes and an address of 1 to 255 visible ASCII characters.
    package init(node: LogNodeID, cookie: [UInt8], address: String, isReadOnly: Bool = false) {
        precondition(cookie.count == LogNodeRegistration.cookieBytes, "a cookie of \(cookie.count) bytes")
        precondition(
            !address.isEmpty && address.utf8.count <= LogNodeRegistration.addressBytesMax
                && MetadataLimits.isPrefix(address), "an address of \(address.utf8.count) bytes that cannot be stored")
        self.node = node
        self.cookie = cookie
        self.address = address
        self.isReadOnly = isReadOnly
    }

    package static var kind: MetadataRecordKind { .node }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) {
        out.writeInteger(node.rawValue)
        out.writeBytes(cookie)
        out.writeUInt8(isReadOnly ? 1 : 0)
        out.writeText(address)
    }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> LogNodeRegistration {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            let node = LogNodeID(try fields.integer("the node"))
            let cookie = try fields.bytes(cookieBytes, "the cookie")
            let flags = try fields.integer("the flags", as: UInt8.self)
            guard flags <= 1 else { throw fields.damaged("flags \(flags) are not all known") }
            let address = try fields.text("the address", max: addressBytesMax)
            return LogNodeRegistration(node: node, cookie: cookie, address: address, isReadOnly: flags == 1)
        }
    }
}

/// A ledger that lost a node's copies, from the moment in which that was noticed until they are made again.
///
/// u64 ledger ‖ u64 node ‖ u8 loss ‖ u8 state ‖ u64 noticed, in milliseconds since 1970
package struct RepairEntry: MetadataRecord {
    /// Stored: never renumber.
    package enum State: UInt8, Sendable, CaseIterable {
        case waiting = 1
        /// All copies were on the node: reported, not tried again.
        case lost = 2
        /// No node can take the place; tried again when one comes.
        case noTarget = 3
    }

    package let ledger: LedgerID
    package let node: LogNodeID
    package let loss: NodeLoss
    package var state: State
    package let noticedWallMilliseconds: UInt64

    package init(
        ledger: LedgerID, node: LogNodeID, loss: NodeLoss, state: State = .waiting, noticedWallMilliseconds: UInt64
    ) {
        self.ledger = ledger
        self.node = node
        self.loss = loss
        self.state = state
        self.noticedWallMilliseconds = noticedWallMilliseconds
    }

    package static var kind: MetadataRecordKind { .repair }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) {
        out.writeInteger(ledger.rawValue)
        out.writeInteger(node.rawValue)
        out.writeUInt8(loss.stored)
        out.writeUInt8(state.rawValue)
        out.writeInteger(noticedWallMilliseconds)
    }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> RepairEntry {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            let ledger = try fields.ledger("the ledger")
            let node = LogNodeID(try fields.integer("the node"))
            let storedLoss = try fields.integer("the loss", as: UInt8.self)
            guard let loss = NodeLoss(stored: storedLoss) else {
                throw fields.damaged("loss \(storedLoss) is not known")
            }
            let storedState = try fields.integer("the state", as: UInt8.self)
            guard let state = State(rawValue: storedState) else {
                throw fields.damaged("state \(storedState) is not known")
            }
            return RepairEntry(
                ledger: ledger, node: node, loss: loss, state: state,
                noticedWallMilliseconds: try fields.integer("the time"))
        }
    }
}

extension NodeLoss {
    /// Stored: never renumber.
    fileprivate var stored: UInt8 {
        switch self {
        case .dead: 1
        case .limbo: 2
        }
    }

    fileprivate init?(stored: UInt8) {
        switch stored {
        case 1: self = .dead
        case 2: self = .limbo
        default: return nil
        }
    }
}

/// The counter of ledger ids: u64 highest id that was given.
package struct LedgerIDCounter: MetadataRecord {
    package let highest: LedgerID

    package init(highest: LedgerID) { self.highest = highest }

    package static var kind: MetadataRecordKind { .ledgerIDs }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) { out.writeInteger(highest.rawValue) }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> LedgerIDCounter {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            LedgerIDCounter(highest: try fields.ledger("the highest id"))
        }
    }
}
