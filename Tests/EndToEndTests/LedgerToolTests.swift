// `cistern ledger` and `cistern log-node inspect` as an operator uses them: real log nodes, a real etcd.

import CisternChangelog
import CisternLogProtocol
import CisternLogServer
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Foundation
import Testing

@Suite(
    .serialized, .timeLimit(.minutes(2)),
    .enabled(if: EtcdProcess.program != nil, "etcd is not in PATH: install etcd-server"))
struct LedgerToolTests {
    private static let three = QuorumSizes(ensemble: 3, write: 3, ack: 2)

    private func ledger(_ cluster: LogNodeCluster, _ arguments: [String]) async throws -> CisternBinary.Output {
        let flags = ["--etcd", "\(cluster.etcd.endpoint)", "--cluster", LogNodeCluster.name]
        return try await onOwnThread { try CisternBinary.run(["ledger"] + arguments + flags) }
    }

    private func write(_ count: Int, _ sizes: QuorumSizes, on nodes: [UInt64], _ cluster: LogNodeCluster) async throws
        -> LedgerID
    {
        let writer = try await cluster.writer(sizes, on: nodes)
        for number in 0..<count { _ = try await writer.append(entryBody(number)) }
        try await writer.close()
        return writer.ledger
    }

    private func object(_ line: some StringProtocol) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
    }

    @Test func ledgersAreListedShownAndRead() async throws {
        try await LogNodeCluster.with(3) { cluster in
            let closed = try await write(20, Self.three, on: [1, 2, 3], cluster).rawValue
            let log = try await Changelog.takeOver(
                "orders", attempt: 1, client: cluster.client, metadata: cluster.ledgers)
            let place = try await log.append(entryBody(7))
            try await log.persist(through: place)
            let open = place.ledger.rawValue

            let list = try await ledger(cluster, ["ls"])
            #expect(list.status == 0, "\(list.error)")
            let lines = list.output.split(separator: "\n")
            #expect(lines.count == 3 && lines[0].hasPrefix("LEDGER"))
            #expect(lines[1].contains("closed at 19") && lines[1].contains("1, 2, 3") && lines[1].hasSuffix("none"))
            #expect(lines[2].contains("open") && lines[2].hasSuffix("orders"))
            let unlisted = try await ledger(cluster, ["ls", "--unlisted", "--json"])
            let listed = try object(unlisted.output)
            #expect(listed["ledger"] as? UInt64 == closed && listed["state"] as? String == "closed")
            #expect(listed["lastEntry"] as? Int == 19 && listed["log"] is NSNull)
            #expect(try await ledger(cluster, ["ls", "--json", "--log", "orders"]).output.contains("\"open\""))
            #expect(try await ledger(cluster, ["ls", "--json", "--node", "9"]).output.isEmpty)
            #expect(try await ledger(cluster, ["ls", "--json", "--unclosed"]).output.count { $0 == "\n" } == 1)

            let shown = try await ledger(cluster, ["show", "\(closed)"])
            #expect(shown.output.contains("fragment  entries 0 to 19 on nodes 1, 2, 3"), "\(shown.output)")
            #expect(shown.output.contains("node      2 at 127.0.0.1:"))
            let views = try object(try await ledger(cluster, ["show", "\(open)", "--json"]).output)["views"]
            #expect((views as? [[String: Any]])?.count == 3)

            let read = try await ledger(cluster, ["read", "\(closed)", "--from", "5", "--to", "7"])
            #expect(
                read.output.split(separator: "\n").map { $0.prefix(16) } == [
                    "5  1024 bytes  c", "6  1024 bytes  c", "7  1024 bytes  c",
                ])
            let entry = try object(try await ledger(cluster, ["read", "\(open)", "--json"]).output)
            let hex = entryBody(7).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
            #expect(entry["entry"] as? Int == 0 && entry["body"] as? String == hex)
            #expect(try await ledger(cluster, ["read", "\(closed)"]).output.count { $0 == "\n" } == 20)
            let beyond = try await ledger(cluster, ["read", "\(closed)", "--from", "30"])
            #expect(beyond.status != 0 && beyond.error.contains("ends with entry 19"), "\(beyond.error)")
            let unknown = try await ledger(cluster, ["show", "99"])
            #expect(unknown.status == 1 && unknown.error.contains("there is no ledger 99"), "\(unknown.error)")
            try await log.close()
        }
    }

    @Test func verifyFindsCopiesThatAreMissingOrDifferOrCannotBeAsked() async throws {
        try await LogNodeCluster.with(3) { cluster in
            let whole = try await write(700, Self.three, on: [1, 2, 3], cluster)
            // Striped, so that no node has all of it.
            let striped = try await write(9, QuorumSizes(ensemble: 3, write: 2, ack: 2), on: [1, 2, 3], cluster)
            let good = try await ledger(cluster, ["verify", "--all"])
            #expect(good.status == 0, "\(good.output)\(good.error)")
            #expect(good.output.contains("ledger \(whole.rawValue)  whole: 700 entries, 2100 copies"))
            #expect(good.output.contains("ledger \(striped.rawValue)  whole: 9 entries, 18 copies"))

            // Metadata says that node 3 has what node 2 was given.
            let two = QuorumSizes(ensemble: 2, write: 2, ack: 2)
            let moved = try await write(5, two, on: [1, 2], cluster)
            let found = try await cluster.ledgers.records.get(
                LedgerMetadata.self, cluster.ledgers.keys.ledger(moved))
            let known = try #require(found)
            _ = try await cluster.ledgers.records.compareAndSwap(
                cluster.ledgers.keys.ledger(moved), expected: known.version,
                new: try known.value.replacing(LogNodeID(2), with: LogNodeID(3), inFragment: 0))
            let missing = try await ledger(cluster, ["verify", "\(moved.rawValue)"])
            #expect(missing.status == 1)
            #expect(missing.output.contains("entries 0 to 4: missing copies; never stored by 3"), "\(missing.output)")

            // A ledger that was closed at an entry that nobody has, and one whose nodes disagree.
            let made = try await cluster.ledgers.createLedger(sizes: two, ensemble: [LogNodeID(1), LogNodeID(2)])
            for (node, body) in [(UInt64(1), entryBody(1)), (2, entryBody(2))] {
                let add = AddRequest(
                    ledger: made.ledger, entry: .first, lac: .none, body: body, isRecovery: false)
                guard case .add(let reply)? = await cluster.client.ask(.add(add), of: LogNodeID(node)) else {
                    throw EndToEndError("node \(node) gave no answer")
                }
                #expect(reply.refusal == nil)
            }
            _ = try await cluster.ledgers.records.compareAndSwap(
                cluster.ledgers.keys.ledger(made.ledger), expected: made.metadata.version,
                new: try made.metadata.value.closing(at: EntryID(2)))
            let wrong = try await ledger(cluster, ["verify", "\(made.ledger.rawValue)", "--json"])
            #expect(wrong.status == 1)
            let faults = try #require(try object(wrong.output)["faults"] as? [[String: Any]])
            #expect(faults.map { $0["kind"] as? String } == ["diverging", "lost"])
            #expect(faults[1]["first"] as? Int == 1 && faults[1]["last"] as? Int == 2)

            #expect(cluster.end(3, by: SIGTERM) == 0)
            let silent = try await ledger(cluster, ["verify", "\(whole.rawValue)"])
            #expect(silent.status == 1)
            #expect(silent.output.contains("nodes 3 gave no answer"), "\(silent.output)")
            // Nothing is known of a ledger that is written when its nodes do not say.
            let open = try await cluster.writer(Self.three, on: [1, 2, 3])
            let unknown = try await ledger(cluster, ["verify", "\(open.ledger.rawValue)"])
            #expect(unknown.status == 1 && unknown.output.contains("nodes 3 gave no answer"), "\(unknown.output)")
            open.stop()
            let none = try await ledger(cluster, ["verify"])
            #expect(none.status != 0 && none.error.contains("or --all"))
        }
    }

    @Test func verifyLooksTwiceAtWhatMovesMeanwhile() async throws {
        try await LogNodeCluster.with(2) { cluster in
            var settings = LedgerToolSettings()
            settings.etcd = ["\(cluster.etcd.endpoint)"]
            settings.cluster = LogNodeCluster.name
            let tool = try LedgerTool(settings)
            let two = QuorumSizes(ensemble: 2, write: 2, ack: 1)
            let made = try await cluster.ledgers.createLedger(sizes: two, ensemble: [LogNodeID(1), LogNodeID(2)])
            func store(_ entry: Int64, on node: UInt64) async throws {
                let add = AddRequest(
                    ledger: made.ledger, entry: EntryID(entry), lac: EntryID(entry - 1), body: entryBody(Int(entry)),
                    isRecovery: false)
                guard case .add(let reply)? = await cluster.client.ask(.add(add), of: LogNodeID(node)) else {
                    throw EndToEndError("node \(node) gave no answer")
                }
                #expect(reply.refusal == nil)
            }
            for entry in Int64(0)...2 { try await store(entry, on: 1) }
            // Entries 0 and 1 are acknowledged by node 1; their copies are on the way to node 2.
            let first = await cluster.client.verify(made.ledger, metadata: made.metadata.value)
            #expect(first.faults.map(\.kind) == [.missingCopies] && first.faults.map(\.last) == [EntryID(1)])
            try await store(0, on: 2)
            let second = await cluster.client.verifyAgain(first, metadata: made.metadata.value)
            #expect(second.faults.map(\.first) == [EntryID(1)] && second.faults.map(\.last) == [EntryID(1)])
            try await store(1, on: 2)
            #expect(await cluster.client.verifyAgain(second, metadata: made.metadata.value).isWhole)

            // Found while it is closed at an entry that nobody has, and removed before it is looked at.
            let key = cluster.ledgers.keys.ledger(made.ledger)
            let closed = try await cluster.ledgers.records.compareAndSwap(
                key, expected: made.metadata.version, new: try made.metadata.value.closing(at: EntryID(9)))
            let listing = try await tool.find(made.ledger.rawValue)
            let lost = try await tool.verify(listing)
            #expect(!lost.isWhole && lost.json.contains("\"kind\":\"lost\""), "\(lost.json)")
            try await cluster.ledgers.deleteLedger(made.ledger, expected: closed)
            let removed = try await tool.verify(listing)
            #expect(removed.isWhole && removed.lines == ["ledger \(made.ledger.rawValue)  removed meanwhile"])
            await tool.close()
        }
    }

    @Test func recoverFencesTheWriterAndRmTakesOnlyWhatNoLogHas() async throws {
        try await LogNodeCluster.with(3) { cluster in
            let writer = try await cluster.writer(Self.three, on: [1, 2, 3])
            for number in 0..<5 { try await writer.acknowledged(try await writer.append(entryBody(number))) }
            let number = "\(writer.ledger.rawValue)"
            let unsure = try await ledger(cluster, ["recover", number])
            #expect(unsure.status != 0 && unsure.error.contains("give --yes"), "\(unsure.error)")
            let early = try await ledger(cluster, ["rm", number, "--yes"])
            #expect(early.status == 1 && early.error.contains("is not closed"), "\(early.error)")
            let recovered = try await ledger(cluster, ["recover", number, "--yes"])
            #expect(recovered.output == "ledger \(number) is closed: its last entry is 4\n", "\(recovered.error)")
            await #expect(throws: LedgerError.self) {
                try await writer.acknowledged(try await writer.append(entryBody(5)))
            }
            #expect(try await ledger(cluster, ["recover", number]).output.contains("was closed already"))
            #expect(try await cluster.read(writer.ledger) == (0..<5).map(entryBody))

            // Nobody writes to logs yet, so it may be one that is about to be in one.
            let newest = try await ledger(cluster, ["rm", number, "--yes"])
            #expect(newest.status == 1 && newest.error.contains("younger than every ledger in a log"))
            let log = try await Changelog.takeOver(
                "orders", attempt: 1, client: cluster.client, metadata: cluster.ledgers)
            let owned = try #require(await log.ledgers.last)
            try await log.close()
            let refused = try await ledger(cluster, ["rm", "\(owned.rawValue)", "--yes", "--force"])
            #expect(refused.status == 1 && refused.error.contains("is in log orders"), "\(refused.error)")
            #expect(try await ledger(cluster, ["rm", number]).status != 0)
            let removed = try await ledger(cluster, ["rm", number, "--yes"])
            #expect(removed.status == 0, "\(removed.error)")
            #expect(try await ledger(cluster, ["ls", "--json"]).output.count { $0 == "\n" } == 1)
        }
    }

    @Test func aNodesDirectoryIsLookedIntoWhileNobodyHasItOpen() async throws {
        try await LogNodeCluster.with(2) { cluster in
            let two = QuorumSizes(ensemble: 2, write: 2, ack: 2)
            let closed = try await write(30, two, on: [1, 2], cluster)
            let fenced = try await write(3, two, on: [1, 2], cluster)
            _ = await cluster.client.ask(.readLAC(ReadLACRequest(ledger: fenced, fence: true)), of: LogNodeID(1))
            func inspect(_ path: String, _ flags: String...) async throws -> CisternBinary.Output {
                try await onOwnThread { try CisternBinary.run(["log-node", "inspect", "--data", path] + flags) }
            }
            let path = cluster.path(1)
            let busy = try await inspect(path)
            #expect(busy.status == 1 && busy.error.contains("another process holds it"), "\(busy.error)")
            #expect(cluster.end(1, by: SIGTERM) == 0)
            let text = try await inspect(path)
            #expect(text.status == 0, "\(text.error)")
            #expect(text.output.contains("log node 1 of cluster number"))
            #expect(text.output.contains("ledger \(closed.rawValue)  entries 0-29, 30720 bytes"), "\(text.output)")
            #expect(text.output.contains("ledger \(fenced.rawValue)  entries 0-2, 3072 bytes"))
            #expect(text.output.contains(", fenced"))
            let found = try object(try await inspect(path, "--json").output)
            #expect(found["node"] as? Int == 1 && (found["ledgers"] as? [Any])?.count == 2)
            #expect((found["damage"] as? [Any])?.isEmpty == true)

            // The first body in the first segment.
            let segment = path + "/journal-0000000000000001.seg"
            let file = try FileHandle(forUpdating: URL(fileURLWithPath: segment))
            try file.seek(toOffset: 600)
            let byte = try #require(try file.read(upToCount: 1)).first ?? 0
            try file.seek(toOffset: 600)
            try file.write(contentsOf: [byte ^ 1])
            try file.close()
            let damaged = try await inspect(path)
            #expect(damaged.status == 1 && damaged.output.contains("damaged  "), "\(damaged.output)")
            let nothing = try await inspect(path + "-mistyped")
            #expect(nothing.status == 1 && nothing.error.contains("of a log node"), "\(nothing.error)")
            #expect(!FileManager.default.fileExists(atPath: path + "-mistyped"))
        }
    }
}
