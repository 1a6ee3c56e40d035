// What operators do with snapshots: list, check, export, fork, remove; and asking a running server.

import CisternDaemon
import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternServer
import CisternSnapshotStore
import CisternSnapshotStoreS3
import CisternTestKit
import CisternWire
import CisternWireMessages
import Foundation
import S3Double
import SwiftProtobuf
import Testing

@Suite struct StoreToolsTests {
    private let files = MemoryFileSystem()

    /// A server that has uploaded a snapshot of one entry, and its handle.
    private func serverWithSnapshot(_ backup: Backup) async throws -> (ServerHarness, TestTree, String) {
        let server = try await backup.start("/first")
        let tree = try await server.connect().attach(0, 7)
        let state = Cistern_V1_RegisterState.with {
            $0.state = Cistern_V1_StateDescriptor.with {
                $0.name = "count"
                $0.kind = .value
            }
        }
        _ = try await tree.client.request(
            .registerState, tree: tree.handle, state, Cistern_V1_RegisterStateReply.self)
        try await tree.write(1, [.put(1, 1, "one")])
        let message = Cistern_V1_Snapshot.with {
            $0.epoch = 1
            $0.checkpoint = 1
            $0.sequence = 1
        }
        let handle = try await tree.client.request(
            .snapshot, tree: tree.handle, message, Cistern_V1_SnapshotReply.self
        ).handle
        let isUploaded = await server.server.uploaded(handle)
        #expect(isUploaded)
        return (server, tree, handle)
    }

    @Test(arguments: BackupKind.allCases) func anExportIsNotReachedByReleasesAndRestoresAnywhere(kind: BackupKind)
        async throws
    {
        let backup = try Backup(kind, files)
        let tools = StoreTools(try backup.store)
        let (server, tree, handle) = try await serverWithSnapshot(backup)
        let (found, faults) = try tools.list()
        #expect(found.map(\.manifest.handle) == [handle] && faults.isEmpty)
        try tools.export(found[0], to: tools, name: "weekly")
        #expect(try tools.list().found.count == 2)
        #expect(try await tree.client.release([handle]) == 1)
        await server.server.shutdown()

        // Whatever the first server had not deleted yet, it has at the next start.
        let again = try await backup.start("/first")
        let second = try await backup.start("/second")
        let restored = try await second.connect().attach(0, 7, epoch: 2, restoring: [handle])
        let values = try await restored.get([testKey(1, 1)])
        #expect(values == ["one"])
        let exported = try tools.select([handle], namespace: "weekly").found
        #expect(try tools.verify(exported[0]).isEmpty)
        #expect(try tools.remove(exported, of: "weekly") >= 2)
        #expect(try tools.list().found.allSatisfy { $0.namespace != "weekly" })
        #expect(throws: SnapshotFetchError.self) { try tools.select([handle], namespace: "weekly") }
        await again.server.shutdown()
        await second.server.shutdown()
    }

    @Test(arguments: BackupKind.allCases) func whatIsDamagedInTheStoreIsNamed(kind: BackupKind) async throws {
        let backup = try Backup(kind, files)
        let tools = StoreTools(try backup.store)
        let (server, _, handle) = try await serverWithSnapshot(backup)
        await server.server.shutdown()
        let piece = backup.everything.first { $0.hasPrefix("files/") } ?? ""
        var bytes = backup.bytes(piece) ?? []
        bytes[bytes.count / 2] ^= 1
        backup.setBytes(piece, bytes)
        let snapshot = try tools.select([handle], namespace: nil).found[0]
        let faults = try tools.verify(snapshot)
        #expect(faults.count == 1)
        #expect(faults.first.map { "\($0)".contains("files/") && "\($0)".contains("checksum") } == true)
        let report = StoreReport.json([snapshot], faults)
        #expect(report.contains("\"namespace\":") && report.contains("is damaged"))
        // A manifest that cannot be read is told of, and keeps every piece of its namespace.
        backup.setBytes("snapshots/\(snapshot.namespace)/x", [1])
        #expect(try tools.list().faults.count == 1)
        #expect(try tools.remove([snapshot], of: snapshot.namespace) == 1)
        #expect(backup.everything.contains(piece))
    }

