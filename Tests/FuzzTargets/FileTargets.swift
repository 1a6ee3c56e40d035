// Files of the engine, one at a time.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit

extension FuzzTarget {
    static let files = [
        FuzzTarget(name: "table", seeds: { tableTemplates.map(\.bytes) }, run: readTable),
        FuzzTarget(
            name: "manifest",
            seeds: { [try GoldenFile.bytes("manifest-v1.hex"), try GoldenFile.bytes("manifest-v2.hex")] },
            run: readManifest),
        FuzzTarget(name: "current", seeds: { [try GoldenFile.bytes("current-v1.hex")] }, run: readCurrent),
        FuzzTarget(
            name: "snapshot",
            seeds: { [try GoldenFile.bytes("snapshot-v1.hex"), try GoldenFile.bytes("snapshot-v2.hex")] },
            run: readSnapshot),
        FuzzTarget(
            name: "value-file", seeds: { [try GoldenFile.bytes("value-file-v1.hex")] },
            run: { inspect(.valueFile, resealedValueFile($0)) }),
        FuzzTarget(name: "log", seeds: { [try GoldenFile.bytes("wal-v1.hex")] }, run: readLog),
        FuzzTarget(
            name: "tree-log",
            seeds: {
                TreeLogFormat.encode(.records([1, 2, 3, 4, 5, 6, 7, 8, 9]), partBytesMax: 4).map {
                    [UInt8($0.count)] + $0
                }
            }, run: readTreeLog),
    ]
}

// MARK: Tables

/// Whole tables: small blocks, all kinds of entries, expiries, several partitions.
private let tableTemplates: [TableAnatomy] = {
    do {
        let golden = try ["sst-v1.hex", "sst-v2.hex", "sst-v3.hex"].map { try GoldenFile.bytes($0) }
        return try (golden + [makeTable()]).map(TableAnatomy.init)
    } catch {
        broken("the good tables cannot be had: \(error)")
    }
}()

private func makeTable() throws -> [UInt8] {
    let disk = MemoryFileSystem()
    try disk.createDirectory("/fuzz")
    var options = TableOptions()
    options.blockSizeBytes = 200
    options.blocksPerPartition = 3
    let writer = TableWriter(file: try disk.createAppend("/fuzz/made.sst"), options: options, number: 1, cache: nil)
    for number in 0..<80 {
        let key = [0, number / 40, 0, number / 20, number % 20 / 4, 7, number].map { UInt8($0) }
        let kind: EntryKind = [.put, .put, .append, .delete][number % 4]
        let expiry: Expiry = number % 5 == 0 ? .processingTime(milliseconds: 1000 + UInt64(number)) : .never
        let value = [UInt8](repeating: UInt8(number), count: number % 7)
        let entry = OwnedEntry(key, kind, value, expiry: expiry)
        try entry.key.withUnsafeBytes { key in
            try entry.value.withUnsafeBytes { value in
                try writer.add(EntryView(key: key, kind: entry.kind, expiry: entry.expiry, value: value))
            }
        }
    }
    _ = try writer.finish()
    return disk.contents("/fuzz/made.sst") ?? []
}

/// One cache for all inputs, because making one costs more than reading a table; each table has a number of its own.
private let tableCache = BlockCache(capacityBytes: 1 << 20)
private let tableNumber = Guarded(UInt64(0))

private func readTable(_ input: [UInt8]) {
    readTableFile(input)
    // The layout is the template's; everything in it is the input's.
    guard let template = tableTemplates.min(by: { distance($0, input) < distance($1, input) }) else { return }
    var file = Array(input.prefix(template.bytes.count))
    file += template.bytes[file.count...]
    readTableFile(template.resealed(file))
}

private func distance(_ template: TableAnatomy, _ input: [UInt8]) -> Int { abs(template.bytes.count - input.count) }

private func readTableFile(_ bytes: [UInt8]) {
    let disk = MemoryFileSystem()
    disk.setContents("fuzz.sst", bytes)
    let number = tableNumber.withLock { number in
        number += 1
        return number
    }
    try? EngineFile.table.inspect("fuzz.sst", fileSystem: disk) { _ in }
    guard let file = try? disk.openRead("fuzz.sst"),
        let table = try? TableReader.open(file: file, number: number, cache: tableCache)
    else { return }
    for policy in [CachePolicy.fill, .stream] {
        try? walk(table.cursor(policy: policy), seekingTo: [])
        try? walk(table.cursor(window: KeyGroupRange(first: 1, last: 1), policy: policy), seekingTo: [0, 0])
    }
    var result = LookupResult()
    for number in 0..<12 {
        let key = [0, number / 6, 0, number / 3, number % 3, 7, number * 7].map { UInt8($0) }
        try? walk(table.cursor(), seekingTo: key)
        key.withUnsafeBytes { bytes in
            result.reset()
            _ = try? table.get(bytes, hash: Hash64.hash(bytes), into: &result)
            _ = try? table.mayContain(bytes, hash: Hash64.hash(bytes))
        }
    }
    try? table.verify()
}

private func walk(_ cursor: TableCursor, seekingTo key: [UInt8]) throws {
    var isPositioned = try key.isEmpty ? cursor.seekToFirst() : key.withUnsafeBytes { try cursor.seek(to: $0) }
    while isPositioned {
        touch(cursor.entry)
        isPositioned = try cursor.next()
    }
}

