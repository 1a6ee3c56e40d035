import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// proto-spec/vectors/sst-v1.hex to sst-v4.hex, both ways: the writer produces these bytes, and these bytes read back as the
/// entries.
@Suite struct TableVectorTests {
    @Test(arguments: [1, 2, 3, 4] as [UInt32]) func theWriterProducesTheVector(version: UInt32) throws {
        var options = Self.options
        options.formatVersion = version
        let (file, _) = try writeTable(Self.entries(version), options, values: version < 3 ? [] : [Self.use])
        let difference = try GoldenFile.difference("sst-v\(version).hex", from: Self.annotate(file.bytes, version))
        #expect(difference == nil)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt32]) func theVectorReadsBack(version: UInt32) throws {
        let table = try openTable(MemoryFile(bytes: try GoldenFile.bytes("sst-v\(version).hex")))
        try table.verify()
        #expect(table.summary.formatVersion == version)
        #expect(table.summary.minExpiryProcessing == (version == 1 ? 0 : 1_700_000_000_000))
        #expect(table.summary.minExpiryEvent == (version == 1 ? 0 : 1_600_000_000_000))
        #expect(table.summary.values == (version < 3 ? [] : [Self.use]))
        #expect(try EntryCursor.table(table.cursor()).drain() == Self.entries(version))
        for entry in Self.entries(version) where !entry.isPointer {
            #expect(try table.value(entry.key) == (entry.kind == .delete ? nil : entry.value))
        }
        #expect(table.summary.maxExpiryProcessing == 1_700_000_000_000)
        #expect(table.summary.maxExpiryEvent == 1_600_000_000_000)
    }

    /// Blocks of every shape: sizes all equal (no ends), kinds and expiries present and not, a prefix and none.
    private static let entries: [OwnedEntry] =
        (0..<4).map { OwnedEntry([0, 3, 0, 1, 2, 0x4B, UInt8(0x30 + $0), 0], .put, [0xA0, UInt8($0)]) }
        + [
            OwnedEntry(
                [0, 3, 0, 2, 1, 0x61, 0], .append, [3, 0, 0, 0],
                expiry: .processingTime(milliseconds: 1_700_000_000_000)),
            OwnedEntry([0, 4, 0, 2, 1, 0x61, 0], .delete),
            OwnedEntry(
                [0, 4, 0, 2, 1, 0x62, 0], .put, Array("value".utf8), expiry: .eventTime(milliseconds: 1_600_000_000_000)
            ),
            OwnedEntry([1, 0, 0, 2], .put, []),
        ]
        + (0..<3).map { OwnedEntry([1, 1, 0, 3, UInt8($0)], .put, [UInt8](repeating: 0xE0, count: 17 + $0)) }

    /// From version 3 on with two puts whose values are in a value file.
    private static func entries(_ version: UInt32) -> [OwnedEntry] {
        if version < 3 { return entries }
        return entries
            + [32, 548].map { offset in
                var pointer = ByteWriter()
                pointer.writeInteger(UInt64(7))
                pointer.writeInteger(UInt64(offset))
                pointer.writeInteger(UInt32(500))
                return OwnedEntry([1, 2, 0, 4, UInt8(offset & 0xFF)], .put, pointer.bytes, isPointer: true)
            }.sorted { $0.key.lexicographicallyPrecedes($1.key) }
    }

    private static let use = ValueFileUse(number: 7, fileBytes: 2000, entryCount: 2, recordBytes: 1032)

    private static var options: TableOptions {
        var options = TableOptions()
        options.blockSizeBytes = 64
        options.blocksPerPartition = 2
        options.longValueBytes = 18
        return options
    }

    // MARK: Annotation

    private static func annotate(_ bytes: [UInt8], _ version: UInt32) -> String {
        let anatomy = TableAnatomy(bytes)
        var hex = AnnotatedHex(
            title: """
                Sorted file, version \(version): eleven entries, blocks of 64 bytes, two blocks a partition. See ../sst.md.
                Rewritten by CISTERN_REWRITE=1 swift test --filter TableVectorTests.
                """)
        hex.section("header")
        hex.field(bytes[0..<8], "magic")
        hex.field(bytes[8..<12], "version")
        hex.field(bytes[12..<16], "CRC-32C of the 12 bytes before")
        for block in anatomy.blocks {
            switch block.type {
            case 1: annotateData(anatomy, block, &hex)
            case 2: annotateIndex(anatomy, block, &hex)
            case 3:
                hex.section("filter partition")
                hex.field(anatomy.payload(block), "blocks of eight u32 words")
            case 4: annotateTop(anatomy, block, &hex)
            default: annotateProperties(anatomy, block, version, &hex)
            }
            hex.field(bytes[(block.end - 5)..<(block.end - 4)], "type")
            hex.field(bytes[(block.end - 4)..<block.end], "CRC-32C of payload, type and offset \(block.offset)")
        }
        annotateFooter(bytes, &hex)
        return hex.text
    }

