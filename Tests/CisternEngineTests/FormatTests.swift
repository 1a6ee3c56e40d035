// The formats of log, manifest, CURRENT and snapshot: golden bytes both ways, and any damage to them.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

private let batch = OwnedBatch([
    OwnedEntry([0, 1, 0, 7, 0x61], .put, [1, 2, 3], expiry: .processingTime(milliseconds: 1_700_000_000_000)),
    OwnedEntry([0, 1, 0, 7, 0x62], .delete),
    OwnedEntry([0, 2, 0, 7, 0x63], .append, [4], expiry: .eventTime(milliseconds: 5)),
])
private let secondBatch = OwnedBatch([OwnedEntry([0, 1, 0, 7, 0x64], .put, [9])])

private func record(_ batch: OwnedBatch, sequence: UInt64, segment: UInt64, durable: UInt64) -> [UInt8] {
    var writer = ByteWriter()
    batch.withColumns { columns in
        LogFormat.encodeRecord(
            LogRecord(epoch: 3, sequence: sequence, watermark: 42, columns: columns), segment: segment, into: &writer)
    }
    var bytes = writer.bytes
    bytes.withUnsafeMutableBytes { LogFormat.finish($0, durableBytes: durable) }
    return bytes
}

private let header = LogSegmentHeader(tree: 7, segment: 12, previousSegment: 11, previousBytes: 4096)

/// Three records: the first two written and synced together, the third after them.
private func segment() -> (bytes: [UInt8], ends: [Int]) {
    var bytes = LogFormat.encodeHeader(header)
    var ends: [Int] = []
    bytes += record(batch, sequence: 1, segment: 12, durable: 48)
    ends.append(bytes.count)
    bytes += record(secondBatch, sequence: 2, segment: 12, durable: 48)
    ends.append(bytes.count)
    bytes += record(secondBatch, sequence: 3, segment: 12, durable: UInt64(ends[1]))
    ends.append(bytes.count)
    return (bytes, ends)
}

private struct Replayed: Equatable {
    var sequences: [UInt64] = []
    var entries: [OwnedEntry] = []
}

private func replay(_ bytes: [UInt8], durable: UInt64 = 0) throws(EngineError) -> (Replayed, LogSegmentReader.End) {
    var replayed = Replayed()
    let reader = LogSegmentReader(path: "x.log", tree: 7, segment: 12)
    let end = try reader.read(SegmentWindow(copying: bytes), durableBytes: durable) { record, _ throws(EngineError) in
        replayed.sequences.append(record.sequence)
        for index in 0..<record.columns.count {
            let entry = record.columns[index]
            replayed.entries.append(
                OwnedEntry(Array(entry.key), entry.kind, Array(entry.value), expiry: entry.expiry))
        }
    }
    return (replayed, end)
}

@Suite struct LogFormatTests {
    @Test func aSegmentHasItsGoldenBytes() throws {
        let (bytes, ends) = segment()
        var hex = AnnotatedHex(
            title: "A log segment of tree 7, version 1: a header and three records.\nproto-spec/wal.md")
        hex.section("header")
        annotate(&hex, bytes, [(4, "magic CWAL"), (2, "version"), (2, "zero"), (8, "tree"), (8, "segment")])
        annotate(
            &hex, bytes,
            [(8, "previous segment"), (8, "durable bytes of the previous segment"), (4, "zero"), (4, "CRC-32C")])
        var start = 48
        for (number, end) in ends.enumerated() {
            hex.section("record \(number + 1)")
            annotate(
                &hex, bytes,
                [
                    (4, "length"), (4, "CRC-32C"), (8, "segment"), (8, "durable bytes of this segment"), (8, "epoch"),
                    (8, "sequence"), (8, "watermark"), (4, "entries"), (4, "key bytes"), (4, "value bytes"),
                    (4, "flags"),
                ])
            annotate(
                &hex, bytes, [(end - start - 64, "columns: kinds, key ends, value ends, [expiries], keys, values")])
            start = end
        }
        #expect(hex.bytes == bytes)
        #expect(try GoldenFile.difference("wal-v1.hex", from: hex.text) == nil)
        let (replayed, end) = try replay(try GoldenFile.bytes("wal-v1.hex"))
        #expect(replayed.sequences == [1, 2, 3])
        #expect(replayed.entries == batch.entries + secondBatch.entries + secondBatch.entries)
        #expect(end.header == header && end.records == 3 && end.validBytes == UInt64(bytes.count))
    }

