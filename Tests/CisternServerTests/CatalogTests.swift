import CisternFileSystem
import CisternPrimitives
import CisternServer
import CisternTestKit
import Foundation
import Testing

private let serverID = (0..<16).map { UInt8($0) }

/// The state of the golden vector.
private func sample() throws -> CatalogState {
    var state = CatalogState(serverID: serverID)
    _ = try state.ensureStore("orders", keyGroupCount: 128)
    _ = try state.register(store: "orders", state: "last", kind: .value, ttlMilliseconds: 0)
    _ = try state.register(store: "orders", state: "seen", kind: .map, ttlMilliseconds: 60_000)
    _ = try state.addDictionary(store: "orders", stateID: 1, bytes: Array("dictionary".utf8))
    _ = try state.ensureStore("empty", keyGroupCount: 1)
    return state
}

private func catalogFiles() throws -> MemoryFileSystem {
    let files = MemoryFileSystem()
    try files.createDirectory("/d")
    return files
}

private func packageFile(_ path: String, from file: String = #filePath) -> URL {
    URL(filePath: file).deletingLastPathComponent().appending(path: "../../" + path).standardized
}

@Test func catalogKeepsIdsAndRefusesWhatDiffers() throws {
    var state = try sample()
    let again = try state.register(store: "orders", state: "seen", kind: .map, ttlMilliseconds: 5)
    #expect(again.id == 2)
    #expect(again.ttlMilliseconds == 5)
    #expect(try state.addDictionary(store: "orders", stateID: 1, bytes: Array("dictionary".utf8)) == 1)
    #expect(try state.addDictionary(store: "orders", stateID: 2, bytes: Array("dictionary".utf8)) == 2)
    #expect(throws: CatalogRefusal.keyGroupCountDiffers(store: "orders", stored: 128, asked: 64)) {
        _ = try state.ensureStore("orders", keyGroupCount: 64)
    }
    #expect(throws: CatalogRefusal.stateKindDiffers(store: "orders", state: "seen", stored: .map, asked: .list)) {
        _ = try state.register(store: "orders", state: "seen", kind: .list, ttlMilliseconds: 0)
    }
    #expect(throws: CatalogRefusal.unknownStore("other")) {
        _ = try state.register(store: "other", state: "seen", kind: .list, ttlMilliseconds: 0)
    }
    #expect(throws: CatalogRefusal.unknownState(store: "orders", id: 9)) {
        _ = try state.addDictionary(store: "orders", stateID: 9, bytes: [1])
    }
    for name in ["", "a/b", "a\nb", String(repeating: "x", count: 201)] {
        #expect(throws: CatalogRefusal.invalidName(name)) { _ = try state.ensureStore(name, keyGroupCount: 1) }
    }
    #expect(throws: CatalogRefusal.self) { _ = try state.ensureStore("big", keyGroupCount: 32_769) }
}

@Test func catalogGoldenBytesBothWays() throws {
    let text = try String(contentsOf: packageFile("proto-spec/vectors/catalog-v1.hex"), encoding: .utf8)
    let golden = text.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("#") }.joined()
    let state = try sample()
    #expect(hexadecimal(CatalogFormat.encode(state)) == golden)
    #expect(try CatalogFormat.decode(CatalogFormat.encode(state), source: "vector") == state)
}

@Test func everyChangedByteOfACatalogIsFound() throws {
    let bytes = CatalogFormat.encode(try sample())
    for offset in bytes.indices {
        for bit in 0..<8 {
            var broken = bytes
            broken[offset] ^= 1 << bit
            #expect(throws: CorruptionError.self) { _ = try CatalogFormat.decode(broken, source: "x") }
        }
        #expect(throws: CorruptionError.self) { _ = try CatalogFormat.decode(Array(bytes[..<offset]), source: "x") }
    }
    #expect(throws: CorruptionError.self) { _ = try CatalogFormat.decode(bytes + [0], source: "x") }
}

