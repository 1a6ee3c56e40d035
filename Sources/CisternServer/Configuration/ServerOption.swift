// The one table of the state server's options. Flags, environment names, file keys and docs/configuration.md are all made from it.

package import CisternDaemon
internal import CisternSnapshotStoreS3

package typealias ServerOption = ConfigurationOption<ServerConfiguration>
package typealias ConfigurationLoader = SettingsLoader<ServerConfiguration>

extension ServerConfiguration: DaemonConfiguration {
    package static let environmentPrefix = "CISTERN_"
    package static let options =
        place + ServerOption.ports(adminHas: "health, metrics and the status page") + engine
        + ServerOption.metadata(
            mustBeGiven: false,
            "members of the etcd cluster with the log nodes' metadata, HOST:PORT; for durability = replicated")
        + replication + ServerOption.logClient + end

    private static let place: [ServerOption] = [
        ServerOption(
            key: "data", kind: .path, summary: "data directory; made when it is missing",
            text: { $0.dataDirectory },
            apply: { configuration, text in
                configuration.dataDirectory = text
                return !text.isEmpty
            })
    ]

    private static let engine: [ServerOption] = [
        .count("event_loops", \.eventLoops, 1...64, "threads that serve connections, 1 to 64"),
        ServerOption(
            key: "log", kind: .choice,
            summary: "when a write is acknowledged: synced (after fdatasync), buffered (after write), off (at once)",
            text: { $0.log.rawValue },
            apply: { configuration, text in
                guard let value = LogRule(rawValue: text) else { return false }
                configuration.log = value
                return true
            }),
        .bytes(
            "memtable_bytes", \.memtableBytes, 64 << 10...2 << 30,
            "memory of a tree before it is flushed, 64 KiB to 2 GiB"),
        .bytes(
            "block_cache_bytes", \.blockCacheBytes, 1 << 20...1 << 40,
            "cache of file blocks, shared by all trees, from 1 MiB"),
        .bytes(
            "memory_bytes", \.memoryBytes, 0...1 << 42,
            "everything that grows with use: cache, memtables, buffers of merging; 0 is the cache and 1 GiB"),
        .bytes("block_bytes", \.blockBytes, 512...64 << 10, "size of a block in a sorted file, 512 bytes to 64 KiB"),
        .count("filter_bits_per_key", \.filterBitsPerKey, 0...32, "filter bits for a key in a sorted file, 0 to 32"),
        .count(
            "compaction_threads", \.compactionThreads, 1...64,
            "threads that merge files, 1 to 64; with 2 or more, one is kept for new files"),
        .bytes(
            "compaction_bytes_per_second", \.compactionBytesPerSecond, 0...1 << 40,
            "what merging may write a second while there are writes, from 1 MiB; 0 is no limit"),
        .bytes(
            "value_file_bytes", \.valueFileBytes, 0...16 << 20,
            "values from this size on are kept in files of their own, 32 bytes to 16 MiB; 0: none are"),
        .bytes("frame_bytes_max", \.frameBytesMax, 1 << 20...64 << 20, "largest frame that is taken, 1 MiB to 64 MiB"),
        .count(
            "connection_requests_max", \.connectionRequestsMax, 1...1_000_000,
            "requests that may be outstanding on a connection"),
        .bytes(
            "connection_bytes_max", \.connectionBytesMax, 1 << 20...4 << 30,
            "request bytes that may be outstanding on a connection, from frame_bytes_max"),
        .duration(
            "drain", \.drainMilliseconds, 0...600_000, "longest wait for requests in flight when stopping, up to 10m"),
        .duration(
            "idle_tree", \.idleTreeMilliseconds, 0...86_400_000,
            "how long a tree stays open without a connection, up to 24h"),
        ServerOption(
            key: "snapshot_store", kind: .url,
            summary:
                "where snapshots are uploaded to in the background and restored from: file:///PATH or s3://BUCKET/PREFIX; empty for nowhere",
            text: { $0.snapshotStore },
            apply: { configuration, text in
                configuration.snapshotStore = text
                return true
            }),
        .bytes(
            "hydration_bytes_per_second", \.hydrationBytesPerSecond, 0...1 << 40,
            "how fast files of a tree that was taken over come from the snapshot store, from 1 MiB; what reads need does not "
                + "wait for it; 0 is no limit"),
        .string(
            "s3_endpoint", .text, \.s3.endpoint,
            "where an S3 server is that is not AWS: https://HOST[:PORT], or http:// on the same machine"),
        .string(
            "s3_region", .text, \.s3.region,
            "the bucket's region; without it that of AWS_REGION or AWS_DEFAULT_REGION"),
        ServerOption(
            key: "s3_addressing", kind: .choice,
            summary: "where the bucket's name stands: host, path, or auto (path with s3_endpoint, else host)",
            text: { $0.s3.addressing.rawValue },
            apply: { configuration, text in
                guard let value = S3Addressing(rawValue: text) else { return false }
                configuration.s3.addressing = value
                return true
            }),
        .path(
            "s3_credentials_file", \.s3.credentialsFile,
            "aws_access_key_id, aws_secret_access_key and aws_session_token of [default]; read again every 10 s; without it "
                + "those of AWS_ACCESS_KEY_ID and so on"),
        .path(
            "s3_authorities", \.s3.authorities,
            "PEM file of who may sign the certificate of s3_endpoint; without it the system's authorities"),
        ServerOption(
            key: "durability", kind: .choice,
            summary:
                "where what was acknowledged is: local (this server's disk) or replicated (log nodes and the snapshot store)",
            text: { $0.durability.rawValue },
            apply: { configuration, text in
                guard let value = Durability(rawValue: text) else { return false }
                configuration.durability = value
                return true
            }),
    ]

    private static let replication: [ServerOption] = [
        .string(
            "log_quorum", .text, \.logQuorum,
            "COPIES/ACKNOWLEDGED: to how many log nodes a write goes, and how many must have it; for durability = replicated"
        )
    ]

    private static let end: [ServerOption] = [.logLevel(\.logLevel)]

    /// Of the tests, of tools, and of other daemons.
    package static let foreignEnvironmentNames: Set<String> = [
        "CISTERN_CONFIG", "CISTERN_SEED", "CISTERN_SEEDS", "CISTERN_BINARY", "CISTERN_ADMIN_TOKEN",
    ]
    package static let foreignEnvironmentPrefixes = ["CISTERN_LOG_NODE_"]

    package mutating func take(environment: [String: String]) { s3.take(environment: environment) }
}

extension SettingsLoader where Configuration == ServerConfiguration {
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
        return try apply(settings, environment: environment)
    }
}
