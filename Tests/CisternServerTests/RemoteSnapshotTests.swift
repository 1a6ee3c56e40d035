// A job whose server is gone with its disk goes on at another server, from the snapshot store.

import CisternFileSystem
import CisternServer
import CisternSnapshotStore
import CisternTestKit
import S3Double
import CisternTransport
import CisternWire
import CisternWireMessages
import SwiftProtobuf
import Testing

@Suite struct RemoteSnapshotTests {
    private func register(_ tree: TestTree, _ name: String) async throws -> UInt32 {
        let message = Cistern_V1_RegisterState.with {
            $0.state = Cistern_V1_StateDescriptor.with {
                $0.name = name
                $0.kind = .value
            }
        }
        return try await tree.client.request(
            .registerState, tree: tree.handle, message, Cistern_V1_RegisterStateReply.self
        ).state.id
    }

    private func snapshot(_ tree: TestTree, _ checkpoint: UInt64, sequence: UInt64) async throws -> String {
        let message = Cistern_V1_Snapshot.with {
            $0.epoch = tree.epoch
            $0.checkpoint = checkpoint
            $0.sequence = sequence
        }
        return try await tree.client.request(
            .snapshot, tree: tree.handle, message, Cistern_V1_SnapshotReply.self
        ).handle
    }

