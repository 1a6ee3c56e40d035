// The engine's completion calls as async functions, for attaching, closing and snapshots only: reads and writes never come here.

internal import CisternLSM
internal import CisternPrimitives

extension Engine {
    func openTree(
        _ id: TreeID, pointStates: PointStates, executor: LoopExecutor
    ) async -> Result<Tree, EngineError> {
        await withCheckedContinuation { continuation in
            openTree(id, pointStates: pointStates, executor: executor) { continuation.resume(returning: $0) }
        }
    }

    func createTree(
        _ identity: TreeIdentity, epoch: UInt64, writer: String, from snapshots: [SnapshotReference],
        replacing: [TreeID], at position: LogPosition? = nil, pointStates: PointStates, executor: LoopExecutor
    ) async -> Result<Tree, EngineError> {
        await withCheckedContinuation { continuation in
            createTree(
                identity, epoch: epoch, writer: writer, from: snapshots, replacing: replacing, at: position,
                pointStates: pointStates,
                executor: executor
            ) { continuation.resume(returning: $0) }
        }
    }
}

extension Engine {
    func forkTree(
        _ identity: TreeIdentity, epoch: UInt64, writer: String, of source: String, from snapshots: [SnapshotReference],
        at position: LogPosition, pointStates: PointStates, executor: LoopExecutor
    ) async -> Result<Tree, EngineError> {
        await withCheckedContinuation { continuation in
            forkTree(
                identity, epoch: epoch, writer: writer, of: source, from: snapshots, at: position,
                pointStates: pointStates, executor: executor
            ) { continuation.resume(returning: $0) }
        }
    }
}

extension Tree {
    func handOver(from owner: LoopExecutor, to next: LoopExecutor) async {
        await withCheckedContinuation { continuation in
            owner.execute { self.handOver(to: next) { _ in continuation.resume() } }
        }
    }

    func setEpoch(_ epoch: UInt64, writer: String, on owner: LoopExecutor) async -> Result<Void, EngineError> {
        await withCheckedContinuation { continuation in
            owner.execute { self.setEpoch(epoch, writer: writer) { continuation.resume(returning: $0) } }
        }
    }

    func statisticsFromOwner() async -> TreeStatistics {
        await withCheckedContinuation { continuation in
            statistics { continuation.resume(returning: $0) }
        }
    }

    func close(on owner: LoopExecutor) async -> Result<Void, EngineError> {
        await withCheckedContinuation { continuation in
            owner.execute { self.close { continuation.resume(returning: $0) } }
        }
    }
}
