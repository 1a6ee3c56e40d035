// Reads a tree's log into the tree.

internal import CisternChangelog
internal import CisternLSM
internal import CisternLogProtocol
internal import Synchronization

extension TreeOwnership {
    /// The snapshots that the log knows of, in the order they were taken.
    nonisolated func snapshots() async throws(EngineError) -> [ReplicatedSnapshot] {
        do {
            var reader = TreeLogReader()
            var found: [ReplicatedSnapshot] = []
            try await changelog.read(from: changelog.trimPoint) { entry in
                let item = try reader.add(entry.body, source: "entry \(entry.place) of \(changelog.name)")
                if case .snapshot(let snapshot) = item { found.append(snapshot) }
            }
            return found
        } catch let error as EngineError {
            throw error
        } catch {
            throw .logLost(detail: "\(error)")
        }
    }

    /// Brings the tree to the end of the log, as it was when it was taken over, or to a place in it.
    nonisolated func replay(
        into tree: Tree, through last: LogPosition? = nil, on executor: LoopExecutor
    ) async -> Result<Void, EngineError> {
        await executor.run { tree.beginReplay() }
        do {
            var reader = TreeLogReader()
            var first: LogSequenceNumber?
            var bytes = 0
            try await changelog.read(from: changelog.trimPoint) { entry in
                let source = "entry \(entry.place) of \(changelog.name)"
                first = first ?? entry.place
                bytes += entry.body.count
                guard let item = try reader.add(entry.body, source: source) else { return }
                if last == nil {
                    replica.found(at: first ?? entry.place, bytes: bytes, through: item.lastPosition)
                }
                first = nil
                bytes = 0
                // Rules behind the place are not those of what is before it.
                if let last, tree.position >= last { return }
                try await apply(item, to: tree, through: last, on: executor, source: source)
            }
            return .success(())
        } catch let error as EngineError {
            return .failure(error)
        } catch {
            return .failure(.logLost(detail: "\(error)"))
        }
    }

    private nonisolated func apply(
        _ item: TreeLogItem, to tree: Tree, through last: LogPosition?, on executor: LoopExecutor, source: String
    ) async throws(EngineError) {
        while true {
            let result = await withCheckedContinuation { continuation in
                executor.execute {
                    tree.replay(item, through: last, source: source) { continuation.resume(returning: $0) }
                }
            }
            if case .applied = try result.get() { return }
            // A flush makes room; nobody waits but this attach.
            try? await Task.sleep(for: TreeOwnership.busyInterval)
        }
    }

    private static var busyInterval: Duration { .milliseconds(5) }
}
