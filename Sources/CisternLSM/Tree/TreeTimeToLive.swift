// Times to live of a tree's states: told by whoever writes them, kept in the manifest, followed by what is stored.
//
//   declare ─► one edit in the manifest ─► reads, flushes and compactions go by the new rules
//   write   ─► expiries moved to how they are stored ─► log ‖ memtable
//
// No entry is touched, so the time does not depend on the size of the state. Every method runs on the owner's executor.

package import CisternPrimitives

/// A time to live on its way to the manifest.
struct TimeToLiveDeclaration {
    let state: UInt16
    let ttl: StateTimeToLive
    let completion: @Sendable (Result<UInt64, EngineError>) -> Void
}

extension Tree {
    /// Gives a state a time to live, for what is stored too: entries count from when they were written, and those without an
    /// expiry from now. What is over by the one before stays over. Told again, it changes nothing.
    ///
    /// A data directory of a format below 4 keeps no rules: there, stored entries keep their expiry.
    /// - Parameter completion: on the owner's executor, when it is durable, with the number of changes that the tree has seen:
    ///   an expiry that was read when there were fewer may be wrong. During this call when nothing changes.
    package func declare(
        _ ttl: StateTimeToLive, of state: UInt16,
        completion: @escaping @Sendable (Result<UInt64, EngineError>) -> Void
    ) {
        guard lifecycle == .open else { return completion(.failure(.closed(tree: name))) }
        guard ttl.milliseconds <= StateTimeToLive.millisecondsMax else {
            return completion(
                .failure(
                    .invalidEntry(
                        detail: "a time to live of \(ttl.milliseconds) ms for state \(state); at most "
                            + "\(StateTimeToLive.millisecondsMax)")))
        }
        // Each goes by the rules that the one before has left.
        declarations.append(TimeToLiveDeclaration(state: state, ttl: ttl, completion: completion))
        if declarations.count == 1 { commitDeclarations() }
    }

    /// How often times to live have changed for what is stored.
    package var timeToLiveChanges: UInt64 { state.expiryRules.changes }

    /// What stored expiries of a state mean, where they are not the current ones; by key groups.
    package func expiryRules(of state: UInt16) -> [ExpiryRule] { self.state.expiryRules.moving(state) }

    private func commitDeclarations() {
        while let next = declarations.first {
            var edit = VersionEdit()
            if engine.keepsRules, lifecycle == .open {
                var rules = state.expiryRules
                let changes = rules.declare(
                    next.state, next.ttl, in: identity.keyGroups, clock, holdsData: holdsData)
                if changes { edit.expiryRules = rules }
            }
            guard edit.expiryRules != nil else {
                declarations.removeFirst()
                next.completion(
                    lifecycle == .open ? .success(timeToLiveChanges) : .failure(.closed(tree: name)))
                continue
            }
            return commit(edit) { [edit] tree, result in tree.declarationCommitted(edit, result) }
        }
    }

    private func declarationCommitted(_ edit: VersionEdit, _ result: Result<Void, EngineError>) {
        guard !declarations.isEmpty else { return }
        let declaration = declarations.removeFirst()
        switch result {
        case .success:
            if lifecycle != .closed { install(edit) }
            answer(declaration)
            // Files may be dead by the new rules.
            startCompaction()
        case .failure(let error):
            // The next one may find the edit in the manifest: it says the same, or more.
            declaration.completion(.failure(error))
        }
        commitDeclarations()
    }

    /// With a replicated log the rules have to be there first.
    private func answer(_ declaration: TimeToLiveDeclaration) {
        let changes = timeToLiveChanges
        guard let log, replication?.isReplicating == true, lifecycle != .closed else {
            return declaration.completion(.success(changes))
        }
        lastTicket = log.append(state.expiryRules, segment: segment)
        waiting.append(
            Waiting(ticket: lastTicket, epoch: epoch, sequence: 0) { result in
                declaration.completion(result.map { changes })
            })
    }

    private var holdsData: Bool { version.fileCount > 0 || !active.isEmpty || !sealed.isEmpty }

    /// The tree is gone. What is on its way to the manifest is answered by it.
    func failDeclarations(_ error: EngineError) {
        let failed = declarations
        declarations = []
        for declaration in failed { declaration.completion(.failure(error)) }
    }

    // MARK: Writing

    /// The batch with expiries as they are stored; valid until the next call.
    @inline(never)
    func withStoredExpiries(_ batch: EntryColumns, watermark newest: UInt64) -> EntryColumns {
        if batch.count == 0 { return batch }
        let clock = ExpiryClock(processing: engine.time.wallMilliseconds, event: max(watermark, newest))
        storedExpiries.reset()
        for index in 0..<batch.count {
            let entry = batch[index]
            var expiry = entry.kind == .delete ? .never : entry.expiry
            if entry.kind != .delete, let rule = unsafe state.expiryRules.rule(for: entry.key) {
                expiry = rule.stored(expiry, clock)
            }
            storedExpiries.appendInteger(expiry.rawValue)
        }
        return unsafe EntryColumns(batch, expiries: storedExpiries.bytes)
    }
}
