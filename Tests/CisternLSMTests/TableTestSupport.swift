// What the tests of memtables, tables and cursors share: owned entries, files in memory, the model of folding and expiry.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// An entry that owns its bytes.
struct OwnedEntry: Equatable, CustomStringConvertible {
    var key: [UInt8]
    var kind: EntryKind
    var expiry: Expiry
    var value: [UInt8]
    /// The value is a pointer into a value file.
    var isPointer: Bool

    init(
        _ key: [UInt8], _ kind: EntryKind = .put, _ value: [UInt8] = [], expiry: Expiry = .never,
        isPointer: Bool = false
    ) {
        self.key = key
        self.kind = kind
        self.expiry = expiry
        self.value = value
        self.isPointer = isPointer
    }

    init(_ view: EntryView) {
        key = Array(view.key)
        kind = view.kind
        expiry = view.expiry
        value = Array(view.value)
        isPointer = view.isPointer
    }

    func withView<R>(_ body: (EntryView) throws -> R) rethrows -> R {
        try key.withUnsafeBytes { keyBytes in
            try value.withUnsafeBytes { valueBytes in
                try body(
                    EntryView(key: keyBytes, kind: kind, isPointer: isPointer, expiry: expiry, value: valueBytes))
            }
        }
    }

    var description: String { "\(key) \(kind) \(value) expires \(expiry.rawValue)" }
}

/// Append, then read: a file in memory. Tests use it from one thread.
final class MemoryFile: AppendFile, RandomReadFile, @unchecked Sendable {
    let path: String
    var bytes: [UInt8]

    init(path: String = "memory.sst", bytes: [UInt8] = []) {
        self.path = path
        self.bytes = bytes
    }

    var size: UInt64 { UInt64(bytes.count) }

    func append(_ new: UnsafeRawBufferPointer) throws(FileError) { bytes.append(contentsOf: new) }
    func sync() throws(FileError) {}
    func close() {}

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        guard offset <= size, UInt64(buffer.count) <= size - offset else {
            throw FileError(operation: "read", path: path, reason: .endOfFile)
        }
        bytes.withUnsafeBytes { source in
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[Int(offset)..<Int(offset) + buffer.count]))
        }
    }
}

func writeTable(
    _ entries: [OwnedEntry], _ options: TableOptions = TableOptions(), number: UInt64 = 1, cache: BlockCache? = nil,
    values: [ValueFileUse] = []
) throws -> (file: MemoryFile, summary: TableSummary) {
    let file = MemoryFile()
    let writer = TableWriter(file: file, options: options, number: number, cache: cache)
    for entry in entries { try entry.withView { try writer.add($0) } }
    let summary = try writer.finish(values: values)
    return (file, summary)
}

func openTable(_ file: MemoryFile, number: UInt64 = 1, cache: BlockCache = BlockCache(capacityBytes: 8 << 20)) throws
    -> TableReader
{
    try TableReader.open(file: file, number: number, cache: cache)
}

extension EntryCursor {
    /// Everything from the first entry on.
    func drain() throws -> [OwnedEntry] {
        var all: [OwnedEntry] = []
        var more = try seekToFirst()
        while more {
            all.append(OwnedEntry(entry))
            more = try next()
        }
        return all
    }

    func drain(from key: [UInt8]) throws -> [OwnedEntry] {
        var all: [OwnedEntry] = []
        var more = try key.withUnsafeBytes { try seek(to: $0) }
        while more {
            all.append(OwnedEntry(entry))
            more = try next()
        }
        return all
    }
}

extension TableReader {
    /// The live value of `key` in this table alone.
    func value(_ key: [UInt8], clock: ExpiryClock = ExpiryClock(processing: 0, event: 0)) throws -> [UInt8]? {
        var result = LookupResult()
        try key.withUnsafeBytes { bytes in
            _ = try get(bytes, hash: Hash64.hash(bytes), into: &result)
        }
        return result.finish(clock).map { Array($0.value) }
    }
}

