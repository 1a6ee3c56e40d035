import CisternFileSystem
import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Synchronization
import Testing

@Suite struct LogStoreTests {
    private func register(_ store: any MetadataStore, _ id: UInt64, isReadOnly: Bool = false) async throws {
        let node = LogNodeRegistration(
            node: LogNodeID(id), cookie: Array(repeating: 1, count: 16), address: "10.0.0.\(id):7071",
            isReadOnly: isReadOnly)
        _ = try await RecordStore(store).create(MetadataKeys().node(LogNodeID(id)), node)
    }

    @Test func ledgersAreMadeOnNodesThatTakeEntriesAndSpreadOverThem() async throws {
        let store = try EmbeddedMetadataStore(directory: "/metadata", fileSystem: MemoryFileSystem())
        let failures = Mutex<[MetadataError]>([])
        let logs = LedgerStore(store) { error in failures.withLock { $0.append(error) } }
        #expect(await logs.writableNodes().isEmpty)
        for id in UInt64(1)...4 { try await register(store, id, isReadOnly: id == 3) }
        let sizes = QuorumSizes(ensemble: 1, write: 1, ack: 1)
        var used: Set<LogNodeID> = []
        for _ in 0..<3 {
            let nodes = await logs.writableNodes()
            #expect(Set(nodes) == [LogNodeID(1), LogNodeID(2), LogNodeID(4)])
            let made = try #require(await logs.createLedger(sizes, on: [nodes[0]]))
            #expect(await logs.ask(.get(made.0)) == .found(made.1))
            used.insert(nodes[0])
        }
        #expect(used.count == 3, "each ledger begins with another node")
        #expect(failures.withLock { $0.isEmpty })
    }

    @Test func aLedgerIsDeletedOnceAndOnceMore() async throws {
        let store = try EmbeddedMetadataStore(directory: "/metadata", fileSystem: MemoryFileSystem())
        let logs = LedgerStore(store) { Issue.record("\($0)") }
        let made = try #require(
            await logs.createLedger(QuorumSizes(ensemble: 1, write: 1, ack: 1), on: [LogNodeID(1)]))
        for _ in 0..<2 { #expect(await logs.deleteLedger(made.0)) }
        #expect(await logs.ask(.get(made.0)) == .missing)
    }

    @Test func anEnsembleThatIsNoneIsReported() async throws {
        let store = try EmbeddedMetadataStore(directory: "/metadata", fileSystem: MemoryFileSystem())
        let failures = Mutex<[MetadataError]>([])
        let logs = LedgerStore(store) { error in failures.withLock { $0.append(error) } }
        let made = await logs.createLedger(QuorumSizes(ensemble: 3, write: 3, ack: 2), on: [LogNodeID(1)])
        #expect(made == nil)
        #expect(failures.withLock { $0.count } == 1)
    }
}
