// A metadata store in memory whose time the test makes pass.

import CisternFileSystem
import CisternLogProtocol
import CisternMetadata
import CisternTestKit

struct MetadataHarness {
    let store: FlakyStore
    let embedded: EmbeddedMetadataStore
    let time = ManualTime(wallMilliseconds: 1)
    let keys = MetadataKeys(cluster: "test")
    var records: RecordStore { RecordStore(store) }

    init() throws {
        var options = EmbeddedMetadataOptions()
        options.leaseCheckMilliseconds = nil
        embedded = try EmbeddedMetadataStore(
            directory: "/metadata", fileSystem: MemoryFileSystem(), time: time, options: options)
        store = FlakyStore(embedded)
    }

    func pass(milliseconds: UInt64) async {
        time.advance(milliseconds: milliseconds)
        await embedded.expireLeases()
    }

    func registered(_ node: UInt64) async throws -> LogNodeRegistration? {
        try await records.get(LogNodeRegistration.self, keys.node(LogNodeID(node)))?.value
    }
}

/// The store, or nobody who answers.
final class FlakyStore: MetadataStore {
    private let store: any MetadataStore
    private let away = Guarded(false)
    /// Calls that were made.
    private let calls = Guarded(0)

    init(_ store: any MetadataStore) { self.store = store }

    var isAway: Bool {
        get { away.withLock { $0 } }
        set { away.withLock { $0 = newValue } }
    }
    var callCount: Int { calls.withLock { $0 } }

    private func check(_ operation: MetadataError.Operation, _ key: String) throws(MetadataError) {
        calls.withLock { $0 += 1 }
        if isAway { throw MetadataError(operation, key, .unavailable("it is away")) }
    }

    func create(_ key: String, _ value: [UInt8], lease: MetadataLeaseID?) async throws(MetadataError) -> MetadataVersion
    {
        try check(.create, key)
        return try await store.create(key, value, lease: lease)
    }

    func get(_ key: String) async throws(MetadataError) -> MetadataEntry? {
        try check(.get, key)
        return try await store.get(key)
    }

    func compareAndSwap(
        _ key: String, expected: MetadataVersion, new value: [UInt8]
    ) async throws(MetadataError) -> MetadataVersion {
        try check(.compareAndSwap, key)
        return try await store.compareAndSwap(key, expected: expected, new: value)
    }

    func delete(_ key: String, expected: MetadataVersion) async throws(MetadataError) {
        try check(.delete, key)
        try await store.delete(key, expected: expected)
    }

    func list(prefix: String, after: String?, limit: Int) async throws(MetadataError) -> MetadataPage {
        try check(.list, prefix)
        return try await store.list(prefix: prefix, after: after, limit: limit)
    }

    func watch(prefix: String, from first: MetadataVersion) -> MetadataWatch {
        store.watch(prefix: prefix, from: first)
    }

    func acquireLease(milliseconds: UInt64) async throws(MetadataError) -> MetadataLease {
        try check(.acquireLease, "")
        return try await store.acquireLease(milliseconds: milliseconds)
    }

    func keepAlive(_ lease: MetadataLeaseID) async throws(MetadataError) {
        try check(.keepAlive, "")
        try await store.keepAlive(lease)
    }

    func release(_ lease: MetadataLeaseID) async throws(MetadataError) {
        try check(.release, "")
        try await store.release(lease)
    }
}
