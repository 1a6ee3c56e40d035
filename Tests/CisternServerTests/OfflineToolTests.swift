// `cistern verify`, `cistern snapshots` and `cistern scan` as a person or a script uses them: output, JSON, exit status.

import CisternFileSystem
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWireMessages
import Foundation
import Testing

/// A server's directory with two states, two snapshots, and writes that are in no file; killed, as a crash leaves it.
private func crashed() async throws -> (directory: TemporaryDirectory, handles: [String]) {
    let directory = try TemporaryDirectory()
    let server = try ServerProcess(data: directory.path)
    let tree = try await TestClient.connect(server.endpoints[0]).attach()
    _ = try await tree.register("last", .value, ttlMilliseconds: 0)
    try await tree.write(1, (0..<50).map { .put(UInt16($0 / 7), $0, "first \($0)") })
    let first = try await tree.snapshot(1).handle
    try await tree.write(2, [.put(1, 7, "second")])
    let second = try await tree.snapshot(2).handle
    try await tree.write(3, [.put(1, 8, "third")])
    #expect(server.end(by: SIGKILL) == -SIGKILL)
    return (directory, [first, second])
}

private func object(_ text: String) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any], "\(text)")
}

@Test func verifyFindsASoundDirectorySoundAndADamagedOneDamaged() async throws {
    let (directory, _) = try await crashed()
    for flags in [[], ["--deep"]] {
        let text = try CisternBinary.run(["verify", directory.path] + flags)
        #expect(text.status == 0, "\(text.output)\(text.error)")
        #expect(text.output.contains("2 snapshots"))
    }
    let sound = try CisternBinary.run(["verify", "--deep", "--json", directory.path])
    #expect(sound.status == 0)
    #expect(try object(sound.output)["ok"] as? Bool == true)
    #expect(try object(sound.output)["trees"] as? Int == 1)

    let log = try #require(directory.files().first { $0.hasSuffix(".log") })
    var bytes = try Data(contentsOf: URL(filePath: log))
    bytes[60] ^= 1
    try bytes.write(to: URL(filePath: log))
    let damaged = try CisternBinary.run(["verify", "--json", directory.path])
    #expect(damaged.status == 1)
    let faults = try #require(try object(damaged.output)["faults"] as? [[String: Any]])
    #expect(faults.contains { $0["file"] as? String == log && ($0["offset"] as? Int) == 48 }, "\(damaged.output)")
    #expect(try CisternBinary.run(["verify", log]).status == 1)
    // A snapshot that lost its log is damaged, too, and the file is named.
    try FileManager.default.removeItem(atPath: log)
    let missing = try CisternBinary.run(["verify", directory.path])
    #expect(missing.status == 1 && missing.output.contains("000001.log"), "\(missing.output)")
    let absent = try CisternBinary.run(["verify", directory.path + "/nothing"])
    #expect(absent.status != 0 && absent.status != 1)
}

@Test func aDirectoryThatAServerHasOpenIsRefused() async throws {
    let directory = try TemporaryDirectory()
    let server = try ServerProcess(data: directory.path)
    for command in [["verify"], ["snapshots"], ["scan", "--snapshot", "x"]] {
        let result = try CisternBinary.run(command + [directory.path])
        #expect(result.status != 0 && result.status != 1, "\(command)")
        #expect(result.error.contains("lock"), "\(result.error)")
    }
    #expect(server.end(by: SIGTERM) == 0)
}

@Test func snapshotsAreListedAndScannedOffline() async throws {
    let (directory, handles) = try await crashed()
    let list = try object(try CisternBinary.run(["snapshots", "--json", directory.path]).output)
    let items = try #require(list["snapshots"] as? [[String: Any]])
    #expect(items.map { $0["handle"] as? String } == handles)
    #expect(items.allSatisfy { ($0["log_bytes"] as? Int ?? 0) > 0 })
    let plain = try CisternBinary.run(["snapshots", directory.path])
    #expect(plain.status == 0 && handles.allSatisfy { plain.output.contains($0) })

    var values: [[String]] = []
    for handle in handles {
        let result = try CisternBinary.run(["scan", directory.path, "--snapshot", handle, "--state", "last"])
        #expect(result.status == 0, "\(result.error)")
        let lines = try result.output.split(separator: "\n").map { try object(String($0)) }
        #expect(lines.count == 50)
        #expect(lines.allSatisfy { $0["state"] as? String == "last" })
        values.append(lines.compactMap { $0["value"] as? String })
    }
    let second = Data("second".utf8).map { String(format: "%02x", $0) }.joined()
    #expect(!values[0].contains(second) && values[1].contains(second))
    let third = Data("third".utf8).map { String(format: "%02x", $0) }.joined()
    #expect(!values[1].contains(third))
    let limited = try CisternBinary.run(["scan", directory.path, "--snapshot", handles[0], "--limit", "3"])
    #expect(limited.output.split(separator: "\n").count == 3)
    let unknown = try CisternBinary.run(["scan", directory.path, "--snapshot", "nothing"])
    #expect(unknown.status != 0 && unknown.error.contains("cistern snapshots"), "\(unknown.error)")
    let state = try CisternBinary.run(["scan", directory.path, "--snapshot", handles[0], "--state", "nothing"])
    #expect(state.status != 0 && state.error.contains("last"), "\(state.error)")
}