    @Test func everyCutIsATornTailOrKnownToBeDamage() throws {
        let (bytes, ends) = segment()
        for cut in 0..<bytes.count {
            let whole = ends.filter { $0 <= cut }.count
            let (replayed, end) = try replay(Array(bytes[..<cut]))
            #expect(replayed.sequences == (0..<whole).map { UInt64($0) + 1 })
            #expect(end.validBytes == (cut < 48 ? 0 : UInt64(([48] + ends).last { $0 <= cut }!)))
            // The next segment vouches for all of it, so the same cut is a loss.
            #expect(throws: EngineError.self) { _ = try replay(Array(bytes[..<cut]), durable: UInt64(bytes.count)) }
        }
    }

    private func readPieces(
        _ bytes: [UInt8], _ name: String, on disk: MemoryFileSystem
    ) throws -> (sequences: [UInt64], end: UInt64) {
        let file = try disk.createAppend("/logs/" + name)
        try bytes.withUnsafeBytes { try file.append($0) }
        let window = try SegmentWindow(
            "/logs/" + name, fileSystem: disk, limit: LogFormat.segmentBytesMax, buffer: SegmentBuffer())
        var sequences: [UInt64] = []
        var foreign = 0
        let end = try LogSegmentReader(path: name, tree: 7, segment: 12).read(window, durableBytes: 0) { record, _ in
            sequences.append(record.sequence)
            for byte in record.columns[0].value where byte != UInt8(record.sequence) { foreign += 1 }
        }
        #expect(foreign == 0, "bytes of another record's value")
        return (sequences, end.validBytes)
    }

    /// Pieces end anywhere: inside a header, inside a record, behind the last one.
    @Test func aSegmentOfManyPiecesIsReadAsOne() throws {
        let disk = MemoryFileSystem()
        try disk.createDirectory("/logs")
        var bytes = LogFormat.encodeHeader(header)
        var ends: [Int] = []
        for sequence in UInt64(1)...60 {
            let value = [UInt8](repeating: UInt8(sequence), count: sequence == 30 ? 3 << 20 : 90_000 + Int(sequence))
            let batch = OwnedBatch([OwnedEntry([0, 1, 0, 7, UInt8(sequence)], .put, value)])
            bytes += record(batch, sequence: sequence, segment: 12, durable: UInt64(bytes.count))
            ends.append(bytes.count)
        }
        let whole = try readPieces(bytes, "whole", on: disk)
        #expect(whole.sequences == Array(1...60) && whole.end == UInt64(bytes.count))
        let torn = try readPieces(Array(bytes.dropLast(10)), "torn", on: disk)
        #expect(torn.sequences == Array(1...59) && torn.end == UInt64(ends[58]))
        var damaged = bytes
        damaged[ends[40] + 70_000] ^= 1
        #expect(throws: EngineError.self) { _ = try readPieces(damaged, "damaged", on: disk) }
    }

