import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

/// proto-spec/vectors/value-file-v1.hex, both ways, and what becomes of it when it is damaged.
@Suite struct ValueFileVectorTests {
    private static let name = "value-file-v1.hex"
    private static let path = "/tables/000000000007.val"
    private static let values: [(key: [UInt8], value: [UInt8])] = [
        ([0, 3, 0, 1, 0x61], Array("the first value".utf8)), ([0, 3, 0, 1, 0x62], []),
        ([1, 0, 0, 2, 0x63], (0..<40).map { UInt8($0) }),
    ]

    private func written() throws -> (bytes: [UInt8], pointers: [ValuePointer], use: ValueFileUse) {
        let file = MemoryFile(path: Self.path)
        let writer = ValueWriter(file, number: 7)
        var pointers: [ValuePointer] = []
        for (key, value) in Self.values {
            let hash = key.withUnsafeBytes { Hash64.hash($0) }
            pointers.append(try value.withUnsafeBytes { try writer.add($0, hash: hash) })
        }
        let use = try writer.finish()
        return (file.bytes, pointers, use)
    }

    private func open(_ bytes: [UInt8]) throws -> ValueFile {
        let disk = MemoryFileSystem()
        try disk.createDirectory("/tables")
        disk.setContents(Self.path, bytes)
        return ValueFile(number: 7, path: Self.path, fileSystem: disk)
    }

    @Test func theWriterProducesTheVector() throws {
        let (bytes, pointers, use) = try written()
        #expect(use == ValueFileUse(number: 7, fileBytes: UInt64(bytes.count), entryCount: 3, recordBytes: 103))
        #expect(pointers.map(\.offset) == [32, 63, 79])
        #expect(try GoldenFile.difference(Self.name, from: Self.annotate(bytes)) == nil)
    }

    @Test func theVectorReadsBack() throws {
        let file = try open(try GoldenFile.bytes(Self.name))
        var found: [ValuePointer] = []
        try file.verify { found.append($0) }
        #expect(found.reversed() == (try written().pointers))
    }

    @Test func everyFlippedBitAndEveryCutIsFound() throws {
        let bytes = try GoldenFile.bytes(Self.name)
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << bit
                #expect(throws: EngineError.self, "byte \(index) bit \(bit)") { try open(damaged).verify() }
            }
            #expect(throws: EngineError.self, "cut to \(index)") { try open(Array(bytes[..<index])).verify() }
        }
        #expect(throws: EngineError.self) { try open(bytes + [0]).verify() }
    }

    @Test func aFileUnderAnotherNumberIsFound() throws {
        let disk = MemoryFileSystem()
        try disk.createDirectory("/tables")
        disk.setContents("/tables/000000000008.val", try GoldenFile.bytes(Self.name))
        let file = ValueFile(number: 8, path: "/tables/000000000008.val", fileSystem: disk)
        #expect(throws: EngineError.self) { try file.verify() }
    }

    @Test func anotherVersionIsNotSupportedRatherThanDamaged() throws {
        var bytes = try GoldenFile.bytes(Self.name)
        bytes[8] = 2
        let crc = CRC32C.checksum(Array(bytes[..<28]))
        for index in 0..<4 { bytes[28 + index] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * index)) }
        guard case .unsupported(let detail)? = engineError({ try open(bytes).verify() }) else {
            Issue.record("a newer format was read")
            return
        }
        #expect(detail.contains("format 2"))
    }

    private static func annotate(_ bytes: [UInt8]) -> String {
        var hex = AnnotatedHex(
            title: """
                Value file, version 1: three values, one of them empty. See ../value-file.md.
                Rewritten by CISTERN_REWRITE=1 swift test --filter ValueFileVectorTests.
                """)
        var at = 0
        func take(_ size: Int, _ note: String) {
            if size > 0 { hex.field(bytes[at..<(at + size)], note) }
            at += size
        }
        hex.section("header")
        take(8, "magic")
        take(4, "version")
        take(4, "zero")
        take(8, "number of the file")
        take(4, "zero")
        take(4, "CRC-32C of the 28 bytes before")
        for (_, value) in values {
            hex.section("record")
            let start = at
            take(value.count, "value")
            take(8, "Hash64 of the key")
            take(4, "size of the value")
            take(4, "CRC-32C of the above, offset \(start) and file number")
        }
        hex.section("footer")
        take(8, "records")
        take(8, "size of the file")
        take(4, "version")
        take(4, "CRC-32C of the 20 bytes before")
        take(8, "magic")
        return hex.text
    }
}
