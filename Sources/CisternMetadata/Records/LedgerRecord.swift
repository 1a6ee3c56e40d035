// Ledgers and logs as records.

package import CisternLogProtocol
package import CisternPrimitives

/// Stored: never renumber.
private enum StoredLedgerState {
    static let open: UInt8 = 1
    static let inRecovery: UInt8 = 2
    static let closed: UInt8 = 3
}

/// u8 E ‖ u8 Qw ‖ u8 Qa ‖ u8 state ‖ (i64 last entry, when closed) ‖ u32 fragments ‖ (i64 first entry ‖ u64 node × E) *
extension LedgerMetadata: MetadataRecord {
    package static var kind: MetadataRecordKind { .ledger }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) {
        out.writeUInt8(UInt8(sizes.ensemble))
        out.writeUInt8(UInt8(sizes.write))
        out.writeUInt8(UInt8(sizes.ack))
        switch state {
        case .open: out.writeUInt8(StoredLedgerState.open)
        case .inRecovery: out.writeUInt8(StoredLedgerState.inRecovery)
        case .closed(let lastEntry):
            out.writeUInt8(StoredLedgerState.closed)
            out.writeInteger(lastEntry.rawValue)
        }
        out.writeInteger(UInt32(fragments.count))
        for fragment in fragments {
            out.writeInteger(fragment.firstEntry.rawValue)
            for node in fragment.ensemble { out.writeInteger(node.rawValue) }
        }
    }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> LedgerMetadata {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            let sizes = try readSizes(&fields)
            let state = try readState(&fields)
            let count = try fields.count("the number of fragments", of: 8 + 8 * sizes.ensemble)
            var fragments: [Fragment] = []
            fragments.reserveCapacity(count)
            for _ in 0..<count {
                let first = try fields.entry("a fragment's first entry")
                var ensemble: [LogNodeID] = []
                for _ in 0..<sizes.ensemble { ensemble.append(LogNodeID(try fields.integer("an ensemble"))) }
                fragments.append(Fragment(firstEntry: first, ensemble: ensemble))
            }
            do throws(LedgerMetadataError) {
                return try LedgerMetadata(sizes: sizes, fragments: fragments, state: state)
            } catch {
                throw fields.damaged("it breaks a rule of ledgers: \(error)")
            }
        }
    }

    private static func readSizes(_ fields: inout RecordFields) throws(CorruptionError) -> QuorumSizes {
        let ensemble = Int(try fields.integer("the ensemble's size", as: UInt8.self))
        let write = Int(try fields.integer("the write quorum", as: UInt8.self))
        let ack = Int(try fields.integer("the ack quorum", as: UInt8.self))
        guard 1 <= ack, ack <= write, write <= ensemble, ensemble <= QuorumSizes.ensembleMax else {
            throw fields.damaged("quorum sizes \(ensemble)/\(write)/\(ack)")
        }
        return QuorumSizes(ensemble: ensemble, write: write, ack: ack)
    }

    private static func readState(_ fields: inout RecordFields) throws(CorruptionError) -> LedgerState {
        switch try fields.integer("the state", as: UInt8.self) {
        case StoredLedgerState.open: return .open
        case StoredLedgerState.inRecovery: return .inRecovery
        case StoredLedgerState.closed: return .closed(lastEntry: try fields.entry("the last entry"))
        case let other: throw fields.damaged("state \(other) is not known")
        }
    }
}

/// u64 attempt ‖ u8 1 when trimmed, else 0 ‖ (u64 ledger ‖ i64 entry, when trimmed) ‖ u32 ledgers ‖ u64 ledger *
extension LogMetadata: MetadataRecord {
    package static var kind: MetadataRecordKind { .log }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) {
        out.writeInteger(attempt)
        out.writeUInt8(trimPoint == nil ? 0 : 1)
        if let trimPoint {
            out.writeInteger(trimPoint.ledger.rawValue)
            out.writeInteger(trimPoint.entry.rawValue)
        }
        out.writeInteger(UInt32(ledgers.count))
        for ledger in ledgers { out.writeInteger(ledger.rawValue) }
    }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> LogMetadata {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            let attempt = try fields.integer("the attempt", as: UInt64.self)
            let trimmed = try fields.integer("the trim flag", as: UInt8.self)
            guard trimmed <= 1 else { throw fields.damaged("a trim flag of \(trimmed)") }
            var trimPoint: LogSequenceNumber?
            if trimmed == 1 {
                let ledger = try fields.ledger("the trim point's ledger")
                trimPoint = LogSequenceNumber(ledger: ledger, entry: try fields.entry("the trim point's entry"))
            }
            let count = try fields.count("the number of ledgers", of: 8)
            var ledgers: [LedgerID] = []
            ledgers.reserveCapacity(count)
            for _ in 0..<count { ledgers.append(try fields.ledger("a ledger")) }
            do throws(LogMetadataError) {
                return try LogMetadata(ledgers: ledgers, trimPoint: trimPoint, attempt: attempt)
            } catch {
                throw fields.damaged("it breaks a rule of logs: \(error)")
            }
        }
    }
}
