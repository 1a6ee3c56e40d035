// Attaching where logs are replicated: the trees that count are those of the records in metadata, wherever they are.
//
//   records ─► trees here that others have replaced go ─► the rule of attaches decides among all of them ─┬─ here ─► log taken over, what
//                                                                                                         │         is missing replayed
//                                                                                                         └─ elsewhere, or nowhere ─► made
//                                                                                                           from its base, and all of the log
//
// Every step is inside `exclusively`.

internal import CisternLSM
internal import CisternLogProtocol
internal import CisternMetadata
internal import CisternPrimitives
internal import CisternTransport
internal import CisternWire
internal import Logging
internal import Synchronization

/// The trees of a store as metadata has them, for one attach.
private struct ReplicatedTrees {
    /// Ids of trees that are not here, for the rule only.
    static let elsewhere: UInt64 = 1 << 63

    var found: [UInt64: Replication.Found] = [:]
    var claims: [TreeClaim] = []

    init(_ all: [Replication.Found], here: [UInt64: TreeRegistry.Record], server: [UInt8]) {
        for (index, next) in all.enumerated() {
            let record = next.claim
            let isHere = record.server == server && here[record.tree] != nil
            let id = isHere ? record.tree : ReplicatedTrees.elsewhere | UInt64(index)
            found[id] = next
            claims.append(TreeClaim(id: id, range: record.keyGroups, epoch: record.epoch, writer: record.writer))
        }
    }

    static func isElsewhere(_ id: UInt64) -> Bool { id & elsewhere != 0 }
}

extension TreeRegistry {
    func attach(
        _ request: AttachRequest, _ replication: Replication, store: CatalogStore, from snapshots: [SnapshotReference],
        for attachment: Attachment, attempt: String, bring: @escaping @Sendable ([String]) async -> Refusal?
    ) async -> Result<AttachedTree, Refusal> {
        let started = time.monotonicNanoseconds
        do throws(ReplicationError) {
            let all = try await replication.trees(ofStore: store.name)
            if let refusal = await dropReplaced(store.name, request.range, all, replication, attempt: attempt) {
                return .failure(refusal)
            }
            let trees = ReplicatedTrees(all, here: records(store.name), server: replication.server)
            switch AttachRules.decide(request, trees: trees.claims) {
            case .fenced(let owner): return .failure(Refusal.fenced(attempt, by: owner.epoch))
            case .mismatch(let ranges): return .failure(Refusal.mismatch(attempt, with: ranges))
            case .resume(let id), .takeOver(let id):
                guard let found = trees.found[id] else { return .failure(Refusal.fenced(attempt, by: request.epoch)) }
                if ReplicatedTrees.isElsewhere(id) {
                    return try await make(
                        found, request, replication, store, attachment, started: started, attempt: attempt, bring: bring
                    )
                }
                return try await takeHere(
                    id, found, request, replication, store, attachment, started: started, attempt: attempt)
            case .fresh:
                if let damaged = damage(hiding: request, of: store, attempt: attempt) { return .failure(damaged) }
                return try await begin(
                    request, replication, store, from: [], replacing: [], trees, attachment, started: started,
                    attempt: attempt)
            case .restore(let replaced):
                return try await begin(
                    request, replication, store, from: snapshots, replacing: replaced, trees, attachment,
                    started: started, attempt: attempt)
            }
        } catch {
            return .failure(Refusal(error, attempt: attempt))
        }
    }

    /// Which of these snapshots nobody needs any more. The others stay until their trees do not, and those that are a base of another
    /// server's tree until a later release finds that they are none.
    func release(_ handles: [String], store: String) async -> [String] {
        var free = withheld.withLock { $0.removeValue(forKey: store) ?? [] }.union(handles)
        var needsLook = false
        for record in records(store).values {
            guard let ownership = record.ownership else {
                needsLook = true
                continue
            }
            free = Set(await ownership.release(Array(free)))
        }
        guard let replication, !free.isEmpty else { return Array(free) }
        let needed: Set<String>
        do throws(ReplicationError) {
            // Trees of other servers, which may read their base where it is, and those here that were not open since the start.
            let all = try await replication.trees(ofStore: store)
            needed = Set(
                all.filter { needsLook || $0.claim.server != replication.server }.flatMap(\.claim.base.handles))
        } catch {
            // Rather too many than one too few.
            needed = free
        }
        let kept = free.intersection(needed)
        if !kept.isEmpty { withheld.withLock { $0[store, default: []].formUnion(kept) } }
        return Array(free.subtracting(kept))
    }

    // MARK: Steps

