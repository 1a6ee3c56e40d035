// The seldom requests: attaching, detaching, registering states and dictionaries, snapshots. Each is a task where it has to
// wait; the answer goes back through the session's event loop.

internal import CisternDaemon
internal import CisternLSM
internal import CisternPrimitives
internal import CisternTransport
internal import CisternWire
internal import CisternWireMessages
internal import SwiftProtobuf

extension ServerSession {
    // MARK: ATTACH

    func attach(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_Attach.self, header, body) else { return }
        let groups = "\(message.keyGroupFirst)...\(message.keyGroupLast)"
        let attempt = "attach of store \"\(message.store)\" key groups \(groups) with epoch \(message.epoch)"
        if let problem = problem(of: message) { return refuse(header, Refusal(.badMessage, "\(attempt): \(problem)")) }
        guard isAllowed(.write, message.store, attempt, header) else { return }
        guard !core.isDraining else {
            return refuse(header, Refusal(.draining, "\(attempt): the server is stopping"))
        }
        guard let handle = reserveHandle() else {
            return refuse(
                header,
                Refusal(
                    .limitExceeded,
                    "\(attempt): the connection has attached \(ServerSession.handlesMax) times: connect again"))
        }
        let request = AttachRequest(
            range: KeyGroupRange(first: UInt16(message.keyGroupFirst), last: UInt16(message.keyGroupLast)),
            epoch: message.epoch, writer: message.writer, isRestoring: message.restoring)
        let attachment = Attachment(session: self, handle: handle)
        perform(header) { [core] in
            let store: CatalogStore
            switch await core.change(
                message.store, attempt: attempt, refreshes: true,
                { state throws(CatalogRefusal) in
                    try state.ensureStore(message.store, keyGroupCount: Int(message.keyGroupCount))
                })
            {
            case .failure(let error): return .failure(error)
            case .success(let known): store = known
            }
            let known = core.catalog.store(named: store.name) ?? store
            var remake: (([String]) async -> Refusal?)?
            if let replication = core.replication {
                let executor = attachment.session.executor
                remake = { missing in
                    await replication.remake(
                        missing, of: known, epoch: request.epoch, on: executor, attempt: attempt
                    ) { handles in await core.bring(handles, of: known.name, attempt: attempt, uploads: false) }
                }
            }
            if let refusal = await core.bring(
                message.restore, of: store.name, attempt: attempt, unknown: remake)
            {
                return .failure(refusal)
            }
            let snapshots: [SnapshotReference]
            switch await core.references(message.restore, store: store.name, range: request.range, attempt: attempt) {
            case .failure(let error): return .failure(error)
            case .success(let found): snapshots = found
            }
            let result = await core.registry.attach(
                request, store: core.catalog.store(named: store.name) ?? store, from: snapshots, for: attachment,
                attempt: attempt
            ) { handles in await core.bring(handles, of: store.name, attempt: attempt, uploads: false) }
            return result.map { attached in
                ControlMessage.encode(
                    AttachAnswer.make(attached, handle, core.catalog.store(named: store.name) ?? store))
            }
        }
    }

    /// False when the request was answered with why not. Requests with a tree's handle need no look: the attach had one.
    private func isAllowed(
        _ rights: AccessGrant.Rights, _ store: String, _ attempt: String, _ header: FrameHeader
    ) -> Bool {
        guard let grant = connection?.grant else { return false }
        if grant.allows(rights, store: store) { return true }
        let right = rights.contains(.write) ? "write" : "read"
        refuse(
            header, Refusal(.permissionDenied, "\(attempt): the token \"\(grant.name)\" may not \(right) this store"))
        return false
    }

    /// What no store could ever accept.
    private func problem(of message: Cistern_V1_Attach) -> String? {
        let count = message.keyGroupCount
        if count == 0 || count > UInt32(KeyGroup.countMax) {
            return "the store cannot have \(count) key groups: give 1 to \(KeyGroup.countMax)"
        }
        if message.keyGroupFirst > message.keyGroupLast || message.keyGroupLast >= count {
            return "the range is not within the store's key groups 0...\(count - 1)"
        }
        if message.epoch == 0 { return "epochs count from 1" }
        if message.writer.isEmpty || message.writer.utf8.count > CatalogLimits.nameBytesMax {
            return "the writer's name must have 1 to \(CatalogLimits.nameBytesMax) bytes"
        }
        if !message.restore.isEmpty && !message.restoring {
            return "snapshots are named, and \"restoring\" is not set"
        }
        return nil
    }

    // MARK: DETACH

    func detach(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_Detach.self, header, body),
            let tree = tree(of: header, epoch: message.epoch)
        else { return }
        markDetached(header.tree)
        perform(header) { [core] in
            await core.registry.detach(tree.attachment, store: tree.store, tree: tree.id, range: tree.range)
            return .success(ControlMessage.encode(Cistern_V1_DetachReply()))
        }
    }

    // MARK: States and dictionaries

    func registerState(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_RegisterState.self, header, body), let tree = tree(of: header)
        else {
            return
        }
        let asked = message.state
        let attempt = "register state \"\(asked.name)\" of store \"\(tree.store)\""
        guard let kind = CatalogStateKind(rawValue: UInt8(clamping: asked.kind.rawValue)) else {
            return refuse(
                header, Refusal(.badMessage, "\(attempt): kind \(asked.kind.rawValue) is not known to this server"))
        }
        let store = tree.store
        perform(header) { [self, core] in
            let result = await core.change(store, attempt: attempt) { state throws(CatalogRefusal) in
                try state.register(
                    store: store, state: asked.name, kind: kind, ttlMilliseconds: asked.ttlMilliseconds)
            }
            guard case .success(let entry) = result else { return result.map { _ in [] } }
            if kind.isPoint { await declarePointStates(handle: header.tree) }
            let told = await tellTimeToLive(asked, of: entry.id, handle: header.tree)
            return told.mapError { Refusal($0, attempt: attempt) }.map { told in
                ControlMessage.encode(
                    Cistern_V1_RegisterStateReply.with {
                        $0.state = AttachAnswer.descriptor(entry)
                        $0.ttlChanges = told.changes
                        $0.expiryRules = told.rules.map(AttachAnswer.rule)
                    })
            }
        }
    }

    /// Tells the tree of the handle, if the session still has it, what the catalog knows.
    private func declarePointStates(handle: UInt32) async {
        await executor.run { [self] in
            guard let tree = attachedTree(handle), let store = core.catalog.store(named: tree.store) else { return }
            tree.tree.declare(pointStates: store.pointStates)
        }
    }

    private struct ToldTimeToLive {
        let changes: UInt64
        let rules: [ExpiryRule]
    }

    /// Gives the tree of the handle the state's time to live, for what is stored too, and waits until that is durable. A client that
    /// does not name the clock is one that goes by the expiries it has written.
    private func tellTimeToLive(
        _ asked: Cistern_V1_StateDescriptor, of state: UInt16, handle: UInt32
    ) async -> Result<ToldTimeToLive, EngineError> {
        await withCheckedContinuation { continuation in
            executor.execute { [self] in
                guard let tree = attachedTree(handle)?.tree else {
                    return continuation.resume(returning: .failure(.closed(tree: "the tree of handle \(handle)")))
                }
                let answer: @Sendable (Result<UInt64, EngineError>) -> Void = { result in
                    continuation.resume(
                        returning: result.map { ToldTimeToLive(changes: $0, rules: tree.expiryRules(of: state)) })
                }
                if asked.ttlClock == .unspecified { return answer(.success(tree.timeToLiveChanges)) }
                let ttl = StateTimeToLive(
                    milliseconds: asked.ttlMilliseconds, isEventTime: asked.ttlClock == .event)
                tree.declare(ttl, of: state, completion: answer)
            }
        }
    }

    func putDictionary(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_PutDictionary.self, header, body), let tree = tree(of: header)
        else {
            return
        }
        let store = tree.store
        perform(header) { [core] in
            let result = await core.change(
                store, attempt: "put a dictionary for state \(message.stateID) of store \"\(store)\""
            ) { state throws(CatalogRefusal) in
                try state.addDictionary(store: store, stateID: message.stateID, bytes: message.dictionaryBytes)
            }
            return result.map { id in ControlMessage.encode(Cistern_V1_PutDictionaryReply.with { $0.id = id }) }
        }
    }

    func getDictionary(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_GetDictionary.self, header, body), let tree = tree(of: header)
        else {
            return
        }
        let known = core.catalog.store(named: tree.store)?.dictionaries.first { $0.id == message.id }
        guard let known else {
            let refusal = CatalogRefusal.unknownDictionary(store: tree.store, id: message.id)
            return refuse(header, Refusal(CatalogError.refused(refusal), attempt: "get dictionary"))
        }
        let reply = Cistern_V1_GetDictionaryReply(stateID: UInt32(known.stateID), dictionaryBytes: known.bytes)
        answer(header, ControlMessage.encode(reply))
    }

    // MARK: Snapshots

    func snapshot(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_Snapshot.self, header, body),
            let tree = tree(of: header, epoch: message.epoch)
        else { return }
        let attempt = "snapshot of \(tree.name) at checkpoint \(message.checkpoint)"
        let held = tree.tree.lastSequence
        guard message.sequence <= held else {
            // The writer believes that batches are here which are not.
            return refuse(
                header,
                Refusal(
                    .sequenceGap,
                    "\(attempt): it must hold batch \(message.sequence), the tree has \(held) as its newest",
                    expectedSequence: held + 1))
        }
        let arrival = core.time.monotonicNanoseconds
        let checkpoint = message.checkpoint
        tree.tree.snapshot(checkpoint: checkpoint) { [self] result in
            core.replicate(result, of: tree) { [self] result in
                core.note(checkpoint, of: tree, since: arrival, result)
                executor.execute { self.answerSnapshot(header, result, attempt: attempt) }
            }
        }
    }

    private func answerSnapshot(
        _ header: FrameHeader, _ result: Result<SnapshotInfo, EngineError>, attempt: String
    ) {
        switch result {
        case .failure(let error): refuse(header, Refusal(error, attempt: attempt))
        case .success(let info):
            let reply = Cistern_V1_SnapshotReply.with {
                $0.handle = info.handle
                $0.bytesTotal = info.bytes
                $0.bytesNew = info.newBytes
                $0.files = UInt32(clamping: info.fileCount)
            }
            answer(header, ControlMessage.encode(reply))
        }
    }

    func releaseSnapshot(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_ReleaseSnapshot.self, header, body) else { return }
        let attempt = "release \(message.handles.count) snapshots of store \"\(message.store)\""
        guard isAllowed(.write, message.store, attempt, header) else { return }
        if let foreign = message.handles.first(where: { !$0.hasPrefix(message.store + "/") }) {
            return refuse(
                header, Refusal(.noSuchSnapshot, "\(attempt): \"\(foreign)\" is not a handle of this store"))
        }
        guard core.replication != nil else { return release(message.handles, held: 0, header) }
        Task { [self] in
            let free = await core.registry.release(message.handles, store: message.store)
            let held = Set(message.handles).subtracting(free).count
            executor.execute { self.release(free, held: held, header) }
        }
    }

    /// Answered when the records are gone, so that what was released does not come back after a crash; their files go in the
    /// background.
    /// - Parameter held: those that a tree still needs, and that go with its need.
    private func release(_ handles: [String], held: Int, _ header: FrameHeader) {
        core.engine.releaseSnapshots(handles) { [self] released in
            core.remote?.uploads.released(handles)
            let reply = Cistern_V1_ReleaseSnapshotReply.with { $0.released = UInt32(clamping: released + held) }
            executor.execute { self.answer(header, ControlMessage.encode(reply)) }
        }
    }

    func listSnapshots(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        guard let message = unsafe decode(Cistern_V1_ListSnapshots.self, header, body) else { return }
        guard isAllowed(.read, message.store, "list snapshots of store \"\(message.store)\"", header) else { return }
        guard core.catalog.store(named: message.store) != nil else {
            let unknown = CatalogError.refused(.unknownStore(message.store))
            return refuse(header, Refusal(unknown, attempt: "list snapshots"))
        }
        let reply = Cistern_V1_ListSnapshotsReply.with { reply in
            reply.items = core.engine.snapshots(store: message.store).map { info in
                Cistern_V1_ListSnapshotsReply.Item.with {
                    $0.handle = info.handle
                    $0.checkpoint = info.checkpoint
                    $0.keyGroupFirst = UInt32(info.identity.keyGroups.first)
                    $0.keyGroupLast = UInt32(info.identity.keyGroups.last)
                    $0.bytes = info.bytes
                    $0.createdMilliseconds = info.createdMilliseconds
                }
            }
        }
        answer(header, ControlMessage.encode(reply))
    }

    // MARK: Common

    /// The message, or nil when the request was answered with why it cannot be read.
    private func decode<M: Message>(
        _ type: M.Type, _ header: FrameHeader, _ body: UnsafeRawBufferPointer
    ) -> M? {
        do throws(WireError) {
            return unsafe try ControlMessage.decode(type, from: body)
        } catch {
            refuse(header, Refusal(error))
            return nil
        }
    }

    /// Runs a request that waits, and answers on the loop. The session owns the task: a session that was closed in the
    /// meantime answers nobody.
    private func perform(
        _ header: FrameHeader, _ work: @escaping @Sendable () async -> Result<[UInt8], Refusal>
    ) {
        Task { [self] in
            let result = await work()
            executor.execute {
                switch result {
                case .success(let body): self.answer(header, body)
                case .failure(let refusal): self.refuse(header, refusal)
                }
            }
        }
    }
}

