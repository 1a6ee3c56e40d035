// `cistern serve`: settings from flags, environment and file, then a server until SIGTERM or SIGINT.

internal import ArgumentParser
internal import CisternDaemon
internal import CisternServer

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve keyed state from a data directory.",
        discussion: """
            Every option may also stand in the file (key = value, with _ for -) or in the environment (CISTERN_ and the key in \
            capitals). Flags win over the environment, the environment over the file. docs/configuration.md lists all.

            When it listens it prints one line for each endpoint: listening on HOST:PORT, or listening on unix:/PATH.
            SIGTERM and SIGINT drain: requests in flight are answered, everything is flushed, exit status 0.
            """)

    @Option(help: "Configuration file; also CISTERN_CONFIG.") var config: String?
    @Flag(help: "Check the settings, print them all, and exit.") var check = false

    @Option(help: "Data directory; made when it is missing.") var data: String?
    @Option(
        name: .customLong("listen"), help: "HOST:PORT (port 0 = a free one) or unix:/PATH; may be given several times.")
    var listen: [String] = []
    @Option(help: "PEM file of the server's certificate chain.") var tlsCertificate: String?
    @Option(help: "PEM file of the certificate's private key.") var tlsKey: String?
    @Option(help: "PEM file of who may sign clients' certificates; clients must then have one.")
    var tlsClientAuthorities: String?
    @Option(help: "Who may do what: a line a token, made with `cistern token`.") var tokensFile: String?
    @Flag(
        inversion: .prefixedNo,
        help:
            "Listen on addresses that other machines reach without encryption, or without tokens and client certificates."
    )
    var allowRemote: Bool?
    @Option(help: "Where health, metrics and the status page are: HOST:PORT or unix:/PATH.") var admin: String?
    @Option(help: "Threads that serve connections.") var eventLoops: String?
    @Option(help: "When a write is acknowledged: synced, buffered or off.") var log: String?
    @Option(help: "Memory of a tree before it is flushed.") var memtableBytes: String?
    @Option(help: "Cache of file blocks, shared by all trees.") var blockCacheBytes: String?
    @Option(help: "Everything that grows with use: cache, memtables, buffers of merging.") var memoryBytes: String?
    @Option(help: "Size of a block in a sorted file.") var blockBytes: String?
    @Option(help: "Filter bits for a key in a sorted file.") var filterBitsPerKey: String?
    @Option(help: "Threads that merge files.") var compactionThreads: String?
    @Option(help: "What merging may write a second while there are writes.") var compactionBytesPerSecond: String?
    @Option(help: "Values from this size on are kept in files of their own.") var valueFileBytes: String?
    @Option(help: "Largest frame that is taken.") var frameBytesMax: String?
    @Option(help: "Requests that may be outstanding on a connection.") var connectionRequestsMax: String?
    @Option(help: "Request bytes that may be outstanding on a connection.") var connectionBytesMax: String?
    @Option(help: "Longest wait for requests in flight when stopping.") var drain: String?
    @Option(help: "How long a tree stays open without a connection.") var idleTree: String?
    @Option(help: "Where snapshots are uploaded to: file:///PATH or s3://BUCKET/PREFIX.") var snapshotStore: String?
    @Option(help: "How fast files of a tree that was taken over come from the snapshot store.")
    var hydrationBytesPerSecond: String?
    @OptionGroup var s3: S3Flags
    @OptionGroup var replication: ReplicationFlags
    @Option(help: "Least level that is logged to stderr.") var logLevel: String?

    /// Key and texts of every flag that was given, for the loader.
    var flags: [(key: String, values: [String])] {
        let single: [(String, String?)] =
            [
                ("data", data), ("tls_certificate", tlsCertificate), ("tls_key", tlsKey),
                ("tls_client_authorities", tlsClientAuthorities), ("tokens_file", tokensFile),
                ("allow_remote", allowRemote.map { "\($0)" }), ("admin", admin),
                ("event_loops", eventLoops), ("log", log),
                ("memtable_bytes", memtableBytes), ("block_cache_bytes", blockCacheBytes),
                ("memory_bytes", memoryBytes), ("block_bytes", blockBytes), ("filter_bits_per_key", filterBitsPerKey),
                ("compaction_threads", compactionThreads),
                ("compaction_bytes_per_second", compactionBytesPerSecond), ("value_file_bytes", valueFileBytes),
                ("frame_bytes_max", frameBytesMax),
                ("connection_requests_max", connectionRequestsMax), ("connection_bytes_max", connectionBytesMax),
                ("drain", drain), ("idle_tree", idleTree), ("snapshot_store", snapshotStore),
                ("hydration_bytes_per_second", hydrationBytesPerSecond), ("log_level", logLevel),
            ] + s3.settings + replication.settings
        return [("listen", listen)] + single.map { ($0.0, $0.1.map { [$0] } ?? []) }
    }

    func run() async throws {
        let configuration = try loadSettings(ServerConfiguration.self, flags: flags, file: config)
        if check { return printSettings(configuration) }
        try await runDaemon(
            logLevel: configuration.logLevel, start: { try await StateServer.start(configuration, logger: $0) },
            lines: { server in
                server.boundEndpoints.map { "listening on \($0)" }
                    + (server.adminEndpoint.map { ["admin on \($0)"] } ?? [])
            },
            stop: { server in
                await server.drain()
                await server.shutdown()
            })
    }
}
