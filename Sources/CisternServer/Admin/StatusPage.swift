// The status page: one HTML document without anything from elsewhere, whose body is fetched again every two seconds. Pure.

internal import CisternLSM
internal import CisternSnapshotStore
internal import CisternWire

enum StatusPage {
    static let contentType = "text/html; charset=utf-8"
    /// Nothing from elsewhere is loaded, whatever a store is called.
    static let securityPolicy =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        + "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    /// More trees than a person looks at; the JSON has all.
    static let treesMax = 64

    static func render(_ status: ServerStatus, _ history: [StatusSample]) -> String {
        """
        <!doctype html>
        <html lang="en"><head><meta charset="utf-8"><title>Cistern</title>
        <meta name="viewport" content="width=device-width">
        <noscript><meta http-equiv="refresh" content="5"></noscript>
        <style>\(style)</style></head>
        <body><main id="status">\(body(status, history))</main>
        <script>\(script)</script></body></html>

        """
    }

    /// What changes.
    static func body(_ status: ServerStatus, _ history: [StatusSample]) -> String {
        head(status) + damage(status) + overTime(history) + memory(status) + checkpoints(status) + requests(status)
            + trees(status)
    }

    // MARK: Parts

    private static func head(_ status: ServerStatus) -> String {
        let open = status.trees.filter { $0.statistics != nil }.count
        let attached = status.trees.filter(\.isAttached).count
        return """
            <h1>Cistern <small>\(HumanText.escaped(status.version))</small></h1>
            <p><b class="\(status.phase.rawValue)">\(status.phase.rawValue)</b> for \
            \(HumanText.duration(microseconds: status.uptimeMilliseconds * 1000)) ·
            \(status.connections) connections · \(status.trees.count) trees, \(open) open, \(attached) attached ·
            \(status.snapshotCount) snapshots</p>
            """
    }

    private static func damage(_ status: ServerStatus) -> String {
        var problems = status.damagedFiles.map { "cannot be read: " + $0 }
        for tree in status.trees {
            let name = "store \(tree.store), key groups \(tree.keyGroupFirst)…\(tree.keyGroupLast): "
            if let cause = tree.statistics?.readOnlyCause { problems.append(name + "takes no writes: " + cause) }
            if let cause = tree.statistics?.compactionBlockedCause { problems.append(name + "is not merged: " + cause) }
        }
        if problems.isEmpty { return "" }
        return "<ul class=\"problems\">"
            + problems.map { "<li>\(HumanText.escaped($0))</li>" }.joined() + "</ul>"
    }

    private static func overTime(_ history: [StatusSample]) -> String {
        let steps = zip(history, history.dropFirst())
        let writes = steps.map { earlier, later in
            rate(later.entriesWritten, earlier.entriesWritten, later.milliseconds - earlier.milliseconds)
        }
        let hits = steps.map { earlier, later -> Double in
            let hits = Double(later.cacheHits &- earlier.cacheHits)
            let all = hits + Double(later.cacheMisses &- earlier.cacheMisses)
            return all <= 0 ? 1 : hits / all
        }
        let debt = history.map { Double($0.debtBytes) }
        let hitText = hits.last.map { HumanText.short($0 * 100) + " %" } ?? "–"
        return "<section class=\"row\">"
            + figure("Entries written a second", HumanText.count(UInt64(writes.last ?? 0)), writes)
            + figure("Block cache hits", hitText, hits)
            + figure("Compaction debt", HumanText.bytes(history.last?.debtBytes ?? 0), debt) + "</section>"
    }

    private static func figure(_ name: String, _ value: String, _ values: [Double]) -> String {
        "<figure><figcaption>\(name) <b>\(value)</b></figcaption>\(StatusPicture.line(values, name))</figure>"
    }

    /// A tree that was closed takes its counters along: a sum that shrank says nothing about the rate.
    private static func rate(_ later: UInt64, _ earlier: UInt64, _ milliseconds: UInt64) -> Double {
        later < earlier || milliseconds == 0 ? 0 : Double(later - earlier) * 1000 / Double(milliseconds)
    }

    private static func memory(_ status: ServerStatus) -> String {
        let classes = MemoryClass.allCases.map { kind in
            "<span><i class=\"m\(kind.rawValue)\"></i>\(kind) \(HumanText.bytes(status.memory[kind]))</span>"
        }
        let cache = status.cache
        return """
            <h2>Memory <small>\(HumanText.bytes(status.memory.totalBytes)) of \
            \(HumanText.bytes(status.memoryLimitBytes))</small></h2>
            \(StatusPicture.memory(status))<p class="legend">\(classes.joined())</p>
            <p>Block cache: \(HumanText.count(UInt64(max(cache.blockCount, 0)))) blocks, \(HumanText.bytes(cache.usedBytes)), of which \
            \(HumanText.bytes(cache.metadataBytes)) index and filters;
            \(HumanText.percent(cache.hits, of: cache.hits + cache.misses)) of look-ups hit since the start.</p>
            """
    }

