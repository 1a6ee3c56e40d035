// `/status.json`: everything of a status, tree by tree. Pure. Names are stable: tools read them.

internal import CisternDaemon
internal import CisternLSM
internal import CisternSnapshotStore
internal import CisternWire

enum StatusJSON {
    static let contentType = "application/json; charset=utf-8"

    static func render(_ status: ServerStatus) -> String {
        JSONText.object([
            ("phase", JSONText.quoted(status.phase.rawValue)),
            ("version", JSONText.quoted(status.version)),
            ("uptimeMilliseconds", "\(status.uptimeMilliseconds)"),
            ("nowMilliseconds", "\(status.nowMilliseconds)"),
            ("connections", "\(status.connections)"),
            ("snapshots", "\(status.snapshotCount)"),
            ("damagedFiles", JSONText.array(status.damagedFiles.map(JSONText.quoted))),
            ("memory", memory(status)),
            ("cache", cache(status.cache)),
            ("requests", requests(status.requests)),
            ("trees", JSONText.array(status.trees.map(tree))),
            ("checkpoints", JSONText.array(status.checkpoints.map(checkpoint))),
            ("snapshotStore", status.uploads.map(uploads) ?? "null"),
            ("hydration", status.hydration.map(hydration) ?? "null"),
            ("replication", status.replication.map(replication) ?? "null"),
        ]) + "\n"
    }

    private static func optional(_ text: String?) -> String { text.map(JSONText.quoted) ?? "null" }

    private static func memory(_ status: ServerStatus) -> String {
        let classes = MemoryClass.allCases.map { ("\($0)", "\(status.memory[$0])") }
        return JSONText.object(classes + [("limit", "\(status.memoryLimitBytes)")])
    }

    private static func cache(_ cache: BlockCacheStatistics) -> String {
        JSONText.object([
            ("hits", "\(cache.hits)"), ("misses", "\(cache.misses)"), ("evictions", "\(cache.evictions)"),
            ("blocks", "\(cache.blockCount)"), ("usedBytes", "\(cache.usedBytes)"),
            ("metadataBytes", "\(cache.metadataBytes)"), ("capacityBytes", "\(cache.capacityBytes)"),
        ])
    }

    private static func requests(_ sums: RequestSums) -> String {
        return JSONText.object([
            ("byOpcode", JSONText.object(Opcode.ofStateServer.map { ("\($0)", "\(sums.requests[$0] ?? 0)") })),
            (
                "refusedByCode",
                JSONText.object(
                    sums.refusals.sorted { $0.key.rawValue < $1.key.rawValue }.map { ($0.key.name, "\($0.value)") })
            ),
            ("bytesReceived", "\(sums.bytesReceived)"),
            ("readsPutAside", "\(sums.readsPutAside)"),
            ("readsThatWaited", "\(sums.readsThatWaited)"),
            ("writeMicroseconds", "\(sums.writeMicroseconds)"),
        ])
    }

    private static func tree(_ tree: ServerStatus.TreeStatus) -> String {
        let members: [(String, String)] = [
            ("id", "\(tree.id)"), ("store", JSONText.quoted(tree.store)), ("keyGroupFirst", "\(tree.keyGroupFirst)"),
            ("keyGroupLast", "\(tree.keyGroupLast)"), ("epoch", "\(tree.epoch)"),
            ("writer", JSONText.quoted(tree.writer)),
            ("isAttached", "\(tree.isAttached)"), ("isOpen", "\(tree.statistics != nil)"),
        ]
        return JSONText.object(members + (tree.statistics.map(statistics) ?? []))
    }

