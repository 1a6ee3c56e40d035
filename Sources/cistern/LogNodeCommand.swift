// `cistern log-node`: a node of the replicated log.

internal import ArgumentParser
internal import CisternDaemon
internal import CisternFileSystem
internal import CisternLogServer

struct LogNodeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log-node",
        abstract: "Run a node of the replicated log, and look into one.",
        subcommands: [LogNodeRunCommand.self, LogNodeInspectCommand.self],
        defaultSubcommand: LogNodeRunCommand.self)
}

struct LogNodeInspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show what a log node's directory holds, while no node has it open.",
        discussion:
            "Every segment is read, and nothing is changed. Exit status 1 when something that was durable is damaged.")

    @Option(help: "The node's data directory.") var data: String
    @Flag(help: "One JSON object.") var json = false

    func run() throws {
        let report = try JournalReport(data, fileSystem: PosixFileSystem())
        for line in json ? [report.json] : report.lines { print(line) }
        if !report.isWhole { throw ExitCode(1) }
    }
}

struct LogNodeRunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Store entries of ledgers in a data directory, registered in etcd.",
        discussion: """
            Every option may also stand in the file (key = value, with _ for -) or in the environment (CISTERN_LOG_NODE_ and the key \
            in capitals). Flags win over the environment, the environment over the file. docs/configuration.md lists all.

            When it is registered it prints one line for each endpoint: listening on HOST:PORT, or listening on unix:/PATH.
            SIGTERM and SIGINT drain: requests in flight are answered, everything is synced, the registration goes, exit status 0. \
            Exit status 1: it did not start, or its journal had failed; the last line on stderr says why.
            """)

    @Option(help: "Configuration file; also CISTERN_LOG_NODE_CONFIG.") var config: String?
    @Flag(help: "Check the settings, print them all, and exit.") var check = false

    @Option(help: "Data directory; made when it is missing, and the node's for ever.") var data: String?
    @Option(help: "The node's number in its cluster, from 1; never given to another one.") var node: String?
    @Option(help: "Which cluster in etcd.") var cluster: String?
    @Option(help: "A member of the etcd cluster with the metadata, HOST:PORT; may be given several times.")
    var etcd: [String] = []
    @Option(help: "PEM file of who may sign etcd's certificates; then etcd is spoken to over TLS.")
    var etcdAuthorities: String?
    @Option(help: "PEM file of the certificate that is shown to etcd.") var etcdCertificate: String?
    @Option(help: "PEM file of its private key.") var etcdKey: String?
    @Option(help: "HOST:PORT at which clients reach the node (port 0 = the one it listens on).") var advertise: String?
    @Option(
        name: .customLong("listen"), help: "HOST:PORT (port 0 = a free one) or unix:/PATH; may be given several times.")
    var listen: [String] = []
    @Option(help: "PEM file of the node's certificate chain.") var tlsCertificate: String?
    @Option(help: "PEM file of the certificate's private key.") var tlsKey: String?
    @Option(help: "PEM file of who may sign clients' certificates; clients must then have one.")
    var tlsClientAuthorities: String?
    @Option(help: "Who may do what: a line a token, made with `cistern token`; the scope's name is changelog.")
    var tokensFile: String?
    @Flag(
        inversion: .prefixedNo,
        help:
            "Listen on addresses that other machines reach without encryption, or without tokens and client certificates."
    )
    var allowRemote: Bool?
    @Option(help: "Where health and metrics are: HOST:PORT or unix:/PATH.") var admin: String?
    @Option(help: "Threads that serve connections.") var eventLoops: String?
    @Option(help: "Size of a file of the journal.") var segmentBytes: String?
    @Option(help: "Files that are written ahead.") var spareSegments: String?
    @Option(help: "Files that are kept for use again.") var keptSegments: String?
    @Option(help: "What stays free on the disk.") var diskReserve: String?
    @Option(help: "Requests that may be outstanding on a connection.") var connectionRequestsMax: String?
    @Option(help: "Request bytes that may be outstanding on a connection.") var connectionBytesMax: String?
    @Option(help: "Bytes of adds that may wait for the disk, of all connections.") var unansweredBytesMax: String?
    @Option(help: "How long the node stays registered when it is not heard of.") var lease: String?
    @Option(help: "Between two looks for ledgers that were deleted.") var collect: String?
    @Option(help: "Between two readings of everything that is stored; 0: never.") var scrub: String?
    @Option(help: "How fast that is read.") var scrubBytesPerSecond: String?
    @Flag(inversion: .prefixedNo, help: "Take part in repair of lost and damaged nodes.") var repair: Bool?
    @Option(help: "A node that is not registered for so long is lost.") var repairGrace: String?
    @Option(help: "How fast this node copies.") var repairBytesPerSecond: String?
    @Option(help: "PEM file of who may sign other nodes' certificates; then they are spoken to over TLS.")
    var logAuthorities: String?
    @Option(help: "PEM file of the certificate that is shown to other nodes.") var logCertificate: String?
    @Option(help: "PEM file of its private key.") var logKey: String?
    @Option(help: "File with the token that is shown to other nodes.") var logTokenFile: String?
    @Option(help: "Longest wait for requests in flight when stopping.") var drain: String?
    @Option(help: "Least level that is logged to stderr.") var logLevel: String?

    /// Key and texts of every flag that was given, for the loader.
    var flags: [(key: String, values: [String])] {
        let single: [(String, String?)] = [
            ("data", data), ("node", node), ("cluster", cluster), ("etcd_authorities", etcdAuthorities),
            ("etcd_certificate", etcdCertificate), ("etcd_key", etcdKey), ("advertise", advertise),
            ("tls_certificate", tlsCertificate), ("tls_key", tlsKey),
            ("tls_client_authorities", tlsClientAuthorities), ("tokens_file", tokensFile),
            ("allow_remote", allowRemote.map { "\($0)" }), ("admin", admin), ("event_loops", eventLoops),
            ("segment_bytes", segmentBytes), ("spare_segments", spareSegments), ("kept_segments", keptSegments),
            ("disk_reserve", diskReserve), ("connection_requests_max", connectionRequestsMax),
            ("connection_bytes_max", connectionBytesMax), ("unanswered_bytes_max", unansweredBytesMax),
            ("lease", lease), ("collect", collect), ("scrub", scrub), ("scrub_bytes_per_second", scrubBytesPerSecond),
            ("repair", repair.map { "\($0)" }), ("repair_grace", repairGrace),
            ("repair_bytes_per_second", repairBytesPerSecond), ("log_authorities", logAuthorities),
            ("log_certificate", logCertificate), ("log_key", logKey), ("log_token_file", logTokenFile),
            ("drain", drain), ("log_level", logLevel),
        ]
        return [("etcd", etcd), ("listen", listen)] + single.map { ($0.0, $0.1.map { [$0] } ?? []) }
    }

    func run() async throws {
        let configuration = try loadSettings(LogNodeConfiguration.self, flags: flags, file: config)
        if check { return printSettings(configuration) }
        try await runDaemon(
            logLevel: configuration.logLevel, start: { try await LogNodeServer.start(configuration, logger: $0) },
            lines: { server in
                server.boundEndpoints.map { "listening on \($0)" }
                    + (server.adminEndpoint.map { ["admin on \($0)"] } ?? [])
            },
            stop: { server in
                let failure = await server.journalFailure()
                await server.drain()
                await server.shutdown()
                if let failure { throw ServerStartError(description: failure) }
            })
    }
}