enum AttachAnswer {
    static func make(_ attached: AttachedTree, _ handle: UInt32, _ store: CatalogStore) -> Cistern_V1_AttachReply {
        Cistern_V1_AttachReply.with { reply in
            reply.tree = handle
            reply.lastSequence = attached.lastSequence
            reply.resumed = attached.resumed
            reply.states = store.states.map(descriptor)
            reply.dictionaries = store.dictionaries.map { dictionary in
                Cistern_V1_DictionaryInfo.with {
                    $0.id = dictionary.id
                    $0.stateID = UInt32(dictionary.stateID)
                    $0.size = UInt64(dictionary.bytes.count)
                }
            }
            reply.watermark = attached.watermark
            reply.restoreMicroseconds = attached.microseconds
            reply.approximateEntries = attached.approximateEntries
            reply.ttlChanges = attached.timeToLiveChanges
        }
    }

    static func descriptor(_ entry: CatalogStateEntry) -> Cistern_V1_StateDescriptor {
        Cistern_V1_StateDescriptor.with {
            $0.id = UInt32(entry.id)
            $0.name = entry.name
            $0.kind = Cistern_V1_StateKind(rawValue: Int(entry.kind.rawValue)) ?? .unspecified
            $0.ttlMilliseconds = entry.ttlMilliseconds
        }
    }

