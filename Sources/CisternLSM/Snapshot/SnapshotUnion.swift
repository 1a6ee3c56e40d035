// A new tree's files from snapshots: each snapshot is clipped to the new range, and what is left is put together level by
// level. Pure, and metadata only: no file is opened, so the time does not depend on the size of the state.
//
//   snapshot A 0...63  ──clip 40...90──► files with windows 40...63 ─┐
//   snapshot B 64...127 ─clip 40...90──► files with windows 64...90 ─┴─► one tree 40...90
//
// Level 0 keeps each snapshot's order; between snapshots order does not matter, because no key belongs to both. So what two
// of them have of one file side by side becomes one reference again, where their orders agree. In deeper
// levels the files of different snapshots cannot overlap, for the same reason. References to logs are clipped and joined alike,
// and so are expiry rules: what one tree's stored expiries mean holds for its key groups, whatever the others' mean.

internal import CisternPrimitives

package enum SnapshotUnion {
    /// The state of a new tree that holds what the snapshots held of its range.
    /// - Parameter source: the store that the snapshots must be of.
    /// - Throws: `unsupported` when the snapshots overlap, leave a part of the range out, or are of another store.
    package static func state(
        identity: TreeIdentity, epoch: UInt64, writer: String, of source: String, from snapshots: [SnapshotRecord]
    ) throws(EngineError) -> TreeState {
        let range = identity.keyGroups
        let used = snapshots.filter { $0.identity.keyGroups.overlaps(range) }
            .sorted { $0.identity.keyGroups.first < $1.identity.keyGroups.first }
        if !snapshots.isEmpty { try check(used, identity, of: source) }
        // The least watermark: nothing expires earlier in the new tree than it would have in the old ones.
        let watermark = used.map(\.progress.watermark).min() ?? 0
        var state = TreeState(identity: identity, epoch: epoch, writer: writer, watermark: watermark)
        for snapshot in used {
            guard let part = snapshot.identity.keyGroups.intersection(range) else { continue }
            state.levels[0] = mergedLevelZero(state.levels[0], snapshot.levels[0].compactMap { $0.clipped(to: part) })
            for (level, files) in snapshot.levels.enumerated().dropFirst() {
                state.levels[level] += files.compactMap { $0.clipped(to: part) }
            }
            state.logs += snapshot.logs.compactMap { $0.clipped(to: part) }
            state.expiryRules.unite(snapshot.expiryRules, clippedTo: part)
        }
        for level in 1..<state.levels.count {
            state.levels[level].sort { compareKeys($0.smallestKey, $1.smallestKey) < 0 }
            state.levels[level] = joined(state.levels[level])
        }
        state.logs = LogReference.arranged(state.logs)
        return state
    }

    /// Both orders kept, with references to one file joined where the second list's windows follow the first's.
    private static func mergedLevelZero(_ first: [FileRecord], _ second: [FileRecord]) -> [FileRecord] {
        var places: [WindowEnd: Int] = [:]
        for (index, file) in first.enumerated() {
            places[WindowEnd(number: file.number, group: UInt32(file.window.last))] = index
        }
        // Where each of the second list would be joined. It must not go backwards: one order would contradict the other.
        let matches = second.map { file in
            file.window.first == 0 ? nil : places[WindowEnd(number: file.number, group: UInt32(file.window.first) - 1)]
        }
        let joined = matches.compactMap(\.self)
        guard !joined.isEmpty, zip(joined, joined.dropFirst()).allSatisfy({ $0 < $1 }) else { return first + second }
        var result: [FileRecord] = []
        var next = 0
        for (file, match) in zip(second, matches) {
            guard let match else {
                result.append(file)
                continue
            }
            result += first[next..<match]
            result.append(joining(first[match], file))
            next = match + 1
        }
        return result + first[next...]
    }

    /// The right end of a window of a file.
    private struct WindowEnd: Hashable {
        let number: UInt64
        let group: UInt32
    }

    private static func joining(_ left: FileRecord, _ right: FileRecord) -> FileRecord {
        let window = KeyGroupRange(first: left.window.first, last: right.window.last)
        return FileRecord(number: left.number, window: window, summary: left.summary)
    }

    /// Neighbours that are windows of one file side by side become one reference: a worker that was split and is merged
    /// again has the references it had before.
    private static func joined(_ files: [FileRecord]) -> [FileRecord] {
        var result: [FileRecord] = []
        for file in files {
            if let last = result.last, last.number == file.number,
                UInt32(last.window.last) + 1 == UInt32(file.window.first)
            {
                result[result.count - 1] = joining(last, file)
            } else {
                result.append(file)
            }
        }
        return result
    }

    private static func check(
        _ used: [SnapshotRecord], _ identity: TreeIdentity, of source: String
    ) throws(EngineError) {
        let range = identity.keyGroups
        // First key group that no snapshot so far holds. Sorted by first group, so each must begin there.
        var next = UInt32(range.first)
        var previousLast: UInt16?
        for snapshot in used {
            guard snapshot.identity.store == source else {
                throw .unsupported(
                    detail: "snapshot \(snapshot.handle) is of store \(snapshot.identity.store), and not of \(source): "
                        + "restore from snapshots of one store")
            }
            guard snapshot.identity.keyGroupCount == identity.keyGroupCount else {
                throw .unsupported(
                    detail:
                        "snapshot \(snapshot.handle) has \(snapshot.identity.keyGroupCount) key groups, and the tree "
                        + "\(identity.keyGroupCount): the number of key groups of a store cannot change")
            }
            let groups = snapshot.identity.keyGroups
            if let previousLast, groups.first <= previousLast {
                throw .unsupported(
                    detail:
                        "snapshot \(snapshot.handle) overlaps another one at key group \(groups.first): restore from "
                        + "the snapshots of one checkpoint")
            }
            previousLast = groups.last
            if UInt32(groups.first) > next { break }
            next = UInt32(groups.last) + 1
        }
        guard next > UInt32(range.last) else {
            throw .unsupported(
                detail:
                    "no snapshot holds key group \(next), which the range \(range) needs: restore from all snapshots "
                    + "of the checkpoint")
        }
    }
}