/// Records with right checksums and wrong content: the decoder must check, not trust.
@Test func anyRecordsWithRightChecksumsAreCheckedOrRefused() throws {
    let seed = ProcessInfo.processInfo.environment["CISTERN_SEED"].flatMap { UInt64($0) } ?? 20_261_123
    print("CISTERN_SEED=\(seed)")
    var random = SeededRandom(seed: seed)
    for _ in 0..<2_000 {
        var out = ByteWriter()
        out.writeBytes(CatalogFormat.magic)
        out.writeInteger(CatalogFormat.version)
        out.writeInteger(CRC32C.checksum(out.bytes))
        for index in 0..<Int.random(in: 0...5, using: &random) {
            var payload = (0..<Int.random(in: 0...20, using: &random)).map { _ in
                UInt8.random(in: 0...6, using: &random)
            }
            if index == 0 { payload = serverID }
            var covered = ByteWriter()
            covered.writeInteger(UInt32(payload.count))
            covered.writeUInt8(index == 0 ? 1 : [1, 2, 3, 4, 7, 255].randomElement(using: &random)!)
            covered.writeBytes(payload)
            out.writeInteger(CRC32C.checksum(covered.bytes))
            out.writeBytes(covered.bytes)
        }
        guard let state = try? CatalogFormat.decode(out.bytes, source: "x") else { continue }
        #expect(CatalogFormat.encode(state) == out.bytes)
    }
}

@Test func catalogComesBackAfterARestart() throws {
    let files = try catalogFiles()
    let first = try Catalog(directory: "/d", fileSystem: files, newServerID: serverID)
    try first.change { state throws(CatalogRefusal) in _ = try state.ensureStore("orders", keyGroupCount: 8) }
    let second = try Catalog(directory: "/d", fileSystem: files, newServerID: [UInt8](repeating: 9, count: 16))
    #expect(second.current == first.current)
    #expect(second.serverID == hexadecimal(serverID))
}

@Test(arguments: [MemoryFileSystem.Operation.create, .append, .sync, .rename, .syncDirectory])
func aFailedWriteLeavesTheCatalogAsItWas(operation: MemoryFileSystem.Operation) throws {
    let files = try catalogFiles()
    let catalog = try Catalog(directory: "/d", fileSystem: files, newServerID: serverID)
    let before = catalog.current
    files.inject(MemoryFileSystem.Fault([operation], count: 1))
    #expect(throws: CatalogError.self) {
        try catalog.change { state throws(CatalogRefusal) in _ = try state.ensureStore("orders", keyGroupCount: 8) }
    }
    #expect(catalog.current == before)
    try catalog.change { state throws(CatalogRefusal) in _ = try state.ensureStore("orders", keyGroupCount: 8) }
    #expect(catalog.store(named: "orders")?.keyGroupCount == 8)
}

@Test func aDamagedCatalogIsRefusedNotReplaced() throws {
    let files = try catalogFiles()
    _ = try Catalog(directory: "/d", fileSystem: files, newServerID: serverID)
    var bytes = try #require(files.contents("/d/catalog"))
    bytes[20] ^= 1
    files.setContents("/d/catalog", bytes)
    #expect(throws: CatalogError.self) {
        _ = try Catalog(directory: "/d", fileSystem: files, newServerID: serverID)
    }
}

@Test func aCatalogNeverGrowsBeyondWhatAStartReads() throws {
    let files = try catalogFiles()
    let catalog = try Catalog(directory: "/d", fileSystem: files, newServerID: serverID, fileBytesMax: 4_000)
    try catalog.change { state throws(CatalogRefusal) in
        _ = try state.ensureStore("orders", keyGroupCount: 8)
        _ = try state.register(store: "orders", state: "counts", kind: .value, ttlMilliseconds: 0)
    }
    var added = 0
    let error = #expect(throws: CatalogError.self) {
        for index in 0..<100 {
            try catalog.change { state throws(CatalogRefusal) in
                _ = try state.addDictionary(
                    store: "orders", stateID: 1, bytes: [UInt8](repeating: UInt8(index), count: 1_000))
            }
            added += 1
        }
    }
    guard case .refused(.limit) = error else { return #expect(Bool(false), "\(error as Any)") }
    #expect(added == 3)
    let again = try Catalog(directory: "/d", fileSystem: files, newServerID: serverID, fileBytesMax: 4_000)
    #expect(again.current == catalog.current)
    #expect(again.store(named: "orders")?.dictionaries.count == 3)
}
