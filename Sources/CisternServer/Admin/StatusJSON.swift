// `/status.json`: everything of a status, tree by tree. Pure. Names are stable: tools read them.

internal import CisternLSM
internal import CisternSnapshotStore
internal import CisternWire

enum StatusJSON {
    static let contentType = "application/json; charset=utf-8"

    static func render(_ status: ServerStatus) -> String {
        object([
            ("phase", quoted(status.phase.rawValue)),
            ("version", quoted(status.version)),
            ("uptimeMilliseconds", "\(status.uptimeMilliseconds)"),
            ("nowMilliseconds", "\(status.nowMilliseconds)"),
            ("connections", "\(status.connections)"),
            ("snapshots", "\(status.snapshotCount)"),
            ("damagedFiles", array(status.damagedFiles.map(quoted))),
            ("memory", memory(status)),
            ("cache", cache(status.cache)),
            ("requests", requests(status.requests)),
            ("trees", array(status.trees.map(tree))),
            ("checkpoints", array(status.checkpoints.map(checkpoint))),
            ("snapshotStore", status.uploads.map(uploads) ?? "null"),
            ("hydration", status.hydration.map(hydration) ?? "null"),
        ]) + "\n"
    }

    private static func object(_ members: [(String, String)]) -> String {
        "{" + members.map { quoted($0.0) + ":" + $0.1 }.joined(separator: ",") + "}"
    }

    private static func optional(_ text: String?) -> String { text.map(quoted) ?? "null" }

    private static func memory(_ status: ServerStatus) -> String {
        let classes = MemoryClass.allCases.map { ("\($0)", "\(status.memory[$0])") }
        return object(classes + [("limit", "\(status.memoryLimitBytes)")])
    }

    private static func cache(_ cache: BlockCacheStatistics) -> String {
        object([
            ("hits", "\(cache.hits)"), ("misses", "\(cache.misses)"), ("evictions", "\(cache.evictions)"),
            ("blocks", "\(cache.blockCount)"), ("usedBytes", "\(cache.usedBytes)"),
            ("metadataBytes", "\(cache.metadataBytes)"), ("capacityBytes", "\(cache.capacityBytes)"),
        ])
    }

    private static func requests(_ sums: RequestSums) -> String {
        return object([
            ("byOpcode", object(Opcode.ofStateServer.map { ("\($0)", "\(sums.requests[$0] ?? 0)") })),
            (
                "refusedByCode",
                object(
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
            ("id", "\(tree.id)"), ("store", quoted(tree.store)), ("keyGroupFirst", "\(tree.keyGroupFirst)"),
            ("keyGroupLast", "\(tree.keyGroupLast)"), ("epoch", "\(tree.epoch)"), ("writer", quoted(tree.writer)),
            ("isAttached", "\(tree.isAttached)"), ("isOpen", "\(tree.statistics != nil)"),
        ]
        return object(members + (tree.statistics.map(statistics) ?? []))
    }

    private static func statistics(_ tree: TreeStatistics) -> [(String, String)] {
        let lags = tree.reclaimLagByState.sorted { $0.key < $1.key }.map { ("\($0.key)", "\($0.value)") }
        let levels = tree.levels.map { object([("files", "\($0.files)"), ("bytes", "\($0.bytes)")]) }
        return [
            ("levels", array(levels)), ("levelZeroDepth", "\(tree.levelZeroDepth)"),
            ("memtableBytes", "\(tree.memtableBytes)"), ("sealedMemtables", "\(tree.sealedMemtables)"),
            ("approximateEntries", "\(tree.approximateEntries)"), ("hiddenBytes", "\(tree.hiddenBytes)"),
            ("debtBytes", "\(tree.debtBytes)"), ("runningCompactions", "\(tree.runningCompactions)"),
            ("writeDelayMilliseconds", "\(tree.writeDelayMilliseconds)"),
            ("millisecondsToStall", tree.millisecondsToStall.map { "\($0)" } ?? "null"),
            ("reclaimLagMilliseconds", "\(tree.reclaimLagMilliseconds)"), ("reclaimLagByState", object(lags)),
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
        object([
            ("complete", "\(uploads.complete)"), ("pending", "\(uploads.pending)"),
            ("pendingBytes", "\(uploads.pendingBytes)"), ("uploads", "\(uploads.uploads)"),
            ("uploadedBytes", "\(uploads.uploadedBytes)"),
            ("lastCompleteMilliseconds", "\(uploads.lastCompleteMilliseconds)"), ("failures", "\(uploads.failures)"),
            ("error", optional(uploads.error)),
        ])
    }

    private static func hydration(_ hydration: HydrationStatus) -> String {
        object([
            ("pendingFiles", "\(hydration.pendingFiles)"), ("pendingBytes", "\(hydration.pendingBytes)"),
            ("files", "\(hydration.files)"), ("bytes", "\(hydration.bytes)"), ("reads", "\(hydration.reads)"),
            ("readBytes", "\(hydration.readBytes)"), ("failures", "\(hydration.failures)"),
            ("error", optional(hydration.error)),
        ])
    }

    private static func checkpoint(_ part: CheckpointPart) -> String {
        object([
            ("store", quoted(part.store)), ("keyGroups", quoted(part.keyGroups)), ("checkpoint", "\(part.checkpoint)"),
            ("finishedMilliseconds", "\(part.finishedMilliseconds)"), ("microseconds", "\(part.microseconds)"),
            ("bytes", "\(part.bytes)"), ("newBytes", "\(part.newBytes)"), ("failure", optional(part.failure)),
        ])
    }
}
