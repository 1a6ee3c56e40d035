// What a server's settings say about replication, made into what it needs; and the mark that its data directory gets.

internal import CisternChangelog
internal import CisternDaemon
internal import CisternFileSystem
internal import CisternMetadata
internal import CisternMetadataEtcd
internal import CisternTransport
internal import Logging
internal import NIOCore

extension ReplicationServices {
    /// What the settings ask for; nil when logs are local.
    /// - Parameter metadata: another metadata store than etcd.
    init?(
        _ configuration: ServerConfiguration, _ metadata: (any MetadataStore)?, group: any EventLoopGroup,
        logger: Logger
    ) throws(ServerStartError) {
        guard configuration.durability == .replicated, let sizes = configuration.logQuorumSizes else { return nil }
        let store: any MetadataStore
        if let metadata {
            store = metadata
        } else {
            store = EtcdMetadataStore(options: try configuration.etcdOptions(), group: group)
        }
        let keys = MetadataKeys(cluster: configuration.cluster)
        let logs = LedgerStore(store, keys: keys) { error in
            logger.warning("the metadata store did not answer as it should", metadata: ["error": "\(error)"])
        }
        var options = ChangelogOptions()
        options.sizes = sizes
        var client = LedgerClientOptions()
        try configuration.protect(&client.transport)
        self.init(
            metadata: store, keys: keys, logs: logs,
            client: LedgerClient(group: group, addresses: logs, metadata: logs, options: client),
            options: options)
    }
}

/// Says in a data directory that its trees' logs are replicated: such a tree must not be opened without its log, nor one without
/// a log as if it had one.
enum ReplicatedDirectory {
    static let fileName = "REPLICATED"
    private static let text = "cistern replicated 1\n"

    /// Marks a directory that is new, and compares one that is not. Blocks.
    /// - Parameter isNew: it holds no tree and no snapshot.
    static func check(
        _ directory: String, isReplicated: Bool, isNew: Bool, _ fileSystem: any FileSystem
    ) throws(ServerStartError) {
        do throws(FileError) {
            let isMarked = try fileSystem.exists(directory + "/" + fileName)
            if isMarked == isReplicated { return }
            if isNew && isReplicated {
                return try AtomicFile.write(Array(text.utf8), to: fileName, in: directory, fileSystem: fileSystem)
            }
            if isNew { return try fileSystem.remove(directory + "/" + fileName) }
        } catch {
            throw ServerStartError(description: "cannot read or mark the data directory: \(error)")
        }
        let (was, asked) = isReplicated ? ("local", "replicated") : ("replicated", "local")
        throw ServerStartError(
            description:
                "the data directory \(directory) holds trees of durability \(was), and the setting says \(asked): start with "
                + "durability = \(was), or take a checkpoint, start on a new data directory and restore it from the "
                + "snapshot store")
    }
}
