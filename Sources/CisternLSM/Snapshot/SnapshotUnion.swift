// A new tree's files from snapshots: each snapshot is clipped to the new range, and what is left is put together level by
// level. Pure, and metadata only: no file is opened, so the time does not depend on the size of the state.
//
//   snapshot A 0...63  ──clip 40...90──► files with windows 40...63 ─┐
//   snapshot B 64...127 ─clip 40...90──► files with windows 64...90 ─┴─► one tree 40...90
//
// Level 0 keeps each snapshot's order; between snapshots order does not matter, because no key belongs to both. In deeper
// levels the files of different snapshots cannot overlap, for the same reason. References to logs are clipped and joined alike.

internal import CisternPrimitives

package enum SnapshotUnion {
    /// The state of a new tree that holds what the snapshots held of its range.
    /// - Throws: `unsupported` when the snapshots overlap, leave a part of the range out, or are of another store.
    package static func state(
        identity: TreeIdentity, epoch: UInt64, writer: String, from snapshots: [SnapshotRecord]
    ) throws(EngineError) -> TreeState {
        let range = identity.keyGroups
        let used = snapshots.filter { $0.identity.keyGroups.overlaps(range) }
            .sorted { $0.identity.keyGroups.first < $1.identity.keyGroups.first }
        if !snapshots.isEmpty { try check(used, identity) }
        // The least watermark: nothing expires earlier in the new tree than it would have in the old ones.
        let watermark = used.map(\.progress.watermark).min() ?? 0
        var state = TreeState(identity: identity, epoch: epoch, writer: writer, watermark: watermark)
        for snapshot in used {
            guard let part = snapshot.identity.keyGroups.intersection(range) else { continue }
            for (level, files) in snapshot.levels.enumerated() {
                state.levels[level] += files.compactMap { $0.clipped(to: part) }
            }
            state.logs += snapshot.logs.compactMap { $0.clipped(to: part) }
        }
        for level in 1..<state.levels.count {
            state.levels[level].sort { compareKeys($0.smallestKey, $1.smallestKey) < 0 }
            state.levels[level] = joined(state.levels[level])
        }
        state.logs = LogReference.arranged(state.logs)
        return state
    }

    /// Neighbours that are windows of one file side by side become one reference: a worker that was split and is merged
    /// again has the references it had before.
    private static func joined(_ files: [FileRecord]) -> [FileRecord] {
        var result: [FileRecord] = []
        for file in files {
            if let last = result.last, last.number == file.number,
                UInt32(last.window.last) + 1 == UInt32(file.window.first)
            {
                let window = KeyGroupRange(first: last.window.first, last: file.window.last)
                result[result.count - 1] = FileRecord(number: file.number, window: window, summary: file.summary)
            } else {
                result.append(file)
            }
        }
        return result
    }

    private static func check(_ used: [SnapshotRecord], _ identity: TreeIdentity) throws(EngineError) {
        let range = identity.keyGroups
        // First key group that no snapshot so far holds. Sorted by first group, so each must begin there.
        var next = UInt32(range.first)
        var previousLast: UInt16?
        for snapshot in used {
            guard snapshot.identity.store == identity.store else {
                throw .unsupported(
                    detail: "snapshot \(snapshot.handle) is of store \(snapshot.identity.store), and the tree of "
                        + "\(identity.store): restore from snapshots of the same store")
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
