// Entries of a tree's replicated log: golden bytes both ways, items in parts, and any damage.

import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

private let batch = OwnedBatch([
    OwnedEntry([0, 1, 0, 7, 0x61], .put, [1, 2, 3]), OwnedEntry([0, 1, 0, 7, 0x62], .delete),
])

private func records(_ sequences: ClosedRange<UInt64>) -> [UInt8] {
    var writer = ByteWriter()
    for sequence in sequences {
        batch.withColumns { columns in
            LogFormat.encodeRecord(
                LogRecord(epoch: 3, sequence: sequence, watermark: 42, columns: columns), segment: 12, into: &writer)
        }
    }
    var bytes = writer.bytes
    bytes.withUnsafeMutableBytes { LogFormat.finish($0, durableBytes: 0) }
    return bytes
}

private func rules() -> ExpiryRules {
    var rules = ExpiryRules()
    _ = rules.declare(
        7, StateTimeToLive(milliseconds: 60_000, isEventTime: false), in: KeyGroupRange(first: 0, last: 7),
        ExpiryClock(processing: 1_000, event: 0), holdsData: false)
    return rules
}

private let snapshot = ReplicatedSnapshot(
    handle: "orders/5/1", checkpoint: 5, progress: WriteProgress(epoch: 3, sequence: 2, watermark: 42),
    createdMilliseconds: 1_700_000_000_000)

@Suite struct TreeLogFormatTests {
    private func read(_ entries: [[UInt8]]) throws -> [TreeLogItem] {
        var reader = TreeLogReader()
        return try entries.compactMap { try reader.add($0, source: "test") }
    }

    @Test func entriesHaveTheirGoldenBytes() throws {
        let items: [(TreeLogItem, String)] = [
            (.records(records(1...1)), "a record as in wal.md"), (.rules(rules()), "rules as in a manifest"),
            (.snapshot(snapshot), "checkpoint, epoch, sequence, watermark, created, length, handle"),
        ]
        var hex = AnnotatedHex(title: "Entries of a tree's log, version 1.\nproto-spec/tree-log.md")
        var entries: [[UInt8]] = []
        for (item, note) in items {
            let encoded = TreeLogFormat.encode(item)
            #expect(encoded.count == 1)
            entries += encoded
            hex.section(note)
            hex.field(encoded[0].prefix(4), "CRC-32C")
            hex.field(encoded[0][4..<5], "kind")
            hex.field(encoded[0][5..<6], "flags: first and last part")
            hex.field(encoded[0][6..<8], "version")
            hex.field(encoded[0][8...], "body")
        }
        #expect(try GoldenFile.difference("tree-log-v1.hex", from: hex.text) == nil)
        #expect(try read(entries) == items.map(\.0))
        #expect(items[0].0.lastPosition == LogPosition(epoch: 3, sequence: 1))
        #expect(items[1].0.lastPosition == nil)
    }

    @Test func anItemInPartsComesBackWholeAndOneWithoutItsEndIsDropped() throws {
        let item = TreeLogItem.records(records(1...9))
        #expect(item.lastPosition == LogPosition(epoch: 3, sequence: 9))
        for partBytes in [1, 7, 100, 1 << 20] {
            let entries = TreeLogFormat.encode(item, partBytesMax: partBytes)
            #expect(try read(entries) == [item])
            // The next owner goes on where the last one stopped in the middle.
            #expect(try read(entries.dropLast() + entries) == [item])
            if entries.count > 1 {
                #expect(throws: EngineError.self) { try read(Array(entries.dropFirst())) }
            }
        }
    }

    @Test func everyCutAndEveryChangedByteIsNoticed() throws {
        for item in [TreeLogItem.records(records(1...2)), .rules(rules()), .snapshot(snapshot)] {
            let entry = TreeLogFormat.encode(item)[0]
            for cut in entry.indices {
                #expect(throws: EngineError.self, "cut to \(cut)") { try read([Array(entry[..<cut])]) }
            }
            for index in entry.indices {
                var changed = entry
                changed[index] ^= 0x10
                #expect(throws: EngineError.self, "byte \(index)") { try read([changed]) }
            }
        }
    }
}