    /// Trees here whose key groups a newer record has. One that metadata does not know at all stays: it may be the wrong metadata.
    private func dropReplaced(
        _ store: String, _ range: KeyGroupRange, _ all: [Replication.Found], _ replication: Replication,
        attempt: String
    ) async -> Refusal? {
        for (id, record) in records(store) where record.claim.range.overlaps(range) {
            if all.contains(where: { $0.claim.server == replication.server && $0.claim.tree == id }) { continue }
            guard let newer = all.first(where: { $0.claim.keyGroups.overlaps(record.claim.range) }) else {
                return Refusal(
                    .corruption,
                    "\(attempt): the metadata store knows nothing of the tree of key groups \(record.claim.range), which is in the "
                        + "data directory: see that it is the metadata store this server was used with; if it is lost, "
                        + "attach restoring the snapshots of a checkpoint on a server with a new data directory")
            }
            await revoke(id, store, by: newer.claim.epoch)
            let ownership = record.ownership
            await discard(id, store)
            await ownership?.close()
        }
        return nil
    }

    /// Half of a tree, or one that others have replaced, is nobody's.
    private func discard(_ id: UInt64, _ store: String) async {
        await withCheckedContinuation { continuation in
            engine.retireTree(TreeID(id)) { _ in continuation.resume() }
        }
        remove(id, store)
    }

    /// A tree of this server.
    private func takeHere(
        _ id: UInt64, _ found: Replication.Found, _ request: AttachRequest, _ replication: Replication,
        _ store: CatalogStore, _ attachment: Attachment, started: UInt64, attempt: String
    ) async throws(ReplicationError) -> Result<AttachedTree, Refusal> {
        // The record is raised before the tree: an interruption leaves the tree behind it.
        let known = records(store.name)[id]?.claim.epoch ?? 0
        let raisingEpoch = min(found.claim.epoch, known) < request.epoch
        if openTree(id, store.name) != nil, let ownership = records(store.name)[id]?.ownership {
            let (epoch, writer) = (request.epoch, request.writer)
            let changed = await ownership.update { record in
                record.epoch = epoch
                record.writer = writer
            }
            try changed.get()
            return await take(
                id, request, raisingEpoch: raisingEpoch, store, attachment, started: started, attempt: attempt)
        }
        let ownership = try await replication.take(
            found, ofStore: store.name, epoch: request.epoch, writer: request.writer, tree: id)
        update(id, store.name) { $0.ownership = ownership }
        replication.counters.tookOver(
            fromElsewhere: false, microseconds: (time.monotonicNanoseconds - started) / 1000)
        let claim = TreeClaim(id: id, range: request.range, epoch: request.epoch, writer: request.writer)
        return await take(
            id, request, raisingEpoch: raisingEpoch, store, attachment, started: started, attempt: attempt
        ) { tree, executor in
            if case .failure(let error) = await ownership.replay(into: tree, on: executor) {
                return Refusal(error, attempt: attempt)
            }
            return await self.replicate(tree, ownership, claim, on: executor, attempt: attempt)
        }
    }

    /// A tree of another server, or one whose disk is gone.
    private func make(
        _ found: Replication.Found, _ request: AttachRequest, _ replication: Replication, _ store: CatalogStore,
        _ attachment: Attachment, started: UInt64, attempt: String,
        bring: @Sendable ([String]) async -> Refusal?
    ) async throws(ReplicationError) -> Result<AttachedTree, Refusal> {
        let ownership = try await replication.take(
            found, ofStore: store.name, epoch: request.epoch, writer: request.writer, tree: 0)
        // As it is now: whoever had the tree may have moved the base until the log was taken from it.
        let record = await ownership.record.value
        func refuse(_ refusal: Refusal) async -> Result<AttachedTree, Refusal> {
            await ownership.close()
            return .failure(refusal)
        }
        if let refusal = await bring(record.base.handles) { return await refuse(refusal) }
        let identity = TreeIdentity(
            store: store.name, keyGroups: request.range, keyGroupCount: store.keyGroupCount)
        let executor = attachment.session.executor
        let tree: Tree
        switch await engine.createTree(
            identity, epoch: request.epoch, writer: request.writer,
            from: record.base.handles.map { SnapshotReference(handle: $0) }, replacing: [],
            at: LogPosition(epoch: record.base.epoch, sequence: record.base.sequence), pointStates: store.pointStates,
            executor: executor)
        {
        case .failure(let error): return await refuse(Refusal(error, attempt: attempt))
        case .success(let made): tree = made
        }
        let claim = TreeClaim(
            id: tree.id.number, range: request.range, epoch: request.epoch, writer: request.writer)
        insert(
            Record(claim: claim, open: OpenTree(tree: tree, executor: executor), ownership: ownership), store.name)
        var refusal: Refusal?
        if case .failure(let error) = await ownership.replay(into: tree, on: executor) {
            refusal = Refusal(error, attempt: attempt)
        }
        if refusal == nil {
            refusal = await replicate(tree, ownership, claim, on: executor, attempt: attempt)
        }
        if let refusal {
            await discard(claim.id, store.name)
            return await refuse(refusal)
        }
        replication.counters.tookOver(
            fromElsewhere: true, microseconds: (time.monotonicNanoseconds - started) / 1000)
        logger.notice(
            "a tree was taken over from another server",
            metadata: [
                "store": "\(store.name)", "key_groups": "\(request.range)", "epoch": "\(request.epoch)",
                "milliseconds": "\((time.monotonicNanoseconds - started) / 1_000_000)",
            ])
        return await install(
            claim.id, tree, store, request, attachment, resumed: found.claim.epoch == request.epoch, started: started)
    }