    @Test(arguments: BackupKind.allCases) func aForkBeginsWithTheStateAndGoesItsOwnWay(kind: BackupKind) async throws {
        let backup = try Backup(kind, files)
        let tools = StoreTools(try backup.store)
        let (server, _, handle) = try await serverWithSnapshot(backup)
        await server.server.shutdown()
        // Within the directory, and into a new one from the store.
        var forks: [(directory: String, handle: String)] = []
        for directory in ["/first", "/fresh"] {
            let forking = try DirectoryForks(directory, fileSystem: files)
            forks.append((directory, try await forking.fork(handle, as: "trial", from: tools.store)))
            forking.close()
        }
        for (directory, fork) in forks {
            #expect(fork.hasPrefix("trial/1/0-7/"))
            let started = try await backup.start(directory)
            let tree = try await started.connect().attach("trial", restoring: [fork])
            #expect(tree.reply.states.map(\.name) == ["count"])
            let values = try await tree.get([testKey(1, 1)])
            #expect(values == ["one"])
            try await tree.write(1, [.put(1, 1, "changed")])
            await started.server.shutdown()
        }
        let again = try await backup.start("/first")
        let original = try await again.connect().attach(0, 7, epoch: 2)
        let values = try await original.get([testKey(1, 1)])
        #expect(values == ["one"])
        await again.server.shutdown()
        let releasing = try DirectoryForks("/first", fileSystem: files)
        #expect(await releasing.release([forks[0].handle, "none"]) == 1)
        releasing.close()
    }

    @Test(arguments: [false, true]) func aForkHasItsStatesWhereverThePowerIsCut(fromStore: Bool) async throws {
        let backup = try Backup(.directory, files)
        let (server, _, handle) = try await serverWithSnapshot(backup)
        await server.server.shutdown()
        let seed = Seeds.seeds(count: 1)[0]
        Seeds.announce("aForkHasItsStatesWhereverThePowerIsCut", seed)
        let directory = fromStore ? "/fresh" : "/first"
        var disk = files
        var cut = 0
        var isWhole = false
        while !isWhole {
            cut += 1
            let name = "trial\(cut)"
            let store = DirectorySnapshotStore("/backup", fileSystem: disk)
            disk.failPower(atSync: disk.syncCount + cut)
            do {
                let forking = try DirectoryForks(directory, fileSystem: disk)
                defer { forking.close() }
                _ = try await forking.fork(handle, as: name, from: store)
                isWhole = true
            } catch {}
            disk = disk.afterPowerCut(seed: seed &+ UInt64(cut))
            guard try disk.exists(directory), try !disk.list(directory).isEmpty else { continue }
            guard let snapshots = try? SnapshotReport(directory, fileSystem: disk).text,
                snapshots.contains("\(name)/1/0-7/")
            else { continue }
            #expect(try StateReport(directory, fileSystem: disk).json.contains("\"\(name)\""), "cut at sync \(cut)")
        }
        #expect(cut > 3)
    }

