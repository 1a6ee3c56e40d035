// Trees that outlive their server's disk: another server goes on with them, complete to the last acknowledged batch.

import CisternDaemon
import CisternFileSystem
import CisternLSM
import CisternMetadata
import CisternPrimitives
import CisternServer
import CisternSnapshotStore
import CisternTestKit
import CisternTransport
import CisternWire
import CisternWireMessages
import Testing

@Suite(.timeLimit(.minutes(2))) struct ReplicationTests {
    private let keys = (0..<8).map { testKey(UInt16($0), $0) }

    @Test func anotherServerGoesOnBehindTheLastAcknowledgedBatch() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let tree = try await first.connect().attach(0, 7)
            for batch in 1...20 {
                try await tree.write(UInt64(batch), [.put(UInt16(batch % 8), batch % 8, "\(batch)")])
            }
            // The first one is not told, and its disk is never looked at again.
            let second = try await cluster.start("/second")
            let resumed = try await second.connect().attach(0, 7)
            #expect(resumed.reply.resumed && resumed.reply.lastSequence == 20)
            #expect(try await resumed.get(keys) == ["16", "17", "18", "19", "20", "13", "14", "15"])
            try await resumed.write(21, [.put(0, 0, "21")])
            #expect(try await resumed.get([keys[0]]) == ["21"])

            #expect(await refusalCode { try await tree.write(21, [.put(0, 0, "zombie")]) } != nil)
            #expect(try await resumed.get([keys[0]]) == ["21"])
        }
    }

    @Test func aNewerWriterGoesOnAtAnotherServerAndTheOldOneIsFenced() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let tree = try await first.connect().attach(0, 7)
            try await tree.write(1, [.put(1, 1, "one")])
            let second = try await cluster.start("/second")
            let newer = try await second.connect().attach(0, 7, epoch: 2, writer: "other")
            #expect(!newer.reply.resumed && newer.reply.lastSequence == 0)
            #expect(try await newer.get([keys[1]]) == ["one"])
            try await newer.write(1, [.put(1, 1, "two")])
            // And back again, with what was written there.
            let third = try await first.connect().attach(0, 7, epoch: 3)
            #expect(try await third.get([keys[1]]) == ["two"])
            try await third.write(1, [.put(2, 2, "three")])
            #expect(await refusalCode { try await newer.write(2, [.put(2, 2, "zombie")]) } != nil)
            #expect(await refusalCode { _ = try await second.connect().attach(0, 7, epoch: 2) } == .fenced)
            #expect(try await third.get([keys[1], keys[2]]) == ["two", "three"])
        }
    }

    @Test func anUploadedSnapshotBecomesTheBaseAndTheLogIsReadBehindIt() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let tree = try await first.connect().attach(0, 7)
            try await tree.write(1, [.put(1, 1, "one"), .put(2, 2, "two")])
            let snapshot = try await tree.snapshot(1, sequence: 1)
            try await tree.write(2, [.put(2, 2, "behind")])
            let record = try await cluster.record { $0.base.handles == [snapshot.handle] }
            #expect(record.base.epoch == 1 && record.base.sequence == 1)

            let second = try await cluster.start("/second")
            let resumed = try await second.connect().attach(0, 7)
            #expect(resumed.reply.lastSequence == 2)
            #expect(try await resumed.get([keys[1], keys[2]]) == ["one", "behind"])
            // What the second one takes over and snapshots is the next base.
            let next = try await resumed.snapshot(2, sequence: 2)
            _ = try await cluster.record { $0.base.handles == [next.handle] }
            let third = try await cluster.start("/third")
            let again = try await third.connect().attach(0, 7)
            #expect(again.reply.lastSequence == 2)
            #expect(try await again.get([keys[1], keys[2]]) == ["one", "behind"])
        }
    }

    /// A takeover costs what it takes to open the files, not to copy them.
    @Test(arguments: BackupKind.allCases)
    func aTreeIsServedWhileItsFilesAreInTheSnapshotStoreStill(kind: BackupKind) async throws {
        try await ReplicationHarness.run { cluster in
            let backup = try Backup(kind, cluster.files)
            func small(_ settings: inout ServerConfiguration) {
                backup.configure(&settings)
                settings.memtableBytes = 64 << 10
                settings.admin = "127.0.0.1:0"
            }
            func value(_ number: Int) -> String { String(repeating: "\(number) ", count: 500) }
            let first = try await cluster.start("/first", small)
            let tree = try await first.connect().attach(0, 7)
            for batch in 1...100 {
                try await tree.write(
                    UInt64(batch), (0..<4).map { .put(UInt16($0), 1000 + batch, value(batch * 10 + $0)) })
            }
            let snapshot = try await tree.snapshot(1, sequence: 100)
            try await tree.write(101, [.put(0, 1001, "behind")])
            _ = try await cluster.record { $0.base.handles == [snapshot.handle] }

            func isRight(_ tree: TestTree) async throws {
                #expect(tree.reply.lastSequence == 101)
                let keys = (1...100).flatMap { batch in (0..<4).map { testKey(UInt16($0), 1000 + batch) } }
                var expected = (1...100).flatMap { batch in (0..<4).map { Optional(value(batch * 10 + $0)) } }
                expected[0] = "behind"
                for start in stride(from: 0, to: keys.count, by: 50) {
                    #expect(try await tree.get(Array(keys[start..<start + 50])) == Array(expected[start..<start + 50]))
                }
            }
            let second = try await cluster.start("/second", small)
            let taken = try await second.connect().attach(0, 7)
            // Small files are here with the first read of them, and yet not whole.
            #expect(try #require(second.server.hydration).pendingFiles > 0)
            try await isRight(taken)
            let admin = "\(try #require(second.server.adminEndpoint))"
            let metrics = try await AdminClient.get("/metrics", from: admin)
            #expect(metrics.contains("cistern_takeovers_total{from=\"elsewhere\"} 1\n"))
            #expect(metrics.contains("cistern_replicated_trees 1\n"))
            #expect(metrics.contains("cistern_replication_unacknowledged_bytes 0\n"))
            #expect(!metrics.contains("cistern_replication_log_bytes 0\n"))
            #expect(!metrics.contains("cistern_hydration_reads_total 0\n"))
            #expect(try await AdminClient.get("/status.json", from: admin).contains("\"takeoversElsewhere\":1"))
            // The next start finds what was not whole.
            cluster.cutPower(seed: 1)
            let offline = try DirectoryVerification.run("/second", deep: false, fileSystem: cluster.files)
            #expect(offline.faults.contains { $0.detail.contains("in a snapshot store still") }, "\(offline.faults)")
            let again = try await cluster.start("/second", small)
            try await isRight(try await again.connect().attach(0, 7))
            while again.server.hydration?.pendingFiles != 0 { await Task.yield() }
            try await isRight(try await again.connect().attach(0, 7))
        }
    }

    /// The local log is not synced: what the power takes from it comes back from the log nodes.
    @Test func aServerThatLosesItsPowerHasWhatItAcknowledged() async throws {
        for seed in Seeds.seeds(count: 3) {
            Seeds.announce("aServerThatLosesItsPowerHasWhatItAcknowledged", seed)
            try await ReplicationHarness.run(seed: seed) { cluster in
                let first = try await cluster.start("/first")
                let tree = try await first.connect().attach(0, 7)
                for batch in 1...30 {
                    try await tree.write(UInt64(batch), [.put(UInt16(batch % 8), batch % 8, "\(batch)")])
                    if batch == 10 { _ = try await tree.snapshot(1, sequence: 10) }
                }
                cluster.cutPower(seed: seed)
                let again = try await cluster.start("/first")
                let resumed = try await again.connect().attach(0, 7)
                #expect(resumed.reply.lastSequence == 30)
                #expect(try await resumed.get(keys) == ["24", "25", "26", "27", "28", "29", "30", "23"])
                try await resumed.write(31, [.put(0, 0, "31")])
            }
        }
    }

    @Test func aRescaledJobIsTakenOverWorkerByWorker() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let whole = try await first.connect().attach(0, 7)
            try await whole.write(1, (0..<8).map { .put(UInt16($0), $0, "whole") })
            let snapshot = try await whole.snapshot(1, sequence: 1)
            #expect(await first.server.uploaded(snapshot.handle))
            let left = try await first.connect().attach(0, 3, epoch: 2, writer: "l", restoring: [snapshot.handle])
            let right = try await first.connect().attach(4, 7, epoch: 2, writer: "r", restoring: [snapshot.handle])
            try await left.write(1, [.put(0, 0, "left")])
            try await right.write(1, [.put(7, 7, "right")])

            let second = try await cluster.start("/second")
            let lefts = try await second.connect().attach(0, 3, epoch: 2, writer: "l")
            let rights = try await second.connect().attach(4, 7, epoch: 3, writer: "r2")
            #expect(try await lefts.get([keys[0], keys[3]]) == ["left", "whole"])
            #expect(try await rights.get([keys[4], keys[7]]) == ["whole", "right"])
            #expect(lefts.reply.lastSequence == 1 && rights.reply.lastSequence == 0)
            // The whole range is nobody's any more.
            let code = await refusalCode { _ = try await second.connect().attach(0, 7, epoch: 9) }
            #expect(code == .rangeMismatch)
        }
    }

    @Test func statesAndDictionariesHaveTheirIdsOnEveryServer() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let tree = try await first.connect().attach(0, 3)
            _ = try await tree.register("count", .value)
            _ = try await tree.register("last", .value)
            // Another worker of the store, at a server that has never heard of it.
            let second = try await cluster.start("/second")
            let other = try await second.connect().attach(4, 7)
            #expect(other.reply.states.map(\.name) == ["count", "last"])
            #expect(try await other.register("more", .list).id == 3)
            #expect(try await tree.register("again", .list).id == 4)
            #expect(try await tree.register("more", .list).id == 3)
        }
    }

    @Test func theBaseOutlivesItsReleaseUntilTheNextOneIsThere() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let client = try await first.connect()
            let tree = try await client.attach(0, 7)
            try await tree.write(1, [.put(1, 1, "one")])
            let snapshot = try await tree.snapshot(1, sequence: 1)
            _ = try await cluster.record { $0.base.handles == [snapshot.handle] }
            #expect(try await client.release([snapshot.handle]) == 1)
            _ = try await cluster.record { $0.held == [snapshot.handle] }
            #expect(first.server.uploads?.complete == 1)
            try await tree.write(2, [.put(2, 2, "two")])
            let next = try await tree.snapshot(2, sequence: 2)
            _ = try await cluster.record { $0.base.handles == [next.handle] && $0.held.isEmpty }
            #expect(try await client.snapshots().map(\.handle) == [next.handle])
        }
    }

    @Test func aReleasedBaseGivesWayOnTheServerThatTookOver() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let client = try await first.connect()
            let tree = try await client.attach(0, 7)
            try await tree.write(1, [.put(1, 1, "one")])
            let base = try await tree.snapshot(1, sequence: 1)
            _ = try await cluster.record { $0.base.handles == [base.handle] }
            _ = try await client.release([base.handle])
            let second = try await cluster.start("/second")
            let resumed = try await second.connect().attach(0, 7)
            try await resumed.write(2, [.put(2, 2, "two")])
            let next = try await resumed.snapshot(2, sequence: 2)
            _ = try await cluster.record { $0.base.handles == [next.handle] && $0.held.isEmpty }
        }
    }

    @Test func whatOnlyATreeNeededGoesWhenTheTreeIsReplaced() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let client = try await first.connect()
            let tree = try await client.attach(0, 7)
            try await tree.write(1, [.put(1, 1, "one")])
            let base = try await tree.snapshot(1, sequence: 1)
            _ = try await cluster.record { $0.base.handles == [base.handle] }
            _ = try await client.release([base.handle])
            // Made from it, then made empty.
            let same = try await client.attach(0, 7, epoch: 2, restoring: [base.handle])
            #expect(try await same.get([keys[1]]) == ["one"])
            #expect(try await cluster.record { $0.epoch == 2 }.held == [base.handle])
            _ = try await client.attach(0, 7, epoch: 3, restoring: [])
            #expect(try await client.snapshots().isEmpty)
            #expect(first.server.uploads?.complete == 0)
        }
    }

    @Test func anAttachThatMetadataFailedInTheMiddleWorksWhenItIsTriedAgain() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let client = try await first.connect()
            cluster.faults.failNextSwap { $0.contains("/tree/") }
            #expect(await refusalCode { _ = try await client.attach(0, 7) } == .internalError)
            let tree = try await client.attach(0, 7)
            try await tree.write(1, [.put(1, 1, "one")])
            #expect(try await tree.get([keys[1]]) == ["one"])
        }
    }

    @Test func aCheckpointThatWasNeverUploadedIsRestoredOnAnotherServer() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            let tree = try await first.connect().attach(0, 7)
            try await tree.write(1, [.put(1, 1, "base"), .put(6, 6, "base")])
            let base = try await tree.snapshot(1, sequence: 1)
            _ = try await cluster.record { $0.base.handles == [base.handle] }
            cluster.files.inject(.init([.create]) { $0.hasPrefix("/backup/") })
            try await tree.write(2, [.put(2, 2, "checkpoint")])
            let checkpoint = try await tree.snapshot(2, sequence: 2)
            try await tree.write(3, [.put(1, 1, "after it"), .put(2, 2, "after it")])
            await first.server.shutdown()
            cluster.files.clearFaults()

            let second = try await cluster.start("/second")
            let client = try await second.connect()
            let left = try await client.attach(0, 3, epoch: 2, writer: "l", restoring: [checkpoint.handle])
            let right = try await client.attach(4, 7, epoch: 2, writer: "r", restoring: [checkpoint.handle])
            #expect(try await left.get([keys[1], keys[2]]) == ["base", "checkpoint"])
            #expect(try await right.get([keys[6]]) == ["base"])
            let record = try await cluster.record { $0.epoch == 2 }
            #expect(record.base.handles == [checkpoint.handle])
            #expect(await second.server.uploaded(checkpoint.handle))
            // Nothing is left of the making.
            #expect(try await client.snapshots().map(\.handle).contains(checkpoint.handle))
            #expect(second.server.openTreeCount == 2)
        }
    }

    @Test func aDirectoryOfTheOtherDurabilityIsRefused() async throws {
        try await ReplicationHarness.run { cluster in
            let first = try await cluster.start("/first")
            _ = try await first.connect().attach(0, 7)
            await first.server.shutdown()
            await #expect(throws: ServerStartError.self) {
                _ = try await ServerHarness.start(cluster.files, directory: "/first")
            }
            let local = try await ServerHarness.start(cluster.files, directory: "/local")
            _ = try await local.connect().attach(0, 7)
            await local.server.shutdown()
            await #expect(throws: ServerStartError.self) { _ = try await cluster.start("/local") }
        }
    }
}