    @Test func everyFlippedBitIsNoticed() throws {
        let (bytes, ends) = segment()
        let (whole, _) = try replay(bytes)
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << UInt8(bit)
                do throws(EngineError) {
                    let (replayed, end) = try replay(damaged)
                    // Only the last group may pass for a torn tail; what is read is right.
                    #expect(index >= ends[1] || index < 48 && end.records == 0)
                    #expect(replayed.sequences == Array(whole.sequences.prefix(replayed.sequences.count)))
                    #expect(replayed.sequences.count == 2)
                } catch {
                    #expect(index < ends[1])
                }
                #expect(throws: EngineError.self) { _ = try replay(damaged, durable: UInt64(bytes.count)) }
            }
        }
    }

    @Test func aTornGroupIsCutThoughALaterRecordOfItIsWhole() throws {
        // Records 1 and 2 were one group: neither was durable when the other was written.
        var bytes = segment().bytes
        bytes[60] ^= 1
        bytes.removeSubrange(segment().ends[1]...)
        let (replayed, end) = try replay(bytes)
        #expect(replayed.sequences.isEmpty)
        #expect(end.validBytes == 48)
    }

    @Test func recordsOfAnotherSegmentAreNotTaken() throws {
        var bytes = segment().bytes
        bytes += record(secondBatch, sequence: 4, segment: 11, durable: UInt64(bytes.count))
        #expect(try replay(bytes).0.sequences == [1, 2, 3])
    }

    @Test func randomBytesNeverTrap() {
        var random = SeededRandom(seed: 1)
        for _ in 0..<2000 {
            var bytes = segment().bytes
            for _ in 0..<Int.random(in: 1...40, using: &random) {
                bytes[.random(in: bytes.indices, using: &random)] = .random(in: 0...255, using: &random)
            }
            _ = try? replay(bytes)
            bytes.shuffle(using: &random)
            _ = try? replay(bytes)
        }
    }
}

private func summary(_ first: UInt16, _ last: UInt16) -> TableSummary {
    var summary = TableSummary()
    summary.entryCount = 100
    summary.deleteCount = 5
    summary.neverExpiringCount = 90
    summary.maxExpiryEvent = 77
    summary.rawKeyBytes = 1000
    summary.rawValueBytes = 9000
    summary.dataBlockCount = 3
    summary.blockSizeBytes = 4096
    summary.filterBitsPerKey = 10
    summary.keyGroups = KeyGroupRange(first: first, last: last)
    summary.smallestKey = makeKey(first, "a")
    summary.largestKey = makeKey(last, "z")
    summary.fileBytes = 12_345
    return summary
}

private func manifestState() -> TreeState {
    var state = TreeState(identity: wholeRange, epoch: 4, writer: "worker-1", watermark: 99)
    state.replaces = [TreeID(3), TreeID(5)]
    state.firstSegment = 6
    state.levels[0] = [FileRecord(number: 21, window: KeyGroupRange(first: 0, last: 127), summary: summary(0, 100))]
    state.levels[1] = [FileRecord(number: 20, window: KeyGroupRange(first: 0, last: 63), summary: summary(2, 90))]
    return state
}

private func manifestEdit() -> VersionEdit {
    var edit = VersionEdit(session: VersionEdit.Session(epoch: 5, writer: "worker-2"))
    edit.flushed = WriteProgress(epoch: 4, sequence: 17, watermark: 120)
    edit.firstSegment = 7
    edit.removed = [VersionEdit.Removal(level: 1, file: FileRecordID(number: 20, firstGroup: 0))]
    let added = FileRecord(number: 22, window: KeyGroupRange(first: 0, last: 127), summary: summary(7, 8))
    edit.added = [VersionEdit.Addition(level: 2, file: added)]
    return edit
}

private let ruleClock = ExpiryClock(processing: 1_700_000_000_000, event: 5000)

/// State 1 lives an hour; state 2 got half an hour of event time when it had data, and lost it again.
private let manifestRules: ExpiryRules = {
    var rules = ExpiryRules()
    let groups = KeyGroupRange(first: 0, last: 127)
    _ = rules.declare(1, StateTimeToLive(milliseconds: 3_600_000), in: groups, ruleClock, holdsData: false)
    let half = StateTimeToLive(milliseconds: 1_800_000, isEventTime: true)
    _ = rules.declare(2, half, in: groups, ruleClock, holdsData: true)
    _ = rules.declare(2, .none, in: groups, ruleClock, holdsData: true)
    return rules
}()

