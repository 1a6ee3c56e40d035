import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWireMessages
import Foundation
import Testing

/// A data directory with every kind of file: tables, manifests, a log with records, snapshots, catalog.
private func populated() async throws -> MemoryFileSystem {
    let files = MemoryFileSystem()
    // A shutdown flushes, so the first server leaves a table.
    let first = try await ServerHarness.start(files)
    let writer = try await first.connect().attach()
    _ = try await writer.register("last", .value, ttlMilliseconds: 5)
    try await writer.write(1, (0..<3_000).map { .put(UInt16($0 / 400), $0, "value \($0)") })
    await first.server.shutdown()
    let harness = try await ServerHarness.start(files)
    let tree = try await harness.connect().attach(epoch: 2)
    _ = try await tree.snapshot(1)
    for sequence in 1...6 {
        try await tree.write(
            UInt64(sequence),
            [
                TestEntry(
                    key: testKey(1, sequence), value: [1, 2, 3],
                    expiry: .processingTime(milliseconds: 9_999_999_999_999))
            ])
    }
    _ = try await tree.snapshot(2)
    // Cut here: a shutdown would flush the log away.
    let after = files.afterPowerCut(seed: 1)
    await harness.server.shutdown()
    return after
}

@Test func everyFileOfADirectoryIsInspectedToItsLastByte() async throws {
    let files = try await populated()
    var formats: Set<String> = []
    for path in files.paths where !path.hasSuffix("LOCK") && !path.hasSuffix(".tmp") {
        let report = try FileInspection.inspect(path, fileSystem: files)
        #expect(report.damage == nil, "\(path): \(report.text)")
        formats.insert(report.format)
        var next: UInt64 = 0
        for part in report.parts {
            #expect(part.range.lowerBound == next, "\(path): \(report.text)")
            next = part.range.upperBound
        }
        #expect(next == report.byteCount, "\(path): \(report.text)")
        #expect(report.text.hasSuffix("every checksum matches\n"))
        let json = try #require(
            try JSONSerialization.jsonObject(with: Data(report.json.utf8)) as? [String: Any], "\(report.json)")
        #expect(json["ok"] as? Bool == true)
        #expect((json["parts"] as? [Any])?.count == report.parts.count)
    }
    #expect(
        formats == [
            "catalog", "sorted table", "log segment", "manifest", "current-manifest pointer", "snapshot record",
            "directory format",
        ])
}

@Test func aChangedByteIsFoundInEveryFormat() async throws {
    let files = try await populated()
    for path in files.paths where !path.hasSuffix("LOCK") && !path.hasSuffix(".tmp") {
        let bytes = try #require(files.contents(path))
        let step = max(1, bytes.count / 60)
        for offset in stride(from: 0, to: bytes.count, by: step) {
            var broken = bytes
            broken[offset] ^= 0x10
            files.setContents(path, broken)
            do {
                let report = try FileInspection.inspect(path, fileSystem: files)
                // A length that reaches beyond the end of a log looks like the tail a crash leaves.
                let isTorn = report.parts.last?.name == "torn tail"
                // The two reserved bytes behind the format's version say nothing.
                let isReserved = report.format == "directory format" && offset >= 6
                #expect(report.damage != nil || isTorn || isReserved, "\(path) byte \(offset)")
                if let damage = report.damage {
                    #expect(damage.offset <= UInt64(offset) + 64, "\(path) byte \(offset)")
                }
            } catch {
                // An unknown version is refused in words; nothing else may be.
                #expect(
                    "\(error)".contains("version") || "\(error)".contains("format"), "\(path) byte \(offset): \(error)")
            }
        }
        files.setContents(path, bytes)
    }
}

@Test func inspectExitsWithOneAndNamesTheDamage() async throws {
    let directory = try TemporaryDirectory()
    let server = try ServerProcess(data: directory.path)
    let tree = try await TestClient.connect(server.endpoints[0]).attach()
    try await tree.write(1, [.put(0, 1, "v")])
    #expect(server.end(by: SIGTERM) == 0)
    let table = try #require(directory.files().first { $0.hasSuffix(".sst") })
    for file in directory.files() {
        let result = try CisternBinary.run(["inspect", file])
        #expect(result.status == 0, "\(file): \(result.output)\(result.error)")
    }
    var bytes = try Data(contentsOf: URL(filePath: table))
    bytes[20] ^= 1
    try bytes.write(to: URL(filePath: table))
    let damaged = try CisternBinary.run(["inspect", table])
    #expect(damaged.status == 1)
    #expect(damaged.output.contains("DAMAGED at byte 16:"), "\(damaged.output)")
    let json = try CisternBinary.run(["inspect", "--json", table])
    #expect(json.status == 1)
    #expect(json.output.contains("\"offset\":16"))
    #expect(try CisternBinary.run(["inspect", directory.path + "/missing"]).status != 0)
}
