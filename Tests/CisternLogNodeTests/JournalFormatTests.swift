import CisternLogNode
import CisternLogProtocol
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct JournalFormatTests {
    private let header = SegmentHeader(
        node: LogNodeID(3), cluster: 0x1122_3344_5566_7788, segment: 5, sealedBytes: 4096, sealedChecksum: 0xCAFE_F00D)
    private let records: [JournalRecord] = [
        .add(LedgerID(7), entry(0), lac: .none, body: Array("first".utf8)),
        .add(LedgerID(7), entry(1), lac: entry(0), body: []),
        .lac(LedgerID(7), entry(1)), .fence(LedgerID(8)), .delete(LedgerID(2)), .limbo(through: LedgerID(9)),
        .repaired(LedgerID(7)),
    ]

    private var segment: [UInt8] {
        var encoder = RecordEncoder(segment: header.segment, previous: header.sealedChecksum)
        for record in records { encoder.append(record) }
        encoder.appendMark(durableBytes: 0)
        return header.encoded() + encoder.bytes
    }

    private var index: SegmentIndex {
        let scan = SegmentScan(segment, segment: 5, header: header, expecting: .open)
        let items = scan.records.map { placed -> SegmentIndex.Item in
            var record = placed.record
            if case .add(let ledger, let entry, let lac, _) = record {
                record = .add(ledger, entry, lac: lac, body: [])
            }
            return SegmentIndex.Item(record: record, offset: UInt32(placed.offset), length: UInt32(placed.length))
        }
        return SegmentIndex(segment: 5, bytes: UInt64(scan.end), checksum: scan.checksum, items: items)
    }

    @Test func aSegmentIsWhatTheSpecificationSays() throws {
        var hex = AnnotatedHex(title: "A segment of a log node's journal: each kind of record and a mark")
        hex.section("header")
        hex.field(segment[..<64], "magic, version, CRC, node, cluster, segment, end and checksum of the one before")
        let notes = ["add", "add, empty", "last add confirmed", "fence", "delete", "limbo", "repaired", "mark"]
        var offset = 64
        for note in notes {
            let payload = Int(segment[offset]) | Int(segment[offset + 1]) << 8
            let end = offset + (16 + payload + 7) / 8 * 8
            hex.section(note)
            hex.field(segment[offset..<offset + 16], "payload bytes, CRC, checksum before, kind")
            hex.field(segment[offset + 16..<end], "payload")
            offset = end
        }
        #expect(offset == segment.count)
        #expect(try GoldenFile.difference("journal-segment-v1.hex", from: hex.text) == nil)
        let golden = try GoldenFile.bytes("journal-segment-v1.hex")
        #expect(SegmentHeader.decode(golden) == header)
        let scan = SegmentScan(golden, segment: 5, header: header, expecting: .open)
        #expect(scan.records.map(\.record) == records)
        #expect(scan.end == golden.count && scan.damagedAt == nil)
    }

    @Test func theSmallFilesAreWhatTheSpecificationSays() throws {
        let cookie = LogNodeCookie(node: LogNodeID(3), cluster: header.cluster, directory: 0x0102_0304_0506_0708)
        let old = LogNodeCookie(node: LogNodeID(3), cluster: header.cluster, directory: nil)
        let files: [(name: String, bytes: [UInt8], note: String)] = [
            ("index-v1", index.encoded(), "magic, version, checksum, segment, end, count; records; CRC"),
            (
                "deleted-v1", DeletedLedgers(runs: [LedgerID(1)...LedgerID(2), LedgerID(9)...LedgerID(9)]).encoded(),
                "magic, version, count; runs; CRC"
            ),
            ("cookie-v1", old.encoded(), "magic, version, node, cluster, CRC"),
            ("cookie-v2", cookie.encoded(), "magic, version, node, cluster, directory, CRC"),
        ]
        for file in files {
            var hex = AnnotatedHex(title: "A log node's \(file.name.prefix { $0 != "-" })")
            hex.field(file.bytes, file.note)
            #expect(try GoldenFile.difference("journal-\(file.name).hex", from: hex.text) == nil)
        }
        #expect(SegmentIndex.decode(try GoldenFile.bytes("journal-index-v1.hex")) == index)
        #expect(DeletedLedgers.decode(try GoldenFile.bytes("journal-deleted-v1.hex"))?.runs.count == 2)
        #expect(LogNodeCookie.decode(try GoldenFile.bytes("journal-cookie-v1.hex")) == old)
        #expect(LogNodeCookie.decode(try GoldenFile.bytes("journal-cookie-v2.hex")) == cookie)
    }

    @Test func aRecordOfAnotherSegmentIsNone() {
        for other in UInt64(1)...64 where other != 5 {
            let scan = SegmentScan(segment, segment: other, header: header, expecting: .open)
            #expect(scan.records.isEmpty)
        }
    }

    @Test func aRecordThatFollowsOnAnotherIsNone() {
        // The second record without the first: intact, and not what comes here.
        let second = 64 + (16 + 24 + 5 + 7) / 8 * 8
        let moved = Array(segment[..<64] + segment[second...])
        #expect(SegmentScan(moved, segment: 5, header: header, expecting: .open).records.isEmpty)
    }

    @Test func aTornTailIsCutAndDamageIsNot() {
        // A second batch, and a mark that says that the first one is durable.
        var encoder = RecordEncoder(segment: 5, previous: header.sealedChecksum)
        for record in records { encoder.append(record) }
        let first = 64 + encoder.bytes.count
        encoder.append(.fence(LedgerID(1)))
        encoder.appendMark(durableBytes: UInt64(first))
        let whole = header.encoded() + encoder.bytes
        for offset in 64..<whole.count {
            var changed = whole
            changed[offset] ^= 1
            let scan = SegmentScan(changed, segment: 5, header: header, expecting: .open)
            if offset < first {
                // Padding says nothing.
                #expect(scan.damagedAt != nil || scan.records.count == records.count + 1, "byte \(offset)")
            } else {
                #expect(scan.damagedAt == nil, "byte \(offset)")
                #expect(scan.records.map(\.record).starts(with: records))
            }
        }
    }
}
