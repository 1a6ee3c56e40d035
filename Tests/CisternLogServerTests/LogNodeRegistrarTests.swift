import CisternLogProtocol
import CisternLogServer
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Logging
import Testing

@Suite struct LogNodeRegistrarTests {
    private let metadata: MetadataHarness

    init() throws { metadata = try MetadataHarness() }

    private func registrar(_ node: UInt64 = 1, cookie: UInt8 = 7, cluster: UInt64 = 42) -> LogNodeRegistrar {
        LogNodeRegistrar(
            store: metadata.store, keys: metadata.keys, cluster: cluster, node: LogNodeID(node),
            cookie: [UInt8](repeating: cookie, count: 16), address: "127.0.0.1:\(7000 + node)",
            leaseMilliseconds: 9_000,
            time: metadata.time, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    private func begin() async throws {
        _ = try await metadata.records.create(metadata.keys.cluster, ClusterRecord(number: 42))
    }

    @Test func aNodeStaysRegisteredForAsLongAsItSteps() async throws {
        try await begin()
        let registrar = registrar()
        for _ in 0..<100 {
            #expect(await registrar.step(isReadOnly: false))
            await metadata.pass(milliseconds: 1_000)
        }
        #expect(try await metadata.registered(1)?.address == "127.0.0.1:7001")
        let status = await registrar.status
        #expect(status.leasesLost == 0)
        await metadata.pass(milliseconds: 9_001)
        #expect(try await metadata.registered(1) == nil)
    }

    @Test func aLeaseThatEndedIsFollowedByANewOne() async throws {
        try await begin()
        let registrar = registrar()
        await registrar.step(isReadOnly: false)
        await metadata.pass(milliseconds: 20_000)
        #expect(try await metadata.registered(1) == nil)
        #expect(await registrar.step(isReadOnly: false))
        #expect(try await metadata.registered(1) != nil)
        #expect(await registrar.status.leasesLost == 1)
    }

    @Test func aNodeComesBackAfterMetadataWasAway() async throws {
        try await begin()
        let registrar = registrar()
        await registrar.step(isReadOnly: false)
        metadata.store.isAway = true
        for _ in 0..<20 {
            await metadata.pass(milliseconds: 1_000)
            await registrar.step(isReadOnly: false)
        }
        #expect(await registrar.status.problem?.contains("it is away") == true)
        metadata.store.isAway = false
        #expect(await registrar.step(isReadOnly: false))
        #expect(try await metadata.registered(1) != nil)
        #expect(await registrar.status.problem == nil)
    }

    @Test func whetherItTakesAddsIsTold() async throws {
        try await begin()
        let registrar = registrar()
        for isReadOnly in [false, true, true, false] {
            #expect(await registrar.step(isReadOnly: isReadOnly))
            #expect(try await metadata.registered(1)?.isReadOnly == isReadOnly)
        }
        // Nothing is written when nothing changes.
        let calls = metadata.store.callCount
        await registrar.step(isReadOnly: false)
        #expect(metadata.store.callCount == calls)
    }

    @Test func aNewProcessTakesThePlaceOfTheOldOneBeforeItsLeaseEnds() async throws {
        try await begin()
        await registrar().step(isReadOnly: true)
        let second = registrar()
        #expect(await second.step(isReadOnly: false))
        #expect(try await metadata.registered(1)?.isReadOnly == false)
        // The end of the first one's lease takes nothing with it.
        await metadata.pass(milliseconds: 5_000)
        #expect(await second.step(isReadOnly: false))
        await metadata.pass(milliseconds: 5_000)
        #expect(try await metadata.registered(1) != nil)
    }

    @Test func anotherDirectoryDoesNotTakeTheRegistration() async throws {
        try await begin()
        await registrar().step(isReadOnly: false)
        let other = registrar(cookie: 8)
        #expect(await !other.step(isReadOnly: false))
        #expect(await other.status.problem?.contains("registered from another directory") == true)
        #expect(try await metadata.registered(1)?.cookie == [UInt8](repeating: 7, count: 16))
    }

    @Test func metadataOfAnotherClusterIsNotRegisteredIn() async throws {
        try await begin()
        let registrar = registrar(cluster: 43)
        #expect(await !registrar.step(isReadOnly: false))
        #expect(try await metadata.registered(1) == nil)
    }

    @Test func aKeyThatWasRemovedIsMadeAgain() async throws {
        try await begin()
        let registrar = registrar()
        await registrar.step(isReadOnly: false)
        let key = metadata.keys.node(LogNodeID(1))
        let found = try #require(try await metadata.store.get(key))
        try await metadata.store.delete(key, expected: found.version)
        #expect(await registrar.step(isReadOnly: true))
        #expect(try await metadata.registered(1)?.isReadOnly == true)
    }

    @Test func aNodeThatGoesGivesItsRegistrationBackForGood() async throws {
        try await begin()
        let registrar = registrar()
        await registrar.step(isReadOnly: false)
        await registrar.withdraw()
        #expect(try await metadata.registered(1) == nil)
        await registrar.step(isReadOnly: false)
        #expect(try await metadata.registered(1) == nil)
    }
}
