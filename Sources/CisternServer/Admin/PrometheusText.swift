// `/metrics` in Prometheus' text format 0.0.4. Pure.
//
// Labels are stores, never trees or keys: a server has few stores and may have thousands of trees. What trees differ in is
// summed, or the worst of them is shown where a sum says nothing; the help line says which.

internal import CisternDaemon
internal import CisternLSM
internal import CisternSnapshotStore
internal import CisternWire

enum PrometheusText {
    static func render(_ status: ServerStatus) -> String {
        var page = MetricPage()
        server(status, &page)
        requests(status, &page)
        memory(status, &page)
        checkpoints(status, &page)
        let stores = StoreSums.of(status)
        trees(stores, &page)
        levels(stores, &page)
        work(stores, &page)
        return page.text
    }

    private static func server(_ status: ServerStatus, _ page: inout MetricPage) {
        page.gauge("cistern_info", "1; the label tells the version.", [([("version", status.version)], 1)])
        page.gauge("cistern_uptime_seconds", "Time since the start.", Double(status.uptimeMilliseconds) / 1000)
        page.gauge("cistern_ready", "1 while requests are served.", status.phase == .serving ? 1 : 0)
        page.gauge("cistern_connections", "Open client connections.", Double(status.connections))
        page.gauge("cistern_snapshots", "Snapshots that were taken and not released.", Double(status.snapshotCount))
        page.gauge(
            "cistern_damaged_files", "Files that could not be read at the start; the log names them.",
            Double(status.damagedFiles.count))
    }

    private static func requests(_ status: ServerStatus, _ page: inout MetricPage) {
        let requests = status.requests
        page.counter(
            "cistern_requests_total", "Requests that came, by opcode.",
            Opcode.ofStateServer.map {
                ([("opcode", "\($0)")], requests.requests[$0] ?? 0)
            }
        )
        page.counter(
            "cistern_refusals_total", "Requests that were refused, by error code.",
            requests.refusals.sorted { $0.key.rawValue < $1.key.rawValue }.map { ([("code", $0.key.name)], $0.value) })
        page.counter(
            "cistern_reads_put_aside_total", "Times a read was put aside until the disk had what it takes.",
            [([], requests.readsPutAside)])
        page.counter(
            "cistern_reads_waited_on_loop_total", "Reads that waited for the disk on their event loop.",
            [([], requests.readsThatWaited)])
        page.counter(
            "cistern_security_reloads_failed_total", "Times a file of certificate or tokens could not be read again.",
            [([], status.securityReloadsFailed)])
        page.counter("cistern_received_bytes_total", "Bytes of request bodies.", [([], requests.bytesReceived)])
        page.histogram(
            "cistern_write_seconds", "Write batches, from arrival to acknowledgement.",
            counts: requests.writeLatency, sumMicroseconds: requests.writeMicroseconds)
    }

    private static func memory(_ status: ServerStatus, _ page: inout MetricPage) {
        page.gauge(
            "cistern_memory_bytes", "The engine's memory by class.",
            MemoryClass.allCases.map { ([("class", "\($0)")], Double(status.memory[$0])) })
        page.gauge("cistern_memory_limit_bytes", "What the engine may take.", Double(status.memoryLimitBytes))
        let cache = status.cache
        page.counter(
            "cistern_block_cache_lookups_total", "Blocks that were looked for.",
            [([("result", "hit")], cache.hits), ([("result", "miss")], cache.misses)])
        page.counter("cistern_block_cache_evictions_total", "Blocks that had to leave.", [([], cache.evictions)])
        page.gauge(
            "cistern_block_cache_bytes", "Blocks that can be found, by what they are.",
            [
                ([("kind", "metadata")], Double(cache.metadataBytes)),
                ([("kind", "data")], Double(cache.usedBytes - cache.metadataBytes)),
            ])
    }

    private static func checkpoints(_ status: ServerStatus, _ page: inout MetricPage) {
        let sums = status.checkpointSums
        page.counter(
            "cistern_checkpoint_parts_total", "Snapshots of single trees that were asked for.",
            [([("result", "taken")], sums.taken), ([("result", "failed")], sums.failed)])
        page.counter(
            "cistern_checkpoint_microseconds_total", "Time from request to answer, of all of them together.",
            [([], sums.microseconds)])
        if let uploads = status.uploads { Self.uploads(uploads, &page) }
        if let hydration = status.hydration { Self.hydration(hydration, &page) }
        if let replication = status.replication { Self.replication(replication, &page) }
    }

