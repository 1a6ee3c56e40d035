// What a tree does when its disk fails: it takes no writes, goes on reading, and works its way back without a restart.
//
//   log fails        ─► unacknowledged batches fail · memtable sealed and flushed · new segment ─► writable
//   flush fails      ─► tried again with growing delays ─► writable
//   compaction fails ─► the same
//   a list is too long for a merged file ─► the files stay as they are, writes go on; tried again from time to time, because
//                                           a put or delete of that key in newer files makes the merge possible
//
// The memtable holds every batch that was applied, acknowledged or not. Once it is in a table file, a batch that is sent again
// is a duplicate and acknowledged as one, so nothing is lost and nothing is applied twice.

internal import CisternFileSystem
internal import CisternPrimitives

/// A merge that cannot be written because a value in it is too long for a table.
struct CompactionBlock {
    let cause: String
    let levelZeroFiles: Int
    /// Time has passed; the list may have been cleared.
    var isDue = false
}

struct TreeFailures {
    var log: EngineError?
    var flush: EngineError?
    var compaction: EngineError?
    /// Keeps files from being merged, and nobody from writing.
    var compactionBlock: CompactionBlock?
    /// Another tree that should have taken this one's place may still be on disk.
    var dispute: EngineError?
    var isRetryScheduled = false
    /// A new segment was asked for and not answered yet.
    var isRestartingLog = false
    var attempts = 0

    /// Why writes are refused; nil when they are not.
    var cause: String? { (dispute ?? log ?? flush ?? compaction).map { describe($0) } }

    mutating func settle() { if cause == nil { attempts = 0 } }
}

/// One sentence for operators.
func describe(_ error: EngineError) -> String {
    switch error {
    case .corruption(let damage): damage.description
    case .file(let failure): failure.description
    case .closed(let tree): "\(tree) is closed"
    case .unsupported(let detail), .invalidEntry(let detail), .logLost(let detail): detail
    case .readOnly(let tree, let cause): "\(tree) is read-only: \(cause)"
    case .sequenceGap(let expected, let found): "batch \(expected) was expected, \(found) came"
    case .fenced(let current, let found): "epoch \(found) is fenced by epoch \(current)"
    }
}

extension Tree {
    /// Makes the tree read-only because of `error` and schedules the way back.
    func fail(_ place: WritableKeyPath<TreeFailures, EngineError?>, _ error: EngineError) {
        guard lifecycle != .closed else { return }
        failures[keyPath: place] = error
        counters.failures += 1
        let refusal = EngineError.readOnly(tree: name, cause: describe(error))
        if failures.log != nil { failWaiting(refusal) }
        tellCut()
        failSnapshots(refusal)
        scheduleRetry()
    }

    /// Nothing is acknowledged until `resume`: the next start may find a tree in this one's place.
    func suspend(because error: EngineError) { failures.dispute = error }

    /// The other tree is gone. What the log made durable in the meantime is acknowledged now.
    func resume() {
        failures.dispute = nil
        failures.settle()
        acknowledge(upTo: durableTicket)
        announceIdle()
    }

    /// Throws while the tree is suspended.
    func checkNotSuspended() throws(EngineError) {
        if let dispute = failures.dispute { throw .readOnly(tree: name, cause: describe(dispute)) }
    }

    /// The memtable must reach a table file before a new segment may begin; what is applied and not acknowledged with it.
    func sealForRecovery() {
        if hasUnsealedWrites { seal() } else { segment += 1 }
    }

    private func scheduleRetry() {
        guard !failures.isRetryScheduled, lifecycle == .open else { return }
        failures.isRetryScheduled = true
        let doubled = options.retryFirstMilliseconds << UInt64(min(failures.attempts, 20))
        failures.attempts += 1
        let mailbox = self.mailbox
        engine.lanes.metadata.submit(afterMilliseconds: min(doubled, options.retryLastMilliseconds)) {
            mailbox.post { $0.retry() }
        }
    }

    private func retry() {
        failures.isRetryScheduled = false
        guard lifecycle == .open else { return }
        if failures.flush != nil || failures.log != nil { startFlush() }
        if failures.compaction != nil { startCompaction() }
        continueRecovery()
        // Whatever goes wrong again schedules the next attempt by itself.
    }

    /// Begins a new log segment once everything in doubt is in table files.
    func continueRecovery() {
        failures.settle()
        guard failures.log != nil, !isCutFromReplica, sealed.isEmpty, !isFlushing, !failures.isRestartingLog,
            lifecycle == .open
        else { return }
        failures.isRestartingLog = true
        // The number is new with each attempt: a failed one may have left a file behind.
        segment += 1
        log?.restart(at: segment)
    }
}