    /// A new tree in place of others, here and elsewhere.
    private func begin(
        _ request: AttachRequest, _ replication: Replication, _ store: CatalogStore,
        from snapshots: [SnapshotReference], replacing: [UInt64], _ trees: ReplicatedTrees, _ attachment: Attachment,
        started: UInt64, attempt: String
    ) async throws(ReplicationError) -> Result<AttachedTree, Refusal> {
        // They become the base. Where they are on this server's disk only, the trees that are replaced, and their logs, are what they
        // could be made again from.
        for snapshot in snapshots where !(await replication.isStored(snapshot.handle)) {
            return .failure(
                Refusal(
                    .noSuchSnapshot,
                    "\(attempt): snapshot \"\(snapshot.handle)\" was released before it was in the snapshot store"))
        }
        let identity = TreeIdentity(
            store: store.name, keyGroups: request.range, keyGroupCount: store.keyGroupCount)
        let replaced = replacing.compactMap { trees.found[$0] }
        let here = replacing.filter { !ReplicatedTrees.isElsewhere($0) }
        let former = here.compactMap { records(store.name)[$0]?.ownership }
        let handles = snapshots.map(\.handle)
        var held: [String] = []
        for other in former { held += await other.record.value.held }
        let ownership = try await replication.begin(
            identity, epoch: request.epoch, writer: request.writer, from: handles, held: held.filter(handles.contains),
            replacing: replaced)
        let result = await create(
            request, store: store, from: snapshots, replacing: here, attachment, started: started, attempt: attempt,
            ownership: ownership)
        if case .failure = result {
            for (id, record) in records(store.name) where record.ownership === ownership {
                await discard(id, store.name)
            }
            await ownership.close()
            let mine = Replication.Found(id: ownership.id, entry: await ownership.record)
            if mine.claim.tree == 0 { try await replication.remove(mine, ofStore: store.name) }
            return result
        }
        for other in former { await other.close() }
        await replication.release(held.filter { !handles.contains($0) })
        for other in replaced {
            do throws(ReplicationError) {
                try await replication.remove(other, ofStore: store.name)
            } catch {
                // The next attach to the store removes it, because a newer record has its key groups.
                logger.warning(
                    "a replaced tree's record stays for now",
                    metadata: ["store": "\(store.name)", "tree": "\(other.id)", "error": "\(error)"])
            }
        }
        return result
    }

    /// From here on the tree's writes are acknowledged by its log, and metadata says that it is here.
    func replicate(
        _ tree: Tree, _ ownership: TreeOwnership, _ claim: TreeClaim, on executor: LoopExecutor, attempt: String
    ) async -> Refusal? {
        let id = tree.id.number
        if case .failure(let error) = await ownership.update({ $0.tree = id }) {
            return Refusal(error, attempt: attempt)
        }
        let store = ownership.store
        await executor.run { [self] in
            tree.replicate(to: ownership.replica) { error in
                Task { await self.lost(ownership, claim, store, because: error) }
            }
        }
        // What was taken before, and is no base yet. The base may be in another server's part of the store, where nobody tells of it.
        let known = await ownership.record.value
        for handle in known.held where !known.base.handles.contains(handle) {
            guard let record = engine.snapshotRecord(handle) else { continue }
            await ownership.follow(handle, at: record.progress.position)
        }
        return nil
    }

    /// The tree's log takes nothing more. Its session ends, so that the worker comes back to wherever the tree can be had.
    private func lost(
        _ ownership: TreeOwnership, _ claim: TreeClaim, _ store: String, because error: EngineError
    ) async {
        await exclusively(store, claim.range) {
            guard let record = self.records(store)[claim.id], record.ownership === ownership, record.open != nil else {
                return
            }
            // Another owner has a newer generation, and this swap of nothing finds it.
            var newer: UInt64?
            if case .failure(.lost(let epoch)) = await ownership.look() { newer = epoch }
            self.replication?.counters.lost()
            self.logger.error(
                "a tree's log takes nothing more",
                metadata: ["store": "\(store)", "key_groups": "\(claim.range)", "error": "\(error)"])
            let attachment = self.update(claim.id, store) { record -> Attachment? in
                defer { record.attachment = nil }
                return record.attachment
            }
            if let attachment = attachment ?? nil {
                await attachment.session.executor.run { [newer] in
                    attachment.session.revoke(attachment.handle, by: newer)
                    if newer == nil { attachment.session.connection?.close(reason: "the log of a tree failed") }
                }
            }
            await self.close(claim.id, store)
        }
    }
}