    private static func replication(_ replication: ReplicationStatus, _ page: inout MetricPage) {
        page.gauge(
            "cistern_replicated_trees", "Trees whose log this server writes to log nodes.",
            [([], Double(replication.trees))])
        page.gauge(
            "cistern_replication_unacknowledged_bytes", "Sent to log nodes, and not acknowledged by enough of them.",
            [([], Double(replication.unacknowledgedBytes))])
        page.gauge(
            "cistern_replication_log_bytes", "In the logs of trees: what a takeover would read.",
            [([], Double(replication.logBytes))])
        page.counter(
            "cistern_takeovers_total", "Trees taken over, by where they were before.",
            [
                ([("from", "elsewhere")], replication.takeoversElsewhere),
                ([("from", "here")], replication.takeoversHere),
            ])
        page.counter(
            "cistern_takeover_microseconds_total", "Time from attach to answer, of all takeovers together.",
            [([], replication.takeoverMicroseconds)])
        page.counter(
            "cistern_lost_logs_total",
            "Logs that took nothing more: taken over elsewhere, or log nodes away.",
            [([], replication.lostLogs)])
    }

    private static func hydration(_ hydration: HydrationStatus, _ page: inout MetricPage) {
        page.gauge(
            "cistern_hydration_pending_files", "Files of trees that are in the snapshot store still.",
            [([], Double(hydration.pendingFiles))])
        page.gauge(
            "cistern_hydration_pending_bytes", "What these files lack here.", [([], Double(hydration.pendingBytes))])
        page.counter("cistern_hydration_files_total", "Files that came whole.", [([], hydration.files)])
        page.counter("cistern_hydration_bytes_total", "Bytes that came with them.", [([], hydration.bytes)])
        page.counter(
            "cistern_hydration_reads_total", "Fetches that a read waited for.", [([], hydration.reads)])
        page.counter(
            "cistern_hydration_read_bytes_total", "Bytes that these brought.", [([], hydration.readBytes)])
        page.counter(
            "cistern_hydration_failures_total", "Pieces that did not come and are asked for again.",
            [([], hydration.failures)])
    }

    private static func uploads(_ uploads: UploadStatus, _ page: inout MetricPage) {
        page.gauge(
            "cistern_snapshot_store_snapshots", "Snapshots of this server, by whether the store has them whole.",
            [
                ([("state", "complete")], Double(uploads.complete)), ([("state", "pending")], Double(uploads.pending)),
            ])
        page.gauge(
            "cistern_snapshot_store_pending_bytes", "What is left of the upload under way.",
            [([], Double(uploads.pendingBytes))])
        if uploads.lastCompleteMilliseconds > 0 {
            page.gauge(
                "cistern_snapshot_store_last_complete_seconds", "When the last upload was complete, since 1970.",
                [([], Double(uploads.lastCompleteMilliseconds) / 1000)])
        }
        page.counter("cistern_snapshot_store_uploads_total", "Snapshots uploaded.", [([], uploads.uploads)])
        page.counter(
            "cistern_snapshot_store_uploaded_bytes_total", "Bytes of files put.", [([], uploads.uploadedBytes)])
        page.counter(
            "cistern_snapshot_store_failures_total", "Steps that failed and are tried again.", [([], uploads.failures)])
    }

    private static func trees(_ stores: [StoreSums], _ page: inout MetricPage) {
        func perStore(_ value: (StoreSums) -> Double) -> [MetricPage.Sample] {
            stores.map { ([("store", $0.store)], value($0)) }
        }
        page.gauge(
            "cistern_trees", "Trees of a store.",
            stores.flatMap { store -> [MetricPage.Sample] in
                let states = [
                    ("attached", store.attached), ("open", store.open - store.attached),
                    ("closed", store.trees - store.open),
                ]
                return states.map { state, count in ([("store", store.store), ("state", state)], Double(count)) }
            })
        page.gauge(
            "cistern_entries", "Entries of open trees; every version of a key counts.", perStore { Double($0.entries) })
        page.gauge("cistern_memtable_bytes", "Writes that are not in files.", perStore { Double($0.memtableBytes) })
        page.gauge("cistern_read_only_trees", "Trees that take no writes.", perStore { Double($0.readOnly) })
        page.gauge(
            "cistern_compaction_blocked_trees", "Trees with a list that keeps files from being merged.",
            perStore { Double($0.blocked) })
    }

    private static func levels(_ stores: [StoreSums], _ page: inout MetricPage) {
        func perLevel(_ value: (TreeStatistics.Level) -> Double) -> [MetricPage.Sample] {
            stores.flatMap { store in
                store.levels.enumerated().map { level, sums in
                    ([("store", store.store), ("level", "\(level)")], value(sums))
                }
            }
        }
        page.gauge("cistern_level_files", "Files of open trees.", perLevel { Double($0.files) })
        page.gauge("cistern_level_bytes", "Bytes of them.", perLevel { Double($0.bytes) })
        page.gauge(
            "cistern_level_zero_depth", "Runs of level 0 a read may look into; the deepest tree.",
            stores.map { ([("store", $0.store)], Double($0.levelZeroDepth)) })
        page.gauge(
            "cistern_hidden_bytes", "Bytes that trees hold and cannot see, until a merge.",
            stores.map { ([("store", $0.store)], Double($0.hiddenBytes)) })
    }

