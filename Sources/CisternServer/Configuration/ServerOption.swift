// The one table of options: names, defaults, texts, and how a text becomes a setting. Flags, environment names, file keys and
// docs/configuration.md are all made from it.

internal import CisternSnapshotStoreS3

package struct ServerOption: Sendable {
    /// As in the file; `CISTERN_` + upper case in the environment, `--` with dashes on the command line.
    package let key: String
    package let kind: Kind
    package let summary: String
    /// What the setting is in a configuration, as text: the default when asked of a fresh one.
    package let text: @Sendable (ServerConfiguration) -> String
    package let apply: @Sendable (inout ServerConfiguration, String) -> Bool

    package enum Kind: String, Sendable {
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

    package var flag: String { "--" + key.replacing("_", with: "-") }
    package var environmentName: String { ServerOption.environmentPrefix + key.uppercased() }

    package static let environmentPrefix = "CISTERN_"

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
        case .url: SnapshotStoreAddress.forms
        case .text: summary
        }
    }
}

extension ServerOption {
    package static let all: [ServerOption] = [
        ServerOption(
            key: "data", kind: .path, summary: "data directory; made when it is missing",
            text: { $0.dataDirectory },
            apply: { configuration, text in
                configuration.dataDirectory = text
                return !text.isEmpty
            }),
        ServerOption(
            key: "listen", kind: .addresses,
            summary: "where to listen: HOST:PORT (port 0 = a free one) or unix:/PATH; may be given several times",
            text: { $0.listen.joined(separator: ", ") },
            apply: { configuration, text in
                configuration.listen = commaSeparated(text)
                return !configuration.listen.isEmpty
            }),
        .path(
            "tls_certificate", \.tlsCertificate,
            "PEM file of the server's certificate and those between it and its authority; read again every minute"),
        .path(
            "tls_key", \.tlsKey,
            "PEM file of the certificate's private key, without a passphrase"),
        .path(
            "tls_client_authorities", \.tlsClientAuthorities,
            "PEM file of who may sign certificates of clients; when it is given, clients must have one"),
        .path(
            "tokens_file", \.tokensFile,
            "who may do what: a line a token, made with `cistern token`; read again every 10 s"),
        ServerOption(
            key: "allow_remote", kind: .boolean,
            summary:
                "listen on addresses that other machines reach without encryption, or without tokens and client certificates",
            text: { "\($0.allowRemote)" },
            apply: { configuration, text in
                guard let value = Bool(text) else { return false }
                configuration.allowRemote = value
                return true
            }),
        ServerOption(
            key: "admin", kind: .address,
            summary: "where health, metrics and the status page are: HOST:PORT or unix:/PATH; empty for nowhere",
            text: { $0.admin },
            apply: { configuration, text in
                configuration.admin = text
                return true
            }),
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
        ServerOption(
            key: "etcd", kind: .addresses,
            summary: "members of the etcd cluster with the log nodes' metadata, HOST:PORT; for durability = replicated",
            text: { $0.etcd.joined(separator: ", ") },
            apply: { configuration, text in
                configuration.etcd = commaSeparated(text)
                return true
            }),
        .path(
            "etcd_authorities", \.etcdAuthorities,
            "PEM file of who may sign etcd's certificates; when it is given, etcd is spoken to over TLS"),
        .path("etcd_certificate", \.etcdCertificate, "PEM file of the certificate that is shown to etcd"),
        .path("etcd_key", \.etcdKey, "PEM file of its private key"),
        .string(
            "cluster", .text, \.cluster,
            "which cluster of log nodes in etcd: 1 to 64 letters, digits, -, _ and .; keys begin with cistern/ and this"
        ),
        .string(
            "log_quorum", .text, \.logQuorum,
            "COPIES/ACKNOWLEDGED: to how many log nodes a write goes, and how many must have it; for durability = replicated"
        ),
        ServerOption(
            key: "log_level", kind: .choice,
            summary: "least level that is logged to stderr: trace, debug, info, notice, warning, error or critical",
            text: { $0.logLevel },
            apply: { configuration, text in
                configuration.logLevel = text
                return ["trace", "debug", "info", "notice", "warning", "error", "critical"].contains(text)
            }),
    ]

    package static func named(_ key: String) -> ServerOption? { all.first { $0.key == key } }

    /// The table in docs/configuration.md.
    package static var markdownTable: String {
        let defaults = ServerConfiguration()
        let rows = all.map { option in
            let text = option.text(defaults)
            return "| `\(option.key)` | `\(option.flag)` | `\(option.environmentName)` | "
                + (text.isEmpty ? option.key == "data" ? "none, must be given" : "none" : "`\(text)`")
                + " | \(option.summary) |"
        }
        return (["| key | flag | environment | default | meaning |", "|---|---|---|---|---|"] + rows)
            .joined(separator: "\n")
    }
}

extension ServerOption {
    private typealias Setting = any WritableKeyPath<ServerConfiguration, Int> & Sendable

    /// A file; empty for none.
    private static func path(
        _ key: String, _ setting: any WritableKeyPath<ServerConfiguration, String> & Sendable, _ summary: String
    ) -> ServerOption { string(key, .path, setting, summary) }

    private static func string(
        _ key: String, _ kind: Kind, _ setting: any WritableKeyPath<ServerConfiguration, String> & Sendable,
        _ summary: String
    ) -> ServerOption {
        ServerOption(
            key: key, kind: kind, summary: summary, text: { $0[keyPath: setting] },
            apply: { configuration, text in
                configuration[keyPath: setting] = text
                return true
            })
    }

    private static func count(
        _ key: String, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String
    ) -> ServerOption {
        integer(key, .count, path, range, summary, text: { "\($0)" }, parse: { Int($0) })
    }

    private static func bytes(
        _ key: String, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String
    ) -> ServerOption {
        integer(key, .bytes, path, range, summary, text: bytesText, parse: parseBytes)
    }

    private static func duration(
        _ key: String, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String
    ) -> ServerOption {
        integer(key, .duration, path, range, summary, text: durationText, parse: parseMilliseconds)
    }

    private static func integer(
        _ key: String, _ kind: Kind, _ path: Setting, _ range: ClosedRange<Int>, _ summary: String,
        text: @escaping @Sendable (Int) -> String, parse: @escaping @Sendable (String) -> Int?
    ) -> ServerOption {
        ServerOption(
            key: key, kind: kind, summary: summary, text: { text($0[keyPath: path]) },
            apply: { configuration, given in
                guard let value = parse(given), range.contains(value) else { return false }
                configuration[keyPath: path] = value
                return true
            })
    }
}

package func commaSeparated(_ text: String) -> [String] {
    text.split(separator: ",").map { trimmed(String($0)) }.filter { !$0.isEmpty }
}

func trimmed(_ text: String) -> String {
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
