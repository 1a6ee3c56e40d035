import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// Whatever happened to the bytes: an error that names the file, or what was written. Never other data, never a trap.
@Suite struct TableDamageTests {
    @Test func everyFlippedBitIsFoundOrHarmless() throws {
        let (entries, bytes) = try smallTable()
        var found = 0
        for index in 0..<bytes.count {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << bit
                if try isFoundOrHarmless(damaged, entries, keys: bit == 0) { found += 1 }
            }
        }
        // Every byte of the format is under a checksum or is compared.
        #expect(found == bytes.count * 8)
    }

    @Test func everyTruncationIsFound() throws {
        let (entries, bytes) = try smallTable()
        for count in 0..<bytes.count {
            #expect(try isFoundOrHarmless(Array(bytes[..<count]), entries, keys: false), "cut to \(count)")
        }
        for extra in 1...80 {
            let longer = bytes + [UInt8](repeating: 0, count: extra)
            #expect(try isFoundOrHarmless(longer, entries, keys: false), "\(extra) bytes longer")
        }
    }

    @Test func swappedBlocksAreFound() throws {
        // Two blocks of one size: their contents are both valid, only their places are not.
        var options = TableOptions()
        options.blockSizeBytes = 64
        let entries = (0..<64).map { OwnedEntry([0, 0, UInt8($0)], .put, [UInt8](repeating: UInt8($0), count: 20)) }
        let bytes = try writeTable(entries, options).file.bytes
        let blocks = TableAnatomy(bytes).blocks.filter { $0.type == 1 }
        let (left, right) = (blocks[0], blocks[1])
        #expect(left.payloadSize == right.payloadSize)
        var swapped = bytes
        swapped.replaceSubrange(left.offset..<left.end, with: bytes[right.offset..<right.end])
        swapped.replaceSubrange(right.offset..<right.end, with: bytes[left.offset..<left.end])
        #expect(try isFoundOrHarmless(swapped, entries, keys: true))
    }

    @Test func theErrorNamesFileAndOffset() throws {
        let (_, bytes) = try smallTable()
        let block = TableAnatomy(bytes).blocks[0]
        var damaged = bytes
        damaged[block.offset + 3] ^= 0x40
        let table = try openTable(MemoryFile(path: "tables/000007.sst", bytes: damaged))
        guard case .corruption(let error)? = engineError({ try table.verify() }) else {
            Issue.record("damage was not found")
            return
        }
        #expect(error.source == "tables/000007.sst")
        #expect(error.offset == UInt64(block.offset))
        #expect(error.detail.contains("data block"))
    }

    @Test func anotherFormatVersionIsNotSupportedRatherThanDamaged() throws {
        let (_, bytes) = try smallTable()
        var newer = bytes
        let footer = bytes.count - 64
        newer[footer + 48] = 5
        let crc = CRC32C.checksum(Array(newer[footer..<(footer + 52)]))
        for index in 0..<4 { newer[footer + 52 + index] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * index)) }
        guard case .unsupported(let detail)? = engineError({ _ = try openTable(MemoryFile(bytes: newer)) }) else {
            Issue.record("a newer format was opened")
            return
        }
        #expect(detail.contains("format 5"))
    }

    /// Bytes that somebody wrote on purpose: every block in turn gets random changes under a valid checksum. Anything may be
    /// read back but nothing may trap, and walks end.
    @Test func hostileBlocksUnderValidChecksumsDoNotTrap() throws {
        let (entries, bytes) = try smallTable()
        let anatomy = TableAnatomy(bytes)
        var random = seededRandom("hostile blocks", default: 77)
        for round in 0..<3000 {
            let block = anatomy.blocks[round % anatomy.blocks.count]
            var payload = Array(anatomy.payload(block))
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                // Footers are where sizes are: half of all changes go there.
                let from = Bool.random(using: &random) ? max(0, payload.count - 36) : 0
                let place = Int.random(in: from..<payload.count, using: &random)
                payload[place] = [0, 1, 0x7F, 0x80, 0xFF, UInt8.random(in: 0...255, using: &random)].randomElement(
                    using: &random)!
            }
            try readEverything(anatomy.replacing(block, with: payload), entries)
        }
    }

    @Test func randomBytesAreNotATable() throws {
        var random = seededRandom("random files", default: 3)
        for _ in 0..<300 {
            let count = Int.random(in: 0..<400, using: &random)
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            #expect(throws: EngineError.self) { _ = try openTable(MemoryFile(bytes: bytes)) }
        }
    }

    @Test func aReadErrorIsAFileErrorAndNotDamage() throws {
        let (entries, bytes) = try smallTable()
        let file = FailingFile(bytes: bytes)
        let table = try TableReader.open(file: file, number: 1, cache: BlockCache(capacityBytes: 1 << 20))
        file.fails.withLock { $0 = true }
        for policy in [CachePolicy.fill, .stream] {
            let error = engineError { _ = try EntryCursor.table(table.cursor(policy: policy)).drain() }
            let expected = FileError(operation: "read", path: "failing.sst", reason: .errno(5))
            #expect(error == .file(expected))
        }
        file.fails.withLock { $0 = false }
        #expect(try EntryCursor.table(table.cursor()).drain() == entries)
    }

    // MARK: Material

    private func smallTable() throws -> ([OwnedEntry], [UInt8]) {
        var entries: [OwnedEntry] = []
        for number in 0..<9 {
            let kind: EntryKind = [.put, .append, .delete][number % 3]
            let expiry: Expiry = number == 4 ? .processingTime(milliseconds: 77) : .never
            let value = kind == .delete ? [] : [UInt8](repeating: UInt8(number), count: number % 4)
            entries.append(OwnedEntry([0, UInt8(number / 3), 9, UInt8(number)], kind, value, expiry: expiry))
        }
        var options = TableOptions()
        options.blockSizeBytes = 64
        options.blocksPerPartition = 2
        return (entries, try writeTable(entries, options).file.bytes)
    }

    /// True when something throws `EngineError`; otherwise everything must be what was written.
    private func isFoundOrHarmless(_ bytes: [UInt8], _ entries: [OwnedEntry], keys: Bool) throws -> Bool {
        do {
            let table = try openTable(MemoryFile(bytes: bytes))
            // Each way in must itself be safe, whatever the others find.
            for policy in [CachePolicy.fill, .stream] {
                do {
                    let drained = try EntryCursor.table(table.cursor(policy: policy)).drain()
                    #expect(drained == entries)
                } catch is EngineError {}
            }
            if keys {
                for entry in entries {
                    do {
                        #expect(try table.value(entry.key) == (entry.kind == .delete ? nil : entry.value))
                    } catch is EngineError {}
                }
            }
            try table.verify()
            return false
        } catch is EngineError {
            return true
        }
    }

    private func readEverything(_ bytes: [UInt8], _ entries: [OwnedEntry]) throws {
        do {
            let table = try openTable(MemoryFile(bytes: bytes))
            for policy in [CachePolicy.fill, .stream] {
                do { _ = try EntryCursor.table(table.cursor(policy: policy)).drain() } catch is EngineError {}
            }
            for entry in entries {
                do { _ = try table.value(entry.key) } catch is EngineError {}
                do { _ = try EntryCursor.table(table.cursor()).drain(from: entry.key) } catch is EngineError {}
            }
            do {
                let range = KeyGroupRange(first: 1, last: 1)
                _ = try EntryCursor.table(table.cursor(window: range)).drain()
            } catch is EngineError {}
            try table.verify()
        } catch is EngineError {}
    }
}

/// A file whose reads fail on demand.
private final class FailingFile: RandomReadFile, Sendable {
    let fails = Guarded(false)
    private let content: [UInt8]

    init(bytes: [UInt8]) { content = bytes }

    var path: String { "failing.sst" }
    var size: UInt64 { UInt64(content.count) }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        if fails.withLock({ $0 }) { throw FileError(operation: "read", path: path, reason: .errno(5)) }
        try MemoryFile(path: path, bytes: content).read(at: offset, into: buffer)
    }
}
