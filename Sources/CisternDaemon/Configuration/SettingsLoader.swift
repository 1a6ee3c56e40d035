// Flags over environment over file over defaults. Pure: the caller reads the file and the environment. Nothing is ignored:
// a name that is not known is refused with the nearest one that is.

package struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Where the setting came from, and what is wrong with it.
    package let description: String

    package init(description: String) { self.description = description }
}

package enum SettingsLoader<Configuration: DaemonConfiguration> {
    private typealias Option = ConfigurationOption<Configuration>

    package static var fileBytesMax: Int { 1 << 20 }

    /// - Parameters:
    ///   - flags: key and texts, as given on the command line.
    ///   - file: name and content of the configuration file.
    package static func load(
        flags: [(key: String, values: [String])], environment: [String: String],
        file: (name: String, text: String)?
    ) throws(ConfigurationError) -> Configuration {
        var settings: [String: (value: String, origin: String)] = [:]
        if let file {
            for (key, setting) in try parse(file.text, name: file.name) { settings[key] = setting }
        }
        for (key, setting) in try parse(environment) { settings[key] = setting }
        for flag in flags where !flag.values.isEmpty {
            guard let option = Option.named(flag.key) else { throw unknown(flag.key, origin: "flag") }
            settings[flag.key] = (flag.values.joined(separator: ","), "flag \(option.flag)")
        }
        let configuration = try apply(settings, environment: environment)
        if let problem = configuration.firstProblem() { throw ConfigurationError(description: problem) }
        return configuration
    }

    /// Settings with where each came from, which need not be able to work together.
    package static func apply(
        _ settings: [String: (value: String, origin: String)], environment: [String: String]
    ) throws(ConfigurationError) -> Configuration {
        var configuration = Configuration()
        configuration.take(environment: environment)
        for option in Option.all {
            guard let (value, origin) = settings[option.key] else { continue }
            guard option.apply(&configuration, value) else {
                throw ConfigurationError(
                    description: "\(origin): \"\(value)\" is not a valid \(option.key): give \(option.expectation)")
            }
        }
        return configuration
    }

    /// `key = value` lines; `#` starts a comment; a key may be repeated only when it takes a list.
    private static func parse(
        _ text: String, name: String
    ) throws(ConfigurationError) -> [String: (value: String, origin: String)] {
        var settings: [String: (value: String, origin: String)] = [:]
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            let content = trimmed(String(line.prefix { $0 != "#" }))
            if content.isEmpty { continue }
            let origin = "\(name) line \(index + 1)"
            guard let equals = content.firstIndex(of: "=") else {
                throw ConfigurationError(description: "\(origin): \"\(content)\" is not \"key = value\"")
            }
            let key = trimmed(String(content[..<equals]))
            let value = trimmed(String(content[content.index(after: equals)...]))
            guard let option = Option.named(key) else { throw unknown(key, origin: origin) }
            if let earlier = settings[key] {
                guard option.kind == .addresses else {
                    throw ConfigurationError(description: "\(origin): \(key) was already set by \(earlier.origin)")
                }
                settings[key] = (earlier.value + "," + value, origin)
            } else {
                settings[key] = (value, origin)
            }
        }
        return settings
    }

    private static func parse(
        _ environment: [String: String]
    ) throws(ConfigurationError) -> [String: (value: String, origin: String)] {
        var settings: [String: (value: String, origin: String)] = [:]
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) {
            guard name.hasPrefix(Configuration.environmentPrefix),
                !Configuration.foreignEnvironmentNames.contains(name),
                !Configuration.foreignEnvironmentPrefixes.contains(where: { name.hasPrefix($0) })
            else { continue }
            guard let option = Option.all.first(where: { $0.environmentName == name }) else {
                let known = Option.all.map(\.environmentName) + Configuration.foreignEnvironmentNames
                throw ConfigurationError(
                    description: "environment \(name) is not a setting; did you mean \(nearest(to: name, in: known))?")
            }
            settings[option.key] = (value, "environment \(name)")
        }
        return settings
    }

    private static func unknown(_ key: String, origin: String) -> ConfigurationError {
        ConfigurationError(
            description: "\(origin): \(key) is not a setting; did you mean "
                + "\(nearest(to: key, in: Option.all.map(\.key)))?")
    }
}

/// The candidate with the smallest edit distance.
/// - Precondition: `candidates` is not empty.
package func nearest(to name: String, in candidates: [String]) -> String {
    candidates.min { editDistance(name, $0) < editDistance(name, $1) }!
}

private func editDistance(_ left: String, _ right: String) -> Int {
    let right = Array(right.utf8)
    var row = Array(0...right.count)
    for (i, byte) in left.utf8.enumerated() {
        var diagonal = row[0]
        row[0] = i + 1
        for (j, other) in right.enumerated() {
            let substituted = diagonal + (byte == other ? 0 : 1)
            diagonal = row[j + 1]
            row[j + 1] = min(substituted, row[j] + 1, diagonal + 1)
        }
    }
    return row[right.count]
}
