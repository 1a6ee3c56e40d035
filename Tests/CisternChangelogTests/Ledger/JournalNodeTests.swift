// The whole of it: writers, readers and recoveries over loopback, on log nodes with journals whose processes end and whose power
// is cut.

import CisternChangelog
import CisternFileSystem
import CisternLogNetwork
import CisternLogNode
import CisternLogProtocol
import CisternPrimitives
import CisternTestKit
import CisternTransport
import NIOCore
import Testing

/// A log node with a disk that outlives it.
private final class JournalNode {
    let id: LogNodeID
    private(set) var disk: MemoryFileSystem
    private var host: LogNodeHost?
    private var listener: LogNodeListener?
    private var isNew = true

    init(_ id: LogNodeID, seed: UInt64) {
        self.id = id
        disk = MemoryFileSystem(seed: seed)
    }

    func start(_ addresses: MemoryAddresses) async throws {
        var journal = JournalOptions(directory: "/node", node: id, cluster: 42)
        journal.segmentBytes = 256 << 10
        let metadata = LogNodeMetadata(highestLedger: { $0(ledger) }, exists: { $1(true) })
        let host = try LogNodeHost(
            LogNodeOptions(journal: journal, isNew: isNew), fileSystem: disk, lanes: .threads(),
            lane: SerialThread(name: "log-node"), metadata: metadata)
        isNew = false
        let listener = try await LogNodeListener.bind(
            [.tcp(host: "127.0.0.1", port: 0)], node: host, group: TestGroup.shared)
        addresses[id] = listener.boundEndpoints[0]
        self.host = host
        self.listener = listener
    }

    /// The sockets close, then nothing that the old host does reaches the disk that the next one gets.
    func end(_ next: (MemoryFileSystem) -> MemoryFileSystem) async {
        await listener?.close()
        disk = next(disk)
        host?.stop()
        host = nil
        listener = nil
    }
}

private func withJournals(
    seed: UInt64, _ test: ([JournalNode], MemoryMetadata, MemoryAddresses, LedgerClient) async throws -> Void
) async throws {
    let addresses = MemoryAddresses()
    let metadata = MemoryMetadata()
    var options = quickOptions()
    options.patience = .seconds(30)
    let client = LedgerClient(group: TestGroup.shared, addresses: addresses, metadata: metadata, options: options)
    let members = (1...3).map { JournalNode(LogNodeID($0), seed: seed &+ $0) }
    func close() async {
        await client.close()
        for member in members { await member.end { $0.afterProcessEnd() } }
    }
    do {
        for member in members { try await member.start(addresses) }
        try await test(members, metadata, addresses, client)
    } catch {
        await close()
        throw error
    }
    await close()
}

@Suite(.timeLimit(.minutes(1))) struct JournalNodeTests {
    @Test func whatIsAcknowledgedSurvivesProcessesAndPower() async throws {
        for seed in Seeds.seeds(count: 3) {
            Seeds.announce("whatIsAcknowledgedSurvivesProcessesAndPower", seed)
            var random = SeededRandom(seed: seed)
            try await withJournals(seed: seed) { members, metadata, addresses, client in
                let sizes = QuorumSizes(ensemble: 3, write: 3, ack: 2)
                let created = metadata.create(
                    ledger, try LedgerMetadata(sizes: sizes, ensemble: members.map(\.id)))
                let writer = await client.openWriter(ledger, metadata: created, candidates: [])
                var count = 0
                for _ in 0..<4 {
                    for _ in 0..<Int.random(in: 50...300, using: &random) {
                        try await writer.append(body(count, size: Int.random(in: 0...2000, using: &random)))
                        count += 1
                    }
                    try await writer.acknowledged(EntryID(Int64(count - 1)))
                    let member = members.randomElement(using: &random)!
                    await member.end { $0.afterProcessEnd() }
                    try await member.start(addresses)
                }
                let acknowledged = writer.lastAcknowledged
                // More is on its way when the power goes, everywhere.
                for _ in 0..<100 {
                    _ = try writer.append(body(count, size: 100), acknowledged: nil)
                    count += 1
                }
                writer.stop()
                for member in members {
                    let cut = random.next()
                    await member.end { $0.afterPowerCut(seed: cut) }
                }
                for member in members { try await member.start(addresses) }
                let recovered = try await client.recover(ledger, candidates: [])
                #expect(recovered.last >= acknowledged && recovered.last < EntryID(Int64(count)))
                let reader = await client.openReader(ledger, metadata: recovered.metadata.value)
                var next = 0
                for try await entry in reader {
                    let expected = body(next, size: entry.body.count)
                    if entry.id != EntryID(Int64(next)) || entry.body != expected {
                        Issue.record("entry \(next) is another one")
                    }
                    next += 1
                }
                #expect(EntryID(Int64(next - 1)) == recovered.last)
            }
        }
    }
}