    private static func work(_ stores: [StoreSums], _ page: inout MetricPage) {
        func perStore(_ value: (StoreSums) -> Double) -> [MetricPage.Sample] {
            stores.map { ([("store", $0.store)], value($0)) }
        }
        func count(_ value: (StoreSums) -> UInt64) -> [(MetricPage.Labels, UInt64)] {
            stores.map { ([("store", $0.store)], value($0)) }
        }
        page.gauge(
            "cistern_compaction_debt_bytes", "What merges that are due have to read.", perStore { Double($0.debtBytes) }
        )
        page.gauge("cistern_running_compactions", "Merges under way.", perStore { Double($0.compactions) })
        page.gauge(
            "cistern_write_delay_seconds", "What answers to writes wait for compaction; the slowest tree.",
            perStore { Double($0.writeDelayMilliseconds) / 1000 })
        page.gauge(
            "cistern_time_to_stall_seconds", "When writes stop at the present pace; absent while nothing grows.",
            stores.compactMap { store in
                store.millisecondsToStall.map { ([("store", store.store)], Double($0) / 1000) }
            })
        page.gauge(
            "cistern_reclaim_lag_seconds", "Age of the oldest expired data that still takes space.",
            perStore { Double($0.reclaimLagMilliseconds) / 1000 })
        page.counter("cistern_batches_total", "Batches applied since the trees were opened.", count(\.batches))
        page.counter("cistern_entries_written_total", "Entries in them.", count(\.written))
        page.counter("cistern_busy_answers_total", "Batches answered busy.", count(\.busyAnswers))
        page.counter("cistern_flushed_bytes_total", "Bytes that flushes wrote.", count(\.flushedBytes))
        page.counter("cistern_compaction_written_bytes_total", "Bytes that merges wrote.", count(\.compactionWritten))
        page.counter("cistern_disk_failures_total", "Failures of the disk.", count(\.failures))
    }
}

/// What the open trees of a store come to.
struct StoreSums {
    let store: String
    var trees = 0
    var open = 0
    var attached = 0
    var entries: UInt64 = 0
    var memtableBytes = 0
    var readOnly = 0
    var blocked = 0
    var levels: [TreeStatistics.Level] = []
    var levelZeroDepth = 0
    var hiddenBytes: UInt64 = 0
    var debtBytes: UInt64 = 0
    var compactions = 0
    var writeDelayMilliseconds: UInt64 = 0
    var millisecondsToStall: UInt64?
    var reclaimLagMilliseconds: UInt64 = 0
    var batches: UInt64 = 0
    var written: UInt64 = 0
    var busyAnswers: UInt64 = 0
    var flushedBytes: UInt64 = 0
    var compactionWritten: UInt64 = 0
    var failures: UInt64 = 0

    init(store: String) { self.store = store }

    /// In the order of their names.
    static func of(_ status: ServerStatus) -> [StoreSums] {
        var sums: [String: StoreSums] = [:]
        for tree in status.trees { sums[tree.store, default: StoreSums(store: tree.store)].add(tree) }
        return sums.values.sorted { $0.store < $1.store }
    }

    private mutating func add(_ tree: ServerStatus.TreeStatus) {
        trees += 1
        if tree.isAttached { attached += 1 }
        guard let statistics = tree.statistics else { return }
        open += 1
        entries += statistics.approximateEntries
        memtableBytes += statistics.memtableBytes
        readOnly += statistics.readOnlyCause == nil ? 0 : 1
        blocked += statistics.compactionBlockedCause == nil ? 0 : 1
        for (level, more) in statistics.levels.enumerated() {
            if level == levels.count { levels.append(TreeStatistics.Level()) }
            levels[level].files += more.files
            levels[level].bytes += more.bytes
        }
        levelZeroDepth = max(levelZeroDepth, statistics.levelZeroDepth)
        hiddenBytes += statistics.hiddenBytes
        debtBytes += statistics.debtBytes
        compactions += statistics.runningCompactions
        writeDelayMilliseconds = max(writeDelayMilliseconds, statistics.writeDelayMilliseconds)
        if let stall = statistics.millisecondsToStall { millisecondsToStall = min(millisecondsToStall ?? stall, stall) }
        reclaimLagMilliseconds = max(reclaimLagMilliseconds, statistics.reclaimLagMilliseconds)
        batches += statistics.batches
        written += statistics.entries
        busyAnswers += statistics.busyAnswers
        flushedBytes += statistics.flushedBytes
        compactionWritten += statistics.compactionWrittenBytes
        failures += UInt64(statistics.failures)
    }
}