    static func rule(_ rule: ExpiryRule) -> Cistern_V1_ExpiryRule {
        Cistern_V1_ExpiryRule.with {
            $0.keyGroupFirst = UInt32(rule.keyGroups.first)
            $0.keyGroupLast = UInt32(rule.keyGroups.last)
            $0.storedTtlMilliseconds = rule.storedTTL
            $0.ttlMilliseconds = rule.ttl
            $0.ttlClock = rule.isEventTime ? .event : .processing
            $0.endedProcessing = rule.endedProcessing
            $0.endedEvent = rule.endedEvent
            $0.expiryOfNever = rule.expiryOfNever.rawValue
        }
    }
}

extension ServerCore {
    /// Writes a snapshot of a replicated tree into its log.
    fileprivate func replicate(
        _ result: Result<SnapshotInfo, EngineError>, of tree: SessionTree,
        completion: @escaping @Sendable (Result<SnapshotInfo, EngineError>) -> Void
    ) {
        guard let ownership = tree.ownership, case .success(let info) = result,
            let record = engine.snapshotRecord(info.handle)
        else { return completion(result) }
        let snapshot = ReplicatedSnapshot(
            handle: info.handle, checkpoint: record.checkpoint, progress: record.progress,
            createdMilliseconds: record.createdMilliseconds)
        ownership.note(snapshot) { written in completion(written.map { info }) }
    }

