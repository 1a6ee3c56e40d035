// Snapshots of a tree: a cut of its memtable, and a durable record of the files once everything before the cut is in files.
//
//   snapshot ─► seal ─► flushes up to the cut ─► version at that moment ─► record synced ─► handle
//
// Files are shared with the tree by reference; nothing is copied.

internal import CisternPrimitives

struct PendingSnapshot {
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
        let version = self.version
        let record = SnapshotRecord(
            handle: "", identity: identity, tree: id, checkpoint: snapshot.checkpoint, progress: snapshot.progress,
            createdMilliseconds: engine.time.wallMilliseconds, levels: state.levels)
        engine.lanes.metadata.submit { [self] in
            let result: Result<SnapshotInfo, EngineError>
            do throws(EngineError) {
                result = .success(try engine.record(record, epoch: snapshot.epoch, version: version))
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
