// What opening, clipping and uniting cost when there is much: directories that are made of manifests and records, on the real file
// system. `CISTERN_SCALE=1` takes the sizes that docs/decisions/0061 reports and prints the times; else small ones show that the
// work is done at all.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Foundation
import Testing

private let isFull = ProcessInfo.processInfo.environment["CISTERN_SCALE"] != nil

@Suite(.serialized) struct ScaleTests {
    private let root = "/tmp/cistern-scale-\(UInt64.random(in: 0 ... .max))"

    private func identity(_ store: Int, _ first: UInt16 = 0, _ last: UInt16 = 127) -> TreeIdentity {
        TreeIdentity(store: "s\(store)", keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: 128)
    }

    /// A file of 32 MiB, as the reference has it; the test never opens it.
    private func file(_ number: UInt64, slot: Int, of count: Int) -> FileRecord {
        var summary = TableSummary()
        summary.entryCount = 250_000
        summary.neverExpiringCount = 250_000
        summary.dataBlockCount = 2000
        let first = UInt16(slot * 128 / count)
        let last = UInt16(min(127, (slot + 1) * 128 / count))
        summary.keyGroups = KeyGroupRange(first: first, last: last)
        let low = String(10_000_000 + slot)
        summary.smallestKey = makeKey(first, low + "a-typical-key")
        summary.largestKey = makeKey(last, (last == first ? low : "0") + "b-typical-key")
        summary.fileBytes = 32 << 20
        return FileRecord(number: number, window: KeyGroupRange(first: 0, last: 127), summary: summary)
    }

    private func write(_ path: String, _ bytes: [UInt8]) throws {
        try Data(bytes).write(to: URL(filePath: path))
    }

    /// - Returns: handles of a snapshot of each tree.
    private func populate(trees: Int, filesPerTree: Int) throws -> [String] {
        for part in ["tables", "trees", "snapshots"] {
            try FileManager.default.createDirectory(atPath: root + "/" + part, withIntermediateDirectories: true)
        }
        try write(root + "/CISTERN", [0x43, 0x49, 0x53, 0x54, 2, 0, 0, 0])
        var handles: [String] = []
        var number: UInt64 = 0
        for tree in 1...trees {
            var state = TreeState(identity: identity(tree), epoch: 1, writer: "w")
            for slot in 0..<filesPerTree {
                number += 1
                state.levels[2].append(file(number, slot: slot, of: filesPerTree))
                try write(root + "/tables/" + padded(number, 12) + ".sst", [])
            }
            let directory = root + "/trees/" + padded(UInt64(tree), 6)
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            try write(directory + "/CURRENT", ManifestFormat.encodeCurrent(1))
            try write(
                directory + "/MANIFEST-000001",
                ManifestFormat.encodeHeader(tree: TreeID(UInt64(tree)), number: 1, state: state)
                    + ManifestFormat.encode(state, number: 1))
            let record = SnapshotRecord(
                handle: "s\(tree)/1/0-127/\(tree)", identity: state.identity, tree: TreeID(UInt64(tree)), checkpoint: 1,
                progress: state.flushed, createdMilliseconds: 1, levels: state.levels)
            try write(root + "/snapshots/" + padded(UInt64(tree), 6) + ".snap", SnapshotFormat.encode(record))
            handles.append(record.handle)
        }
        return handles
    }

    private func padded(_ number: UInt64, _ width: Int) -> String {
        String(repeating: "0", count: max(0, width - "\(number)".count)) + "\(number)"
    }

    private func milliseconds(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        return Double((ContinuousClock.now - start) / .microseconds(1)) / 1000
    }

    private func harness() throws -> EngineHarness {
        var options = EngineOptions(directory: root)
        options.memtableBytes = 1 << 20
        options.log = .off
        return try EngineHarness(options, fileSystem: PosixFileSystem(), seed: 1)
    }

