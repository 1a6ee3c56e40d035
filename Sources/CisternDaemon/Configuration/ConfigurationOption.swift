// One option of a daemon: names, default, texts, and how a text becomes a setting. Flags, environment names, file keys and the
// tables of docs/configuration.md are all made from tables of these.

package struct ConfigurationOption<Configuration>: Sendable {
    /// As in the file; the daemon's prefix + upper case in the environment, `--` with dashes on the command line.
    package let key: String
    package let kind: OptionKind
    package let summary: String
    /// What the setting is in a configuration, as text: the default when asked of a fresh one.
    package let text: @Sendable (Configuration) -> String
    package let apply: @Sendable (inout Configuration, String) -> Bool

    package init(
        key: String, kind: OptionKind, summary: String, text: @escaping @Sendable (Configuration) -> String,
        apply: @escaping @Sendable (inout Configuration, String) -> Bool
    ) {
        self.key = key
        self.kind = kind
        self.summary = summary
        self.text = text
        self.apply = apply
    }

    package var flag: String { "--" + key.replacing("_", with: "-") }

    /// What a value may look like, for an error message.
    package var expectation: String {
        switch kind {
        case .path: "a path"
        case .address: "HOST:PORT or unix:/PATH"
        case .addresses: "HOST:PORT or unix:/PATH, several separated by commas"
        case .boolean: "true or false"
        case .count: "a whole number (\(summary))"
        case .bytes: "a number of bytes such as 65536, 64KiB, 16MiB or 1GiB (\(summary))"
        case .duration: "a duration such as 500ms, 10s or 2m (\(summary))"
        case .choice: summary
        case .url, .text: summary
        }
    }
}

package enum OptionKind: String, Sendable {
    case path
    case address
    case addresses
    case boolean
    case count
    case bytes
    case duration
    case choice
    case url
    case text
}

/// What a daemon can be told.
package protocol DaemonConfiguration: Sendable {
    /// The defaults.
    init()
    /// In the order of the documentation.
    static var options: [ConfigurationOption<Self>] { get }
    /// Of environment names.
    static var environmentPrefix: String { get }
    /// Names with the prefix that are not this daemon's.
    static var foreignEnvironmentNames: Set<String> { get }
    static var foreignEnvironmentPrefixes: [String] { get }
    /// Takes what others than this program put into the environment, as defaults.
    mutating func take(environment: [String: String])
    /// Why the settings cannot work together, or nil.
    func firstProblem() -> String?
}

extension DaemonConfiguration {
    package mutating func take(environment: [String: String]) {}
}

extension ConfigurationOption where Configuration: DaemonConfiguration {
    package static var all: [ConfigurationOption] { Configuration.options }

    package static func named(_ key: String) -> ConfigurationOption? { all.first { $0.key == key } }

    package var environmentName: String { Configuration.environmentPrefix + key.uppercased() }

    /// The daemon's table in docs/configuration.md.
    package static var markdownTable: String {
        let defaults = Configuration()
        let rows = all.map { option in
            let text = option.text(defaults)
            var changed = defaults
            // Without a default, and nothing is not taken either.
            let mustBeGiven = text.isEmpty && !option.apply(&changed, "")
            return "| `\(option.key)` | `\(option.flag)` | `\(option.environmentName)` | "
                + (text.isEmpty ? mustBeGiven ? "none, must be given" : "none" : "`\(text)`")
                + " | \(option.summary) |"
        }
        return (["| key | flag | environment | default | meaning |", "|---|---|---|---|---|"] + rows)
            .joined(separator: "\n")
    }
}

extension ConfigurationOption {
    package typealias Setting = any WritableKeyPath<Configuration, Int> & Sendable

    /// A file; empty for none.
    package static func path(
        _ key: String, _ setting: any WritableKeyPath<Configuration, String> & Sendable, _ summary: String
    ) -> ConfigurationOption { string(key, .path, setting, summary) }

