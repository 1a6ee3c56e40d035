// The JSON lines as a table and as a plot.

import Foundation

package enum Report {
    /// A table for a terminal and for a page: one row a case and metric, the judged metric of a case with its bar.
    package static func table(_ lines: [ResultLine]) -> String {
        var rows = [["case", "metric", "unit", "ours (min…max)", "peer (min…max)", "ratio", "bar", ""]]
        for line in lines where Metric(rawValue: line.metric)?.isSecondary == false {
            let verdict = line.bar.flatMap { bar in line.ratio.map { $0 >= bar ? "" : "below" } } ?? ""
            rows.append([
                line.caseName, line.metric, line.unit, spread(line.ours, line.oursAll),
                line.peer.map { spread($0, line.peerAll) } ?? "", line.ratio.map { String(format: "%.2f", $0) } ?? "",
                line.bar.map { String(format: "%g", $0) } ?? "", verdict,
            ])
        }
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        var text = rows.map { row in
            "| " + zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }.joined(separator: " | ")
                + " |"
        }
        text.insert("|" + widths.map { String(repeating: "-", count: $0 + 2) }.joined(separator: "|") + "|", at: 1)
        return text.joined(separator: "\n")
    }

    private static func spread(_ median: Double, _ all: [Double]) -> String {
        guard all.count > 1, let least = all.min(), let most = all.max() else { return number(median) }
        return "\(number(median)) (\(number(least))…\(number(most)))"
    }

    private static func number(_ value: Double) -> String {
        if abs(value) >= 1e6 { return String(format: "%.1fM", value / 1e6) }
        return String(format: abs(value) >= 100 ? "%.0f" : "%.3g", value)
    }

    /// Bars of the ratios, on a logarithmic scale; the judged metric where a case has one, CPU or the first else. A tick marks
    /// what a case must reach.
    package static func plot(_ lines: [ResultLine], title: String) -> String {
        var shown: [ResultLine] = []
        for name in lines.map(\.caseName).uniqued() {
            let ofCase = lines.filter { $0.caseName == name && $0.ratio != nil }
            if let line = ofCase.first(where: { $0.bar != nil }) ?? ofCase.first { shown.append(line) }
        }
        let (left, width, row) = (230.0, 560.0, 24.0)
        let most = max(shown.compactMap(\.ratio).max() ?? 1, shown.compactMap(\.bar).max() ?? 1, 2)
        let least = min(shown.compactMap(\.ratio).min() ?? 1, 0.5)
        let x = { (ratio: Double) in
            left + width * (log(max(ratio, least)) - log(least)) / (log(most) - log(least))
        }
        let height = 60 + row * Double(shown.count) + 20
        var svg = """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(Int(left + width + 90))" height="\(Int(height))" \
            font-family="sans-serif" font-size="12">
            <rect width="100%" height="100%" fill="#fff"/>
            <text x="10" y="20" font-size="14">\(escape(title))</text>
            <text x="10" y="38" fill="#555">times better than the peer (1 = equal, logarithmic); tick: what is asked for</text>

            """
        svg += String(
            format: "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"48\" y2=\"%.1f\" stroke=\"#888\"/>\n", x(1), x(1), height - 16)
        for (index, line) in shown.enumerated() {
            let (ratio, y) = (line.ratio ?? 1, 52 + row * Double(index))
            let color = line.bar.map { ratio >= $0 ? "#2a9d5c" : "#d9822b" } ?? "#4f81bd"
            svg += "<text x=\"10\" y=\"\(y + 15)\">\(escape(line.caseName))</text>\n"
            svg += String(
                format: "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"16\" fill=\"%@\"/>\n", min(x(1), x(ratio)),
                y + 3,
                abs(x(ratio) - x(1)), color)
            svg += String(format: "<text x=\"%.1f\" y=\"%.1f\">%.2f</text>\n", max(x(1), x(ratio)) + 6, y + 15, ratio)
            if let bar = line.bar {
                svg += String(
                    format:
                        "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#000\" stroke-width=\"2\"/>\n",
                    x(bar), x(bar), y + 1, y + 21)
            }
        }
        return svg + "</svg>\n"
    }

    private static func escape(_ text: String) -> String {
        text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
    }
}

extension Array where Element: Hashable {
    /// Each element once, in the order of their first.
    fileprivate func uniqued() -> [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
