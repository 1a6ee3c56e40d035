// The stores that the conformance suite runs against, each with what it takes to have time pass and history go.

import CisternFileSystem
import CisternMetadata
import CisternMetadataEtcd
import CisternPrimitives
import CisternTestKit
import NIOPosix
import Testing

enum StoreKind: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case embedded
    /// Where there is an `etcd` in PATH.
    case etcd

    static var available: [StoreKind] { EtcdProcess.program == nil ? [.embedded] : allCases }

    var testDescription: String { rawValue }
}

/// A store with a prefix of its own, so that tests of one store do not meet.
struct StoreSubject: Sendable {
    let store: any MetadataStore
    let root: String
    /// Has so much time pass for leases, as far as it does not pass by itself.
    let letPass: @Sendable (_ milliseconds: UInt64) async -> Void
    /// Drops all history up to now.
    let dropHistory: @Sendable () async throws -> Void

    func key(_ name: String) -> String { root + name }

    static func with(_ kind: StoreKind, _ body: (StoreSubject) async throws -> Void) async throws {
        switch kind {
        case .embedded:
            let time = ManualTime(wallMilliseconds: 1)
            var options = EmbeddedMetadataOptions()
            options.leaseCheckMilliseconds = nil
            options.historyChangesMax = 2_000
            // Small, so that the file is rewritten in the middle of the tests.
            options.changeBytesMin = 4_000
            let store = try EmbeddedMetadataStore(
                directory: "/data", fileSystem: MemoryFileSystem(), time: time, options: options)
            try await body(
                StoreSubject(
                    store: store, root: "t/",
                    letPass: { milliseconds in
                        time.advance(milliseconds: milliseconds)
                        await store.expireLeases()
                    },
                    dropHistory: {
                        var version = try await store.create("junk", [])
                        for _ in 0..<2_000 {
                            version = try await store.compareAndSwap("junk", expected: version, new: [])
                        }
                    }))
            await store.close()
        case .etcd:
            try await EtcdProcess.with { etcd in
                let options = EtcdOptions(endpoints: [etcd.endpoint])
                let store = EtcdMetadataStore(
                    options: options, group: .singletonMultiThreadedEventLoopGroup)
                try await body(
                    StoreSubject(
                        store: store, root: "t/",
                        // Its clock is the machine's.
                        letPass: { _ in },
                        dropHistory: {
                            let page = try await store.list(prefix: "", after: nil, limit: 1)
                            try await store.compact(through: page.version)
                        }))
            }
        }
    }
}

/// What a failing call ended with.
func reason(_ body: () async throws -> Void) async -> MetadataError.Reason? {
    do {
        try await body()
        return nil
    } catch {
        return (error as? MetadataError)?.reason
    }
}
