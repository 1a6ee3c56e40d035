// Flags over environment over file over defaults. Pure: the caller reads the file and the environment. Nothing is ignored:
// a name that is not known is refused with the nearest one that is.

internal import CisternSnapshotStoreS3

package struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Where the setting came from, and what is wrong with it.
    package let description: String

    package init(description: String) { self.description = description }
}

package enum ConfigurationLoader {
    /// Names with the prefix of the environment that are not settings of the server.
    package static let reservedEnvironmentNames: Set<String> = [
        "CISTERN_CONFIG", "CISTERN_SEED", "CISTERN_SEEDS", "CISTERN_BINARY", "CISTERN_ADMIN_TOKEN",
    ]

    package static let fileBytesMax = 1 << 20

    /// - Parameters:
    ///   - flags: key and texts, as given on the command line.
    ///   - file: name and content of the configuration file.
    package static func load(
        flags: [(key: String, values: [String])], environment: [String: String],
        file: (name: String, text: String)?
    ) throws(ConfigurationError) -> ServerConfiguration {
        var settings: [String: (value: String, origin: String)] = [:]
        if let file {
            for (key, setting) in try parse(file.text, name: file.name) { settings[key] = setting }
        }
        for (key, setting) in try parse(environment) { settings[key] = setting }
        for flag in flags where !flag.values.isEmpty {
            guard let option = ServerOption.named(flag.key) else { throw unknown(flag.key, origin: "flag") }
            settings[flag.key] = (flag.values.joined(separator: ","), "flag \(option.flag)")
        }
        let configuration = try apply(settings, environment)
        if let problem = configuration.firstProblem() { throw ConfigurationError(description: problem) }
        return configuration
    }

    /// What tools need to open a snapshot store: of the settings, those of S3 and whether plain text may go to other machines. Others
    /// in the environment are a server's.
    package static func loadStoreSettings(
        flags: [(key: String, value: String?)], environment: [String: String]
    ) throws(ConfigurationError) -> ServerConfiguration {
        let options = ServerOption.all.filter { $0.key.hasPrefix("s3_") || $0.key == "allow_remote" }
        var settings: [String: (value: String, origin: String)] = [:]
        for option in options {
            if let value = environment[option.environmentName] {
                settings[option.key] = (value, "environment \(option.environmentName)")
            }
            if let value = flags.first(where: { $0.key == option.key })?.value {
                settings[option.key] = (value, "flag \(option.flag)")
            }
        }
        return try apply(settings, environment)
    }

    private static func apply(
        _ settings: [String: (value: String, origin: String)], _ environment: [String: String]
    ) throws(ConfigurationError) -> ServerConfiguration {
        var configuration = ServerConfiguration()
        configuration.s3.take(environment: environment)
        for option in ServerOption.all {
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
            guard let option = ServerOption.named(key) else { throw unknown(key, origin: origin) }
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
            guard name.hasPrefix(ServerOption.environmentPrefix), !reservedEnvironmentNames.contains(name) else {
                continue
            }
            guard let option = ServerOption.all.first(where: { $0.environmentName == name }) else {
                let known = ServerOption.all.map(\.environmentName) + reservedEnvironmentNames
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
                + "\(nearest(to: key, in: ServerOption.all.map(\.key)))?")
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
