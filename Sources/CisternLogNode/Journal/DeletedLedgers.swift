// The ledgers that a node has deleted, for ever: written before segments go that have the records of it. `proto-spec/journal.md`.

package import CisternPrimitives

package struct DeletedLedgers: Equatable, Sendable {
    /// Ascending.
    package var runs: [ClosedRange<LedgerID>]

    package init(runs: [ClosedRange<LedgerID>]) { self.runs = runs }

    static let magic: UInt64 = 0x4C45_444C_4E54_5343  // "CSTNLDEL"

    package func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.writeInteger(DeletedLedgers.magic)
        writer.writeInteger(JournalFormat.version)
        writer.writeInteger(UInt32(runs.count))
        for run in runs {
            writer.writeInteger(run.lowerBound.rawValue)
            writer.writeInteger(run.upperBound.rawValue)
        }
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    /// nil when the bytes are none of this version, or damaged.
    package static func decode(_ encoded: [UInt8]) -> DeletedLedgers? {
        guard encoded.count >= 20 else { return nil }
        return unsafe encoded.withUnsafeBytes { raw in
            let body = unsafe UnsafeRawBufferPointer(rebasing: raw[..<(raw.count - 4)])
            let stored = unsafe UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: raw.count - 4, as: UInt32.self))
            guard unsafe CRC32C.checksum(body) == stored else { return nil }
            var reader = unsafe ByteReader(body)
            guard reader.readInteger(as: UInt64.self) == magic,
                reader.readInteger(as: UInt32.self) == JournalFormat.version,
                let count = reader.readInteger(as: UInt32.self), reader.remaining == Int(count) * 16
            else { return nil }
            var runs: [ClosedRange<LedgerID>] = []
            var last: UInt64?
            for _ in 0..<count {
                guard let low = reader.readInteger(as: UInt64.self), let high = reader.readInteger(as: UInt64.self),
                    low <= high, high <= UInt64(Int64.max), last.map({ low > $0 }) ?? true
                else { return nil }
                runs.append(LedgerID(low)...LedgerID(high))
                last = high
            }
            return DeletedLedgers(runs: runs)
        }
    }
}
