// Snapshots of a tree: a durable record of its files and of what is not in files yet.
//
//   log on   snapshot ─► cut: files, log segments, position ─► [log lane] durable up to the cut ─► record synced ─► handle
//   log off  snapshot ─► seal ─► flushes up to the cut ─► version at that moment ─► record synced ─► handle
//
// Files and log segments are shared with the tree by reference; nothing is copied. Everything here is called by the tree's owner.

internal import CisternPrimitives

/// Keeps files and log segments until a snapshot's record owns them.
struct SnapshotHold: Sendable {
    let version: Version
    let logs: LogHold?
}

struct PendingSnapshot: Sendable {
    let checkpoint: UInt64
    let epoch: UInt64
    /// Sealed memtables that are still to be flushed before the cut is in files.
    var flushesLeft: Int
    let progress: WriteProgress
    var isRecording = false
    var completions: [@Sendable (Result<SnapshotInfo, EngineError>) -> Void]
}

extension Tree {
    /// Takes a snapshot of everything written before this call. The same checkpoint asked for again, in the same epoch, gives
    /// the same snapshot.
    /// - Parameter completion: on the owner's executor, when the snapshot is durable. Fails with `readOnly` while the disk
    ///   fails; the caller may ask again.
    package func snapshot(
        checkpoint: UInt64, completion: @escaping @Sendable (Result<SnapshotInfo, EngineError>) -> Void
    ) {
        guard lifecycle == .open else { return completion(.failure(.closed(tree: name))) }
        if let known = engine.snapshot(tree: id, epoch: epoch, checkpoint: checkpoint) {
            return completion(.success(known))
        }
        if let index = snapshots.firstIndex(where: { $0.checkpoint == checkpoint && $0.epoch == epoch }) {
            return snapshots[index].completions.append(completion)
        }
        if let cause = failures.cause { return completion(.failure(.readOnly(tree: name, cause: cause))) }
        if let log, engine.sharesLogs, hasUnsealedWrites || !sealed.isEmpty {
            return recordWithLog(log, checkpoint: checkpoint, completion: completion)
        }
        if hasUnsealedWrites { seal() }
        snapshots.append(
            PendingSnapshot(
                checkpoint: checkpoint, epoch: epoch, flushesLeft: sealed.count, progress: progress,
                completions: [completion]))
        if sealed.isEmpty { recordSnapshots() } else { startFlush() }
    }

    /// One more sealed memtable has become a file.
    func advanceSnapshots() {
        guard !snapshots.isEmpty else { return }
        for index in snapshots.indices where snapshots[index].flushesLeft > 0 { snapshots[index].flushesLeft -= 1 }
        recordSnapshots()
    }

    private func recordSnapshots() {
        for index in snapshots.indices where snapshots[index].flushesLeft == 0 && !snapshots[index].isRecording {
            snapshots[index].isRecording = true
            record(snapshots[index])
        }
    }

    private func record(_ snapshot: PendingSnapshot) {
        // Held until the record owns its files: a compaction may drop them from the tree meanwhile.
        let hold = SnapshotHold(version: version, logs: nil)
        let record = SnapshotRecord(
            handle: "", identity: identity, tree: id, checkpoint: snapshot.checkpoint, progress: snapshot.progress,
            createdMilliseconds: engine.time.wallMilliseconds, levels: state.levels,
            expiryRules: state.expiryRules)
        write(record, of: snapshot, hold)
    }

    /// The log has everything that is not in files, so nothing is flushed: it only has to be durable up to here.
    private func recordWithLog(
        _ log: TreeLog, checkpoint: UInt64, completion: @escaping @Sendable (Result<SnapshotInfo, EngineError>) -> Void
    ) {
        let segments = state.firstSegment...segment
        let own = segments.map { SegmentID(tree: id, number: $0) }
        let hold = SnapshotHold(version: version, logs: LogHold(engine.logs, state.logs.segmentIDs + own))
        let snapshot = PendingSnapshot(
            checkpoint: checkpoint, epoch: epoch, flushesLeft: 0, progress: progress, isRecording: true,
            completions: [completion])
        snapshots.append(snapshot)
        let cut = SnapshotRecord(
            handle: "", identity: identity, tree: id, checkpoint: checkpoint, progress: progress,
            createdMilliseconds: engine.time.wallMilliseconds, levels: state.levels, logs: state.logs,
            expiryRules: state.expiryRules)
        let after = state.flushed.position
        log.mark(segments) { [self] result in
            switch result {
            case .success(let parts):
                var record = cut
                let part = LogReference(
                    tree: cut.tree, window: cut.identity.keyGroups, after: after, through: cut.progress.position,
                    segments: parts)
                if !parts.isEmpty && part.after < part.through { record.logs.append(part) }
                write(record, of: snapshot, hold)
            case .failure(let error):
                mailbox.post(to: self) {
                    $0.recorded(snapshot, .failure(.readOnly(tree: $0.name, cause: describe(error))))
                }
            }
        }
    }

    /// Called by the owner or on the log lane: reaches nothing that changes.
    private func write(_ record: SnapshotRecord, of snapshot: PendingSnapshot, _ hold: SnapshotHold) {
        engine.lanes.metadata.submit { [self] in
            let result: Result<SnapshotInfo, EngineError>
            do throws(EngineError) {
                result = .success(try engine.record(record, epoch: snapshot.epoch, holding: hold))
            } catch {
                result = .failure(error)
            }
            mailbox.post(to: self) { $0.recorded(snapshot, result) }
        }
    }

    private func recorded(_ snapshot: PendingSnapshot, _ result: Result<SnapshotInfo, EngineError>) {
        guard
            let index = snapshots.firstIndex(where: {
                $0.checkpoint == snapshot.checkpoint && $0.epoch == snapshot.epoch && $0.isRecording
            })
        else { return }
        let completions = snapshots.remove(at: index).completions
        if case .success = result { counters.snapshots += 1 }
        for completion in completions { completion(result) }
        continueClosing()
    }

    /// Snapshots that wait for a flush cannot be had while the disk fails. One that is being recorded answers by itself.
    func failSnapshots(_ error: EngineError) {
        let failed = snapshots.filter { !$0.isRecording }
        snapshots.removeAll { !$0.isRecording }
        for snapshot in failed {
            for completion in snapshot.completions { completion(.failure(error)) }
        }
    }
}