    private static func checkpoints(_ status: ServerStatus) -> String {
        let sums = status.checkpointSums
        let mean = sums.taken + sums.failed == 0 ? 0 : sums.microseconds / (sums.taken + sums.failed)
        return """
            <h2>Checkpoints <small>\(HumanText.count(sums.taken)) parts taken, \(HumanText.count(sums.failed)) failed, \
            \(HumanText.duration(microseconds: mean)) on average</small></h2>
            \(status.checkpoints.isEmpty ? "<p>None yet.</p>" : StatusPicture.checkpoints(status.checkpoints))
            \(status.uploads.map { uploads($0, nowMilliseconds: status.nowMilliseconds) } ?? "")
            \(status.hydration.map(hydration) ?? "")
            \(status.replication.map(replication) ?? "")
            """
    }

    private static func replication(_ replication: ReplicationStatus) -> String {
        """
        <p>On log nodes: the logs of \(HumanText.count(UInt64(replication.trees))) trees with \
        \(HumanText.bytes(replication.logBytes)); taken over since the start: \
        \(HumanText.count(replication.takeoversElsewhere)) from other servers, lost: \(HumanText.count(replication.lostLogs))</p>
        """
    }

    /// Empty when everything is here.
    private static func hydration(_ hydration: HydrationStatus) -> String {
        if hydration.pendingFiles == 0 { return "" }
        let error = hydration.error.map { "<br><b class=\"problems\">\(HumanText.escaped($0))</b>" } ?? ""
        return """
            <p>Coming from the snapshot store: \(HumanText.count(UInt64(hydration.pendingFiles))) files with \
            \(HumanText.bytes(hydration.pendingBytes)) to go\(error)</p>
            """
    }

    private static func uploads(_ uploads: UploadStatus, nowMilliseconds: UInt64) -> String {
        let last =
            uploads.lastCompleteMilliseconds == 0
            ? "none since the start"
            : HumanText.duration(
                microseconds: (max(nowMilliseconds, uploads.lastCompleteMilliseconds) - uploads.lastCompleteMilliseconds)
                    * 1000) + " ago"
        let error = uploads.error.map { "<br><b class=\"problems\">\(HumanText.escaped($0))</b>" } ?? ""
        return """
            <p>Snapshot store: \(HumanText.count(UInt64(uploads.complete))) complete, \(HumanText.count(UInt64(uploads.pending))) \
            pending with \(HumanText.bytes(uploads.pendingBytes)) to go; last complete: \(last)\(error)</p>
            """
    }

    private static func requests(_ status: ServerStatus) -> String {
        let sums = status.requests
        let rows = Opcode.allCases.filter { (sums.requests[$0] ?? 0) > 0 }.map { opcode in
            "<tr><td>\(opcode)</td><td class=\"n\">\(HumanText.count(sums.requests[opcode] ?? 0))</td></tr>"
        }
        let refusals = sums.refusals.sorted { $0.key.rawValue < $1.key.rawValue }.map { code, count in
            "<tr><td>\(code.name)</td><td class=\"n\">\(HumanText.count(count))</td></tr>"
        }
        let writes = sums.writeLatency.reduce(0, +)
        let mean = writes == 0 ? "–" : HumanText.duration(microseconds: sums.writeMicroseconds / writes)
        let refused =
            refusals.isEmpty
            ? "" : "<table><tr><th>refused with</th><th>requests</th></tr>\(refusals.joined())</table>"
        return """
            <h2>Requests <small>\(HumanText.bytes(sums.bytesReceived)) received; a write batch is acknowledged after \(mean) on \
            average</small></h2>
            <section class="row"><table><tr><th>opcode</th><th>requests</th></tr>\(rows.joined())</table>
            \(refused)</section>
            """
    }

    private static func trees(_ status: ServerStatus) -> String {
        let shown = status.trees.prefix(treesMax)
        let hidden = status.trees.count - shown.count
        let more = hidden > 0 ? "<p>… and \(hidden) more, in <a href=\"status.json\">status.json</a>.</p>" : ""
        return "<h2>Trees</h2>" + shown.map(tree).joined() + more
            + "<p class=\"links\"><a href=\"metrics\">metrics</a> <a href=\"status.json\">status.json</a></p>"
    }

