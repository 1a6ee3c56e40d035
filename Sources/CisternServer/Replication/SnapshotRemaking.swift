// Snapshots whose server was lost before it had uploaded them: the tree's base and its log up to the snapshot's position are the same.
//
//   log ─► where the snapshot was taken ─► a tree of nobody's from the base, the log replayed up to there ─► its snapshot, under the old
//   handle ─► the tree goes
//
// Reading a log means to take it over: its owner stops. That is what the restore that asks for the snapshot does to it anyway, with an
// epoch that is higher.

internal import CisternLSM
internal import CisternLogProtocol
internal import CisternMetadata
internal import CisternPrimitives
internal import CisternWire

extension Replication {
    /// Trees under such names are on their way to be snapshots. No store can be called that.
    static let remadePrefix = "remake/"

    /// Removes what an interruption left. Before the engine's trees are looked at.
    static func removeRemade(_ engine: Engine) {
        let trees = engine.treeInfos().filter { $0.identity.store.hasPrefix(remadePrefix) }
        for tree in trees { engine.retireTree(tree.id) }
        let handles = engine.snapshotHandles.filter { $0.hasPrefix(remadePrefix) }
        if !handles.isEmpty { engine.releaseSnapshots(Array(handles)) }
    }

    /// Makes those of the snapshots again that logs know of; what is found nowhere is left to whoever looks for it.
    /// - Parameters:
    ///   - epoch: of the restore. Trees with the same one or a newer one are left alone.
    ///   - bring: makes snapshots of the snapshot store ones of this server.
    func remake(
        _ handles: [String], of store: CatalogStore, epoch: UInt64, on executor: LoopExecutor, attempt: String,
        bring: ([String]) async -> Refusal?
    ) async -> Refusal? {
        do throws(ReplicationError) {
            var left = Set(handles)
            for found in try await trees(ofStore: store.name) where !left.isEmpty && found.claim.epoch < epoch {
                // The snapshots of a tree that is here are here too.
                if found.claim.server == server && found.claim.tree != 0 { continue }
                let ownership = try await take(
                    found, ofStore: store.name, epoch: found.claim.epoch, writer: found.claim.writer, tree: 0)
                let refusal = await remake(
                    &left, from: ownership, store, on: executor, attempt: attempt, bring: bring)
                await ownership.close()
                if let refusal { return refusal }
            }
            return nil
        } catch {
            return Refusal(error, attempt: attempt)
        }
    }

    private func remake(
        _ left: inout Set<String>, from ownership: TreeOwnership, _ store: CatalogStore, on executor: LoopExecutor,
        attempt: String, bring: ([String]) async -> Refusal?
    ) async -> Refusal? {
        do throws(EngineError) {
            let record = await ownership.record.value
            for snapshot in try await ownership.snapshots() where left.contains(snapshot.handle) {
                if let refusal = await bring(record.base.handles) { return refusal }
                try await remake(snapshot, record, ownership, store, on: executor)
                left.remove(snapshot.handle)
            }
            return nil
        } catch {
            return Refusal(error, attempt: attempt)
        }
    }

    private func remake(
        _ snapshot: ReplicatedSnapshot, _ record: TreeRecord, _ ownership: TreeOwnership, _ store: CatalogStore,
        on executor: LoopExecutor
    ) async throws(EngineError) {
        let identity = TreeIdentity(
            store: Replication.remadePrefix + ownership.id, keyGroups: record.keyGroups,
            keyGroupCount: Int(record.keyGroupCount))
        let tree = try await engine.forkTree(
            identity, epoch: snapshot.progress.epoch, writer: record.writer, of: store.name,
            from: record.base.handles.map { SnapshotReference(handle: $0) },
            at: LogPosition(epoch: record.base.epoch, sequence: record.base.sequence), pointStates: store.pointStates,
            executor: executor
        ).get()
        let result = await remake(snapshot, as: store.name, from: tree, ownership, on: executor)
        await withCheckedContinuation { continuation in
            engine.retireTree(tree.id) { _ in continuation.resume() }
        }
        try result.get()
    }

    private func remake(
        _ snapshot: ReplicatedSnapshot, as store: String, from tree: Tree, _ ownership: TreeOwnership,
        on executor: LoopExecutor
    ) async -> Result<Void, EngineError> {
        let position = snapshot.progress.position
        if case .failure(let error) = await ownership.replay(into: tree, through: position, on: executor) {
            return .failure(error)
        }
        let taken = await withCheckedContinuation { continuation in
            executor.execute {
                tree.endReplay()
                tree.snapshot(checkpoint: snapshot.checkpoint) { continuation.resume(returning: $0) }
            }
        }
        guard case .success(let info) = taken else { return taken.map { _ in } }
        let remade = await withCheckedContinuation { continuation in
            engine.remakeSnapshot(snapshot, as: store, from: info.handle) { continuation.resume(returning: $0) }
        }
        engine.releaseSnapshots([info.handle])
        return remade.map { _ in }
    }
}
