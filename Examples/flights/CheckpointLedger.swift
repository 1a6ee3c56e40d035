// Which checkpoints are complete, and which snapshots may go. Pure: reports in, decisions out.
//
// Every worker snapshots at the same offsets of the source, on its own. A checkpoint counts only when all workers of the
// attempt have reported it; then it subsumes the older ones. Half-reported checkpoints die with their attempt.

package struct CheckpointLedger {
    package struct Checkpoint: Equatable, Sendable {
        package var number: Int
        package var offset: Int
        /// Snapshot handles by store, one a worker.
        package var handles: [String: [String]]
    }

    /// The newest complete checkpoint: where a restored attempt goes on.
    package private(set) var latest: Checkpoint?
    package private(set) var completedCount = 0

    private var parallelism: Int
    private var partial: [Int: (checkpoint: Checkpoint, workers: Set<Int>)] = [:]

    package init(parallelism: Int) { self.parallelism = parallelism }

    /// Notes that a worker has taken its part of a checkpoint.
    /// - Returns: nil while parts are missing; else the handles that the completed checkpoint makes superfluous.
    package mutating func report(
        worker: Int, number: Int, offset: Int, handles: [String: String]
    ) -> [String: [String]]? {
        var entry = partial[number] ?? (Checkpoint(number: number, offset: offset, handles: [:]), [])
        precondition(entry.checkpoint.offset == offset, "checkpoint \(number) at two offsets of the source")
        guard entry.workers.insert(worker).inserted else { return nil }
        for (store, handle) in handles { entry.checkpoint.handles[store, default: []].append(handle) }
        guard entry.workers.count == parallelism else {
            partial[number] = entry
            return nil
        }
        // Workers report in order, so nothing older than a complete checkpoint can still be waited for.
        var superfluous = latest?.handles ?? [:]
        for (older, unfinished) in partial where older < number {
            superfluous.merge(unfinished.checkpoint.handles, uniquingKeysWith: +)
        }
        partial = partial.filter { $0.key > number }
        latest = entry.checkpoint
        completedCount += 1
        return superfluous
    }

    /// Begins a new attempt from `latest`; what the ended one did not complete is forgotten.
    package mutating func restart(parallelism: Int) {
        partial = [:]
        self.parallelism = parallelism
    }
}
