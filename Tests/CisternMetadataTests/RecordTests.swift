// Records of the metadata store: golden bytes, rules that are checked when they are read, every cut and every changed byte.

import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct RecordTests {
    private static func ledger(_ state: LedgerState) throws -> LedgerMetadata {
        try LedgerMetadata(
            sizes: QuorumSizes(ensemble: 3, write: 3, ack: 2),
            fragments: [
                Fragment(firstEntry: .first, ensemble: [LogNodeID(1), LogNodeID(2), LogNodeID(3)]),
                Fragment(firstEntry: EntryID(1000), ensemble: [LogNodeID(1), LogNodeID(4), LogNodeID(3)]),
            ], state: state)
    }

    private static var log: LogMetadata {
        get throws {
            try LogMetadata(
                ledgers: [LedgerID(7), LedgerID(9)],
                trimPoint: LogSequenceNumber(ledger: LedgerID(7), entry: EntryID(12)), attempt: 3)
        }
    }

    private static let node = LogNodeRegistration(
        node: LogNodeID(4), cookie: Array(0..<16), address: "127.0.0.1:7071", isReadOnly: true)

    private static let repair = RepairEntry(
        ledger: LedgerID(9), node: LogNodeID(4), loss: .limbo, state: .waiting,
        noticedWallMilliseconds: 1_700_000_000_000)

    private static let tree = TreeRecord(
        keyGroups: KeyGroupRange(first: 4, last: 7), keyGroupCount: 8, epoch: 5, writer: "wörker",
        server: Array(0..<16), tree: 3, generation: 2,
        base: TreeRecord.Base(epoch: 4, sequence: 17, handles: ["s/9/1"]),
        held: ["s/8/1"])

    private func golden(_ name: String, _ bytes: [UInt8], _ fields: [(Int, String)]) throws -> String? {
        var hex = AnnotatedHex(title: "A metadata record, version 1: \(name).\nproto-spec/metadata-records.md")
        var rest = bytes[...]
        for (count, note) in [(1, "kind"), (1, "version")] + fields + [(4, "CRC-32C")] {
            hex.field(rest.prefix(count), note)
            rest = rest.dropFirst(count)
        }
        #expect(rest.isEmpty)
        return try GoldenFile.difference("metadata-\(name)-v1.hex", from: hex.text)
    }

    @Test func recordsHaveTheirGoldenBytes() throws {
        let fragments = [
            (8, "first entry 0"), (24, "nodes 1, 2, 3"), (8, "first entry 1000"), (24, "nodes 1, 4, 3"),
        ]
        #expect(
            try golden(
                "ledger", MetadataRecords.encode(try RecordTests.ledger(.closed(lastEntry: EntryID(1233)))),
                [(3, "quorum sizes 3/3/2"), (1, "closed"), (8, "last entry 1233"), (4, "fragments")] + fragments) == nil
        )
        #expect(
            try golden(
                "log", MetadataRecords.encode(try RecordTests.log),
                [
                    (8, "attempt 3"), (1, "trimmed"), (8, "trim point: ledger 7"), (8, "entry 12"), (4, "ledgers"),
                    (16, "7, 9"),
                ]) == nil)
        #expect(
            try golden(
                "node", MetadataRecords.encode(RecordTests.node),
                [(8, "node 4"), (16, "cookie"), (1, "read-only"), (2, "length"), (14, "address 127.0.0.1:7071")]) == nil
        )
        #expect(
            try golden(
                "repair", MetadataRecords.encode(RecordTests.repair),
                [(8, "ledger 9"), (8, "node 4"), (1, "limbo"), (1, "waiting"), (8, "noticed")]) == nil)
        #expect(
            try golden(
                "tree", MetadataRecords.encode(RecordTests.tree),
                [
                    (4, "key groups 4...7"), (4, "of 8"), (8, "epoch 5"), (2, "length"), (7, "writer"), (16, "server"),
                    (8, "tree 3"), (8, "generation 2"), (8, "base: epoch 4"), (8, "sequence 17"), (4, "one handle"),
                    (2, "length"), (5, "s/9/1"), (4, "one held"), (2, "length"), (5, "s/8/1"),
                ]) == nil)
        #expect(
            try golden(
                "catalog", MetadataRecords.encode(CatalogRecord(bytes: [1, 2, 3])), [(4, "length"), (3, "bytes")])
                == nil)
        #expect(
            try golden(
                "ledger-ids", MetadataRecords.encode(LedgerIDCounter(highest: LedgerID(9))), [(8, "highest id 9")])
                == nil)
        #expect(
            try golden("cluster", MetadataRecords.encode(ClusterRecord(number: 0x1122)), [(8, "number")]) == nil)
        #expect(
            try golden(
                "cookie", MetadataRecords.encode(CookieRecord(node: LogNodeID(4), cookie: Array(0..<16))),
                [(8, "node 4"), (16, "cookie")]) == nil)
    }

    private func exercise<Record: MetadataRecord>(_ record: Record) throws {
        let bytes = MetadataRecords.encode(record)
        #expect(try MetadataRecords.decode(Record.self, bytes, source: "test") == record)
        for count in bytes.indices {
            #expect(throws: CorruptionError.self, "cut to \(count)") {
                try MetadataRecords.decode(Record.self, Array(bytes[..<count]), source: "test")
            }
        }
        for index in bytes.indices {
            var changed = bytes
            changed[index] ^= 0x10
            #expect(throws: CorruptionError.self, "byte \(index)") {
                try MetadataRecords.decode(Record.self, changed, source: "test")
            }
        }
    }

    @Test func recordsComeBackAndEveryCutAndChangedByteIsNoticed() throws {
        for state in [
            LedgerState.open, .inRecovery, .closed(lastEntry: EntryID(999)), .closed(lastEntry: EntryID(5000)),
        ] {
            try exercise(try RecordTests.ledger(state))
        }
        try exercise(try RecordTests.log)
        try exercise(LogMetadata())
        try exercise(RecordTests.node)
        try exercise(RecordTests.repair)
        try exercise(RecordTests.tree)
        try exercise(CatalogRecord(bytes: [1, 2, 3]))
        try exercise(LedgerIDCounter(highest: LedgerID(9)))
        try exercise(ClusterRecord(number: 7))
        try exercise(CookieRecord(node: LogNodeID(4), cookie: Array(0..<16)))
    }

    @Test func aClusterIsCalledByAPlainWord() {
        #expect(MetadataKeys(cluster: "eu-1.test").ledgerIDs == "cistern/eu-1.test/ledger-ids")
        for name in ["", "a/b", "a b", "ä", String(repeating: "a", count: 65)] {
            #expect(!MetadataKeys.isClusterName(name))
        }
    }

    @Test func aRecordOfAnotherKindIsRefused() throws {
        let bytes = MetadataRecords.encode(LedgerIDCounter(highest: LedgerID(9)))
        #expect {
            try MetadataRecords.decode(LogMetadata.self, bytes, source: "log/orders")
        } throws: {
            "\($0)" == "log/orders is damaged at byte 0: kind 5 version 1 where this program reads kind 2 version 1"
        }
    }

    /// Bytes of a record whose body is `body`, with the right checksum.
    private func sealed(_ kind: MetadataRecordKind, _ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var out = ByteWriter()
        out.writeUInt8(kind.rawValue)
        out.writeUInt8(1)
        body(&out)
        out.writeInteger(CRC32C.checksum(out.bytes))
        return out.bytes
    }

    @Test(arguments: [
        // Sizes, first entries of the fragments, last entry, nodes: each breaks one rule.
        (sizes: (3, 2, 3), first: [Int64(0)], last: Int64(4), nodes: [UInt64(1), 2, 3]),
        (sizes: (3, 3, 0), first: [0], last: 4, nodes: [1, 2, 3]),
        (sizes: (3, 3, 2), first: [1], last: 4, nodes: [1, 2, 3]),
        (sizes: (3, 3, 2), first: [0, 5, 5], last: 9, nodes: [1, 2, 3]),
        (sizes: (3, 3, 2), first: [], last: 4, nodes: [1, 2, 3]),
        (sizes: (3, 3, 2), first: [0, 5], last: 3, nodes: [1, 2, 3]),
        (sizes: (3, 3, 2), first: [0], last: -2, nodes: [1, 2, 3]),
        (sizes: (3, 3, 2), first: [0], last: .max, nodes: [1, 2, 3]),
        (sizes: (3, 3, 2), first: [0], last: 4, nodes: [1, 2, 1]),
    ])
    func aLedgerThatBreaksARuleIsDamage(
        sizes: (Int, Int, Int), first: [Int64], last: Int64, nodes: [UInt64]
    ) {
        let bytes = sealed(.ledger) { out in
            for size in [sizes.0, sizes.1, sizes.2] { out.writeUInt8(UInt8(size)) }
            out.writeUInt8(3)
            out.writeInteger(last)
            out.writeInteger(UInt32(first.count))
            for entry in first {
                out.writeInteger(entry)
                for node in nodes { out.writeInteger(node) }
            }
        }
        #expect(throws: CorruptionError.self) {
            try MetadataRecords.decode(LedgerMetadata.self, bytes, source: "test")
        }
    }

    @Test func aLogWhoseLedgersDoNotIncreaseIsDamage() {
        let bytes = sealed(.log) { out in
            out.writeInteger(UInt64(1))
            out.writeUInt8(0)
            out.writeInteger(UInt32(2))
            for ledger in [UInt64(9), 9] { out.writeInteger(ledger) }
        }
        #expect(throws: CorruptionError.self) { try MetadataRecords.decode(LogMetadata.self, bytes, source: "test") }
    }
}