    /// One tree of 0.5 and of 5 GB: opened, clipped to a half, and split in two and united.
    @Test func openClipAndUnionDependOnReferencesOnly() throws {
        for (label, files) in isFull ? [("0.5 GB", 16), ("5 GB", 160), ("1.6 TB", 50_000)] : [("small", 16)] {
            defer { try? FileManager.default.removeItem(atPath: root) }
            let handle = try populate(trees: 1, filesPerTree: files)[0]
            var opened: EngineHarness?
            let directory = try milliseconds { opened = try harness() }
            let engine = try #require(opened)
            let open = try milliseconds { _ = try engine.open(TreeID(1)) }
            var halves: [Tree] = []
            let clip = try milliseconds {
                halves.append(try engine.create(identity(1, 0, 63), epoch: 2, from: [handle]))
            }
            halves.append(try engine.create(identity(1, 64, 127), epoch: 2, from: [handle]))
            let handles = try halves.map { try engine.snapshot($0, 2).handle }
            var whole: Tree?
            let union = try milliseconds { whole = try engine.create(identity(1), epoch: 3, from: handles) }
            #expect(whole?.statistics.levels.reduce(0) { $0 + $1.files } == files)
            engine.engine.close()
            print(
                "scale: \(label), \(files) files: directory \(directory) ms, open \(open), clip \(clip), union \(union)"
            )
        }
    }

    @Test func manyTreesAndFilesOpenFast() throws {
        defer { try? FileManager.default.removeItem(atPath: root) }
        let trees = isFull ? 10_000 : 50
        _ = try populate(trees: trees, filesPerTree: 5)
        var opened: EngineHarness?
        let time = try milliseconds { opened = try harness() }
        let engine = try #require(opened)
        #expect(engine.engine.treeInfos().count == trees)
        #expect(engine.engine.damagedParts.isEmpty)
        engine.engine.close()
        print("scale: \(trees) trees, \(trees * 5) files, \(trees) snapshots: \(time) ms")
    }

    /// Checkpoints of a tree that is written to, on real threads and a synced log: the time from the call to the handle.
    @Test func checkpointsWhileWriting() async throws {
        let root = self.root + "-checkpoints"
        defer { try? FileManager.default.removeItem(atPath: root) }
        var options = EngineOptions(directory: root)
        options.log = .synced
        let engine = try Engine.open(options, fileSystem: PosixFileSystem(), time: SystemTime())
        let owner = ThreadExecutor()
        let tree: Tree = try await withCheckedContinuation {
            (done: CheckedContinuation<Result<Tree, EngineError>, Never>) in
            engine.createTree(wholeRange, epoch: 1, writer: "w", from: [], executor: owner) {
                done.resume(returning: $0)
            }
        }.get()
        var random = SeededRandom(seed: 1)
        var times: [Double] = []
        var sequence: UInt64 = 0
        var handles: [String] = []
        for checkpoint in UInt64(1)...(isFull ? 400 : 5) {
            for _ in 0..<(isFull ? 50 : 5) {
                sequence += 1
                let number = sequence
                let batch = OwnedBatch(
                    Set((0..<100).map { _ in UInt64.random(in: 0..<1_000_000, using: &random) }).sorted().map {
                        put(makeKey(UInt16($0 >> 13), "\($0 + 10_000_000)"), String(repeating: "v", count: 100))
                    })
                while try await write(tree, owner, batch, number) == false {}
            }
            let start = ContinuousClock.now
            let info: SnapshotInfo = try await withCheckedContinuation {
                (done: CheckedContinuation<Result<SnapshotInfo, EngineError>, Never>) in
                owner.execute { tree.snapshot(checkpoint: checkpoint) { done.resume(returning: $0) } }
            }.get()
            times.append(Double((ContinuousClock.now - start) / .microseconds(1)) / 1000)
            handles.append(info.handle)
            if handles.count > 3 { engine.releaseSnapshots([handles.removeFirst()]) }
        }
        engine.close()
        owner.stop()
        times.sort()
        print(
            "scale: \(times.count) checkpoints: median \(times[times.count / 2]) ms, "
                + "p99 \(times[times.count * 99 / 100]), longest \(times[times.count - 1])")
    }

    /// - Returns: false when the batch must be sent again.
    private func write(
        _ tree: Tree, _ owner: ThreadExecutor, _ batch: OwnedBatch, _ sequence: UInt64
    ) async throws -> Bool {
        let result: Result<Bool, EngineError> = await withCheckedContinuation { done in
            owner.execute {
                let outcome = batch.withColumns { columns in
                    Result { () throws(EngineError) in
                        try tree.write(
                            columns, epoch: 1, sequence: sequence, watermark: 0,
                            durable: { done.resume(returning: $0.map { true }) })
                    }
                }
                switch outcome {
                case .success(.applied), .success(.duplicate): break
                case .success(.busy): done.resume(returning: .success(false))
                case .failure(let error): done.resume(returning: .failure(error))
                }
            }
        }
        return try result.get()
    }
}
