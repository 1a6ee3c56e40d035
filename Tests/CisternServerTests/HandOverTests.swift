import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWire
import CisternWireMessages
import Synchronization
import Testing

/// A tree changes its session, event loop and epoch again and again with writes on their way. What was acknowledged stays;
/// what the server says it holds is exactly what it holds: each batch appends one byte, so twice or never would show.
@Test(arguments: Seeds.seeds(count: 6))
func batchesAreAppliedOnceWhileTheTreeChangesHands(seed: UInt64) async throws {
    Seeds.announce("batchesAreAppliedOnceWhileTheTreeChangesHands", seed)
    var random = SeededRandom(seed: seed)
    let files = MemoryFileSystem(seed: seed)
    var harness = try await ServerHarness.start(files) { $0.memtableBytes = 64 << 10 }
    var epoch: UInt64 = 1
    var writer = "worker"
    var tree = try await harness.connect().attach(epoch: epoch, writer: writer)
    var next: UInt64 = 1
    var appended = 0
    for _ in 0..<25 {
        let acknowledged = Mutex<UInt64>(0)
        let current = tree
        for sequence in next..<(next + 20) {
            let filler = (0..<20).map {
                TestEntry.put(1, Int.random(in: 0..<500, using: &random) * 20 + $0, String(repeating: "f", count: 100))
            }.sorted { $0.key.lexicographicallyPrecedes($1.key) }
            let append = TestEntry(key: testKey(0, 0), kind: .append, value: [65])
            let body = current.batch(sequence, [append] + filler, epoch: epoch)
            current.client.connection.send(.writeBatch, tree: current.handle, body: body) { result in
                if case .success = result { acknowledged.withLock { $0 = max($0, sequence) } }
            }
        }
        let newest = { max(next - 1, acknowledged.withLock { $0 }) }
        switch Int.random(in: 0..<4, using: &random) {
        case 0:
            // A newer worker takes over; what the old one had applied stays, and no more is applied from then on.
            epoch += 1
            writer = "worker \(epoch)"
            tree = try await harness.connect().attach(epoch: epoch, writer: writer)
            #expect(tree.reply.lastSequence == 0)
            let count = try await length(tree)
            #expect(count >= appended + Int(newest() - (next - 1)) && count <= appended + 20, "CISTERN_SEED=\(seed)")
            appended = count
            next = 1
            continue
        case 1: await current.client.connection.close()
        case 2: break
        default:
            await harness.server.shutdown()
            harness = try await ServerHarness.start(files) { $0.memtableBytes = 64 << 10 }
        }
        tree = try await harness.connect().attach(epoch: epoch, writer: writer)
        #expect(tree.reply.resumed)
        #expect(tree.reply.lastSequence >= newest(), "CISTERN_SEED=\(seed)")
        appended += Int(tree.reply.lastSequence - (next - 1))
        next = tree.reply.lastSequence + 1
        #expect(try await length(tree) == appended, "CISTERN_SEED=\(seed)")
    }
    await harness.server.shutdown()
}

/// How many bytes were appended.
private func length(_ tree: TestTree) async throws -> Int { try await tree.get([testKey(0, 0)])[0]?.count ?? 0 }
