import CisternDaemon
import CisternFileSystem
import CisternLogNode
import CisternLogProtocol
import CisternLogServer
import CisternMetadata
import CisternTestKit
import Testing

@Suite struct LogNodeIdentityTests {
    private let metadata: MetadataHarness
    private let files = MemoryFileSystem()
    private let lane = BlockingLane()

    init() throws { metadata = try MetadataHarness() }

    private func identity(_ node: UInt64 = 1, cluster: String = "test", in directory: String = "/one")
        -> LogNodeIdentity
    {
        LogNodeIdentity(
            node: LogNodeID(node), cluster: cluster, directory: directory, fileSystem: files, store: metadata.store,
            lane: lane)
    }

    private func refusal(_ identity: LogNodeIdentity) async -> String {
        do {
            _ = try await identity.claim()
            return "not refused"
        } catch {
            #expect(!error.mayPass)
            return error.description
        }
    }

    @Test func aNewNodeBindsItsDirectoryAndComesBackToIt() async throws {
        let first = try await identity().claim()
        #expect(first.node == LogNodeID(1))
        #expect(try await identity().claim() == first)
        let known = try await metadata.records.get(CookieRecord.self, metadata.keys.cookie(LogNodeID(1)))
        #expect(known?.value.cookie == first.stored)
        let second = try await identity(2, in: "/two").claim()
        #expect(second.cluster == first.cluster)
        #expect(second.directory != first.directory)
    }

    @Test func aBeginningThatWasCutShortIsFinished() async throws {
        let first = try await identity().claim()
        let key = metadata.keys.cookie(LogNodeID(1))
        let known = try #require(try await metadata.store.get(key))
        try await metadata.store.delete(key, expected: known.version)
        #expect(try await identity().claim() == first)
        #expect(try await metadata.store.get(key) != nil)
    }

    @Test func anEmptyDirectoryCannotTakeThePlaceOfAFullOne() async throws {
        _ = try await identity().claim()
        #expect(await refusal(identity(in: "/other")).contains("has a directory already, and /other is empty"))
    }

    @Test func theDirectoryOfAnotherNodeIsRefused() async throws {
        _ = try await identity().claim()
        #expect(await refusal(identity(2)).contains("/one is the directory of log node 1, not of 2: give --node 1"))
    }

    @Test func aDirectoryWithOtherFilesIsRefused() async throws {
        try files.createDirectory("/one")
        try files.createAppend("/one/letters").close()
        #expect(await refusal(identity()).contains("/one has files and no cookie"))
    }

    @Test func aDirectoryOfAnotherClusterOrOfLostMetadataIsRefused() async throws {
        _ = try await identity().claim()
        #expect(await refusal(identity(cluster: "else")).contains("etcd knows no cluster else"))
        _ = try await identity(7, cluster: "else", in: "/seven").claim()
        #expect(await refusal(identity(cluster: "else")).contains("/one belongs to cluster number"))
        // Nothing was written for it.
        let keys = MetadataKeys(cluster: "else")
        #expect(try await metadata.store.get(keys.cookie(LogNodeID(1))) == nil)
    }

    @Test func ofTwoDirectoriesThatWereBegunWithOneNumberMetadataTakesOne() async throws {
        let cookie = try await identity().claim()
        let copy = LogNodeCookie(newDirectoryOf: LogNodeID(1), cluster: cookie.cluster)
        try copy.begin("/two", fileSystem: files)
        #expect(await refusal(identity(in: "/two")).contains("has another directory than /two"))
        #expect(try await identity().claim() == cookie)
    }

    @Test func metadataThatDoesNotAnswerIsNoRefusal() async throws {
        metadata.store.isAway = true
        let error = await #expect(throws: LogNodeIdentityError.self) { try await identity().claim() }
        #expect(error?.mayPass == true)
        // Nothing was begun.
        #expect(try LogNodeCookie.isUnused("/one", fileSystem: files))
    }
}
