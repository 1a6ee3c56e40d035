// The one table of a log node's options. Flags, environment names, file keys and docs/configuration.md are all made from it.

package import CisternDaemon

package typealias LogNodeOption = ConfigurationOption<LogNodeConfiguration>
package typealias LogNodeConfigurationLoader = SettingsLoader<LogNodeConfiguration>

extension LogNodeConfiguration: DaemonConfiguration {
    package static let environmentPrefix = "CISTERN_LOG_NODE_"
    package static let foreignEnvironmentNames: Set<String> = ["CISTERN_LOG_NODE_CONFIG"]
    package static let foreignEnvironmentPrefixes: [String] = []

    package static let options =
        identity + LogNodeOption.metadata(mustBeGiven: true, "members of the etcd cluster with the metadata, HOST:PORT")
        + place
        + LogNodeOption.ports(adminHas: "health and metrics") + work + LogNodeOption.logClient + end

    private static let identity: [LogNodeOption] = [
        .string(
            "data", .path, \.dataDirectory, "data directory; made when it is missing, and the node's for ever",
            isValid: { !$0.isEmpty }),
        LogNodeOption(
            key: "node", kind: .count, summary: "the node's number in its cluster, from 1; never given to another one",
            text: { $0.node == 0 ? "" : "\($0.node)" },
            apply: { configuration, text in
                guard let value = Int(text), value >= 1 else { return false }
                configuration.node = value
                return true
            }),
    ]

    private static let place: [LogNodeOption] = [
        .string(
            "advertise", .address, \.advertise,
            "HOST:PORT at which clients reach the node (port 0 = the one it listens on); empty: as in listen",
            isValid: { _ in true })
    ]

    private static let work: [LogNodeOption] = [
        .count("event_loops", \.eventLoops, 1...64, "threads that serve connections, 1 to 64"),
        .bytes(
            "segment_bytes", \.segmentBytes, 1 << 20...1 << 30,
            "size of a file of the journal, 1 MiB to 1 GiB; an entry is smaller than half of it"),
        .count(
            "spare_segments", \.spareSegments, 2...64,
            "files that are written ahead, 2 to 64; one of them is for recovery, fences and deletes when the disk is full"
        ),
        .count(
            "kept_segments", \.keptSegments, 2...4096, "files that are kept for use again, 2 to 4096"),
        .bytes(
            "disk_reserve", \.diskReserveBytes, 0...1 << 42,
            "what stays free on the disk: with less, writers are refused and what is left serves recovery"),
        .count(
            "connection_requests_max", \.connectionRequestsMax, 1...1_000_000,
            "requests that may be outstanding on a connection"),
        .bytes(
            "connection_bytes_max", \.connectionBytesMax, 17 << 20...4 << 30,
            "request bytes that may be outstanding on a connection, from 17 MiB"),
        .bytes(
            "unanswered_bytes_max", \.unansweredBytesMax, 17 << 20...64 << 30,
            "bytes of adds that may wait for the disk, of all connections together"),
        .duration(
            "lease", \.leaseMilliseconds, 1_000...600_000,
            "how long the node stays registered when it is not heard of, 1s to 10m"),
        .duration(
            "collect", \.collectMilliseconds, 1_000...86_400_000,
            "between two looks for ledgers that metadata does not have any more, 1s to 24h"),
        .duration(
            "scrub", \.scrubMilliseconds, 0...30 * 86_400_000,
            "between two readings of everything that is stored, up to 720h; 0: never"),
        .bytes(
            "scrub_bytes_per_second", \.scrubBytesPerSecond, 1 << 20...1 << 40,
            "how fast that is read, from 1 MiB"),
        LogNodeOption(
            key: "repair", kind: .boolean,
            summary: "take part in repair: copy what lost nodes held, and get back what this one lost",
            text: { "\($0.repair)" },
            apply: { configuration, text in
                guard let value = Bool(text) else { return false }
                configuration.repair = value
                return true
            }),
        .duration(
            "repair_grace", \.repairGraceMilliseconds, 0...7 * 86_400_000,
            "a node that is not registered for so long is lost, and what it held is copied to others, up to 168h"),
        .bytes(
            "repair_bytes_per_second", \.repairBytesPerSecond, 1 << 20...1 << 40,
            "how fast this node copies, from 1 MiB"),
    ]

    private static let end: [LogNodeOption] = [
        .duration(
            "drain", \.drainMilliseconds, 0...600_000, "longest wait for requests in flight when stopping, up to 10m"),
        .logLevel(\.logLevel),
    ]
}
