// What `cistern ledger` prints: lines for people, and one JSON object a line for programs.

internal import CisternChangelog
internal import CisternDaemon
internal import CisternLogProtocol
package import CisternPrimitives

private func numbers(_ nodes: some Sequence<LogNodeID>) -> String {
    JSONText.array(nodes.map { "\($0.rawValue)" })
}

private func words(_ nodes: some Sequence<LogNodeID>) -> String {
    nodes.map { "\($0.rawValue)" }.joined(separator: ", ")
}

extension LedgerMetadata {
    fileprivate var stateName: String {
        switch state {
        case .open: "open"
        case .inRecovery: "in recovery"
        case .closed: "closed"
        }
    }

    fileprivate var lastJSON: String { closedLastEntry.map { "\($0.rawValue)" } ?? "null" }

    fileprivate var stateText: String {
        guard let last = closedLastEntry else { return stateName }
        return last == .none ? "closed, empty" : "closed at \(last.rawValue)"
    }
}

extension LedgerListing {
    /// Title of the columns of `line`.
    package static let title = "LEDGER        STATE               QUORUM   FRAGMENTS  NODES             LOG"

    package var line: String {
        func padded(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(1, width - text.count))
        }
        return padded("\(ledger.rawValue)", 14) + padded(metadata.stateText, 20) + padded("\(metadata.sizes)", 9)
            + padded("\(metadata.fragments.count)", 11) + padded(words(metadata.allNodes.sorted()), 18)
            + (log ?? "none")
    }

    package var json: String { JSONText.object(members) }

    fileprivate var members: [(String, String)] {
        [
            ("ledger", "\(ledger.rawValue)"), ("state", JSONText.quoted(metadata.stateName)),
            ("lastEntry", metadata.lastJSON), ("ensemble", "\(metadata.sizes.ensemble)"),
            ("writeQuorum", "\(metadata.sizes.write)"), ("ackQuorum", "\(metadata.sizes.ack)"),
            ("nodes", numbers(metadata.allNodes.sorted())), ("log", log.map(JSONText.quoted) ?? "null"),
            (
                "fragments",
                JSONText.array(
                    metadata.fragments.map { fragment in
                        JSONText.object([
                            ("firstEntry", "\(fragment.firstEntry.rawValue)"), ("nodes", numbers(fragment.ensemble)),
                        ])
                    })
            ),
        ]
    }

    /// With what its nodes say.
    package func lines(_ nodes: [LedgerTool.NodeView]) -> [String] {
        var lines = [
            "ledger    \(ledger.rawValue)", "state     \(metadata.stateText)",
            "quorum    \(metadata.sizes): nodes that entries are spread over, copies of each, copies that acknowledge it",
            "log       \(log ?? "none has it")",
        ]
        for (index, fragment) in metadata.fragments.enumerated() {
            let end = metadata.lastEntry(ofFragment: index).map { "\($0.rawValue)" } ?? "its end"
            lines.append(
                "fragment  entries \(fragment.firstEntry.rawValue) to \(end) on nodes \(words(fragment.ensemble))")
        }
        for view in nodes {
            let facts =
                if let last = view.lastAddConfirmed {
                    "knows entries to \(last.rawValue) to be acknowledged" + (view.isFenced ? ", fenced" : "")
                } else { view.address == nil ? "is not registered" : "gives no answer" }
            lines.append("node      \(view.node.rawValue) \(view.address.map { "at \($0) " } ?? "")\(facts)")
        }
        return lines
    }

    package func json(_ nodes: [LedgerTool.NodeView]) -> String {
        let views = nodes.map { view in
            JSONText.object([
                ("node", "\(view.node.rawValue)"), ("address", view.address.map(JSONText.quoted) ?? "null"),
                ("lastAddConfirmed", view.lastAddConfirmed.map { "\($0.rawValue)" } ?? "null"),
                ("fenced", "\(view.isFenced)"),
            ])
        }
        return JSONText.object(members + [("views", JSONText.array(views))])
    }
}