    /// Any text that passes `isValid`.
    package static func string(
        _ key: String, _ kind: OptionKind, _ setting: any WritableKeyPath<Configuration, String> & Sendable,
        _ summary: String, isValid: @escaping @Sendable (String) -> Bool = { _ in true }
    ) -> ConfigurationOption {
        ConfigurationOption(
            key: key, kind: kind, summary: summary, text: { $0[keyPath: setting] },
            apply: { configuration, text in
                configuration[keyPath: setting] = text
                return isValid(text)
            })
    }

    package static func count(
        _ key: String, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String
    ) -> ConfigurationOption {
        integer(key, .count, path, range, summary, text: { "\($0)" }, parse: { Int($0) })
    }

    package static func bytes(
        _ key: String, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String
    ) -> ConfigurationOption {
        integer(key, .bytes, path, range, summary, text: bytesText, parse: parseBytes)
    }

    package static func duration(
        _ key: String, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String
    ) -> ConfigurationOption {
        integer(key, .duration, path, range, summary, text: durationText, parse: parseMilliseconds)
    }

    private static func integer(
        _ key: String, _ kind: OptionKind, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String,
        text: @escaping @Sendable (Int) -> String, parse: @escaping @Sendable (String) -> Int?
    ) -> ConfigurationOption {
        ConfigurationOption(
            key: key, kind: kind, summary: summary, text: { text($0[keyPath: path]) },
            apply: { configuration, given in
                guard let value = parse(given), range.contains(value) else { return false }
                configuration[keyPath: path] = value
                return true
            })
    }

    package static func logLevel(
        _ setting: any WritableKeyPath<Configuration, String> & Sendable
    ) -> ConfigurationOption {
        let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
        return .string(
            "log_level", .choice, setting,
            "least level that is logged to stderr: trace, debug, info, notice, warning, error or critical",
            isValid: { levels.contains($0) })
    }

    package static func addresses(
        _ key: String, _ setting: any WritableKeyPath<Configuration, [String]> & Sendable, _ summary: String
    ) -> ConfigurationOption {
        ConfigurationOption(
            key: key, kind: .addresses, summary: summary, text: { $0[keyPath: setting].joined(separator: ", ") },
            apply: { configuration, text in
                configuration[keyPath: setting] = commaSeparated(text)
                return !configuration[keyPath: setting].isEmpty
            })
    }
}

package func commaSeparated(_ text: String) -> [String] {
    text.split(separator: ",").map { trimmed(String($0)) }.filter { !$0.isEmpty }
}

package func trimmed(_ text: String) -> String {
    var slice = Substring(text)
    while let first = slice.first, first.isWhitespace { slice.removeFirst() }
    while let last = slice.last, last.isWhitespace { slice.removeLast() }
    return String(slice)
}

private let byteUnits = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)]
private let durationUnits = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]

private func parse(_ text: String, units: [(String, Int)]) -> Int? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let unit = trimmed(String(text.dropFirst(digits.count)))
    guard let number = Int(digits) else { return nil }
    if unit.isEmpty { return number }
    guard let factor = units.first(where: { $0.0.lowercased() == unit.lowercased() })?.1 else { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: factor)
    return overflow ? nil : product
}

private func parseBytes(_ text: String) -> Int? { parse(text, units: byteUnits) }

/// A bare number is refused unless it is zero: whether it means seconds cannot be known.
private func parseMilliseconds(_ text: String) -> Int? {
    if text == "0" { return 0 }
    guard text.contains(where: { $0.isLetter }) else { return nil }
    return parse(text, units: durationUnits)
}

private func bytesText(_ value: Int) -> String {
    for (name, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] where value % factor == 0 && value > 0
    {
        return "\(value / factor)\(name)"
    }
    return "\(value)"
}

private func durationText(_ value: Int) -> String {
    for (name, factor) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] where value % factor == 0 && value > 0 {
        return "\(value / factor)\(name)"
    }
    return "\(value)ms"
}
