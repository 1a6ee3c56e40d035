// Compaction on demand, and the moment when a tree has nothing left to do in the background: for operators, benchmarks and
// tests. Every method runs on the owner's executor.
//
//   compact ─► seal ─► flushes up to the cut ─► what runs ends ─► one plan from level 0 to the bottom ─► completion

package import CisternPrimitives

/// A full compaction that was asked for and has not ended.
struct CompactionRequest {
    let keyGroups: KeyGroupRange
    /// Sealed memtables that are still to be flushed before everything written before the call is in files.
    var flushesLeft: Int
    let completion: @Sendable (Result<Void, EngineError>) -> Void
}

extension Tree {
    /// Merges everything of a range of key groups that was written before this call into the bottom level, so that neither
    /// replaced entries nor deletes of it take space. Files of the bottom level that hold nothing to be rid of stay.
    ///
    /// Costs the reading and writing of all those files. Writes and reads go on meanwhile; other compactions of the tree wait.
    /// - Parameters:
    ///   - keyGroups: nil for all of the tree.
    ///   - completion: on the owner's executor. Waits for a disk that fails; fails when the tree closes, or with
    ///     `invalidEntry` when a list is too long to be merged.
    package func compact(
        _ keyGroups: KeyGroupRange? = nil, completion: @escaping @Sendable (Result<Void, EngineError>) -> Void
    ) {
        guard lifecycle == .open else { return completion(.failure(.closed(tree: name))) }
        if hasUnsealedWrites { seal() }
        compactionRequests.append(
            CompactionRequest(
                keyGroups: keyGroups ?? identity.keyGroups, flushesLeft: sealed.count, completion: completion))
        startFlush()
        startCompaction()
    }

    /// Calls back when neither a flush nor a compaction runs and none is due, on the owner's executor; at once when that is
    /// so. What a tree does later because it stays quiet, or because it is read much, is not waited for unless it has begun.
    /// The active memtable may hold writes. While the disk fails a tree is not idle, and a closed one is.
    package func whenIdle(_ completion: @escaping @Sendable () -> Void) {
        if isIdle { return completion() }
        idleCompletions.append(completion)
    }

    package var isIdle: Bool {
        if lifecycle == .closed { return true }
        return sealed.isEmpty && !isFlushing && !isCompacting && unfinishedFlush == nil
            && compactionRequests.isEmpty && failures.cause == nil && lifecycle == .open
    }

    func announceIdle() {
        guard !idleCompletions.isEmpty, isIdle else { return }
        let completions = idleCompletions
        idleCompletions = []
        for completion in completions { completion() }
    }

    /// One more sealed memtable has become a file.
    func advanceCompactionRequests() {
        for index in compactionRequests.indices where compactionRequests[index].flushesLeft > 0 {
            compactionRequests[index].flushesLeft -= 1
        }
    }

    /// The oldest request whose data is in files, which goes before what the picker would do.
    var dueCompactionRequest: CompactionRequest? { compactionRequests.first.flatMap { $0.flushesLeft == 0 ? $0 : nil } }

    func finishCompactionRequest(_ result: Result<Void, EngineError>) {
        if !compactionRequests.isEmpty { compactionRequests.removeFirst().completion(result) }
    }

    func failMaintenance(_ error: EngineError) {
        let requests = compactionRequests
        compactionRequests = []
        for request in requests { request.completion(.failure(error)) }
        announceIdle()
    }
}
