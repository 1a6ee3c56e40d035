// A node's part in repair: a client of the other nodes, and the host that copies with it.

internal import CisternChangelog
internal import CisternDaemon
internal import CisternFileSystem
internal import CisternLogNode
internal import CisternLogRepair
internal import CisternMetadata
internal import CisternTransport
internal import Logging
internal import NIOCore

struct LogNodePeers: Sendable {
    /// A token is not longer.
    private static let tokenBytesMax = 4096

    private let client: LedgerClient
    private let host: RepairHost

    /// How other nodes are connected to. Reads files: blocks.
    static func clientOptions(
        _ configuration: LogNodeConfiguration, fileSystem: any FileSystem
    ) throws(ServerStartError) -> LedgerClientOptions {
        var options = LedgerClientOptions()
        options.transport.client = ServerVersion.name
        if !configuration.peerAuthorities.isEmpty {
            let (certificate, key) = (configuration.peerCertificate, configuration.peerKey)
            do throws(TLSError) {
                options.transport.tls = try ClientTLS(
                    trustedCertificates: configuration.peerAuthorities,
                    certificate: certificate.isEmpty ? nil : certificate, key: key.isEmpty ? nil : key, serverName: nil)
            } catch {
                throw ServerStartError(description: "TLS to other nodes: \(error)")
            }
        }
        if !configuration.peerTokenFile.isEmpty {
            do throws(FileError) {
                let bytes = try fileSystem.readAll(configuration.peerTokenFile, limit: tokenBytesMax)
                options.transport.token = trimmed(String(decoding: bytes, as: UTF8.self))
            } catch {
                throw ServerStartError(description: "peer_token_file: \(error); check that it is there and readable")
            }
        }
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
