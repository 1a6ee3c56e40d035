// The drawings of the status page, as SVG text. Pure.

internal import CisternLSM

enum StatusPicture {
    private static let width = 420
    private static let rowHeight = 18

    // MARK: A tree

    /// One row a level that has files, as wide as it has bytes beside the largest level, cut into its files; the memtables
    /// above them.
    static func levels(_ tree: TreeStatistics) -> String {
        let rows = tree.levels.enumerated().filter { $0.element.files > 0 }
        let most = max(rows.map(\.element.bytes).max() ?? 0, UInt64(max(tree.memtableBytes, 1)))
        var svg = begin(width, (rows.count + 1) * rowHeight, "levels of the tree")
        svg += row(0, "mem", UInt64(max(tree.memtableBytes, 0)), of: most, parts: 1 + tree.sealedMemtables, "mem")
        for (place, (level, sums)) in rows.enumerated() {
            svg += row(place + 1, "L\(level)", sums.bytes, of: most, parts: sums.files, level == 0 ? "young" : "old")
        }
        return svg + "</svg>"
    }

    private static let labelWidth = 34
    private static let textWidth = 130
    private static let partsMax = 40

    private static func row(
        _ index: Int, _ label: String, _ bytes: UInt64, of most: UInt64, parts: Int, _ style: String
    ) -> String {
        let room = width - labelWidth - textWidth
        let length = bytes == 0 ? 0 : max(Int(Double(bytes) / Double(most) * Double(room)), 2)
        let y = index * rowHeight
        var svg = text(0, y + 13, label, "label")
        if length > 0 { svg += rectangle(labelWidth, y + 2, length, rowHeight - 4, style) }
        // A cut between files as long as there is room to see it.
        let cuts = min(parts, partsMax)
        if cuts > 1 && length > cuts * 2 {
            for cut in 1..<cuts { svg += rectangle(labelWidth + length * cut / cuts, y + 2, 1, rowHeight - 4, "cut") }
        }
        let what = label == "mem" ? "" : parts == 1 ? ", 1 file" : ", \(parts) files"
        svg += text(labelWidth + length + 6, y + 13, HumanText.bytes(bytes) + what, "value")
        return svg
    }

    // MARK: Memory

    /// Every class of memory in one bar, up to the limit.
    static func memory(_ status: ServerStatus) -> String {
        let limit = Double(max(status.memoryLimitBytes, status.memory.totalBytes, 1))
        let room = 860
        var svg = begin(room, 26, "memory by class")
        svg += rectangle(0, 2, room, 22, "empty")
        var x = 0.0
        for kind in MemoryClass.allCases where status.memory[kind] > 0 {
            let length = Double(status.memory[kind]) / limit * Double(room)
            let title = "<title>\(kind): \(HumanText.bytes(status.memory[kind]))</title>"
            svg +=
                "<rect class=\"m\(kind.rawValue)\" x=\"\(Int(x))\" y=\"2\" width=\"\(max(Int(length), 1))\" height=\"22\">"
                + title + "</rect>"
            x += length
        }
        return svg + "</svg>"
    }

    // MARK: Over time

    /// One bar a checkpoint part, as high as it took time.
    static func checkpoints(_ parts: [CheckpointPart]) -> String {
        let (barWidth, height) = (6, 90)
        let shown = parts.suffix(140)
        let most = max(shown.map(\.microseconds).max() ?? 1, 1)
        var svg = begin(140 * barWidth + 20, height + 4, "checkpoints over time")
        for (place, part) in shown.enumerated() {
            let bar = max(Int(Double(part.microseconds) / Double(most) * Double(height)), 1)
            let result =
                part.failure.map { "failed: " + HumanText.escaped($0) } ?? HumanText.bytes(part.newBytes) + " new"
            let title =
                "\(HumanText.escaped(part.store)) \(part.keyGroups), checkpoint \(part.checkpoint): "
                + "\(HumanText.duration(microseconds: part.microseconds)), \(result)"
            svg +=
                "<rect class=\"\(part.failure == nil ? "old" : "bad")\" x=\"\(place * barWidth)\" y=\"\(height - bar)\" "
                + "width=\"\(barWidth - 1)\" height=\"\(bar)\"><title>\(title)</title></rect>"
        }
        return svg + "</svg>"
    }

    /// A line from the oldest value to the newest, zero at the bottom.
    static func line(_ values: [Double], _ name: String) -> String {
        let (width, height) = (270, 60)
        let most = max(values.max() ?? 0, 1e-9)
        var svg = begin(width, height + 4, name)
        if values.count > 1 {
            let points = values.enumerated().map { place, value in
                "\(place * (width - 2) / (values.count - 1) + 1),\(height + 2 - Int(value / most * Double(height)))"
            }
            svg += "<polyline class=\"line\" points=\"\(points.joined(separator: " "))\"/>"
        } else {
            svg += text(0, 34, "nothing yet", "value")
        }
        return svg + "</svg>"
    }

    // MARK: Pieces

    private static func begin(_ width: Int, _ height: Int, _ label: String) -> String {
        "<svg role=\"img\" aria-label=\"\(HumanText.escaped(label))\" width=\"\(width)\" height=\"\(height)\" "
            + "viewBox=\"0 0 \(width) \(height)\">"
    }

    private static func rectangle(_ x: Int, _ y: Int, _ width: Int, _ height: Int, _ style: String) -> String {
        "<rect class=\"\(style)\" x=\"\(x)\" y=\"\(y)\" width=\"\(width)\" height=\"\(height)\"/>"
    }

    private static func text(_ x: Int, _ y: Int, _ content: String, _ style: String) -> String {
        "<text class=\"\(style)\" x=\"\(x)\" y=\"\(y)\">\(HumanText.escaped(content))</text>"
    }
}
