// A tree whose log is replicated: how it catches up with the log, and how it goes on with it.
//
//   opened, or made from snapshots ─► replay(items of the log behind what it holds) ─► replicate(to: replica) ─► writes
//
// Its own segments and files hold the beginning of what the replica has, never more: records go to a segment, and memtables to
// files, when they are durable there. So a tree that has lost its replica is closed and opened again behind a takeover of the log,
// here or where its snapshot can be had. Every method runs on the owner's executor.

internal import CisternPrimitives

struct TreeReplication {
    /// The last batch it holds.
    var position: LogPosition
    var isReplicating = false
    /// Told once, when the tree can take no writes any more because its log failed.
    var failed: (@Sendable (EngineError) -> Void)?
}

package enum ReplayOutcome: Equatable, Sendable {
    case applied
    /// Flushes are behind: the same item again, later.
    case busy
}

extension Tree {
    /// The last batch the tree holds.
    package var position: LogPosition { replication?.position ?? recoveredPosition }

    /// Begins to catch up with a log that begins at or before the tree's position.
    package func beginReplay() {
        if replication == nil { replication = TreeReplication(position: recoveredPosition) }
    }

    /// Applies what an item of the log has behind the tree's position. Nobody may write meanwhile.
    /// - Parameters:
    ///   - last: where to stop; nil for all.
    ///   - completion: during the call but for rules, which go to the manifest first.
    package func replay(
        _ item: TreeLogItem, through last: LogPosition? = nil, source: String,
        completion: @escaping @Sendable (Result<ReplayOutcome, EngineError>) -> Void
    ) {
        guard lifecycle == .open else { return completion(.failure(.closed(tree: name))) }
        if let cause = failures.cause { return completion(.failure(.readOnly(tree: name, cause: cause))) }
        switch item {
        case .snapshot: completion(.success(.applied))
        case .rules(let rules): adopt(rules, completion)
        case .records(let bytes):
            if sealed.count >= options.sealedMemtablesMax {
                startFlush()
                return completion(.success(.busy))
            }
            do throws(EngineError) {
                try replay(bytes, through: last, source: source)
                completion(.success(.applied))
            } catch {
                completion(.failure(error))
            }
        }
    }

    private func adopt(
        _ rules: ExpiryRules, _ completion: @escaping @Sendable (Result<ReplayOutcome, EngineError>) -> Void
    ) {
        // Older ones than those that the tree was made with are in the log when it begins before them.
        let isNews = rules != state.expiryRules && rules.changes >= state.expiryRules.changes
        guard isNews, engine.keepsRules else { return completion(.success(.applied)) }
        var edit = VersionEdit()
        edit.expiryRules = rules
        commit(edit) { [edit] tree, result in
            if case .success = result, tree.lifecycle != .closed { tree.install(edit) }
            completion(result.map { .applied })
        }
    }

    private func replay(_ bytes: [UInt8], through last: LogPosition?, source: String) throws(EngineError) {
        var offset = 0
        while offset < bytes.count {
            let size: Result<Int, EngineError> = unsafe bytes.withUnsafeBytes { all in
                let rest = unsafe UnsafeRawBufferPointer(rebasing: all[offset...])
                do throws(EngineError) {
                    guard let (record, size) = unsafe LogFormat.decodeRecord(rest) else {
                        throw corruption(source, UInt64(offset), "a record's checksum does not match")
                    }
                    try apply(record, through: last, source: source, offset: offset)
                    return .success(size)
                } catch {
                    return .failure(error)
                }
            }
            offset += try size.get()
        }
    }

    private func apply(
        _ record: LogRecord, through last: LogPosition?, source: String, offset: Int
    ) throws(EngineError) {
        let found = LogPosition(epoch: record.epoch, sequence: record.sequence)
        let position = position
        if found <= position { return }
        if let last, found > last { return }
        let continues =
            found.epoch == position.epoch
            ? found.sequence == position.sequence + 1 : found.epoch > position.epoch && found.sequence == 1
        guard continues, found.epoch <= state.epoch else {
            throw corruption(
                source, UInt64(offset),
                "batch \(found) follows batch \(position) in the log of \(name), whose epoch is \(state.epoch): "
                    + "restore from a snapshot")
        }
        active.apply(record.columns)
        replication?.position = found
        epoch = found.epoch
        lastSequence = found.sequence
        watermark = max(watermark, record.watermark)
        counters.recoveredBatches += 1
        if let log {
            let recordBytes: Int
            (lastTicket, recordBytes) = log.append(record, segment: segment)
            unsealedLogBytes += recordBytes
        }
        if active.isFull || unsealedLogBytes >= options.logSegmentBytesLimit {
            seal()
            startFlush()
        }
        noteMemory()
    }

    /// The tree holds what it is to hold of the log. Its writer goes on behind the last batch of its epoch.
    package func endReplay() {
        epoch = state.epoch
        lastSequence = position.epoch == epoch ? position.sequence : 0
        durableSequence = lastSequence
    }

    /// From here on writes are acknowledged when the replica has them.
    /// - Precondition: the tree has a log.
    /// - Parameter failed: called on the owner's executor, once.
    package func replicate(to replica: any LogReplica, failed: @escaping @Sendable (EngineError) -> Void) {
        guard let log else { preconditionFailure("\(name) has no log that could be replicated") }
        beginReplay()
        endReplay()
        log.replicate(to: replica)
        replication?.isReplicating = true
        replication?.failed = failed
    }

    // MARK: What follows from it

    /// A file must not hold what the replica may not have.
    func mayFlush(_ memtable: SealedMemtable) -> Bool { replication == nil || memtable.ticket <= durableTicket }

    /// The log will not go on in this tree.
    var isCutFromReplica: Bool { replication?.isReplicating == true && failures.log != nil }

    func tellCut() {
        guard isCutFromReplica, let error = failures.log, let failed = replication?.failed else { return }
        replication?.failed = nil
        failed(error)
    }
}