    private static func tree(_ tree: ServerStatus.TreeStatus) -> String {
        let session =
            tree.isAttached
            ? "attached by <b>\(HumanText.escaped(tree.writer))</b>, epoch \(tree.epoch)"
            : "not attached; last writer \(HumanText.escaped(tree.writer)), epoch \(tree.epoch)"
        let heading =
            "<h3>\(HumanText.escaped(tree.store)) <small>key groups \(tree.keyGroupFirst)…\(tree.keyGroupLast) · \(session)</small></h3>"
        guard let statistics = tree.statistics else { return "<article>\(heading)<p>closed</p></article>" }
        let stall = statistics.millisecondsToStall.map {
            ", writes stop in \(HumanText.duration(microseconds: $0 * 1000)) at this pace"
        }
        return """
            <article>\(heading)<section class="row">\(StatusPicture.levels(statistics))
            <p>about \(HumanText.count(statistics.approximateEntries)) entries;
            \(HumanText.count(statistics.batches)) batches, \(HumanText.count(statistics.entries)) entries written<br>
            debt \(HumanText.bytes(statistics.debtBytes)), \(statistics.runningCompactions) merges running, \
            write delay \(statistics.writeDelayMilliseconds) ms\(stall ?? "")<br>
            \(statistics.flushes) flushes \(HumanText.bytes(statistics.flushedBytes)), \(statistics.compactions) merges \
            \(HumanText.bytes(statistics.compactionWrittenBytes)) written<br>
            reclaim lag \(HumanText.duration(microseconds: statistics.reclaimLagMilliseconds * 1000)), \
            opened in \(HumanText.duration(microseconds: statistics.openMicroseconds))</p></section></article>
            """
    }

    // MARK: Style and script

    private static let style = """
        :root{color-scheme:light dark;--ink:#1b2733;--dim:#66788a;--paper:#fbfcfd;--line:#d8e0e8;--a:#2f7ab8;--b:#8fbfe3;--c:#e0a13a;--bad:#c0392b}
        @media(prefers-color-scheme:dark){:root{--ink:#dfe7ee;--dim:#8fa1b3;--paper:#12181f;--line:#2b3743;--a:#5aa2dc;--b:#2c577b;--c:#c98d2b;--bad:#e5604f}}
        body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0}
        main{max-width:900px;margin:0 auto;padding:16px}h1{font-size:22px;margin:0}h2{font-size:17px;margin:28px 0 6px;border-bottom:1px solid var(--line)}
        h3{font-size:15px;margin:14px 0 2px}small,.label,.value{color:var(--dim);font-weight:normal}p{margin:4px 0}article p{flex:1 1 340px}
        .serving{color:#2e8b57}.starting,.draining{color:var(--c)}.problems{color:var(--bad)}
        .row{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start}figure{margin:8px 0}
        svg{max-width:100%;overflow:visible}text{font:11px system-ui,sans-serif;fill:var(--dim)}
        rect.mem{fill:var(--c)}rect.young{fill:var(--b)}rect.old{fill:var(--a)}rect.bad{fill:var(--bad)}rect.cut{fill:var(--paper)}rect.empty{fill:var(--line)}
        .line{fill:none;stroke:var(--a);stroke-width:1.5}table{border-collapse:collapse}td,th{padding:1px 14px 1px 0;text-align:left;font-weight:normal}
        th{color:var(--dim)}.n{text-align:right;font-variant-numeric:tabular-nums}.legend span{margin-right:14px;white-space:nowrap}
        .legend i{display:inline-block;width:10px;height:10px;margin-right:4px}a{color:var(--a)}
        .m0{fill:#e0a13a;background:#e0a13a}.m1{fill:#b97f1f;background:#b97f1f}.m2{fill:#9b59b6;background:#9b59b6}.m3{fill:#95a5a6;background:#95a5a6}
        .m4{fill:#2f7ab8;background:#2f7ab8}.m5{fill:#2e8b57;background:#2e8b57}.m6{fill:#c0392b;background:#c0392b}.m7{fill:#16a085;background:#16a085}
        .stale{opacity:.5}.m8{fill:#7f8c8d;background:#7f8c8d}.m9{fill:#34495e;background:#34495e}
        """

    private static let script = """
        const main=document.getElementById('status');
        async function refresh(){try{const answer=await fetch('fragment');if(answer.ok){main.innerHTML=await answer.text();main.classList.remove('stale');main.dataset.refreshed=new Date().toISOString()}}
        catch(error){main.classList.add('stale');main.title='The server does not answer.'}setTimeout(refresh,document.hidden?10000:2000)}
        setTimeout(refresh,2000);
        """
}
