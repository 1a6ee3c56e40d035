// Tables and numbers for people.

struct TextTable {
    var title: String
    var header: [String]
    var rows: [[String]]

    /// The first column to the left, the others to the right, two spaces between.
    var text: String {
        var widths = header.map(\.count)
        for row in rows {
            for (column, cell) in row.enumerated() { widths[column] = max(widths[column], cell.count) }
        }
        let line = { (cells: [String]) in
            let padded = zip(cells, widths).enumerated().map { column, pair in
                let space = String(repeating: " ", count: pair.1 - pair.0.count)
                return column == 0 ? pair.0 + space : space + pair.0
            }
            return "  " + padded.joined(separator: "  ")
        }
        return ([title, line(header)] + rows.map(line)).joined(separator: "\n") + "\n"
    }
}

/// 1234567 as "1,234,567".
func grouped(_ value: Int) -> String {
    var text = ""
    for (index, digit) in String(value.magnitude).reversed().enumerated() {
        if index > 0, index.isMultiple(of: 3) { text.append(",") }
        text.append(digit)
    }
    return (value < 0 ? "-" : "") + String(text.reversed())
}

func decimal(_ value: Double, places: Int = 1) -> String {
    var scale = 1
    for _ in 0..<places { scale *= 10 }
    let scaled = Int((value * Double(scale)).rounded())
    let digits = String(Int(scaled.magnitude) % scale)
    let fraction = String(repeating: "0", count: places - digits.count) + digits
    return (scaled < 0 ? "-" : "") + grouped(Int(scaled.magnitude) / scale) + "." + fraction
}

func percent(_ part: Int, of whole: Int) -> String {
    whole == 0 ? "-" : decimal(100 * Double(part) / Double(whole)) + " %"
}

func bytes(_ count: Int) -> String {
    count >= 10 << 20 ? decimal(Double(count) / 1_048_576) + " MiB" : decimal(Double(count) / 1024) + " KiB"
}

func milliseconds(_ microseconds: Int) -> String { decimal(Double(microseconds) / 1000) + " ms" }
