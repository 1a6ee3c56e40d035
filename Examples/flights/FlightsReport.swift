// The end of a run: tables and figures for people, and all of it as JSON for programs.

internal import Foundation

/// What a run was, apart from its tables.
struct FlightsSummary {
    var deliveries = 0
    var flights = 0
    /// Workers of each attempt.
    var parallelism: [Int] = []
    var checkpoints = 0
    var restores = 0
    /// One worker's part of a checkpoint: both stores.
    var checkpointMicroseconds: [Int] = []
    /// One worker's attaching, both stores, with the key index loaded.
    var attachMicroseconds: [Int] = []
    /// From the kill of a worker until all workers of the next attempt were attached.
    var restoreMicroseconds: [Int] = []
    var serverKills = 0
    var figures = WorkerFigures()

    private var start = ContinuousClock.now
    private var time = Duration.zero

    /// The first attempt begins.
    mutating func started() { start = .now }
    /// The last attempt's workers have ended.
    mutating func ended() { time = .now - start }

    var seconds: Double { time.seconds }
    var recordsPerSecond: Int { seconds > 0 ? Int(Double(deliveries) / seconds) : 0 }
}

extension FlightsSummary {
    /// The page of figures.
    var text: String {
        let f = figures
        let rows: [[String]] = [
            ["source", "\(grouped(deliveries)) deliveries of \(grouped(flights)) flights, every 97th twice"],
            ["time", "\(decimal(seconds)) s, \(grouped(recordsPerSecond)) records/s, kills and replay included"],
            ["write operations", "\(grouped(f.writeOperations)) in \(grouped(f.writeRPCs)) RPCs (\(ratio))"],
            ["  absorbed by the buffer", "\(grouped(f.writesAbsorbed)) overwrote one that had not left yet"],
            ["read operations", "\(grouped(f.readOperations)) in \(grouped(f.readRPCs)) RPCs"],
            ["  from the write buffer", "\(grouped(f.bufferHits)) RPCs avoided"],
            ["  from the value cache", "\(grouped(f.cacheHits)) RPCs avoided"],
            ["  by the key index", "\(grouped(f.indexSkips)) RPCs avoided"],
            ["  of absent keys", "\(grouped(f.absentReads)), \(grouped(f.absentReadRPCs)) asked the server"],
            ["key index", "\(grouped(f.keyIndexKeys)) keys in \(bytes(f.keyIndexBytes)) at the end"],
            [
                "  verified",
                f.verifyChecks == 0
                    ? "off (--verify)"
                    : "\(grouped(f.verifyChecks)) answers asked again, \(grouped(f.verifyDisagreements)) disagreed",
            ],
            ["values", "\(bytes(f.bytesBeforeCompression)) raw, \(bytes(f.bytesAfterCompression)) stored"],
            ["network", "\(bytes(f.bytesSent)) sent, \(bytes(f.bytesReceived)) received"],
            ["checkpoints", "\(checkpoints) complete; a worker's part \(spread(checkpointMicroseconds))"],
            ["restores", "\(restores); from kill to all attached \(spread(restoreMicroseconds))"],
            ["attaching", "a worker's two stores, key index loaded: \(spread(attachMicroseconds))"],
            ["connections", "\(grouped(f.reconnects)) reconnects, \(grouped(f.batchesResent)) batches sent again"],
        ]
        let width = rows.map { $0[0].count }.max() ?? 0
        return
            (["Figures"] + rows.map { "  " + $0[0].padding(toLength: width + 2, withPad: " ", startingAt: 0) + $0[1] })
            .joined(separator: "\n") + "\n"
    }

    private var ratio: String {
        figures.writeRPCs == 0 ? "none" : "\(grouped(figures.writeOperations / figures.writeRPCs)) to 1"
    }

    private func spread(_ microseconds: [Int]) -> String {
        guard let worst = microseconds.max() else { return "-" }
        let median = microseconds.sorted()[(microseconds.count - 1) / 2]
        return "p50 \(milliseconds(median)), max \(milliseconds(worst))"
    }
}

extension FlightsSummary {
    /// Everything, with the full tables.
    func json(_ tables: FlightsTables) -> String {
        let f = figures
        let numbers: [(String, Int)] = [
            ("deliveries", deliveries), ("flights", flights), ("records_per_second", recordsPerSecond),
            ("microseconds", Int(seconds * 1e6)),
            ("write_operations", f.writeOperations), ("write_rpcs", f.writeRPCs), ("writes_absorbed", f.writesAbsorbed),
            ("read_operations", f.readOperations), ("read_rpcs", f.readRPCs), ("buffer_hits", f.bufferHits),
            ("cache_hits", f.cacheHits), ("index_skips", f.indexSkips), ("absent_reads", f.absentReads),
            ("absent_read_rpcs", f.absentReadRPCs), ("verify_checks", f.verifyChecks),
            ("verify_disagreements", f.verifyDisagreements), ("key_index_keys", f.keyIndexKeys),
            ("key_index_bytes", f.keyIndexBytes), ("bytes_before_compression", f.bytesBeforeCompression),
            ("bytes_after_compression", f.bytesAfterCompression), ("bytes_sent", f.bytesSent),
            ("bytes_received", f.bytesReceived), ("reconnects", f.reconnects), ("batches_resent", f.batchesResent),
            ("checkpoints", checkpoints), ("restores", restores), ("server_kills", serverKills),
        ]
        let lists: [(String, [Int])] = [
            ("parallelism", parallelism), ("attach_microseconds", attachMicroseconds),
            ("checkpoint_microseconds", checkpointMicroseconds),
            ("restore_microseconds", restoreMicroseconds),
        ]
        var members = numbers.map { "  \"\($0.0)\": \($0.1)" }
        members += lists.map { "  \"\($0.0)\": [\($0.1.map(String.init).joined(separator: ", "))]" }
        let texts = TableSchema.all.map { Self.json($0, tables.rows(of: $0)) }
        members.append("  \"tables\": {\n\(texts.joined(separator: ",\n"))\n  }")
        return "{\n\(members.joined(separator: ",\n"))\n}\n"
    }

    private static func json(_ schema: TableSchema, _ rows: [[String]]) -> String {
        let columns = schema.columns.map { "\"\($0.name)\"" }.joined(separator: ", ")
        let lines = rows.map { row in
            let cells = zip(schema.columns, row).map { column, cell in
                cell.isEmpty ? "null" : column.isNumber ? cell : "\"\(escaped(cell))\""
            }
            return "      [\(cells.joined(separator: ", "))]"
        }
        return
            "    \"\(schema.name)\": {\"columns\": [\(columns)], \"rows\": [\n\(lines.joined(separator: ",\n"))\n    ]}"
    }

    /// The data has letters and digits only; a file that does not must still give valid JSON.
    private static func escaped(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }) else {
            return text
        }
        return text.unicodeScalars.map { scalar in
            switch scalar {
            case "\"": "\\\""
            case "\\": "\\\\"
            case _ where scalar.value < 0x20: "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: String(scalar)
            }
        }.joined()
    }
}