    /// Of a server that died in the middle of an upload nobody else knows what it had begun.
    @Test(arguments: BackupKind.allCases) func aNamespaceThatIsRemovedLeavesNothing(kind: BackupKind) async throws {
        let backup = try Backup(kind, files)
        let tools = StoreTools(try backup.store)
        let (server, _, _) = try await serverWithSnapshot(backup)
        await server.server.shutdown()
        let found = try tools.list().found
        let namespace = found.first?.namespace ?? ""
        for name in ["files/\(namespace)/t9.9.9", "files/other/t1.1.1"] { _ = try tools.store.put(name, [1]) }
        backup.leaveHalfWritten("files/\(namespace)/t9.9.a")
        backup.leaveHalfWritten("snapshots/\(namespace)/x")
        #expect(
            try tools.remove(found, of: namespace) == found.count + found[0].manifest.files.flatMap(\.pieces).count + 1)
        #expect(backup.everything == ["files/other/t1.1.1"])
        // No manifest at all.
        let none = try tools.select([], namespace: "other").found
        #expect(try none.isEmpty && tools.remove(none, of: "other") == 1)
        #expect(backup.everything == [])
    }

    @Test func theCommandsTakeABucket() async throws {
        let backup = try Backup(.s3, files)
        let (server, _, handle) = try await serverWithSnapshot(backup)
        await server.server.shutdown()
        let source = server.server.configuration.snapshotStore
        let environment = [
            "AWS_ACCESS_KEY_ID": S3Double.credentials.accessKeyID,
            "AWS_SECRET_ACCESS_KEY": S3Double.credentials.secretAccessKey, "AWS_REGION": S3Double.region,
            "CISTERN_S3_ENDPOINT": backup.double?.endpoint ?? "",
        ]
        func run(_ arguments: [String], _ environment: [String: String]) throws -> CisternBinary.Output {
            let output = try CisternBinary.run(["snapshot"] + arguments, environment: environment)
            #expect(!(output.output + output.error).contains(S3Double.credentials.secretAccessKey))
            return output
        }
        let listed = try run(["ls", source, "--json"], environment)
        #expect(listed.status == 0 && listed.output.contains("\"handle\":\"\(handle)\""), "\(listed)")
        #expect(try run(["verify", source], environment).status == 0)
        #expect(try run(["export", source, handle, "--name", "weekly"], environment).status == 0)
        #expect(backup.everything.contains { $0.hasPrefix("snapshots/weekly/") })
        let directory = try TemporaryDirectory()
        let forked = try run(
            ["fork", directory.path + "/data", handle, "--as", "trial", "--from", source], environment)
        #expect(forked.status == 0 && forked.output.hasPrefix("trial/1/0-7/"), "\(forked)")
        #expect(try run(["rm", source, "--namespace", "weekly"], environment).status == 0)
        #expect(!backup.everything.contains { $0.contains("/weekly/") })

        let flags = ["--s3-endpoint", backup.double?.endpoint ?? "", "--s3-region", S3Double.region]
        let nameless = try run(["ls", source] + flags, [:])
        #expect(nameless.status != 0 && nameless.error.contains("s3_credentials_file"), "\(nameless)")
        let file = directory.path + "/credentials"
        try Data("[default]\naws_access_key_id = AKIDOUBLE\naws_secret_access_key = wrong\n".utf8)
            .write(to: URL(filePath: file))
        let refused = try run(["ls", source, "--s3-credentials-file", file] + flags, [:])
        #expect(refused.status != 0 && refused.error.contains("SignatureDoesNotMatch"), "\(refused)")
    }

    @Test func aToolReadsTheAdminPort() async throws {
        let backup = try Backup(.directory, files)
        let (server, _, _) = try await serverWithSnapshot(backup)
        let address = server.server.adminEndpoint.map { "\($0)" } ?? ""
        let metrics = try await AdminClient.get("/metrics", from: address)
        #expect(metrics.contains("cistern_snapshot_store_snapshots{state=\"complete\"} 1"))
        #expect(try await AdminClient.get("/status.json", from: address).contains("\"snapshotStore\":{\"complete\":1"))
        await #expect { _ = try await AdminClient.get("/none", from: address) } throws: { "\($0)".contains("404") }
        await server.server.shutdown()
        await #expect(throws: AdminClientError.self) { try await AdminClient.get("/metrics", from: address) }
        await #expect(throws: AdminClientError.self) { try await AdminClient.get("/metrics", from: "nowhere") }
    }

    @Test func statesAndEntriesAreListedAndFound() async throws {
        let backup = try Backup(.directory, files)
        let (server, _, handle) = try await serverWithSnapshot(backup)
        await server.server.shutdown()
        let states = try StateReport("/first", fileSystem: files)
        #expect(states.text.contains("orders: 8 key groups") && states.json.contains("\"name\":\"count\""))
        let report = try SnapshotReport("/first", fileSystem: files)
        var lines: [String] = []
        let key = hexadecimal(testKey(1, 1).dropFirst(4))
        #expect(try report.scan(handle, state: "count", keyPrefix: key, limit: 5) { lines.append($0) } == 1)
        #expect(try report.scan(handle, state: nil, keyPrefix: "ff", limit: 5) { lines.append($0) } == 0)
        #expect(lines.count == 1 && lines[0].contains("\"state\":\"count\""))
        report.close()
    }
}