// MARK: Manifests and snapshots: what decodes must come back from its own encoding.

private func readManifest(_ input: [UInt8]) {
    let bytes = resealedManifest(input)
    guard bytes.count >= 24 else { return }
    inspect(.manifest, bytes)
    let (tree, number) = (TreeID(number64(bytes, at: 8)), number64(bytes, at: 16))
    guard let state = try? ManifestFormat.decode(bytes, path: "fuzz", tree: tree, number: number) else { return }
    let again =
        ManifestFormat.encodeHeader(tree: tree, number: number, state: state)
        + ManifestFormat.encode(state, number: number)
    guard let same = try? ManifestFormat.decode(again, path: "again", tree: tree, number: number), same == state else {
        broken("a manifest's state does not come back from its own encoding")
    }
}

func resealedManifest(_ input: [UInt8]) -> [UInt8] {
    var bytes = input
    if bytes.count >= 32 { setChecksum(&bytes, at: 28, of: 0..<28) }
    resealRecords(&bytes, from: 32)
    return bytes
}

/// Records of a manifest or a log: u32 bytes behind the first eight, u32 checksum of all but itself.
func resealRecords(_ bytes: inout [UInt8], from start: Int) {
    var offset = start
    while offset + 8 <= bytes.count {
        let end = offset + 8 + number32(bytes, at: offset)
        guard end <= bytes.count else { return }
        let length = CRC32C.checksum(Array(bytes[offset..<(offset + 4)]))
        setInteger(&bytes, at: offset + 4, CRC32C.checksum(Array(bytes[(offset + 8)..<end]), seed: length))
        offset = end
    }
}

private func readCurrent(_ input: [UInt8]) {
    var bytes = input
    if bytes.count >= 24 { setChecksum(&bytes, at: 20, of: 0..<20) }
    inspect(.current, bytes)
    guard let number = try? ManifestFormat.decodeCurrent(bytes, path: "fuzz") else { return }
    guard (try? ManifestFormat.decodeCurrent(ManifestFormat.encodeCurrent(number), path: "again")) == number else {
        broken("a manifest's number does not come back from its own encoding")
    }
}

private func readSnapshot(_ input: [UInt8]) {
    let bytes = resealedSnapshot(input)
    inspect(.snapshot, bytes)
    guard let record = try? SnapshotFormat.decode(bytes, path: "fuzz") else { return }
    guard (try? SnapshotFormat.decode(SnapshotFormat.encode(record), path: "again")) == record else {
        broken("a snapshot does not come back from its own encoding")
    }
}

func resealedSnapshot(_ input: [UInt8]) -> [UInt8] {
    var bytes = input
    guard bytes.count >= 16 else { return bytes }
    setInteger(&bytes, at: 8, UInt32(bytes.count - 16))
    let header = CRC32C.checksum(Array(bytes[..<12]))
    setInteger(&bytes, at: 12, CRC32C.checksum(Array(bytes[16...]), seed: header))
    return bytes
}

// MARK: Logs and value files

/// Header and footer; a record is found by pointers to it alone, so its checksum stays what it is.
func resealedValueFile(_ input: [UInt8]) -> [UInt8] {
    var bytes = input
    guard bytes.count >= 64 else { return bytes }
    setChecksum(&bytes, at: 28, of: 0..<28)
    let footer = bytes.count - 32
    setChecksum(&bytes, at: footer + 20, of: footer..<(footer + 20))
    return bytes
}

/// Entries with a length byte each.
private func readTreeLog(_ input: [UInt8]) {
    var reader = TreeLogReader(itemBytesMax: 1 << 16)
    var rest = input[...]
    while let count = rest.popFirst() {
        var entry = Array(rest.prefix(Int(count)))
        rest = rest.dropFirst(Int(count))
        if entry.count >= 8 { setChecksum(&entry, at: 0, of: 4..<entry.count) }
        guard let item = try? reader.add(entry, source: "fuzz") else { continue }
        if case .records = item { continue }
        // There is one way to write the others.
        let again = TreeLogFormat.encode(item).flatMap(\.self)
        guard again.count >= 8 else { broken("an item without bytes") }
    }
}

private func readLog(_ input: [UInt8]) {
    let bytes = resealedLog(input)
    guard bytes.count >= LogFormat.headerBytes else { return }
    inspect(.log, bytes)
    let reader = LogSegmentReader(path: "fuzz", tree: number64(bytes, at: 8), segment: number64(bytes, at: 16))
    _ = try? reader.read(SegmentWindow(copying: bytes), durableBytes: 0) { record, _ in touch(record.columns) }
}

func resealedLog(_ input: [UInt8]) -> [UInt8] {
    var bytes = input
    if bytes.count >= 48 { setChecksum(&bytes, at: 44, of: 0..<44) }
    resealRecords(&bytes, from: 48)
    return bytes
}

private func inspect(_ kind: EngineFile, _ bytes: [UInt8]) {
    let disk = MemoryFileSystem()
    disk.setContents("fuzz", bytes)
    try? kind.inspect("fuzz", fileSystem: disk) { _ in }
}