    private static func annotateData(_ anatomy: TableAnatomy, _ block: TableAnatomy.Block, _ hex: inout AnnotatedHex) {
        let footer = block.offset + block.payloadSize - 20
        let count = Int(anatomy.u32(footer))
        let flags = anatomy.u16(footer + 14)
        let values = flags & 1 != 0 ? Int(anatomy.u32(footer + 4)) : Int(anatomy.u32(footer + 4)) * count
        let suffixes = flags & 2 != 0 ? Int(anatomy.u32(footer + 8)) : Int(anatomy.u32(footer + 8)) * count
        var at = block.offset
        func take(_ size: Int, _ note: String) {
            if size > 0 { hex.field(anatomy.bytes[at..<(at + size)], note) }
            at += size
        }
        hex.section("data block of \(count)")
        take(values, "values")
        take(suffixes, "key suffixes")
        take(flags & 1 != 0 ? count * 2 : 0, "value ends")
        take(flags & 2 != 0 ? count * 2 : 0, "key ends")
        take(flags & 4 != 0 ? count : 0, "kinds")
        take(flags & 8 != 0 ? count * 8 : 0, "expiries")
        take(count, "tags")
        take(Int(anatomy.u16(footer + 12)), "common prefix")
        take(4, "count")
        take(4, flags & 1 != 0 ? "size of all values" : "size of each value")
        take(4, flags & 2 != 0 ? "size of all suffixes" : "size of each suffix")
        take(2, "prefix size")
        take(2, "flags")
        take(4, "zero")
    }

    private static func annotateIndex(_ anatomy: TableAnatomy, _ block: TableAnatomy.Block, _ hex: inout AnnotatedHex) {
        let footer = block.offset + block.payloadSize - 32
        let count = Int(anatomy.u32(footer))
        let separators = Int(anatomy.u32(footer + 4))
        var at = block.offset
        func take(_ size: Int, _ note: String) {
            if size > 0 { hex.field(anatomy.bytes[at..<(at + size)], note) }
            at += size
        }
        hex.section("index partition of \(count)")
        take(separators, "separators")
        take(count * 4, "separator ends")
        take(count * 4, "block ends")
        take(footer - at, "latest expiries, processing and event")
        take(4, "blocks")
        take(4, "size of the separators")
        take(8, "offset of the first block")
        take(4, "flags")
        take(12, "zero")
    }

    private static func annotateTop(_ anatomy: TableAnatomy, _ block: TableAnatomy.Block, _ hex: inout AnnotatedHex) {
        let footer = block.offset + block.payloadSize - 16
        let count = Int(anatomy.u32(footer))
        var at = block.offset
        func take(_ size: Int, _ note: String) {
            hex.field(anatomy.bytes[at..<(at + size)], note)
            at += size
        }
        hex.section("top index of \(count)")
        take(Int(anatomy.u32(footer + 4)), "separators")
        take(count * 4, "separator ends")
        for partition in 0..<count {
            take(8, "partition \(partition): offset of the index")
            take(8, "offset of the filter")
            take(4, "size of the index")
            take(4, "size of the filter")
            take(4, "entries")
        }
        take(4, "partitions")
        take(4, "size of the separators")
        take(8, "zero")
    }

    private static func annotateProperties(
        _ anatomy: TableAnatomy, _ block: TableAnatomy.Block, _ version: UInt32, _ hex: inout AnnotatedHex
    ) {
        var at = block.offset
        func take(_ size: Int, _ note: String) {
            hex.field(anatomy.bytes[at..<(at + size)], note)
            at += size
        }
        hex.section("properties")
        for note in [
            "entries", "deletes", "appends", "never expiring", "latest processing-time expiry",
            "latest event-time expiry", "bytes of keys", "bytes of values", "data blocks",
        ] { take(8, note) }
        take(4, "block size")
        take(4, "filter bits a key")
        take(2, "first key group")
        take(2, "last key group")
        take(1 + Int(anatomy.bytes[at]), "smallest key")
        take(1 + Int(anatomy.bytes[at]), "largest key")
        if version == 1 { return }
        take(8, "earliest processing-time expiry")
        take(8, "earliest event-time expiry")
        if version == 2 { return }
        func takeVarint(_ note: String) { take(anatomy.bytes[at...].prefix { $0 >= 0x80 }.count + 1, note) }
        let files = Int(anatomy.bytes[at])
        take(1, "value files")
        for _ in 0..<files {
            for note in ["number of the value file", "its size", "entries that point to it", "bytes of their records"] {
                takeVarint(note)
            }
        }
        if version == 3 { return }
        let states = Int(anatomy.bytes[at]) - 1
        take(1, "states and 1")
        for _ in 0..<states {
            take(2, "state")
            for note in ["entries", "deletes", "expiring"] { takeVarint("  " + note) }
            for clock in ["processing", "event"] {
                takeVarint("  earliest \(clock)-time expiry")
                takeVarint("  latest behind it")
            }
        }
        takeVarint("size of a long value")
        let values = Int(anatomy.bytes[at])
        take(1, "long values")
        for _ in 0..<values {
            take(1 + Int(anatomy.bytes[at]), "key")
            takeVarint("  size")
        }
    }

    private static func annotateFooter(_ bytes: [UInt8], _ hex: inout AnnotatedHex) {
        var at = bytes.count - 64
        func take(_ size: Int, _ note: String) {
            hex.field(bytes[at..<(at + size)], note)
            at += size
        }
        hex.section("footer")
        take(8, "offset of the top index")
        take(8, "offset of the properties")
        take(4, "size of the top index")
        take(4, "size of the properties")
        take(8, "size of the file")
        take(16, "zero")
        take(4, "version")
        take(4, "CRC-32C of the 52 bytes before")
        take(8, "magic")
    }
}