private let changedRules: ExpiryRules = {
    var rules = manifestRules
    let day = StateTimeToLive(milliseconds: 86_400_000)
    _ = rules.declare(1, day, in: KeyGroupRange(first: 0, last: 127), ruleClock, holdsData: true)
    return rules
}()

private let manifestLogs = [
    LogReference(
        tree: TreeID(3), window: KeyGroupRange(first: 0, last: 63), after: LogPosition(epoch: 2, sequence: 100),
        through: LogPosition(epoch: 3, sequence: 7),
        segments: [LogSegmentPart(number: 11, bytes: 4096), LogSegmentPart(number: 12, bytes: 300)]),
    LogReference(
        tree: TreeID(5), window: KeyGroupRange(first: 64, last: 127), after: LogPosition(epoch: 2, sequence: 0),
        through: LogPosition(epoch: 2, sequence: 50), segments: [LogSegmentPart(number: 1, bytes: 9000)]),
]

@Suite struct ManifestFormatTests {
    private func manifest() -> (bytes: [UInt8], stateEnd: Int, firstEditEnd: Int) {
        var bytes = ManifestFormat.encodeHeader(tree: TreeID(7), number: 3, state: manifestState())
        bytes += ManifestFormat.encode(manifestState(), number: 3)
        let stateEnd = bytes.count
        bytes += ManifestFormat.encode(manifestEdit(), number: 3)
        let firstEditEnd = bytes.count
        var second = VersionEdit()
        second.firstSegment = 8
        bytes += ManifestFormat.encode(second, number: 3)
        return (bytes, stateEnd, firstEditEnd)
    }

    private func decode(_ bytes: [UInt8]) throws(EngineError) -> TreeState {
        try ManifestFormat.decode(bytes, path: "MANIFEST", tree: TreeID(7), number: 3)
    }

