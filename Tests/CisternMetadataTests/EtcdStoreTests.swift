// What a store of etcd does when members are gone, silent or begin again.

import CisternMetadata
import CisternMetadataEtcd
import CisternTestKit
import CisternTransport
import NIOCore
import NIOPosix
import Synchronization
import Testing

@Suite(.enabled(if: EtcdProcess.program != nil, "etcd is not in PATH")) struct EtcdStoreTests {
    private func store(
        _ endpoints: [Endpoint], timeout: TimeAmount = .seconds(20), tls: ClientTLS? = nil
    ) -> EtcdMetadataStore {
        var options = EtcdOptions(endpoints: endpoints)
        options.callTimeout = timeout
        options.tls = tls
        return EtcdMetadataStore(options: options, group: .singletonMultiThreadedEventLoopGroup)
    }

    @Test func aMemberThatRefusesConnectionsIsPassedOver() async throws {
        try await EtcdProcess.with { etcd in
            let store = store([try refusingEndpoint(), etcd.endpoint])
            let version = try await store.create("a", [1])
            #expect(try await store.get("a")?.version == version)
        }
    }

    @Test func aChangeWithoutAnAnswerIsUnknownAndNotSentTwice() async throws {
        try await EtcdProcess.with { etcd in
            try await SilentMember.with { silent in
                let store = store([silent.endpoint, etcd.endpoint], timeout: .seconds(3))
                let found = await reason { _ = try await store.create("a", [1]) }
                guard case .unavailable = found else {
                    Issue.record("found \(String(describing: found))")
                    return
                }
                #expect(silent.connections == 1)
                // The next call goes to the other member, and this one was not made there.
                let stored = try await store.get("a")
                #expect(stored == nil)
                #expect(silent.connections == 1)
            }
        }
    }

    @Test func aReadWithoutAnAnswerIsTriedAtTheNextMember() async throws {
        try await EtcdProcess.with { etcd in
            try await SilentMember.with { silent in
                let version = try await store([etcd.endpoint]).create("a", [1])
                let store = store([silent.endpoint, etcd.endpoint], timeout: .seconds(3))
                #expect(try await store.get("a")?.version == version)
                #expect(silent.connections == 1)
            }
        }
    }

    @Test func withoutAnyMemberEveryCallIsUnavailable() async throws {
        let store = store([try refusingEndpoint()], timeout: .milliseconds(200))
        for found in [
            await reason { _ = try await store.create("a", [1]) },
            await reason { _ = try await store.get("a") },
            await reason { try await store.delete("a", expected: 1) },
            await reason { _ = try await store.list(prefix: "", after: nil, limit: 1) },
            await reason { _ = try await store.acquireLease(milliseconds: 2_000) },
            await reason { try await store.keepAlive(MetadataLeaseID(1)) },
            await reason { for try await _ in store.watch(prefix: "", from: 1) {} },
        ] {
            guard case .unavailable = found else {
                Issue.record("found \(String(describing: found))")
                continue
            }
        }
    }

    @Test func aWatchGoesOnWhereItWasWhenItsMemberBeginsAgain() async throws {
        try await EtcdProcess.with { etcd in
            let store = store([etcd.endpoint])
            let first = try await store.create("a", [1])
            var iterator = store.watch(prefix: "a", from: first).makeAsyncIterator()
            #expect(try await iterator.next()?.version == first)
            etcd.kill()
            try await etcd.run()
            let second = try await store.compareAndSwap("a", expected: first, new: [2])
            let next = try await iterator.next()
            #expect(
                next == MetadataChangeSet(version: second, changes: [MetadataChange(key: "a", value: [2])])
            )
        }
    }

    @Test func callsAndWatchesGoOverTLS() async throws {
        try await EtcdProcess.with(isSecure: true) { etcd in
            let tls = try ClientTLS(
                trustedCertificates: TestCertificates.certificate("authority"), certificate: nil, key: nil,
                serverName: nil)
            let store = store([etcd.endpoint], tls: tls)
            let version = try await store.create("a", [1])
            var iterator = store.watch(prefix: "a", from: version).makeAsyncIterator()
            #expect(try await iterator.next()?.changes == [MetadataChange(key: "a", value: [1])])

            let stranger = try ClientTLS(
                trustedCertificates: TestCertificates.certificate("stranger"), certificate: nil, key: nil,
                serverName: nil)
            let found = await reason { _ = try await self.store([etcd.endpoint], tls: stranger).get("a") }
            guard case .unavailable = found else {
                Issue.record("found \(String(describing: found))")
                return
            }
        }
    }
}

/// Takes connections and requests, and says nothing.
private final class SilentMember: Sendable {
    private let count = Mutex(0)
    private let channel = Mutex<(any Channel)?>(nil)

    var connections: Int { count.withLock { $0 } }
    var endpoint: Endpoint {
        .tcp(host: "127.0.0.1", port: channel.withLock { $0?.localAddress?.port } ?? 0)
    }

    static func with(_ body: (SilentMember) async throws -> Void) async throws {
        let member = SilentMember()
        let listener = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .childChannelInitializer { channel in
                member.count.withLock { $0 += 1 }
                return channel.eventLoop.makeSucceededVoidFuture()
            }
            .bind(host: "127.0.0.1", port: 0).get()
        member.channel.withLock { $0 = listener }
        do {
            try await body(member)
        } catch {
            try await listener.close()
            throw error
        }
        try await listener.close()
    }
}
