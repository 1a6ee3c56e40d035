// A whole data directory of which one file is the input: what a server does when it starts, opens its trees, reads them, and
// takes them on from a snapshot. The first byte says which file; the rest is resealed as that file.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit

extension FuzzTarget {
    static let recovery = [
        FuzzTarget(
            name: "recovery",
            seeds: { goodDirectory.enumerated().map { [UInt8($0.offset)] + $0.element.bytes } }, run: recover)
    ]
}

private let root = "/data"
private let identity = TreeIdentity(
    store: "fuzz", keyGroups: KeyGroupRange(first: 0, last: 3), keyGroupCount: 4)

private func options() -> EngineOptions {
    var options = EngineOptions(directory: root)
    options.memtableBytes = 16 << 10
    options.blockCacheBytes = 64 << 10
    options.table.blockSizeBytes = 128
    options.values.thresholdBytes = 32
    return options
}

/// The files of a directory with two tables and the values of each that lie apart, a log that is not flushed, and snapshots with and without a reference to it.
private let goodDirectory: [(path: String, bytes: [UInt8])] = {
    do {
        let disk = MemoryFileSystem()
        let harness = try EngineHarness(options(), fileSystem: disk, seed: 1)
        harness.pointStates = PointStates([2])
        let tree = try harness.create(identity)
        for round in 0..<4 {
            let entries = (0..<6).map { number -> OwnedEntry in
                let kind: EntryKind = [.put, .append, .put][number % 3]
                let expiry: Expiry = number == 4 ? .eventTime(milliseconds: 5) : .never
                let value = [UInt8](repeating: UInt8(round * 16 + number), count: number == 5 ? 40 : 2)
                return OwnedEntry(goodKey(number, round), kind, value, expiry: expiry)
            }
            try harness.writeDurably(tree, OwnedBatch(entries), watermark: UInt64(round))
            if round < 2 { try harness.wait { done in tree.compact(completion: done) } as Void }
            _ = try harness.snapshot(tree, UInt64(round + 1))
        }
        harness.engine.close()
        return paths(disk, root).map { ($0, disk.contents($0) ?? []) }
    } catch {
        broken("a good directory cannot be made: \(error)")
    }
}()

/// Three key groups, two states.
private func goodKey(_ number: Int, _ round: Int) -> [UInt8] {
    [0, UInt8(number / 2), 0, UInt8(1 + number % 2), 5, UInt8(round)]
}

private func paths(_ disk: MemoryFileSystem, _ directory: String) -> [String] {
    ((try? disk.list(directory)) ?? []).sorted().flatMap { name -> [String] in
        let path = directory + "/" + name
        if let below = try? disk.list(path), !below.isEmpty { return paths(disk, path) }
        return disk.contents(path) == nil ? [] : [path]
    }
}

private func recover(_ input: [UInt8]) {
    guard let place = input.first, Int(place) < goodDirectory.count else { return }
    let disk = MemoryFileSystem()
    for part in ["", "/tables", "/trees", "/snapshots", "/trees/000001"] { try? disk.createDirectory(root + part) }
    for (index, file) in goodDirectory.enumerated() {
        disk.setContents(file.path, index == Int(place) ? resealed(Array(input.dropFirst()), as: file) : file.bytes)
    }
    guard let harness = try? EngineHarness(options(), fileSystem: disk, seed: 1) else { return }
    harness.pointStates = PointStates([2])
    for info in harness.engine.treeInfos() {
        guard let tree = try? harness.open(info.id) else { continue }
        _ = try? harness.scan(tree)
        for number in 0..<6 { _ = try? harness.get(tree, goodKey(number, 1)) }
        try? harness.writeDurably(tree, OwnedBatch([OwnedEntry([0, 1, 0, 1, 9], .append, [1])]))
        _ = try? harness.scan(tree)
    }
    for snapshot in harness.engine.snapshots(store: identity.store) {
        guard let view = try? harness.openSnapshot(snapshot.handle) else { continue }
        try? view.scan(clock: view.clock) { entry in
            touch(entry)
            return true
        }
        guard let tree = try? harness.create(identity, epoch: 1 << 40, from: [snapshot.handle]) else { continue }
        _ = try? harness.scan(tree)
    }
    harness.engine.close()
}

private func resealed(_ bytes: [UInt8], as file: (path: String, bytes: [UInt8])) -> [UInt8] {
    let name = file.path.split(separator: "/").last.map(String.init) ?? ""
    switch EngineFile(name: name, firstBytes: file.bytes) {
    case .manifest: return resealedManifest(bytes)
    case .snapshot: return resealedSnapshot(bytes)
    case .log: return resealedLog(bytes)
    case .valueFile: return resealedValueFile(bytes)
    case .current:
        var changed = bytes
        if changed.count >= 24 { setChecksum(&changed, at: 20, of: 0..<20) }
        return changed
    case .table:
        let template = TableAnatomy(file.bytes)
        return template.resealed(Array(bytes.prefix(file.bytes.count)) + file.bytes.dropFirst(bytes.count))
    case .directoryFormat, nil: return bytes
    }
}