    @Test(arguments: BackupKind.allCases) func aJobGoesOnAtAnotherServerWithItsStatesAndEntries(kind: BackupKind)
        async throws
    {
        let files = MemoryFileSystem()
        let backup = try Backup(kind, files)
        let first = try await backup.start("/first")
        var client = try await first.connect()
        let left = try await client.attach(0, 3)
        let right = try await client.attach(4, 7)
        #expect(try await register(left, "count") == 1)
        #expect(try await register(left, "last") == 2)
        try await left.write(1, [.put(1, 1, "one"), .put(3, 3, "three")])
        try await right.write(1, [.put(5, 5, "five")])
        let handles = [
            try await snapshot(left, 1, sequence: 1), try await snapshot(right, 1, sequence: 1),
        ]
        try await left.write(2, [.put(1, 1, "after the checkpoint")])
        for handle in handles { #expect(await first.server.uploaded(handle)) }
        #expect(first.server.uploads?.complete == 2)
        await first.server.shutdown()

        let second = try await backup.start("/second")
        client = try await second.connect()
        // At another parallelism, by a worker that attaches to a server which has never heard of the store.
        let whole = try await client.attach(0, 7, epoch: 2, restoring: handles)
        #expect(whole.reply.states.map(\.name) == ["count", "last"])
        let keys = [testKey(1, 1), testKey(3, 3), testKey(5, 5)]
        #expect(try await whole.get(keys) == ["one", "three", "five"])
        #expect(try await register(whole, "last") == 2)
        // What was brought is the second server's now, in the store too.
        for handle in handles { #expect(await second.server.uploaded(handle)) }
        #expect(try await client.release(handles) == 2)
        let third = try await snapshot(whole, 2, sequence: 0)
        #expect(await second.server.uploaded(third))
        #expect(second.server.uploads?.complete == 1)
        await second.server.shutdown()
        #expect(!files.paths.contains { $0.hasPrefix("/second/import") })
    }

    /// A server that stopped between the two would give states ids anew, and they would read each other's entries.
    @Test(arguments: BackupKind.allCases) func aSnapshotIsNotHereBeforeItsStatesAre(kind: BackupKind) async throws {
        let files = MemoryFileSystem()
        let backup = try Backup(kind, files)
        let first = try await backup.start("/first")
        var client = try await first.connect()
        let tree = try await client.attach(0, 7)
        _ = try await register(tree, "count")
        _ = try await register(tree, "last")
        try await tree.write(1, [.put(1, 1, "one")])
        let handle = try await snapshot(tree, 1, sequence: 1)
        #expect(await first.server.uploaded(handle))
        await first.server.shutdown()

        var second = try await backup.start("/second")
        client = try await second.connect()
        _ = try await client.attach(0, 7)
        // The catalog cannot be written, nor what came before it undone.
        files.inject(.init([.create, .append, .sync, .rename]) { $0.hasPrefix("/second/catalog") })
        files.inject(.init([.remove]) { $0.hasPrefix("/second/snapshots/") })
        await #expect(throws: (any Error).self) {
            _ = try await client.attach(0, 7, epoch: 2, restoring: [handle])
        }
        #expect(!files.paths.contains { $0.hasPrefix("/second/snapshots/") })
        await second.server.shutdown()
        files.clearFaults()

        second = try await backup.start("/second")
        client = try await second.connect()
        let restored = try await client.attach(0, 7, epoch: 3, restoring: [handle])
        #expect(restored.reply.states.map(\.name) == ["count", "last"])
        #expect(try await restored.get([testKey(1, 1)]) == ["one"])
        await second.server.shutdown()
    }

    @Test(arguments: BackupKind.allCases) func statesThatMeanSomethingElseHereRefuseTheRestore(kind: BackupKind)
        async throws
    {
        let files = MemoryFileSystem()
        let backup = try Backup(kind, files)
        let first = try await backup.start("/first")
        var client = try await first.connect()
        let tree = try await client.attach(0, 7)
        _ = try await register(tree, "count")
        try await tree.write(1, [.put(1, 1, "one")])
        let handle = try await snapshot(tree, 1, sequence: 1)
        #expect(await first.server.uploaded(handle))
        await first.server.shutdown()

        let second = try await backup.start("/second")
        client = try await second.connect()
        let other = try await client.attach(0, 7)
        _ = try await register(other, "something else")
        await #expect {
            _ = try await client.attach(0, 7, epoch: 2, restoring: [handle])
        } throws: { error in
            "\(error)".contains("state 1 of store") && "\(error)".contains("something else")
        }
        #expect(try await client.snapshots().isEmpty)
        await #expect {
            _ = try await client.attach(0, 7, epoch: 2, restoring: ["orders/9/0-7/none"])
        } throws: { "\($0)".contains("there is no snapshot") }
        await second.server.shutdown()
    }

    /// Two workers, then three of other ranges, then one; at a server that is new each time.
    @Test(arguments: BackupKind.allCases)
    func aJobIsRescaledFromTheStoreAndItsReleasesLeaveNothing(kind: BackupKind) async throws {
        let files = MemoryFileSystem()
        let backup = try Backup(kind, files)
        let tools = StoreTools(try backup.store)
        var handles: [String]?
        var round: UInt64 = 0
        for ranges in [[(0, 3), (4, 7)], [(0, 1), (2, 6), (7, 7)], [(0, 7)]] as [[(UInt16, UInt16)]] {
            round += 1
            let server = try await backup.start("/server\(round)")
            let client = try await server.connect()
            var trees: [(tree: TestTree, groups: ClosedRange<UInt16>)] = []
            for (first, last) in ranges {
                let tree = try await client.attach(first, last, epoch: round, restoring: handles)
                for earlier in 1..<round {
                    let found = try await tree.get((first...last).map { testKey($0, Int(earlier)) })
                    #expect(found == (first...last).map { "\($0) \(earlier)" })
                }
                trees.append((tree, first...last))
            }
            if let handles {
                // The lost server's part, and what this one has made of it.
                let lost = try tools.list().found.filter { handles.contains($0.manifest.handle) }
                #expect(try await client.release(handles) == handles.count)
                for namespace in Set(lost.map(\.namespace)) {
                    let its = lost.filter { $0.namespace == namespace }
                    _ = try tools.remove(its, of: namespace)
                }
            }
            var taken: [String] = []
            for (tree, groups) in trees {
                try await tree.write(1, groups.map { .put($0, Int(round), "\($0) \(round)") })
                taken.append(try await snapshot(tree, round, sequence: 1))
            }
            // Deletions come before uploads, so what is not needed is gone when these are there.
            for handle in taken {
                let isUploaded = await server.server.uploaded(handle)
                #expect(isUploaded)
            }
            handles = taken
            await server.server.shutdown()
            let (found, faults) = try tools.list()
            #expect(faults.isEmpty && found.map(\.manifest.handle).sorted() == taken.sorted())
            let needed = found.flatMap { snapshot in
                [StoreLayout.manifest(snapshot.manifest.handle, in: snapshot.namespace)]
                    + snapshot.manifest.pieceNames.map { StoreLayout.piece($0, in: snapshot.namespace) }
            }
            #expect(backup.everything.sorted() == Set(needed).sorted())
        }
        let last = try tools.list().found
        _ = try tools.remove(last, of: last.first?.namespace ?? "")
        #expect(backup.everything == [])
    }

    /// A storm over the whole way there and back: everything is complete in the end, and the job goes on.
    @Test func aServerInABadNetworkUploadsAndRestores() async throws {
        let files = MemoryFileSystem()
        let backup = try Backup(.s3, files)
        let seed = Seeds.seeds(count: 1)[0]
        Seeds.announce("aServerInABadNetworkUploadsAndRestores", seed)
        backup.double?.storm(seed: seed, oneOf: 4)
        let first = try await backup.start("/first")
        let tree = try await first.connect().attach(0, 7)
        var handle = ""
        for round in 1...10 as ClosedRange<UInt64> {
            try await tree.write(round, (0...7).map { .put($0, Int(round), "\(round)") })
            handle = try await snapshot(tree, round, sequence: round)
        }
        let isUploaded = await first.server.uploaded(handle)
        #expect(isUploaded)
        await first.server.shutdown()
        let second = try await backup.start("/second")
        let client = try await second.connect()
        let restored = try await client.attach(0, 7, epoch: 2, restoring: [handle])
        let found = try await restored.get((1...10).map { testKey(3, $0) })
        #expect(found == (1...10).map { "\($0)" })
        await second.server.shutdown()
    }

    @Test func aStoreInTheDataDirectoryIsRefused() {
        var configuration = ServerConfiguration()
        configuration.dataDirectory = "/data"
        for bad in ["file:///data", "file:///data/backup", "file://x", "/data", "file:///backup/"] {
            configuration.snapshotStore = bad
            #expect(configuration.firstProblem()?.contains("snapshot_store") == true, "\(bad)")
        }
        configuration.snapshotStore = "file:///database"
        #expect(configuration.firstProblem() == nil)
    }
}
