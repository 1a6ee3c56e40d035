// Event loops never wait for the disk: reads of what is not in memory, on a file system that tells who waited.

import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWire
import CisternWireMessages
import Testing

/// A server over a data directory of several tables, none of which was read since it started.
private struct ColdServer {
    static let groups = 8
    static let keysAGroup = 4_000

    let files: ColdFileSystem
    let harness: ServerHarness

    static func start() async throws -> ColdServer {
        let files = ColdFileSystem(MemoryFileSystem())
        let filled = try await ServerHarness.start(files) { $0.memtableBytes = 256 << 10 }
        let tree = try await filled.connect().attach()
        var sequence: UInt64 = 0
        // Three rounds over the same keys, so that a read has several tables to pass.
        for round in 0..<3 {
            for group in 0..<groups {
                sequence += 1
                try await tree.write(
                    sequence,
                    (0..<keysAGroup).filter { $0 % 3 >= round }.map {
                        .put(UInt16(group), $0, value(group, $0, round))
                    })
            }
        }
        await filled.server.shutdown()
        files.cool()
        let harness = try await ServerHarness.start(files) { $0.memtableBytes = 256 << 10 }
        return ColdServer(files: files, harness: harness)
    }

    static func value(_ group: Int, _ number: Int, _ round: Int) -> String {
        "\(group)/\(number)/\(round)/some padding"
    }

    static func last(_ group: Int, _ number: Int) -> String { value(group, number, number % 3) }

    /// Attached, with nothing in memory of what is read afterwards.
    func attach() async throws -> TestTree {
        let tree = try await harness.connect().attach(epoch: 2)
        files.cool()
        _ = files.takeWaits()
        return tree
    }

    /// Reads that made an event loop wait.
    func waitsOfLoops() -> Int {
        files.takeWaits().filter { $0.key.hasPrefix("NIO-ELT") }.values.reduce(0, +)
    }

    var requests: RequestSums { harness.server.requests }
}

@Test func eventLoopsDoNotWaitForTheDiskInAMultiGet() async throws {
    let cold = try await ColdServer.start()
    let tree = try await cold.attach()
    let wanted = (0..<300).map { (group: $0 % ColdServer.groups, number: $0 * 13 % ColdServer.keysAGroup) }
    let values = try await tree.get(wanted.map { testKey(UInt16($0.group), $0.number) } + [testKey(1, 9_999_999)])
    #expect(values == wanted.map { ColdServer.last($0.group, $0.number) } + [nil])
    #expect(cold.waitsOfLoops() == 0)
    #expect(cold.requests.readsPutAside > 0)
    #expect(cold.requests.readsThatWaited == 0)
    await cold.harness.server.shutdown()
}

@Test func eventLoopsDoNotWaitForTheDiskInAScan() async throws {
    let cold = try await ColdServer.start()
    let tree = try await cold.attach()
    let all = try await tree.scanAll()
    #expect(all.count == ColdServer.groups * ColdServer.keysAGroup)
    let isRight = all.enumerated().allSatisfy { place, entry in
        let (group, number) = place.quotientAndRemainder(dividingBy: ColdServer.keysAGroup)
        return entry.key == testKey(UInt16(group), number)
            && entry.value == Array(ColdServer.last(group, number).utf8)
    }
    #expect(isRight)
    #expect(cold.waitsOfLoops() == 0)
    #expect(cold.requests.readsPutAside > 0)
    await cold.harness.server.shutdown()
}

@Test func eventLoopsDoNotWaitForTheDiskInAKeyIndex() async throws {
    let cold = try await ColdServer.start()
    let tree = try await cold.attach()
    async let one = tree.keyIndex()
    async let other = tree.keyIndex()
    let (first, second) = try await (one, other)
    #expect(first.keys.count == ColdServer.groups * ColdServer.keysAGroup)
    #expect(first.keys == second.keys)
    #expect(cold.waitsOfLoops() == 0)
    #expect(cold.requests.readsPutAside > 0)
    await cold.harness.server.shutdown()
}

@Test func othersAreServedWhileAReadWaitsForTheDisk() async throws {
    let cold = try await ColdServer.start()
    let tree = try await cold.attach()
    let other = try await cold.harness.connect().attach("others")
    try await other.write(1, [.put(1, 1, "in memory")])
    cold.files.hold()
    // However the test ends: what waits is waited for.
    defer { cold.files.release() }
    async let waiting = tree.get([testKey(2, 17)])
    while cold.requests.readsPutAside == 0 { await Task.yield() }
    #expect(try await other.get([testKey(1, 1)]) == ["in memory"])
    try await other.write(2, [.put(1, 1, "and written")])
    // On the same connection too: an answer waits for nothing but its own blocks.
    try await tree.write(tree.reply.lastSequence + 1, [.put(2, 5_000, "new")])
    #expect(try await tree.get([testKey(2, 5_000)]) == ["new"])
    cold.files.release()
    #expect(try await waiting == [ColdServer.last(2, 17)])
    await cold.harness.server.shutdown()
}

@Test func aReadWhoseBlocksDoNotStayIsLetWaitInTheEnd() async throws {
    let cold = try await ColdServer.start()
    let tree = try await cold.attach()
    cold.files.forgetAtOnce()
    #expect(try await tree.get([testKey(3, 30)]) == [ColdServer.last(3, 30)])
    #expect(cold.requests.readsThatWaited == 1)
    await cold.harness.server.shutdown()
}

@Test func aConnectionThatEndsWhileItsReadWaitsLeavesNothingBehind() async throws {
    let cold = try await ColdServer.start()
    let tree = try await cold.attach()
    cold.files.hold()
    let waiting = Task { try await tree.get([testKey(2, 17)]) }
    while cold.requests.readsPutAside == 0 { await Task.yield() }
    await tree.client.connection.close()
    await #expect(throws: (any Error).self) { try await waiting.value }
    cold.files.release()
    let again = try await cold.harness.connect().attach(epoch: 3)
    #expect(try await again.get([testKey(2, 17)]) == [ColdServer.last(2, 17)])
    await cold.harness.server.shutdown()
}
