// Numbers as people read them, and text that is safe inside HTML.

enum HumanText {
    /// Three digits at most: `512 B`, `1.5 MiB`, `238 GiB`.
    static func bytes(_ count: UInt64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        var value = Double(count)
        var unit = 0
        while value >= 999.5, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        return (unit == 0 ? "\(count)" : short(value)) + " " + units[unit]
    }

    static func bytes(_ count: Int) -> String { bytes(UInt64(max(count, 0))) }

    /// `1,234,567`.
    static func count(_ value: UInt64) -> String {
        var out = ""
        for (place, digit) in "\(value)".reversed().enumerated() {
            if place > 0 && place % 3 == 0 { out.append(",") }
            out.append(digit)
        }
        return String(out.reversed())
    }

    /// `450 µs`, `14.2 ms`, `3.1 s`, `2 h 5 min`.
    static func duration(microseconds: UInt64) -> String {
        switch microseconds {
        case ..<1000: return "\(microseconds) µs"
        case ..<1_000_000: return short(Double(microseconds) / 1e3) + " ms"
        case ..<60_000_000: return short(Double(microseconds) / 1e6) + " s"
        default:
            let minutes = microseconds / 60_000_000
            if minutes < 60 { return "\(minutes) min \(microseconds / 1_000_000 % 60) s" }
            if minutes < 48 * 60 { return "\(minutes / 60) h \(minutes % 60) min" }
            return "\(minutes / 1440) d \(minutes / 60 % 24) h"
        }
    }

    static func percent(_ part: UInt64, of whole: UInt64) -> String {
        if whole == 0 { return "–" }
        return tenths(Double(part) / Double(whole) * 100) + " %"
    }

    /// One decimal below 100.
    static func short(_ value: Double) -> String { value < 99.95 ? tenths(value) : "\(Int(value.rounded()))" }

    private static func tenths(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10)" : "\(tenths / 10).\(abs(tenths % 10))"
    }

    /// For text and for attributes in double quotes.
    static func escaped(_ text: String) -> String {
        var out = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            case "'": out += "&#39;"
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out
    }
}