    /// The state after so many edits.
    private func expected(_ edits: Int) -> TreeState {
        var state = manifestState()
        if edits > 0 { #expect(state.apply(manifestEdit()) == nil) }
        if edits > 1 { state.firstSegment = 8 }
        return state
    }

    @Test func aManifestHasItsGoldenBytes() throws {
        let (bytes, stateEnd, firstEditEnd) = manifest()
        var hex = AnnotatedHex(
            title: "Manifest 3 of tree 7, version 1: a header, the state, and two edits.\nproto-spec/manifest.md")
        hex.section("header")
        annotate(&hex, bytes, [(4, "magic CMAN"), (2, "version"), (2, "zero"), (8, "tree"), (8, "manifest number")])
        annotate(&hex, bytes, [(4, "zero"), (4, "CRC-32C")])
        for (name, start, end) in [
            ("state", 32, stateEnd), ("edit 1", stateEnd, firstEditEnd), ("edit 2", firstEditEnd, bytes.count),
        ] {
            hex.section(name)
            annotate(&hex, bytes, [(4, "length"), (4, "CRC-32C"), (8, "manifest number"), (1, "kind")])
            annotate(&hex, bytes, [(end - start - 17, "body")])
        }
        #expect(hex.bytes == bytes)
        #expect(try GoldenFile.difference("manifest-v1.hex", from: hex.text) == nil)
        #expect(try decode(try GoldenFile.bytes("manifest-v1.hex")) == expected(2))
    }

    @Test func aManifestThatRefersToLogsHasItsGoldenBytes() throws {
        var state = manifestState()
        state.logs = manifestLogs
        var bytes = ManifestFormat.encodeHeader(tree: TreeID(7), number: 3, state: state)
        bytes += ManifestFormat.encode(state, number: 3)
        let stateEnd = bytes.count
        #expect(try decode(bytes) == state)
        var edit = VersionEdit()
        edit.flushed = WriteProgress(epoch: 4, sequence: 17, watermark: 120)
        edit.firstSegment = 7
        edit.dropsLogs = true
        bytes += ManifestFormat.encode(edit, number: 3)
        var hex = AnnotatedHex(
            title:
                "Manifest 3 of tree 7, version 2: its state refers to logs of trees 3 and 5, and an edit drops them.\n"
                + "proto-spec/manifest.md")
        annotateManifest(&hex, bytes, stateEnd: stateEnd)
        #expect(try GoldenFile.difference("manifest-v2.hex", from: hex.text) == nil)
        #expect(state.apply(edit) == nil)
        #expect(try decode(try GoldenFile.bytes("manifest-v2.hex")) == state)
        // An edit that drops what is not there is damage, and so is a reference that is cut short.
        #expect(manifestStateRefuses(edit))
        #expect(throws: EngineError.self) { try decode(Array(bytes[..<(stateEnd - 1)])) }
    }

    /// A header, a state and an edit.
    private func annotateManifest(_ hex: inout AnnotatedHex, _ bytes: [UInt8], stateEnd: Int) {
        hex.section("header")
        annotate(&hex, bytes, [(4, "magic CMAN"), (2, "version"), (2, "zero"), (8, "tree"), (8, "manifest number")])
        annotate(&hex, bytes, [(4, "zero"), (4, "CRC-32C")])
        for (name, start, end) in [("state", 32, stateEnd), ("edit", stateEnd, bytes.count)] {
            hex.section(name)
            annotate(&hex, bytes, [(4, "length"), (4, "CRC-32C"), (8, "manifest number"), (1, "kind")])
            annotate(&hex, bytes, [(end - start - 17, "body")])
        }
    }

    @Test func aManifestWithRulesHasItsGoldenBytes() throws {
        var state = manifestState()
        state.expiryRules = manifestRules
        var bytes = ManifestFormat.encodeHeader(tree: TreeID(7), number: 3, state: state)
        bytes += ManifestFormat.encode(state, number: 3)
        let stateEnd = bytes.count
        #expect(try decode(bytes) == state)
        var edit = VersionEdit()
        edit.expiryRules = changedRules
        bytes += ManifestFormat.encode(edit, number: 3)
        var hex = AnnotatedHex(
            title:
                "Manifest 3 of tree 7, version 3: states 1 and 2 have expiry rules, and an edit changes the one of state 1.\n"
                + "proto-spec/manifest.md")
        annotateManifest(&hex, bytes, stateEnd: stateEnd)
        #expect(try GoldenFile.difference("manifest-v3.hex", from: hex.text) == nil)
        #expect(state.apply(edit) == nil)
        #expect(state.expiryRules == changedRules)
        #expect(try decode(try GoldenFile.bytes("manifest-v3.hex")) == state)
        var random = SeededRandom(seed: 3)
        for _ in 0..<2000 {
            var writer = ByteWriter()
            edit.encode(into: &writer)
            var damaged = writer.bytes
            damaged[.random(in: damaged.indices, using: &random)] = .random(in: 0...255, using: &random)
            damaged.removeLast(.random(in: 0...3, using: &random))
            damaged.withUnsafeBytes {
                var reader = ByteReader($0)
                _ = VersionEdit.decode(&reader)
            }
        }
    }

    private func manifestStateRefuses(_ edit: VersionEdit) -> Bool {
        var state = manifestState()
        return state.apply(edit) != nil
    }

    @Test func everyCutGivesAnEarlierStateOrAnError() throws {
        let (bytes, stateEnd, firstEditEnd) = manifest()
        for cut in 0..<bytes.count {
            if cut < stateEnd {
                #expect(throws: EngineError.self) { try decode(Array(bytes[..<cut])) }
            } else {
                #expect(try decode(Array(bytes[..<cut])) == expected(cut < firstEditEnd ? 0 : 1))
            }
        }
    }

    @Test func everyFlippedBitIsNoticed() throws {
        let (bytes, _, firstEditEnd) = manifest()
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << UInt8(bit)
                if index < firstEditEnd {
                    #expect(throws: EngineError.self) { try decode(damaged) }
                } else {
                    // The last edit alone may pass for one that was never finished.
                    #expect(try decode(damaged) == expected(1))
                }
            }
        }
    }

    @Test func bodiesOfAnyBytesNeverTrap() {
        var random = SeededRandom(seed: 2)
        for _ in 0..<3000 {
            var writer = ByteWriter()
            let isState = Bool.random(using: &random)
            if isState { manifestState().encode(into: &writer) } else { manifestEdit().encode(into: &writer) }
            var bytes = writer.bytes
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                bytes[.random(in: bytes.indices, using: &random)] = .random(in: 0...255, using: &random)
            }
            bytes.removeLast(.random(in: 0...3, using: &random))
            bytes.withUnsafeBytes {
                var reader = ByteReader($0)
                if isState {
                    if var state = TreeState.decode(&reader) { _ = state.apply(manifestEdit()) }
                } else if let edit = VersionEdit.decode(&reader) {
                    var state = manifestState()
                    _ = state.apply(edit)
                }
            }
        }
    }

    @Test func currentHasItsGoldenBytesAndNoticesDamage() throws {
        let bytes = ManifestFormat.encodeCurrent(3)
        var hex = AnnotatedHex(title: "CURRENT naming manifest 3, version 1.\nproto-spec/manifest.md")
        annotate(
            &hex, bytes,
            [(4, "magic CCUR"), (2, "version"), (2, "zero"), (8, "manifest number"), (4, "zero"), (4, "CRC-32C")])
        #expect(try GoldenFile.difference("current-v1.hex", from: hex.text) == nil)
        #expect(try ManifestFormat.decodeCurrent(try GoldenFile.bytes("current-v1.hex"), path: "CURRENT") == 3)
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 1
            #expect(throws: EngineError.self) { try ManifestFormat.decodeCurrent(damaged, path: "CURRENT") }
            #expect(throws: EngineError.self) {
                try ManifestFormat.decodeCurrent(Array(bytes[..<index]), path: "CURRENT")
            }
        }
    }
}

