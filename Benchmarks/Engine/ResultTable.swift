// Medians and spreads of both sides, as JSON lines and as a table.

import Foundation

struct ResultTable {
    private struct Row {
        var cpu: [Double] = []
        var wall: [Double] = []
        var disk: [Double] = []
    }

    private let peer: String
    private var names: [String] = []
    private var rows: [String: [Side: Row]] = [:]

    init(peer: String) { self.peer = peer }

    mutating func add(_ measured: Measured, _ side: Side) {
        if rows[measured.name] == nil { names.append(measured.name) }
        var row = rows[measured.name]?[side] ?? Row()
        row.cpu.append(measured.cpuNanoseconds)
        row.wall.append(measured.wallNanoseconds)
        row.disk.append(Double(measured.diskBytes))
        rows[measured.name, default: [:]][side] = row
    }

    /// One object a line: ratio above 1 means that ours is better.
    func write(to path: String) throws {
        var text = ""
        for name in names {
            for (metric, unit, values) in metrics {
                guard let ours = rows[name]?[.ours].map(values), let theirs = rows[name]?[.peer].map(values) else {
                    continue
                }
                let line: [String: Any] = [
                    "suite": "engine", "case": name, "metric": metric, "unit": unit, "ours": median(ours),
                    "peer": median(theirs), "peer_name": peer, "ratio": median(theirs) / median(ours),
                    "ours_all": ours, "peer_all": theirs, "load": ResultTable.load(),
                ]
                let data = try JSONSerialization.data(withJSONObject: line, options: [.sortedKeys])
                text += String(decoding: data, as: UTF8.self) + "\n"
            }
        }
        try text.write(toFile: path, atomically: true, encoding: .utf8)
    }

    func text() -> String {
        var lines = ["", "case             metric        ours (min…max)             peer (min…max)             ratio"]
        for name in names {
            for (metric, unit, values) in metrics where unit == "ns" {
                guard let ours = rows[name]?[.ours].map(values), let theirs = rows[name]?[.peer].map(values) else {
                    continue
                }
                let ratio = String(format: "%.2f", median(theirs) / median(ours))
                lines.append(
                    pad(name, 16) + " " + pad(metric, 13) + " " + pad(spread(ours), 26) + " " + pad(spread(theirs), 26)
                        + " " + ratio)
            }
        }
        return lines.joined(separator: "\n")
    }

    private var metrics: [(String, String, (Row) -> [Double])] {
        [
            ("cpu_per_op", "ns", { $0.cpu }), ("wall_per_op", "ns", { $0.wall }), ("disk", "bytes", { $0.disk }),
        ]
    }

    private func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    private func spread(_ values: [Double]) -> String {
        String(format: "%.0f (%.0f…%.0f)", median(values), values.min() ?? 0, values.max() ?? 0)
    }

    private func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    static func load() -> Double {
        var averages = [0.0]
        getloadavg(&averages, 1)
        return averages[0]
    }
}