/// The order of keys.
func precedes(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    left.withUnsafeBytes { a in right.withUnsafeBytes { b in compareBytes(a, b) < 0 } }
}

/// A key of a small set with shared prefixes, keys that are prefixes of others among them.
func randomKey(_ random: inout SeededRandom, spread: Int) -> [UInt8] {
    var key: [UInt8] = [0, UInt8.random(in: 0..<4, using: &random)]
    let shape = Int.random(in: 0..<10, using: &random)
    if shape < 2 { key += [UInt8](repeating: 0x61, count: Int.random(in: 0..<40, using: &random)) }
    let number = Int.random(in: 0..<spread, using: &random)
    if shape < 8 {
        key += Array(String(number).utf8)
    } else {
        key += [UInt8(number & 0xFF), UInt8(number >> 8 & 0xFF)]
    }
    return key
}

func randomValue(_ random: inout SeededRandom, max: Int) -> [UInt8] {
    let byte = UInt8.random(in: 0...255, using: &random)
    return (0..<Int.random(in: 0...max, using: &random)).map { byte &+ UInt8($0 & 0xFF) }
}

func randomExpiry(_ random: inout SeededRandom) -> Expiry {
    switch Int.random(in: 0..<4, using: &random) {
    case 0: .processingTime(milliseconds: UInt64.random(in: 1..<100, using: &random))
    case 1: .eventTime(milliseconds: UInt64.random(in: 1..<100, using: &random))
    default: .never
    }
}

func randomEntry(_ random: inout SeededRandom, spread: Int, valueMax: Int = 40) -> OwnedEntry {
    let kind: EntryKind = [.put, .put, .append, .append, .delete].randomElement(using: &random)!
    return OwnedEntry(
        randomKey(&random, spread: spread), kind, kind == .delete ? [] : randomValue(&random, max: valueMax),
        expiry: kind == .delete ? .never : randomExpiry(&random))
}

/// The random numbers of a test, their seed printed.
func seededRandom(_ test: String, default seed: UInt64) -> SeededRandom {
    let chosen = Seeds.seeds(from: seed, count: 1)[0]
    Seeds.announce(test, chosen)
    return SeededRandom(seed: chosen)
}

/// Ascending entries of a small set of keys.
func randomRun(_ random: inout SeededRandom) -> [OwnedEntry] {
    var byKey: [[UInt8]: OwnedEntry] = [:]
    for _ in 0..<Int.random(in: 0..<60, using: &random) {
        let entry = randomEntry(&random, spread: 12, valueMax: 6)
        byKey[entry.key] = entry
    }
    return byKey.values.sorted { precedes($0.key, $1.key) }
}

/// Who the folded entries are for.
enum FoldedFor: CaseIterable {
    case visible
    /// A merged file over older ones, and over none.
    case compaction
    case bottommost
}

/// The rules of proto-spec/entries.md, word for word. Sources newest first.
func naiveFold(_ sources: [[OwnedEntry]], _ clock: ExpiryClock, _ purpose: FoldedFor) -> [OwnedEntry] {
    var parts: [[UInt8]: [OwnedEntry]] = [:]
    for source in sources { for entry in source { parts[entry.key, default: []].append(entry) } }
    var result: [OwnedEntry] = []
    for key in parts.keys.sorted(by: precedes) {
        let stack = parts[key]!
        let base = stack.firstIndex { $0.kind != .append }
        let used = base.map { Array(stack[...$0]) } ?? stack
        let newest = used[0]
        let hidden = newest.kind == .delete || clock.isExpired(newest.expiry)
        if hidden {
            if purpose == .compaction { result.append(OwnedEntry(key, .delete)) }
            continue
        }
        let value = used.reversed().filter { $0.kind != .delete }.flatMap(\.value)
        let stays = base == nil && purpose == .compaction
        result.append(OwnedEntry(key, stays ? .append : .put, value, expiry: newest.expiry))
    }
    return result
}

func engineError(_ body: () throws -> Void) -> EngineError? {
    do { try body() } catch let error as EngineError { return error } catch { Issue.record("\(error)") }
    return nil
}