/// How entries are printed.
package enum LedgerEntryForm: String, CaseIterable, Sendable {
    /// Number, size and checksum.
    case summary
    /// Bodies in hexadecimal digits behind them.
    case hex
    case json

    package func line(_ entry: EntryID, _ body: [UInt8]) -> String {
        let sum = Self.hexadecimal(CRC32C.checksum(body))
        switch self {
        case .summary: return "\(entry.rawValue)  \(body.count) bytes  crc32c \(sum)"
        case .hex: return "\(entry.rawValue)  \(body.count) bytes  crc32c \(sum)  \(Self.hexadecimal(body))"
        case .json:
            return JSONText.object([
                ("entry", "\(entry.rawValue)"), ("bytes", "\(body.count)"), ("crc32c", JSONText.quoted(sum)),
                ("body", JSONText.quoted(Self.hexadecimal(body))),
            ])
        }
    }

    private static func hexadecimal(_ value: UInt32) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    private static func hexadecimal(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 2)
        for byte in bytes { text += [digits[Int(byte >> 4)], digits[Int(byte & 15)]] }
        return String(decoding: text, as: UTF8.self)
    }
}

/// What was found of a ledger's copies.
package struct VerificationReport: Sendable {
    private let found: LedgerVerification
    /// The ledger was removed while it was looked at, and nothing is wrong with copies that are not there.
    private let isRemoved: Bool

    init(_ found: LedgerVerification, isRemoved: Bool = false) {
        self.found = found
        self.isRemoved = isRemoved
    }

    /// Every copy that must be there is, and is like the others.
    package var isWhole: Bool { isRemoved || found.isWhole }

    package var lines: [String] {
        let looked = "\(found.entries) entries, \(found.copies) copies of \(found.bytes) bytes"
        if isRemoved { return ["ledger \(found.ledger.rawValue)  removed meanwhile"] }
        if isWhole { return ["ledger \(found.ledger.rawValue)  whole: \(looked)"] }
        var lines = ["ledger \(found.ledger.rawValue)  not whole: \(looked)"]
        if !found.silentNodes.isEmpty {
            lines.append("  nodes \(words(found.silentNodes.sorted())) gave no answer: their copies are not known")
        }
        return lines + found.faults.map { "  " + $0.line }
    }

    package var json: String {
        JSONText.object([
            ("ledger", "\(found.ledger.rawValue)"), ("whole", "\(isWhole)"),
            ("removed", "\(isRemoved)"), ("entries", "\(found.entries)"),
            ("copies", "\(found.copies)"), ("bytes", "\(found.bytes)"), ("silent", numbers(found.silentNodes.sorted())),
            ("faults", JSONText.array(isRemoved ? [] : found.faults.map(\.json))),
        ])
    }
}

extension LedgerFault {
    private var name: String {
        switch kind {
        case .lost: "lost"
        case .notFound: "not found"
        case .diverging: "diverging"
        case .missingCopies: "missing copies"
        }
    }

    fileprivate var line: String {
        let range = first == last ? "entry \(first.rawValue)" : "entries \(first.rawValue) to \(last.rawValue)"
        var parts: [String] = []
        if kind == .diverging { parts.append("nodes \(words(present)) have different ones") }
        if !absent.isEmpty { parts.append("never stored by \(words(absent))") }
        if !unreadable.isEmpty { parts.append("unreadable on \(words(unreadable))") }
        if !silent.isEmpty { parts.append("no answer of \(words(silent))") }
        return "\(range): \(name); " + parts.joined(separator: ", ")
    }

    fileprivate var json: String {
        JSONText.object([
            ("kind", JSONText.quoted(name)), ("first", "\(first.rawValue)"), ("last", "\(last.rawValue)"),
            ("present", numbers(present)), ("absent", numbers(absent)), ("unreadable", numbers(unreadable)),
            ("silent", numbers(silent)),
        ])
    }
}