@Suite struct SnapshotFormatTests {
    private var snapshot: SnapshotRecord {
        SnapshotRecord(
            handle: "orders/12/0-127/5-18c", identity: wholeRange, tree: TreeID(7), checkpoint: 12,
            progress: WriteProgress(epoch: 4, sequence: 17, watermark: 120), createdMilliseconds: 1_700_000_000_000,
            levels: manifestState().levels)
    }

    @Test func aSnapshotHasItsGoldenBytes() throws {
        let bytes = SnapshotFormat.encode(snapshot)
        var hex = AnnotatedHex(title: "A snapshot record, version 1.\nproto-spec/snapshot.md")
        annotate(&hex, bytes, [(4, "magic CSNP"), (2, "version"), (2, "zero"), (4, "length"), (4, "CRC-32C")])
        annotate(&hex, bytes, [(bytes.count - 16, "body")])
        #expect(try GoldenFile.difference("snapshot-v1.hex", from: hex.text) == nil)
        #expect(try SnapshotFormat.decode(try GoldenFile.bytes("snapshot-v1.hex"), path: "x.snap") == snapshot)
    }

    @Test func aSnapshotThatRefersToLogsHasItsGoldenBytes() throws {
        var snapshot = self.snapshot
        snapshot.logs = manifestLogs
        let bytes = SnapshotFormat.encode(snapshot)
        var hex = AnnotatedHex(title: "A snapshot record, version 2.\nproto-spec/snapshot.md")
        annotate(&hex, bytes, [(4, "magic CSNP"), (2, "version"), (2, "zero"), (4, "length"), (4, "CRC-32C")])
        annotate(&hex, bytes, [(bytes.count - 16, "body")])
        #expect(try GoldenFile.difference("snapshot-v2.hex", from: hex.text) == nil)
        #expect(try SnapshotFormat.decode(try GoldenFile.bytes("snapshot-v2.hex"), path: "x.snap") == snapshot)
        #expect(snapshot.info.logBytes == 4096 + 300 + 9000)
    }

