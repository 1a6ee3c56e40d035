// Writes the lines of Prometheus' text format: a help and a type line for each family, then its samples. Pure.

package struct MetricPage {
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// In the order they are written.
    package typealias Labels = [(name: String, value: String)]
    package typealias Sample = (Labels, Double)

    package private(set) var text = ""

    package init() {}

    package mutating func gauge(_ name: String, _ help: String, _ value: Double) { gauge(name, help, [([], value)]) }

    package mutating func gauge(_ name: String, _ help: String, _ samples: [Sample]) {
        guard !samples.isEmpty else { return }
        head(name, help, "gauge")
        for (labels, value) in samples { line(name, labels, MetricPage.number(value)) }
    }

    package mutating func counter(_ name: String, _ help: String, _ samples: [(Labels, UInt64)]) {
        guard !samples.isEmpty else { return }
        head(name, help, "counter")
        for (labels, value) in samples { line(name, labels, "\(value)") }
    }

    /// - Parameter counts: bucket `n` below 2^n microseconds, the last one without a bound.
    package mutating func histogram(_ name: String, _ help: String, counts: [UInt64], sumMicroseconds: UInt64) {
        head(name, help, "histogram")
        var total: UInt64 = 0
        for (bucket, count) in counts.enumerated() {
            total += count
            let isLast = bucket == counts.count - 1
            let bound = isLast ? "+Inf" : MetricPage.number(Double(UInt64(1) << UInt64(bucket)) / 1e6)
            line(name + "_bucket", [("le", bound)], "\(total)")
        }
        line(name + "_sum", [], MetricPage.number(Double(sumMicroseconds) / 1e6))
        line(name + "_count", [], "\(total)")
    }

    private mutating func head(_ name: String, _ help: String, _ type: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }

    private mutating func line(_ name: String, _ labels: Labels, _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{" + labels.map { "\($0.name)=\"\(MetricPage.escaped($0.value))\"" }.joined(separator: ",") + "}"
        }
        text += " \(value)\n"
    }

    /// Whole numbers without a fraction.
    package static func number(_ value: Double) -> String {
        value.rounded() == value && abs(value) < 1e15 ? "\(Int64(value))" : "\(value)"
    }

    static func escaped(_ label: String) -> String {
        var out = ""
        for scalar in label.unicodeScalars {
            switch scalar {
            case "\\": out += "\\\\"
            case "\"": out += "\\\""
            case "\n": out += "\\n"
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out
    }
}
