// What `cistern log-node inspect` prints.

internal import CisternDaemon
package import CisternFileSystem
internal import CisternLogNode
internal import CisternLogProtocol
internal import CisternPrimitives

/// A log node's directory, read while no node has it open.
package struct JournalReport: Sendable {
    private let found: JournalInspection

    /// Blocks for as long as the directory's segments take to read.
    /// - Throws: `ServerStartError` when it is not a log node's, or one has it open.
    package init(_ directory: String, fileSystem: any FileSystem) throws {
        do throws(FileError) {
            found = try JournalInspection.run(directory, fileSystem: fileSystem)
        } catch {
            let advice =
                error.isNotFound
                ? "give the --data directory of a log node" : error.reason == .locked ? "or ask its admin port" : ""
            throw ServerStartError(
                description: "cannot look into \(directory): \(error)" + (advice.isEmpty ? "" : "; \(advice)"))
        }
    }

    /// Nothing that was durable is missing.
    package var isWhole: Bool { found.damage.isEmpty }

    package var lines: [String] {
        var lines: [String] = []
        if let cookie = found.cookie {
            lines.append("log node \(cookie.node.rawValue) of cluster number \(cookie.cluster)")
        }
        let bytes = found.segments.reduce(0) { $0 + $1.fileBytes }
        lines.append("\(found.segments.count) segments of \(bytes) bytes, \(found.spareSegments) spare ones")
        for segment in found.segments {
            lines.append(
                "  segment \(segment.number)  \(segment.records) records, ends at \(segment.end) of \(segment.fileBytes)"
                    + (segment.hasIndex ? ", with an index" : ""))
        }
        lines.append("\(found.ledgers.count) ledgers, \(found.deletedLedgers) deleted ones are remembered")
        for ledger in found.ledgers {
            let runs = ledger.entries.runs.map {
                $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)"
            }
            let entries = runs.isEmpty ? "no entries" : "entries " + runs.joined(separator: ",")
            lines.append(
                "  ledger \(ledger.ledger.rawValue)  \(entries), \(ledger.bytes) bytes, acknowledged to "
                    + "\(ledger.lastAddConfirmed.rawValue)" + (ledger.isFenced ? ", fenced" : "")
                    + (ledger.isInLimbo ? ", in limbo" : ""))
        }
        if let limbo = found.limboThrough {
            lines.append(
                "came back without all it had: ledgers to \(limbo.rawValue) are in limbo until they are repaired")
        }
        for damage in found.damage { lines.append("damaged  \(damage)") }
        return lines
    }

    package var json: String {
        JSONText.object([
            ("directory", JSONText.quoted(found.directory)),
            ("node", found.cookie.map { "\($0.node.rawValue)" } ?? "null"),
            ("cluster", found.cookie.map { "\($0.cluster)" } ?? "null"),
            ("spareSegments", "\(found.spareSegments)"), ("deletedLedgers", "\(found.deletedLedgers)"),
            ("limboThrough", found.limboThrough.map { "\($0.rawValue)" } ?? "null"),
            ("segments", JSONText.array(found.segments.map(json))),
            ("ledgers", JSONText.array(found.ledgers.map(json))),
            ("damage", JSONText.array(found.damage.map { JSONText.quoted("\($0)") })),
        ])
    }

    private func json(_ segment: JournalInspection.Segment) -> String {
        JSONText.object([
            ("segment", "\(segment.number)"), ("bytes", "\(segment.fileBytes)"), ("end", "\(segment.end)"),
            ("records", "\(segment.records)"), ("index", "\(segment.hasIndex)"),
        ])
    }

    private func json(_ ledger: JournalInspection.Ledger) -> String {
        JSONText.object([
            ("ledger", "\(ledger.ledger.rawValue)"),
            (
                "entries",
                JSONText.array(ledger.entries.runs.map { JSONText.array(["\($0.lowerBound)", "\($0.upperBound)"]) })
            ), ("bytes", "\(ledger.bytes)"), ("lastAddConfirmed", "\(ledger.lastAddConfirmed.rawValue)"),
            ("fenced", "\(ledger.isFenced)"), ("limbo", "\(ledger.isInLimbo)"),
        ])
    }
}
