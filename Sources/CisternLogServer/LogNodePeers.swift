// A node's part in repair: a client of the other nodes, and the host that copies with it.

internal import CisternChangelog
internal import CisternDaemon
internal import CisternLogNode
internal import CisternLogRepair
internal import CisternMetadata
internal import CisternTransport
internal import Logging
internal import NIOCore

struct LogNodePeers: Sendable {
    private let client: LedgerClient
    private let host: RepairHost

    /// How other nodes are connected to. Reads files: blocks.
    static func clientOptions(_ configuration: LogNodeConfiguration) throws(ServerStartError) -> LedgerClientOptions {
        var options = LedgerClientOptions()
        options.transport.client = ServerVersion.name
        try configuration.protect(&options.transport)
        return options
    }

    init(
        _ configuration: LogNodeConfiguration, store: LedgerStore, options: LedgerClientOptions, node: LogNodeHost,
        group: any EventLoopGroup, logger: Logger
    ) {
        client = LedgerClient(group: group, addresses: store, metadata: store, options: options)
        var repair = RepairOptions()
        repair.graceMilliseconds = UInt64(configuration.repairGraceMilliseconds)
        repair.openLedgerGraceMilliseconds = repair.graceMilliseconds
        repair.copyBytesPerSecond = UInt64(configuration.repairBytesPerSecond)
        repair.scrubMilliseconds = configuration.scrubMilliseconds == 0 ? nil : UInt64(configuration.scrubMilliseconds)
        repair.scrubBytesPerSecond = UInt64(configuration.scrubBytesPerSecond)
        repair.leaseMilliseconds = UInt64(configuration.leaseMilliseconds)
        host = RepairHost(
            store: store, client: client, node: node, group: group, options: repair, logger: logger)
    }

    var figures: RepairFigures { host.figures }

    func start() { host.start() }

    /// Before the node stops, which it mends.
    func stop() async {
        await host.stop()
        await client.close()
    }
}