    fileprivate func note(
        _ checkpoint: UInt64, of tree: SessionTree, since arrival: UInt64, _ result: Result<SnapshotInfo, EngineError>
    ) {
        let (info, failure): (SnapshotInfo?, String?) =
            switch result {
            case .success(let info): (info, nil)
            case .failure(let error): (nil, "\(error)")
            }
        if let info { remote?.uploads.taken(info.handle) }
        checkpoints.record(
            CheckpointPart(
                store: tree.store, keyGroups: "\(tree.range)", checkpoint: checkpoint,
                finishedMilliseconds: time.wallMilliseconds,
                microseconds: (time.monotonicNanoseconds - arrival) / 1000, bytes: info?.bytes ?? 0,
                newBytes: info?.newBytes ?? 0, failure: failure))
    }

    /// The snapshots that make up a range: each known, none missing, none twice.
    func references(
        _ handles: [String], store: String, range: KeyGroupRange, attempt: String
    ) async -> Result<[SnapshotReference], Refusal> {
        if handles.isEmpty { return .success([]) }
        let known = engine.snapshots(store: store)
        var found: [SnapshotInfo] = []
        for handle in handles {
            guard let info = known.first(where: { $0.handle == handle }) else {
                return .failure(
                    Refusal(
                        .noSuchSnapshot,
                        "\(attempt): there is no snapshot \"\(handle)\"; it was released, or is of another store"))
            }
            found.append(info)
        }
        switch RestoreCoverage.of(range, by: found.map(\.identity.keyGroups)) {
        case .complete: break
        case .missing(let group):
            return .failure(
                Refusal(
                    .noSuchSnapshot,
                    "\(attempt): the snapshots do not hold key group \(group): name all snapshots of the checkpoint"))
        case .ambiguous(let group):
            return .failure(
                Refusal(
                    .noSuchSnapshot,
                    "\(attempt): two of the snapshots hold key group \(group): name those of one checkpoint only"))
        }
        return .success(
            found.filter { $0.identity.keyGroups.overlaps(range) }.map { SnapshotReference(handle: $0.handle) })
    }
}
