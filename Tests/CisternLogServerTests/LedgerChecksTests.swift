import CisternLogProtocol
import CisternLogServer
import CisternMetadata
import CisternPrimitives
import Testing

@Suite struct LedgerChecksTests {
    private let metadata: MetadataHarness
    private let ledgers: LedgerStore

    init() throws {
        metadata = try MetadataHarness()
        ledgers = LedgerStore(metadata.store, keys: metadata.keys) { _ in }
    }

    private func checks(cluster: UInt64 = 42) -> LedgerChecks {
        LedgerChecks(store: metadata.store, keys: metadata.keys, cluster: cluster) { _ in }
    }

    /// Ledgers 1 to `count`, without those of `missing`.
    private func make(_ count: Int, without missing: Set<UInt64> = []) async throws {
        _ = try await metadata.records.create(metadata.keys.cluster, ClusterRecord(number: 42))
        let sizes = QuorumSizes(ensemble: 1, write: 1, ack: 1)
        for _ in 0..<count {
            let (ledger, made) = try await ledgers.createLedger(sizes: sizes, ensemble: [LogNodeID(1)])
            if missing.contains(ledger.rawValue) { try await ledgers.deleteLedger(ledger, expected: made.version) }
        }
    }

    private func ask(_ checks: LedgerChecks, _ ids: some Sequence<UInt64>) async -> [UInt64: Bool?] {
        await withTaskGroup(of: (UInt64, Bool?).self) { group in
            for id in ids {
                group.addTask {
                    let exists = await withCheckedContinuation { continuation in
                        checks.exists(LedgerID(id)) { continuation.resume(returning: $0) }
                    }
                    return (id, exists)
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = .some($1.1) }
        }
    }

    @Test(arguments: [10, 2_500]) func whatIsThereAndWhatIsNotIsToldApart(count: Int) async throws {
        let missing: Set<UInt64> = [1, 3, UInt64(count) - 1]
        try await make(count, without: missing)
        let answers = await ask(checks(), 1...UInt64(count))
        for id in 1...UInt64(count) { #expect(answers[id] == .some(.some(!missing.contains(id))), "ledger \(id)") }
    }

    @Test func manyAreAskedTogether() async throws {
        try await make(1_000)
        let before = metadata.store.callCount
        _ = await ask(checks(), 1...1_000)
        #expect(metadata.store.callCount - before < 600)
    }

    @Test func metadataThatIsAwaySaysNothing() async throws {
        try await make(3, without: [2])
        metadata.store.isAway = true
        #expect(await ask(checks(), 1...3) == [1: nil, 2: nil, 3: nil])
        #expect(await checks().highestLedger() == nil)
    }

    @Test func metadataThatIsNotThisClustersDeletesNothing() async throws {
        try await make(3, without: [2])
        #expect(await ask(checks(cluster: 43), [2])[2] == .some(nil))
        #expect(await checks(cluster: 43).highestLedger() == nil)
        #expect(await checks().highestLedger() == LedgerID(3))
    }

    @Test func aLedgerThatMetadataNeverNumberedIsNotCalledAbsent() async throws {
        try await make(3)
        // Metadata was brought back from an old backup: it has the cluster's number and not the ledger's.
        #expect(await ask(checks(), [4])[4] == .some(nil))
    }
}
