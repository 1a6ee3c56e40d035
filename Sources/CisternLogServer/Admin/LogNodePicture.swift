// One look at a whole log node, as values, and its metrics in Prometheus' text format. Pure.

internal import CisternDaemon
internal import CisternLogNode
internal import CisternLogProtocol
internal import CisternLogRepair

struct LogNodePicture {
    enum Phase: String {
        /// Metadata is waited for, or the journal is being read.
        case starting
        case serving
        case draining
        /// The journal takes nothing any more; what was durable is still read.
        case failed
    }

    var uptimeMilliseconds: UInt64 = 0
    var node = LogNodeStatus()
    var registration = LogNodeRegistrar.Status()
    var connections = 0
    var unansweredBytes = 0
    var securityReloadsFailed: UInt64 = 0
    /// nil when the node takes no part in it.
    var repair: RepairFigures?
    var isDraining = false

    var phase: Phase {
        if isDraining { return .draining }
        if node.failure != nil { return .failed }
        return node.isServing ? .serving : .starting
    }

    var metrics: String {
        var page = MetricPage()
        state(&page)
        requests(&page)
        journal(&page)
        care(&page)
        if let repair { figures(repair, &page) }
        return page.text
    }

    private func state(_ page: inout MetricPage) {
        page.gauge("cistern_info", "1; the label tells the version.", [([("version", ServerVersion.name)], 1)])
        page.gauge("cistern_uptime_seconds", "Time since the start.", Double(uptimeMilliseconds) / 1000)
        page.gauge("cistern_ready", "1 while requests are served.", phase == .serving ? 1 : 0)
        page.gauge("cistern_connections", "Open client connections.", Double(connections))
        page.gauge(
            "cistern_log_node_registered", "1 while metadata knows the node, by what it last answered.",
            registration.isRegistered ? 1 : 0)
        page.counter(
            "cistern_log_node_leases_lost_total", "Leases that ended while the node was there.",
            [([], registration.leasesLost)])
        page.counter(
            "cistern_log_node_metadata_failures_total", "Attempts to stay registered that metadata did not answer.",
            [([], registration.failures)])
        page.gauge(
            "cistern_log_node_read_only", "1 while adds are refused, because the disk has no room.",
            node.isReadOnly ? 1 : 0)
        page.gauge(
            "cistern_log_node_failed", "1 when the journal failed: restart the node.", node.failure == nil ? 0 : 1)
        page.counter(
            "cistern_security_reloads_failed_total", "Times a file of certificate or tokens could not be read again.",
            [([], securityReloadsFailed)])
    }

    private func requests(_ page: inout MetricPage) {
        let requests = node.requests
        page.counter(
            "cistern_log_node_requests_total", "Requests that came, by kind.",
            [
                ([("kind", "add")], requests.adds), ([("kind", "read")], requests.reads),
                ([("kind", "read_lac")], requests.lacReads), ([("kind", "delete")], requests.deletes),
            ])
        page.counter("cistern_log_node_add_bytes_total", "Bytes of entries that came.", [([], requests.addBytes)])
        page.counter(
            "cistern_log_node_refusals_total", "Requests that were refused, by reason.",
            NodeRefusal.allCases.map { ([("reason", "\($0)")], requests.refusals[$0] ?? 0) })
        page.gauge("cistern_log_node_unanswered_requests", "Requests without an answer.", Double(node.unanswered))
        page.gauge("cistern_log_node_unanswered_bytes", "Bytes of adds without an answer.", Double(unansweredBytes))
    }

    private func journal(_ page: inout MetricPage) {
        let journal = node.journal
        page.counter("cistern_log_node_records_total", "Records of the journal.", [([], journal.records)])
        page.counter("cistern_log_node_journal_bytes_total", "Bytes of records.", [([], journal.bytes)])
        page.histogram(
            "cistern_log_node_sync_seconds", "Batches of the journal, each written and synced.",
            counts: journal.syncLatency, sumMicroseconds: journal.syncNanoseconds / 1000)
        page.gauge(
            "cistern_log_node_segments", "Files of the journal that hold records, or are prepared.",
            [
                ([("state", "in_use")], Double(node.segments)),
                ([("state", "prepared")], Double(node.preparedSegments)),
            ])
        page.gauge("cistern_log_node_sealed_bytes", "Bytes of records in full segments.", Double(node.sealedBytes))
        if let available = node.availableBytes {
            page.gauge("cistern_log_node_disk_available_bytes", "What the disk still takes.", Double(available))
        }
    }

    private func care(_ page: inout MetricPage) {
        let (journal, requests) = (node.journal, node.requests)
        page.gauge("cistern_log_node_ledgers", "Ledgers of which the node has something.", Double(node.ledgers))
        page.gauge(
            "cistern_log_node_limbo_ledgers", "Ledgers of which something may be missing until it is repaired.",
            Double(node.limboLedgers))
        page.gauge(
            "cistern_log_node_deleted_ledger_runs", "Runs of ledgers that are remembered as deleted.",
            Double(node.deletedRuns))
        page.counter(
            "cistern_log_node_ledger_checks_total", "Questions to metadata whether a ledger exists, by answer.",
            [
                ([("answer", "given")], requests.ledgerChecks - requests.ledgerChecksUnanswered),
                ([("answer", "none")], requests.ledgerChecksUnanswered),
            ])
        page.counter(
            "cistern_log_node_ledgers_removed_total", "Ledgers that metadata does not have any more.",
            [([], requests.ledgersDiscarded)])
        page.counter(
            "cistern_log_node_segments_removed_total", "Segments that nothing needed.", [([], journal.segmentsRemoved)])
        page.counter(
            "cistern_log_node_records_rewritten_total", "Records that were copied to free their segment.",
            [([], journal.recordsRewritten)])
        page.counter("cistern_log_node_scrubs_total", "Times all that is stored was read.", [([], journal.scrubs)])
        page.counter(
            "cistern_log_node_scrubbed_entries_total", "Entries read for that.", [([], journal.scrubbedEntries)])
        page.counter(
            "cistern_log_node_damaged_entries_total", "Entries that the disk did not give back as they were.",
            [([], journal.damagedEntries)])
    }

    private func figures(_ repair: RepairFigures, _ page: inout MetricPage) {
        page.gauge(
            "cistern_log_repair_auditor", "1 at the process that looks for nodes that are gone.",
            repair.isAuditor ? 1 : 0)
        page.gauge(
            "cistern_log_repair_missing_nodes", "Nodes that hold ledgers and are not registered, at the auditor.",
            Double(repair.missingNodes.count))
        page.gauge(
            "cistern_log_repair_ledgers", "Ledgers in the repair queue, by state, and those of this node to be mended.",
            [
                ([("state", "waiting")], Double(repair.waiting)), ([("state", "lost")], Double(repair.lost)),
                ([("state", "no_target")], Double(repair.withoutTarget)),
                ([("state", "to_mend")], Double(repair.toMend)),
            ])
        page.counter(
            "cistern_log_repair_ledgers_total", "Ledgers that this process has worked off, by what was done.",
            [([("done", "repaired")], repair.ledgersRepaired), ([("done", "recovered")], repair.ledgersRecovered)])
        page.counter(
            "cistern_log_repair_copied_entries_total", "Entries copied by this process.", [([], repair.entriesCopied)])
        page.counter("cistern_log_repair_copied_bytes_total", "Bytes of them.", [([], repair.bytesCopied)])
        page.counter(
            "cistern_log_repair_failures_total", "Attempts that failed and are tried again.", [([], repair.failures)])
    }
}