    private static func statistics(_ tree: TreeStatistics) -> [(String, String)] {
        let lags = tree.reclaimLagByState.sorted { $0.key < $1.key }.map { ("\($0.key)", "\($0.value)") }
        let levels = tree.levels.map { JSONText.object([("files", "\($0.files)"), ("bytes", "\($0.bytes)")]) }
        return [
            ("levels", JSONText.array(levels)), ("levelZeroDepth", "\(tree.levelZeroDepth)"),
            ("memtableBytes", "\(tree.memtableBytes)"), ("sealedMemtables", "\(tree.sealedMemtables)"),
            ("approximateEntries", "\(tree.approximateEntries)"), ("hiddenBytes", "\(tree.hiddenBytes)"),
            ("debtBytes", "\(tree.debtBytes)"), ("runningCompactions", "\(tree.runningCompactions)"),
            ("writeDelayMilliseconds", "\(tree.writeDelayMilliseconds)"),
            ("millisecondsToStall", tree.millisecondsToStall.map { "\($0)" } ?? "null"),
            ("reclaimLagMilliseconds", "\(tree.reclaimLagMilliseconds)"), ("reclaimLagByState", JSONText.object(lags)),
            ("timeToLiveChanges", "\(tree.timeToLiveChanges)"),
            ("batches", "\(tree.batches)"), ("entries", "\(tree.entries)"), ("gets", "\(tree.gets)"),
            ("scans", "\(tree.scans)"), ("busyAnswers", "\(tree.busyAnswers)"), ("flushes", "\(tree.flushes)"),
            ("flushedBytes", "\(tree.flushedBytes)"), ("compactions", "\(tree.compactions)"),
            ("compactionWrittenBytes", "\(tree.compactionWrittenBytes)"), ("failures", "\(tree.failures)"),
            ("readOnlyCause", optional(tree.readOnlyCause)),
            ("compactionBlockedCause", optional(tree.compactionBlockedCause)),
            ("openMicroseconds", "\(tree.openMicroseconds)"),
        ]
    }

    private static func uploads(_ uploads: UploadStatus) -> String {
        JSONText.object([
            ("complete", "\(uploads.complete)"), ("pending", "\(uploads.pending)"),
            ("pendingBytes", "\(uploads.pendingBytes)"), ("uploads", "\(uploads.uploads)"),
            ("uploadedBytes", "\(uploads.uploadedBytes)"),
            ("lastCompleteMilliseconds", "\(uploads.lastCompleteMilliseconds)"), ("failures", "\(uploads.failures)"),
            ("error", optional(uploads.error)),
        ])
    }

    private static func replication(_ replication: ReplicationStatus) -> String {
        JSONText.object([
            ("trees", "\(replication.trees)"), ("unacknowledgedBytes", "\(replication.unacknowledgedBytes)"),
            ("logBytes", "\(replication.logBytes)"), ("takeoversHere", "\(replication.takeoversHere)"),
            ("takeoversElsewhere", "\(replication.takeoversElsewhere)"),
            ("takeoverMicroseconds", "\(replication.takeoverMicroseconds)"),
            ("lostLogs", "\(replication.lostLogs)"),
        ])
    }

    private static func hydration(_ hydration: HydrationStatus) -> String {
        JSONText.object([
            ("pendingFiles", "\(hydration.pendingFiles)"), ("pendingBytes", "\(hydration.pendingBytes)"),
            ("files", "\(hydration.files)"), ("bytes", "\(hydration.bytes)"), ("reads", "\(hydration.reads)"),
            ("readBytes", "\(hydration.readBytes)"), ("failures", "\(hydration.failures)"),
            ("error", optional(hydration.error)),
        ])
    }

    private static func checkpoint(_ part: CheckpointPart) -> String {
        JSONText.object([
            ("store", JSONText.quoted(part.store)), ("keyGroups", JSONText.quoted(part.keyGroups)),
            ("checkpoint", "\(part.checkpoint)"),
            ("finishedMilliseconds", "\(part.finishedMilliseconds)"), ("microseconds", "\(part.microseconds)"),
            ("bytes", "\(part.bytes)"), ("newBytes", "\(part.newBytes)"), ("failure", optional(part.failure)),
        ])
    }
}