    @Test func aSnapshotWithRulesHasItsGoldenBytes() throws {
        var snapshot = self.snapshot
        snapshot.logs = manifestLogs
        snapshot.expiryRules = manifestRules
        let bytes = SnapshotFormat.encode(snapshot)
        var hex = AnnotatedHex(title: "A snapshot record, version 3.\nproto-spec/snapshot.md")
        annotate(&hex, bytes, [(4, "magic CSNP"), (2, "version"), (2, "zero"), (4, "length"), (4, "CRC-32C")])
        annotate(&hex, bytes, [(bytes.count - 16, "body")])
        #expect(try GoldenFile.difference("snapshot-v3.hex", from: hex.text) == nil)
        #expect(try SnapshotFormat.decode(try GoldenFile.bytes("snapshot-v3.hex"), path: "x.snap") == snapshot)
    }

    /// What a split tears apart a union puts together; what is of different writes or not side by side stays apart.
    @Test func referencesToOneLogAreJoinedInTheOrderOfTheWrites() {
        func part(_ tree: UInt64, _ first: UInt16, _ last: UInt16, through: UInt64 = 9) -> LogReference {
            LogReference(
                tree: TreeID(tree), window: KeyGroupRange(first: first, last: last),
                after: LogPosition(epoch: 1, sequence: 0), through: LogPosition(epoch: 1, sequence: through),
                segments: [LogSegmentPart(number: 1, bytes: 100)])
        }
        #expect(
            LogReference.arranged([
                part(2, 0, 9), part(4, 0, 9), part(2, 10, 19), part(5, 10, 19), part(2, 20, 29),
            ]) == [part(2, 0, 29), part(4, 0, 9), part(5, 10, 19)])
        let apart = [part(2, 0, 9), part(2, 11, 19), part(2, 20, 29, through: 8)]
        #expect(LogReference.arranged(apart.reversed()) == apart)
    }

    @Test func referencesOfAnyBytesNeverTrap() {
        var random = SeededRandom(seed: 3)
        for _ in 0..<3000 {
            var writer = ByteWriter()
            LogReference.encode(manifestLogs, into: &writer)
            var bytes = writer.bytes
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                bytes[.random(in: bytes.indices, using: &random)] = .random(in: 0...255, using: &random)
            }
            bytes.removeLast(.random(in: 0...3, using: &random))
            bytes.withUnsafeBytes {
                var reader = ByteReader($0)
                if let logs = LogReference.decodeAll(&reader) { _ = LogReference.arranged(logs).logBytes }
            }
        }
    }

    @Test func everyFlippedBitAndEveryCutIsNoticed() {
        var snapshot = self.snapshot
        snapshot.logs = manifestLogs
        let bytes = SnapshotFormat.encode(snapshot)
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << UInt8(bit)
                #expect(throws: EngineError.self) { try SnapshotFormat.decode(damaged, path: "x.snap") }
            }
            #expect(throws: EngineError.self) { try SnapshotFormat.decode(Array(bytes[..<index]), path: "x.snap") }
        }
    }
}

/// Adds the next fields of `bytes`, by their sizes.
private func annotate(_ hex: inout AnnotatedHex, _ bytes: [UInt8], _ fields: [(size: Int, note: String)]) {
    for (size, note) in fields {
        let start = hex.bytes.count
        hex.field(bytes[start..<(start + size)], note)
    }
}
